"""N-gram overlap and diversity of sequences: BLEU, self-BLEU, distinct n-grams."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from support.statistics import mean_and_error

Sentence = Sequence[Hashable]  # of token ids, of words, or a string, of characters
Tokens = np.ndarray | Sequence[Sentence] | Sequence[np.ndarray]  # sequences: token ids, int [n, T], or n sentences


def distinct(samples: Tokens, order: int = 2) -> tuple[float, float]:
    """Share of different n-grams among all n-grams of the samples, and its standard error (Li et al., NAACL 2016).

    The share falls as samples are added: compare only equal numbers of equal lengths. The error is the jackknife's, a
    sample left out at a time, which on average is not too small (Efron and Stein, 1981).
    `samples`: n >= 2 sequences, of any lengths, of which two or more have an n-gram. `order`: n.
    """
    grams = [list(zip(*(sequence[i:] for i in range(order)), strict=False)) for sequence in _lists(samples)]
    holders = Counter(gram for found in grams for gram in set(found))  # how many samples have it
    counts = np.array([len(found) for found in grams])
    own = np.array([sum(holders[gram] == 1 for gram in set(found)) for found in grams])
    without = (len(holders) - own) / (counts.sum() - counts)  # the share, each sample left out
    return len(holders) / float(counts.sum()), (len(grams) - 1) * mean_and_error(without)[1]


def bleu(samples: Tokens, references: Tokens, orders: Sequence[int] = (2, 3, 4), among: bool = False) -> np.ndarray:
    """BLEU-n of each sample, all references being its references.

    That is nltk's `sentence_bleu` (Papineni et al., ACL 2002) with a count of 0 taken for 0.1 (Chen and Cherry, 2014,
    method 1). The figure grows with the number of references: compare only at equal references. With all of the test
    set as references the mean over the samples is what Texygen (Zhu et al., SIGIR 2018) reports.
    `samples`: n sequences, of any lengths; one without a token scores 0. `references`: m >= 1 sequences. `orders`: the
    orders n. `among`: the samples are the references; each leaves itself out. Returns float64 [n, len(orders)], 0..1.
    """
    samples, references = _lists(samples), _lists(references)
    order, lengths = max(orders), Counter(map(len, references))
    most: dict[tuple[Hashable, ...], tuple[int, int]] = {}  # how often the two references have an n-gram that lead
    for reference in references:
        for gram, times in Counter(_up_to(order, reference)).items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (max(times, first), max(second, min(times, first)))
    scores = np.zeros([len(samples), len(orders)])
    for i, sample in enumerate(samples):
        size, matches = len(sample), [0] * order
        for gram, times in Counter(_up_to(order, sample)).items():
            first, second = most.get(gram, (0, 0))
            matches[len(gram) - 1] += min(times, second if among and times == first else first)
        if not matches[0]:
            continue
        others = (length for length, count in lengths.items() if count > (among and length == size))
        nearest = min(others, key=lambda length: (abs(length - size), length))
        logs = [math.log((count or 0.1) / max(size - n, 1)) for n, count in enumerate(matches)]
        penalty = math.exp(min(0.0, 1 - nearest / size))
        scores[i] = [penalty * math.exp(math.fsum(1 / n * log for log in logs[:n])) for n in orders]
    return scores


def self_bleu(samples: Tokens, orders: Sequence[int] = (2, 3, 4)) -> np.ndarray:
    """BLEU-n of each of n >= 2 samples with the others as its references (Zhu et al., "Texygen", SIGIR 2018).

    Its duplicates are references, too. The figure grows with the number of samples. Returns as `bleu`. The scores are
    not independent, so that the error of their mean by `mean_and_error` is too small: in simulations by up to a third.
    """
    return bleu(samples, samples, orders, among=True)


def _up_to(order: int, sequence: Sentence) -> list[tuple[Hashable, ...]]:
    """Its n-grams of 1 to `order` tokens."""
    return [gram for n in range(1, order + 1) for gram in zip(*(sequence[i:] for i in range(n)), strict=False)]


def _lists(sequences: Tokens) -> list[Sentence]:
    return [each.tolist() if isinstance(each, np.ndarray) else each for each in sequences]
