"""What is measured of a discriminator: what its log-odds tell of sequences that it never saw."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from discriminator import Discriminator
from evaluation.metrics import column
from evaluation.policy import MeasuredPolicy
from generator import Policy, in_chunks
from guidance.choosing import GROUPS, Groups, resample
from support.config import LEAST_DRAWS
from support.seeds import Purpose, key
from support.statistics import Figures, log_mean_exp, mean_and_error, ratio_and_error

LARGEST_ETA = 1000.0  # of `best_eta`; what bounds it before is the number of draws that count
# So many of the reweighted draws must count at least. With 10 the gain of normal log-odds of deviation 3 was too large,
# and 1.96 of its errors held three of four; with 100 they hold nine of ten or more, whatever the deviation.
EFFECTIVE_DRAWS = 100


class MeasuredDiscriminator:
    """A discriminator as evaluation sees it, and the policy whose samples are its fakes; its methods are compiled."""

    def __init__(self, discriminator: Discriminator, policy: MeasuredPolicy):
        """Follows both when their weights change."""
        self.discriminator, self.policy = discriminator, policy
        compiled = partial(tf.function, jit_compile=policy.jit, autograph=False)
        # Log-odds of D, int32 [n, T] → float32 [n].
        self.log_odds = compiled(lambda tokens: in_chunks(discriminator.log_odds, tokens))
        self.resample = compiled(self._resample)
        self.optimal_log_odds = compiled(self._optimal_log_odds)

    def _resample(self, size: int, count: tf.Tensor, eta: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Draws `size` samples, each kept of `count` candidates by the discriminator's log-odds: int32 [size, T].

        `count`, `eta` (η) and `step`, which picks the random numbers, are scalars.
        """
        log_odds, seed = self.discriminator.log_odds, key(self.policy.seed, Purpose.RESAMPLE, step)
        return resample(self.policy.policy, lambda tokens: eta * log_odds(tokens), size, count, seed)

    def _optimal_log_odds(self, oracle: Policy, tokens: tf.Tensor) -> tf.Tensor:
        """Log-odds of D* = p / (p + G), the best of all discriminators: log p(Y) - log G(Y), int32 [n, T] → [n].

        `oracle` is the distribution p of the real data.
        """
        g = self.policy.policy
        return in_chunks(lambda part: tf.reduce_sum(oracle.log_probs(part) - g.log_probs(part), axis=1), tokens)


