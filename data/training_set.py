"""Real sequences in the order and the portions that training reads them."""

from typing import Any

import numpy as np
import tensorflow as tf

from support.config import Config
from support.errors import DataError
from support.own_code import is_own
from support.seeds import Purpose, numpy_rng

Sequences = Any  # a collection, such as an int32 [n, T] array, with a length; those of numbers int [k] are int32 [k, T]


def draw(sequences: Sequences, size: int, seed: int, purpose: Purpose, step: int) -> np.ndarray:
    """Sequences drawn with replacement, int32 [size, T]; the same ones for a (seed, purpose, step)."""
    return sequences[numpy_rng(seed, purpose, step).integers(len(sequences), size=size)]


class TrainingData:
    """What training reads: with --train_size all of a fixed set in each epoch, without it random draws from a set."""

    def __init__(self, sequences: Sequences, config: Config):
        """Keeps `sequences`: at least --batch_size of them with --train_size, and one without it."""
        self.sequences, self.config = sequences, config

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """The batches of an epoch of pretraining, int32 [n // B, B, T] or, without --train_size, [1, B, T].

        Those of a fixed set are in an order of the epoch's own; what does not fill a batch waits for another epoch.
        """
        size, seed = self.config.batch_size, self.config.seed
        if not self.config.train_size:
            return tf.constant(draw(self.sequences, size, seed, Purpose.MLE_BATCH, epoch)[None])
        order = numpy_rng(seed, Purpose.MLE_SHUFFLE, epoch).permutation(len(self.sequences))
        count = len(order) // size
        return tf.constant(self.sequences[order[: count * size].reshape(count, size)])

    def real(self, step: int) -> tf.Tensor:
        """The real sequences of a d-step, int32 [n, T]: all of a fixed set, or as many draws as --d_draws says."""
        config = self.config
        if config.train_size:
            return tf.constant(self.sequences)
        return tf.constant(draw(self.sequences, config.real_draws, config.seed, Purpose.D_REAL, step))


def training_data(sequences: Sequences, config: Config, what: str) -> TrainingData:
    """With --train_size a fixed choice of `sequences`, else all; raises DataError: too few or none, called `what`."""
    size, count = config.train_size, len(sequences)
    source = f"--dataset {config.dataset}" if is_own(config.dataset) else f"--data_dir {config.data_dir}"
    if not count:
        raise DataError(f"{source}: no {what} to train on")
    if size > count:
        raise DataError(f"--train_size: {size} is more than the {count} {what} of {source}")
    if size:
        chosen = numpy_rng(config.seed, Purpose.TRAIN_SET).permutation(count)[:size]
        sequences = np.asarray(sequences[chosen], np.int32)
    return TrainingData(sequences, config)


def spread(rows: Sequences, most: int) -> np.ndarray:
    """At most `most` of the sequences, evenly spread over them."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)]
