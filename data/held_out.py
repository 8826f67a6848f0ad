"""What is measured alike on all real sequences that training never saw."""

import math
import sys

import numpy as np
import tensorflow as tf

from support.metrics import LEAST_DRAWS, balanced_accuracy, best_eta, cross_fitted_gain, reweighting_gain
from support.seeds import Purpose

D_FIGURES = ("d_test_acc", "d_gain", "d_gain_valid", "d_eta")


def warn_of_held_out(origin: str, known: dict[str, np.ndarray]) -> None:
    """Warns, by a line on stderr, of a validation or test set that can't tell what training never saw.

    Args:
        origin: where the data comes from: the flag and its value.
        known: of `valid` and of `test`, whether each of their sequences is in the training set as well, bool [n].
    """
    for split, name in (("valid", "validation"), ("test", "test")):
        if not len(known[split]):
            print(f"warning: {origin}: the {name} set is empty; its figures are left out", file=sys.stderr)
        elif known[split].all():
            print(f"warning: {origin}: the whole {name} set is in the training set as well", file=sys.stderr)


def what_d_knows(
    model, choosing: np.ndarray, measuring: np.ndarray, epoch: int, padding: int
) -> tuple[dict[str, tuple[float, float]], np.ndarray]:
    """Asks a discriminator about real sequences and about as many fresh ones of the generator.

    Args:
        model: has `sample(size, purpose, step)` → int32 [size, T] and `log_odds(tokens)` → float32 [n], as a
            `model.SeqGAN` has them.
        choosing: real sequences that decide η, those of the validation set, int32 [n, T].
        measuring: real sequences that are measured, those of the test set, int32 [m, T].
        epoch: picks the random numbers of the generated ones.
        padding: the id that is no token.

    Returns:
        - {name: (value, standard error)}, without what there are too few sequences for:
          `d_test_acc`, the accuracy on the test set where real and fake are equally likely;
          `d_gain`, `metrics.reweighting_gain` on the test set, nats a token, and `d_eta`, its η, chosen by
          `metrics.best_eta` on the validation set, whose error is unknown (NaN);
          `d_gain_valid`, `metrics.cross_fitted_gain` of the validation set, nats a token: by this one chooses;
        - the generated sequences of the test set, int32 [m, T].
    """
    figures: dict[str, tuple[float, float]] = {}
    if not len(choosing) + len(measuring):
        return figures, measuring
    fakes = model.sample(len(choosing) + len(measuring), Purpose.D_TEST_FAKE, tf.constant(epoch)).numpy()
    parts = [choosing, measuring, fakes[: len(choosing)], fakes[len(choosing) :]]
    # All in one call, as each shape would be compiled on its own.
    log_odds = model.log_odds(tf.constant(np.concatenate(parts))).numpy().astype(np.float64)
    valid, test, valid_fake, test_fake = np.split(log_odds, np.cumsum([len(part) for part in parts])[:-1])
    valid_lengths, test_lengths = ((rows != padding).sum(axis=1) for rows in (choosing, measuring))
    if len(test) > 1:
        figures["d_test_acc"] = balanced_accuracy(test, test_fake)
    if min(len(valid), len(test)) >= LEAST_DRAWS:
        eta = best_eta(valid, valid_fake, test_fake)
        figures["d_gain"] = reweighting_gain(eta, test, test_fake, test_lengths)
        figures["d_eta"] = (eta, math.nan)
    if len(valid) >= 2 * LEAST_DRAWS:
        figures["d_gain_valid"] = cross_fitted_gain(valid, valid_fake, valid_lengths)
    return figures, parts[3]
