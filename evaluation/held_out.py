"""What is measured alike on all real sequences that training never saw."""

import math
import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from resampling import GROUPS, Groups
from support.metrics import LEAST_DRAWS, balanced_accuracy, best_eta, cross_fitted_gain, reweighting_gain

from data.training_set import spread
from runs.console import RESAMPLED
from support.config import Config
from support.seeds import Purpose

Figures = Mapping[str, tuple[float, float]]  # {name: (value, standard error)}
D_FIGURES = ("d_test_acc", "d_gain", "d_gain_valid", "d_eta")


class HeldOut:
    """What data sets have in common whose real sequences come from files."""

    config: Config
    vocab_size: int
    valid: np.ndarray  # what is used of the validation set, int32 [n, T]
    test: np.ndarray  # and of the test set
    _real_figures: dict[str, tuple[float, float]] | None = None

    def validation(self) -> np.ndarray:
        """What is used of the validation set, int32 [n, T]."""
        return self.valid

    def compare(self, rows: np.ndarray) -> dict[str, tuple[float, float]]:
        """Compares sequences, int32 [n, T], with real ones: (mean, standard error) of each figure."""
        raise NotImplementedError

    def beside_real(self, generated: np.ndarray) -> dict[str, tuple[float, float]]:
        """The figures of `compare` and, as `real_...`, of as many validation sequences: what real ones reach."""
        if self._real_figures is None:
            real = spread(self.valid, len(generated))
            self._real_figures = {f"real_{name}": pair for name, pair in self.compare(real).items()}
        return self.compare(generated) | self._real_figures

    def evaluate_discriminator(self, model, epoch: int, beside=None) -> dict[str, tuple[float, float]]:
        """What the discriminator knows of held-out sequences: the figures of `what_d_knows`.

        At most --d_eval_samples validation sequences choose η, and as many of test are measured; too few are not.
        With `beside`, what `evaluate` has returned, also what comes of --candidates.
        """
        choosing, measuring = (spread(rows, self.config.d_eval_samples) for rows in (self.valid, self.test))
        candidates = self.config.candidates if beside else 0
        known = what_d_knows(model, choosing, measuring, epoch, self.vocab_size, candidates)
        return resampled_on_test(known, beside or {})


def warn_of_held_out(origin: str, known: dict[str, np.ndarray]) -> None:
    """Warns, by a line on stderr, of a validation or test set that can't tell what training never saw.

    `origin` is the data's flag and its value, `known` tells of each sequence of `valid` and of `test` whether it is in
    the training set as well, bool [n].
    """
    for split, name in (("valid", "validation"), ("test", "test")):
        if not len(known[split]):
            print(f"warning: {origin}: the {name} set is empty; its figures are left out", file=sys.stderr)
        elif known[split].all():
            print(f"warning: {origin}: the whole {name} set is in the training set as well", file=sys.stderr)


class Known(NamedTuple):
    """What a discriminator knows."""

    figures: dict[str, tuple[float, float]]  # (value, standard error)
    fakes: np.ndarray  # the generated sequences of the test set, int32 [m, T]
    pool: np.ndarray  # others, int32 [GROUPS · n, T]; none where no candidates are asked for
    groups: Groups | None  # n of the pool each; None where there are none, or no η


def what_d_knows(
    model, choosing: np.ndarray, measuring: np.ndarray, epoch: int, padding: int, candidates: int = 0
) -> Known:
    """Asks a discriminator about real sequences and about as many fresh ones of the generator.

    `model` has `sample` and `log_odds` of a `model.SeqGAN`; `epoch` picks the random numbers of its samples, and
    `padding` is the id that is no token. `choosing`, int32 [n, T] of the validation set, decide η; `measuring`, int32
    [m, T] of the test set, are measured. Of `candidates` one is kept; 0: that is not measured. The figures, without
    those that there are too few sequences for, are

    - `d_test_acc`, the accuracy on the test set where real and fake are equally likely;
    - `d_gain`, `metrics.reweighting_gain` on the test set, nats per token, and `d_eta`, its η, chosen by
      `metrics.best_eta` on the validation set, whose error is unknown (NaN);
    - `d_gain_valid`, `metrics.cross_fitted_gain` of the validation set, nats per token: by this one chooses;
    - `d_gain_resampled`, `resampling.Groups.gain` of the test set: what `candidates` reach of d_gain.
    """
    figures: dict[str, tuple[float, float]] = {}
    pool_size = candidates * GROUPS
    if not len(choosing) + len(measuring):
        return Known(figures, measuring, measuring, None)
    size = len(choosing) + len(measuring) + pool_size
    fakes = model.sample(size, Purpose.D_TEST_FAKE, tf.constant(epoch)).numpy()
    parts = [choosing, measuring, *np.split(fakes, [len(choosing), size - pool_size])]
    # All in one call, as each shape would be compiled on its own.
    log_odds = model.log_odds(tf.constant(np.concatenate(parts))).numpy().astype(np.float64)
    valid, test, valid_fake, test_fake, of_pool = np.split(log_odds, np.cumsum([len(part) for part in parts])[:-1])
    groups = None
    valid_lengths, test_lengths = ((rows != padding).sum(axis=1) for rows in (choosing, measuring))
    if len(test) > 1:
        figures["d_test_acc"] = balanced_accuracy(test, test_fake)
    if len(valid) >= LEAST_DRAWS:
        eta = best_eta(valid, valid_fake, *([test_fake] if len(test) >= LEAST_DRAWS else []))
        figures["d_eta"] = (eta, math.nan)
    if min(len(valid), len(test)) >= LEAST_DRAWS:
        figures["d_gain"] = reweighting_gain(eta, test, test_fake, test_lengths)
        if candidates:
            groups = Groups(eta * of_pool.reshape(GROUPS, candidates))
            figures["d_gain_resampled"] = groups.gain(eta * test, test_lengths)
    if len(valid) >= 2 * LEAST_DRAWS:
        figures["d_gain_valid"] = cross_fitted_gain(valid, valid_fake, valid_lengths)
    return Known(figures, parts[3], parts[4], groups)


def resampled(beside: Figures, changes: Figures) -> dict[str, tuple[float, float]]:
    """The figures of what is kept of --candidates: those of the generator and by how much they change.

    That is less noisy than measuring them on their own: what they are compared with has the same sequences. The errors
    are taken for independent.
    """
    pairs = {name: (beside[name], change) for name, change in changes.items() if name in beside}
    return {
        f"{name}{RESAMPLED}": (value + by, math.hypot(error, error_of_change))
        for name, ((value, error), (by, error_of_change)) in pairs.items()
    }


def resampled_on_test(known: Known, beside: Figures) -> dict[str, tuple[float, float]]:
    """The figures of `known`, and the NLL on the test set of what is kept."""
    gain, error = known.figures.get("d_gain_resampled", (math.nan, math.nan))
    changes = {} if math.isnan(gain) else {"nll_test": (-gain, error), "kl_forward": (-gain, error)}
    return known.figures | resampled(beside, changes)
