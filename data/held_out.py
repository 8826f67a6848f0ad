"""What is measured alike on all real sequences that training never saw."""

import sys

import numpy as np
import tensorflow as tf

from support.metrics import balanced_accuracy, best_eta, reweighting_gain
from support.seeds import Purpose

D_FIGURES = ("d_test_acc", "d_gain")


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


def what_d_knows(model, choosing: np.ndarray, measuring: np.ndarray, epoch: int) -> tuple[dict, np.ndarray]:
    """Asks the discriminator about real sequences and about as many fresh ones of the generator.

    Args:
        model: a `model.SeqGAN`.
        choosing: real sequences that decide η, int32 [n, T]; with fewer than 2 there is no gain.
        measuring: real sequences that are measured, int32 [m, T]; with fewer than 2 there are no figures.
        epoch: picks the random numbers of the generated ones.

    Returns:
        - {name: (value, standard error)}: `d_test_acc`, the accuracy where real and fake are equally likely, and
          `d_gain`, `metrics.reweighting_gain` with `metrics.best_eta` of the other sequences, nats a token;
        - the generated sequences that were measured, int32 [m, T].
    """
    if len(measuring) < 2:
        return {}, measuring
    fakes = model.sample(len(choosing) + len(measuring), Purpose.D_TEST_FAKE, tf.constant(epoch)).numpy()
    parts = [choosing, measuring, fakes[: len(choosing)], fakes[len(choosing) :]]
    # All in one call, as each shape would be compiled on its own.
    log_odds = model.log_odds(tf.constant(np.concatenate(parts))).numpy().astype(np.float64)
    chosen_real, real, chosen_fake, fake = np.split(log_odds, np.cumsum([len(part) for part in parts])[:-1])
    figures = {"d_test_acc": balanced_accuracy(real, fake)}
    if len(choosing) > 1:
        lengths = (measuring != model.generator.vocab_size).sum(axis=1)  # padding is no token
        figures["d_gain"] = reweighting_gain(best_eta(chosen_real, chosen_fake), real, fake, lengths)
    return figures, parts[3]
