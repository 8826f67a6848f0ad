"""Resampling: of n candidates from a policy one is kept, by what a discriminator says of them.

A candidate y has the weight w(y) = exp(η r(y)), where r are the discriminator's log-odds, and is kept with a
probability in proportion to it (sampling-importance-resampling, SIR). What is kept has the distribution

    q_n(y) = n · G(y) · E[w(y) / (w(y) + S)],   S = the sum of the weights of n - 1 other draws of G.

q_1 is G. With n → ∞ it becomes G(y) · exp(η r(y)) / Z, a residual energy-based model (Deng et al., ICLR 2020).
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy.special import logsumexp, softmax

from generator import Policy
from support.seeds import fold, uniforms
from support.statistics import mean_and_error, ratio_and_error

ROWS = 256  # samples drawn at once, however many are wanted, so that more begin with the fewer
GROUPS = 256  # of n draws each, which stand for all that can be drawn
LEAST = 1e-9  # in place of a random number of 0, whose logarithm is infinite

Drawn = tuple[tf.Tensor, ...]  # each [rows, ...]; the first are tokens, int32 [rows, T]
Weighing = Callable[[tf.Tensor], tf.Tensor]  # tokens → log w, float32 [rows]


def keep_one(
    draw: Callable[[tf.Tensor], Drawn], log_weights: Weighing, count: int | tf.Tensor, seed: tf.Tensor, like: Drawn
) -> Drawn:
    """Draws candidates, of each row so many, and keeps one of them with a probability in proportion to its weight.

    A candidate's random numbers are a function of `seed` and its number: more candidates begin with the fewer.
    `draw` gives a candidate of each row, from a key, and `log_weights` log w of candidates; `count` n >= 1 is an int32
    scalar, `seed` a key. `like` are tensors of the shapes and types that `draw` gives.
    """

    def consider(i, best, kept):
        seed_of_candidate = fold(seed, i)
        drawn = draw(fold(seed_of_candidate, 0))
        numbers = tf.maximum(uniforms(best.shape, fold(seed_of_candidate, 1)), LEAST)
        # The largest of log w plus Gumbel noise is that of each candidate with a probability in proportion to w.
        value = log_weights(drawn[0]) - tf.math.log(-tf.math.log(numbers))
        better = (value > best) | (i == 0)

        def chosen(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
            return tf.where(tf.reshape(better, [-1] + [1] * (len(new.shape) - 1)), new, old)

        return i + 1, tf.where(better, value, best), tuple(map(chosen, drawn, kept))

    return tf.while_loop(lambda i, *_: i < count, consider, (0, tf.zeros([like[0].shape[0]]), like))[2]


def resample(policy: Policy, log_weights: Weighing, size: int, count: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from q_n: int32 [size, T], ROWS at once.

    `log_weights` are log w = η · r of int32 [ROWS, T]; `count` n >= 1 is an int32 scalar, `seed` a key.
    """

    def draw(numbers: tf.Tensor) -> Drawn:
        return (policy.sample(uniforms([policy.seq_len, ROWS], numbers)),)

    like, chunks = (tf.zeros([ROWS, policy.seq_len], tf.int32),), tf.range(-(-size // ROWS))
    kept = tf.map_fn(lambda i: keep_one(draw, log_weights, count, fold(seed, i), like)[0], chunks)
    return tf.reshape(kept, [-1, policy.seq_len])[:size]


class Groups:
    """Groups of n draws of G, from which expectations under q_n are estimated, with their errors."""

    def __init__(self, log_weights: np.ndarray):
        """`log_weights` are log w = η · r of independent draws, [m, n]: m >= 2 groups of n."""
        self.log_weights = log_weights.astype(np.float64)
        self.count = log_weights.shape[1]
        self.shares = softmax(self.log_weights, axis=1)  # the probability of each to be kept among its group
        self._others = np.logaddexp.reduce(self.log_weights[:, 1:], axis=1)  # log S, one a group; -inf with n = 1

    def log_ratios(self, log_weights: np.ndarray) -> np.ndarray:
        """log(n · w(y) / (w(y) + S)) with the S of each group: log w of k sequences y → [k, m].

        The mean of their exponentials over the groups estimates q_n(y) / G(y).
        """
        return np.log(self.count) - np.logaddexp(0.0, self._others - log_weights.astype(np.float64)[:, None])

    def gain(self, log_weights: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
        """By how much q_n has a smaller NLL on other sequences than G: (gain, standard error), nats per token.

        The error is that of the sequences, which are independent, and of the groups, to the first order.
        `log_weights`: log w of the sequences, [k]. `lengths`: their tokens, [k].
        """
        ratios = self.log_ratios(log_weights)
        log_ratio = logsumexp(ratios, axis=1) - np.log(ratios.shape[1])  # [k]
        gain, error = ratio_and_error(log_ratio, lengths)
        _, error_of_groups = mean_and_error(np.exp(ratios - log_ratio[:, None]).mean(axis=0))
        return gain, float(np.hypot(error, error_of_groups / lengths.mean()))

    def change(self, values: np.ndarray, slope: float = 0.0) -> tuple[float, float]:
        """E under q_n of f + slope · log(q_n / G), less E under G of f, which is [m, n]: (change, standard error).

        With f = -log G and a slope of -1 it is that of the entropy; with f = log(G / p) and 1 that of KL(· ‖ p).
        """
        groups = len(values)
        own, moved = np.empty(groups), np.zeros(groups)  # of each group: its mean; what its S does to the others'
        for i, (weights, shares, f) in enumerate(zip(self.log_weights, self.shares, values, strict=True)):
            ratios = self.log_ratios(weights)  # [n, m]
            ratios[:, i] = -np.inf  # a sequence is not one of the others
            log_ratio = logsumexp(ratios, axis=1) - np.log(groups - 1)
            own[i] = shares @ (f + slope * log_ratio) - f.mean()
            moved += slope * (shares @ np.exp(ratios - log_ratio[:, None])) / (groups - 1)
        return float(own.mean()), mean_and_error(own + moved)[1]
