"""Figures that need no model: n-gram overlap, diversity, what log-odds tell; means with their errors."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import logsumexp, softmax

LARGEST_ETA = 1000.0  # of `best_eta`; what bounds it before is the number of draws that count
# So many of the reweighted draws must count at least. With 10 the gain of normal log-odds of deviation 3 was too large,
# and 1.96 of its errors held three of four; with 100 they hold nine of ten or more, whatever the deviation.
EFFECTIVE_DRAWS = 100
LEAST_DRAWS = 20  # with fewer there is no gain: neither η nor log E_G can be told from them

Sentence = Sequence[Hashable]  # of token ids, of words, or a string, of characters
Tokens = np.ndarray | Sequence[Sentence]  # sequences: token ids, int [n, T], or n sentences


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


def log_mean_exp(values: np.ndarray) -> tuple[float, float]:
    """(log of the mean of exp(values), its standard error), [n] independent values with n >= 2, by the jackknife.

    The logarithm of a sample's mean is too small on average, the more so the fewer draws dominate it. The jackknife
    takes off what is of the order of 1/n (Nowozin, ICLR 2018), and its error is that of the delta method for large n.
    """
    count, largest = len(values), values.argmax()
    rest = logsumexp(np.delete(values, largest))
    total = np.logaddexp(values[largest], rest)
    shares = np.exp(values - total)
    shares[largest] = 0.0  # its difference would cancel
    without = total + np.log1p(-shares)  # of each value: the sum of the others
    without[largest] = rest
    return mean_and_error(count * (total - np.log(count)) - (count - 1) * (without - np.log(count - 1)))


# What a discriminator knows, from its log-odds r = log D - log(1 - D) of sequences it never saw


def balanced_accuracy(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """(accuracy, standard error) where real and fake sequences are equally likely, from their log-odds, [n] and [m].

    Log-odds of exactly 0 are taken for fake, so that a discriminator that is undecided is right half of the time.
    """
    (right_on_real, real_error), (right_on_fake, fake_error) = mean_and_error(real > 0), mean_and_error(fake <= 0)
    return (right_on_real + right_on_fake) / 2, float(np.hypot(real_error, fake_error)) / 2


def best_eta(real: np.ndarray, fake: np.ndarray, *others: np.ndarray) -> float:
    """The η >= 0 that maximises η · mean(real) - log mean exp(η · fake), log-odds [n] and [m].

    The objective is concave. η stays so small that the effective number of draws, (Σ w)² / Σ w² with w = exp(η · fake),
    is EFFECTIVE_DRAWS or more (or half of them, if that is fewer): beyond that a few draws stand for all the rest. It
    has to be so among `others`, too: the log-odds [k] of the fakes with which η will be used.
    """
    from scipy.optimize import brentq  # which takes a third of a second to import

    draws = (fake, *others)

    def slope(eta: float) -> float:
        return real.mean() - softmax(eta * fake) @ fake

    def excess(eta: float) -> float:  # falls with η
        return min(
            2 * logsumexp(eta * part) - logsumexp(2 * eta * part) - np.log(min(EFFECTIVE_DRAWS, len(part) / 2))
            for part in draws
        )

    if slope(0.0) <= 0:
        return 0.0
    largest = brentq(excess, 0.0, LARGEST_ETA) if excess(LARGEST_ETA) < 0 else LARGEST_ETA
    return brentq(slope, 0.0, largest) if slope(largest) < 0 else largest


def reweighting_gain(eta: float, real: np.ndarray, fake: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    """By how much the distribution G(Y) · exp(η r(Y)) / Z has a smaller NLL on real sequences than G, nats per token.

    That is (η · E_real[r] - log E_G[exp(η r)]) / E_real[length]; it is a residual energy-based model (Deng et al., ICLR
    2020). At the best η it is how much of KL(real ‖ G) the discriminator knows: all of it where r = log p - log G,
    and then the best η is 1.

    `real` and `fake` are r of real sequences, [n], and of draws of G, [m], m >= 2; `lengths` are tokens of the real
    ones, [n]. η is chosen on other sequences, as by `best_eta`. Returns (gain, standard error); the errors of the
    reals' mean and of log Z are independent.
    """
    log_z, log_z_error = log_mean_exp(eta * fake)
    gain, error = ratio_and_error(eta * real - log_z, lengths)
    return gain, float(np.hypot(error, log_z_error / lengths.mean()))


def cross_fitted_gain(real: np.ndarray, fake: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    """`reweighting_gain` where there are no other sequences to choose η with: (gain, standard error), nats per token.

    Every second sequence chooses η for the others, and the others for it. Each gain is measured on sequences that did
    not choose its η, so their mean has hardly a bias, and the errors of the two halves are independent.

    `real`: r of real sequences, [n], n >= 2 · LEAST_DRAWS. `fake`: r of draws of G, [m], m >= 2 · LEAST_DRAWS.
    `lengths`: tokens of the real sequences, [n].
    """
    one, other = [(real[i::2], fake[i::2], lengths[i::2]) for i in (0, 1)]
    pairs = [(one, other), (other, one)]
    found = [reweighting_gain(best_eta(a[0], a[1], b[1]), *b) for a, b in pairs]
    gains, errors = zip(*found, strict=True)
    return sum(gains) / 2, float(np.hypot(*errors)) / 2


# Sequences of tokens


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


def bleu(samples: Tokens, references: Tokens, orders: Sequence[int] = (2, 3, 4)) -> np.ndarray:
    """BLEU-n of each sample, all references being its references.

    nltk's `sentence_bleu` (Papineni et al., ACL 2002): the geometric mean, for n-grams of 1 to n tokens, of the share
    of a sample's n-grams that occur in a reference, an n-gram counting at most as often as in the one reference that
    has it most often; times exp(1 - r/c) if the sample's c tokens are fewer than the r of the reference that is nearest
    to it in length. A count of 0 is taken for 0.1 (Chen and Cherry, 2014, method 1), so that one order without a
    match does not make the whole 0. The figure grows with the number of references: compare only at equal references.
    With all of the test set as references the mean over the samples is what Texygen (Zhu et al., SIGIR 2018) reports.

    `samples`: n sequences, of any lengths; one without a token scores 0. `references`: m >= 1 sequences. `orders`: the
    orders n. Returns float64 [n, len(orders)], in 0..1.
    """
    return _bleu(_lists(samples), _lists(references), orders)


def self_bleu(samples: Tokens, orders: Sequence[int] = (2, 3, 4)) -> np.ndarray:
    """BLEU-n of each sample with the others as its references (Zhu et al., "Texygen", SIGIR 2018): high is uniform.

    A sample is never its own reference, but its duplicates are. The figure grows with the number of samples.

    `samples`: n >= 2 sequences, of any lengths. `orders`: the orders n. Returns float64 [n, len(orders)], in 0..1.
    """
    sentences = _lists(samples)
    return _bleu(sentences, sentences, orders, among=True)


def _bleu(
    samples: list[Sentence], references: list[Sentence], orders: Sequence[int], among: bool = False
) -> np.ndarray:
    """BLEU of each sample; `among`: the samples are the references, and each leaves itself out."""
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


def _up_to(order: int, sequence: Sentence) -> list[tuple[Hashable, ...]]:
    """Its n-grams of 1 to `order` tokens."""
    return [gram for n in range(1, order + 1) for gram in zip(*(sequence[i:] for i in range(n)), strict=False)]


def _lists(sequences: Tokens) -> list[Sentence]:
    return sequences.tolist() if isinstance(sequences, np.ndarray) else list(sequences)