def balanced_accuracy(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """(accuracy, standard error) where real and fake sequences are equally likely, from their log-odds, [n] and [m]."""
    # Log-odds of exactly 0 are taken for fake, so that a discriminator that is undecided is right half of the time.
    (right_on_real, real_error), (right_on_fake, fake_error) = mean_and_error(real > 0), mean_and_error(fake <= 0)
    return (right_on_real + right_on_fake) / 2, float(np.hypot(real_error, fake_error)) / 2


def best_eta(real: np.ndarray, fake: np.ndarray, *others: np.ndarray) -> float:
    """The η >= 0 that maximises η · mean(real) - log mean exp(η · fake), log-odds [n] and [m]; this is concave.

    η stays so small that the effective number of draws, (Σ w)² / Σ w² with w = exp(η · fake), is EFFECTIVE_DRAWS or
    more (or half of them, if that is fewer): beyond that a few draws stand for all the rest. It has to be so among
    `others`, too: the log-odds [k] of the fakes with which η will be used.
    """

    def slope(eta: float) -> float:
        return real.mean() - softmax(eta * fake) @ fake

    def excess(eta: float) -> float:  # falls with η
        return min(
            2 * logsumexp(eta * part) - logsumexp(2 * eta * part) - np.log(min(EFFECTIVE_DRAWS, len(part) / 2))
            for part in (fake, *others)
        )

    if slope(0.0) <= 0:
        return 0.0
    largest = brentq(excess, 0.0, LARGEST_ETA) if excess(LARGEST_ETA) < 0 else LARGEST_ETA
    return brentq(slope, 0.0, largest) if slope(largest) < 0 else largest


def reweighting_gain(eta: float, real: np.ndarray, fake: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    """By how much the distribution G(Y) · exp(η r(Y)) / Z has a smaller NLL on real sequences than G, nats per token.

    That is (η · E_real[r] - log E_G[exp(η r)]) / E_real[length], of a residual energy-based model (Deng et al., ICLR
    2020). `real` and `fake` are r of real sequences, [n], and of draws of G, [m], m >= 2; `lengths` are tokens of the
    real ones, [n]. η is chosen on other sequences. Returns (gain, standard error).
    """
    log_z, log_z_error = log_mean_exp(eta * fake)
    gain, error = ratio_and_error(eta * real - log_z, lengths)
    return gain, float(np.hypot(error, log_z_error / lengths.mean()))


def cross_fitted_gain(real: np.ndarray, fake: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    """`reweighting_gain` where no others choose η: every second sequence does for the others, and they for it.

    `real` and `fake`, [n] and [m], are each 2 · LEAST_DRAWS or more; `lengths` are tokens of the real ones, [n].
    """
    one, other = [(real[i::2], fake[i::2], lengths[i::2]) for i in (0, 1)]
    found = [reweighting_gain(best_eta(a[0], a[1], b[1]), *b) for a, b in ((one, other), (other, one))]
    gains, errors = zip(*found, strict=True)
    return sum(gains) / 2, float(np.hypot(*errors)) / 2


class Known(NamedTuple):
    """What a discriminator knows."""

    figures: Figures  # (value, standard error)
    fakes: np.ndarray  # the generated sequences of the test set, int32 [m, T]
    pool: np.ndarray  # others, int32 [GROUPS · n, T]; none where no candidates are asked for
    groups: Groups | None  # n of the pool each; None where there are none, or no η

    def on_test(self, beside: Figures) -> Figures:
        """The figures, and the NLL on the test set of what is kept, `beside` that of the generator."""
        gain, error = self.figures.get("d_gain_resampled", (math.nan, math.nan))
        changes = {} if math.isnan(gain) else dict.fromkeys(("nll_test", "kl_forward"), (-gain, error))
        return self.figures | resampled(beside, changes)


def what_d_knows(
    d: MeasuredDiscriminator, choosing: np.ndarray, measuring: np.ndarray, epoch: int, padding: int, candidates: int = 0
) -> Known:
    """Asks a discriminator `d` about real sequences and about as many fresh ones of the generator.

    `epoch` picks these, and `padding` is the id that is no token. `choosing`, int32 [n, T] of the validation set,
    decide η; `measuring`, int32 [m, T] of the test set, are measured: `d_test_acc`, `d_gain` by `reweighting_gain` and
    `d_eta`, its η, of an unknown error (NaN). `d_gain_valid` is the `cross_fitted_gain` of the validation set: by this
    one chooses. `d_gain_resampled` is what keeping one of `candidates` (0: not measured) reaches of d_gain. Figures
    that there are too few sequences for are left out.
    """
    figures: Figures = {}
    n, m, size = len(choosing), len(measuring), len(choosing) + len(measuring)
    if not size:
        return Known(figures, measuring, measuring, None)
    fakes = d.policy.sample(size + candidates * GROUPS, Purpose.D_TEST_FAKE, tf.constant(epoch)).numpy()
    # All in one call, as each shape would be compiled on its own.
    log_odds = d.log_odds(tf.constant(np.concatenate([choosing, measuring, fakes]))).numpy().astype(np.float64)
    valid, test, valid_fake, test_fake, of_pool = np.split(log_odds, [n, size, size + n, 2 * size])
    groups = None
    valid_lengths, test_lengths = ((rows != padding).sum(axis=1) for rows in (choosing, measuring))
    if m > 1:
        figures["d_test_acc"] = balanced_accuracy(test, test_fake)
    if n >= LEAST_DRAWS:
        eta = best_eta(valid, valid_fake, *([test_fake] if m >= LEAST_DRAWS else []))
        figures["d_eta"] = (eta, math.nan)
    if min(n, m) >= LEAST_DRAWS:
        figures["d_gain"] = reweighting_gain(eta, test, test_fake, test_lengths)
        if candidates:
            groups = Groups(eta * of_pool.reshape(GROUPS, candidates))
            figures["d_gain_resampled"] = groups.gain(eta * test, test_lengths)
    if n >= 2 * LEAST_DRAWS:
        figures["d_gain_valid"] = cross_fitted_gain(valid, valid_fake, valid_lengths)
    return Known(figures, fakes[n:size], fakes[size:], groups)


def resampled(beside: Figures, changes: Figures) -> Figures:
    """The figures of what is kept of --candidates: those of the generator and by how much they change."""
    # Less noisy than measuring them on their own, by the same sequences. The errors are taken for independent.
    pairs = [(name, *beside[name], *change) for name, change in changes.items() if name in beside]
    return {column(name, "resampled"): (a + b, math.hypot(a_error, b_error)) for name, a, a_error, b, b_error in pairs}
