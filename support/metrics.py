"""Figures of generated token sequences that need no model: n-gram overlap, copying, and means with their errors."""

from collections.abc import Iterable, Sequence

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

Tokens = np.ndarray | Sequence[list[int]]  # sequences of token ids: int [n, T], or n lists


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """(mean, standard error of the mean) of independent values, [n] with n >= 1; the error of a single one is NaN."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(error)


def ratio_and_error(totals: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """(Σ totals / Σ counts, its standard error) of independent pairs, [n] each, n >= 1; one pair's error is NaN.

    The error is that of the linearised ratio (the delta method); with equal counts this is `mean_and_error`.
    """
    ratio = totals.mean() / counts.mean()
    _, error = mean_and_error(totals - ratio * counts)
    return float(ratio), float(error / counts.mean())


def bleu(samples: Tokens, references: Tokens, orders: Sequence[int] = (2, 3, 4)) -> np.ndarray:
    """BLEU-n of each sample, all references being its references.

    nltk's `sentence_bleu` (Papineni et al., ACL 2002): the geometric mean, for n-grams of 1 to n tokens, of the share
    of a sample's n-grams that occur in a reference, an n-gram counting at most as often as in the one reference that
    has it most often; times exp(1 - r/c) if the sample's c tokens are fewer than the r of the reference that is nearest
    to it in length. A count of 0 is taken for 0.1 (Chen and Cherry, 2014, method 1), so that one order without a
    match does not make the whole 0. The figure grows with the number of references: compare only at equal references.

    Args:
        samples: n sequences, of any lengths; one without a token scores 0.
        references: m >= 1 sequences.
        orders: the orders n.

    Returns:
        float64 [n, len(orders)], in 0..1.
    """
    sentences = _lists(references)
    return np.array([_sentence_bleu(sentences, hypothesis, orders) for hypothesis in _lists(samples)])


def self_bleu(samples: Tokens, orders: Sequence[int] = (2, 3, 4)) -> np.ndarray:
    """BLEU-n of each sample with the others as its references (Zhu et al., "Texygen", SIGIR 2018): high is uniform.

    A sample is never its own reference, but its duplicates are. The figure grows with the number of samples.

    Args:
        samples: n >= 2 sequences, of any lengths.
        orders: the orders n.

    Returns:
        float64 [n, len(orders)], in 0..1.
    """
    sentences = _lists(samples)
    others = ([*sentences[:i], *sentences[i + 1 :]] for i in range(len(sentences)))
    return np.array([_sentence_bleu(o, sentence, orders) for o, sentence in zip(others, sentences, strict=True)])


def _lists(sequences: Tokens) -> list[list[int]]:
    return sequences.tolist() if isinstance(sequences, np.ndarray) else list(sequences)


def _sentence_bleu(references: list[list[int]], hypothesis: list[int], orders: Sequence[int]) -> list[float]:
    weights = [(1 / order,) * order for order in orders]  # several at once share the counting
    scores = sentence_bleu(references, hypothesis, weights, smoothing_function=SmoothingFunction().method1)
    return [scores] if len(orders) == 1 else scores


def copies(samples: np.ndarray, corpus: Iterable[np.ndarray], length: int) -> np.ndarray:
    """Whether each sample has `length` or more consecutive tokens of some sequence of the corpus in it.

    Args:
        samples: int [n, T]; with T < `length` none is a copy.
        corpus: int arrays [any length].
        length: tokens, at least 1.

    Returns:
        bool [n].
    """
    known = {gram for sequence in corpus for gram in _grams(sequence, length)}
    return np.array([not known.isdisjoint(_grams(sample, length)) for sample in samples], bool)


def _grams(sequence: np.ndarray, length: int) -> list[bytes]:
    """Every run of `length` tokens of a sequence, as bytes."""
    if len(sequence) < length:
        return []
    return [gram.tobytes() for gram in np.lib.stride_tricks.sliding_window_view(sequence.astype(np.int32), length)]
