"""Real sequences in the order and the portions that training reads them."""

from typing import Protocol

import numpy as np
import tensorflow as tf

from support.config import Config
from support.errors import DataError
from support.seeds import Purpose, numpy_rng


class Sequences(Protocol):
    """A collection of sequences, such as an int32 [n, T] array: those of the numbers int [k] are int32 [k, T]."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


class TrainingSet:
    """Sequences that do not change during a run; an epoch is one pass over them in an order of its own."""

    def __init__(self, sequences: np.ndarray, batch_size: int, seed: int):
        """Keeps `sequences`, int32 [n, T] with n >= batch_size; `seed` decides the orders."""
        self.sequences, self.batch_size, self.seed = np.asarray(sequences, np.int32), batch_size, seed

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """The batches of one pass, int32 [n // B, B, T]; what does not fill a batch waits for another epoch."""
        order = numpy_rng(self.seed, Purpose.MLE_SHUFFLE, epoch).permutation(len(self.sequences))
        count = len(order) // self.batch_size
        return tf.constant(self.sequences[order[: count * self.batch_size].reshape(count, self.batch_size)])

    def real(self, step: int) -> tf.Tensor:
        """The real sequences of every d-step: all of them, int32 [n, T]."""
        return tf.constant(self.sequences)


def draw(sequences: Sequences, size: int, seed: int, purpose: Purpose, step: int) -> np.ndarray:
    """Sequences drawn with replacement, int32 [size, T]; the same ones for a (seed, purpose, step)."""
    return sequences[numpy_rng(seed, purpose, step).integers(len(sequences), size=size)]


class RandomDraws:
    """Sequences drawn from a collection, with replacement; an epoch is one batch, a d-step reads half a minibatch."""

    def __init__(self, sequences: Sequences, batch_size: int, real_draws: int, seed: int):
        """Draws from `sequences`, of which there must be one; `seed` decides what."""
        self.sequences, self.batch_size, self.real_draws, self.seed = sequences, batch_size, real_draws, seed

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """One batch, int32 [1, B, T]."""
        return tf.constant(draw(self.sequences, self.batch_size, self.seed, Purpose.MLE_BATCH, epoch)[None])

    def real(self, step: int) -> tf.Tensor:
        """The real sequences of a d-step, int32 [real_draws, T]."""
        return tf.constant(draw(self.sequences, self.real_draws, self.seed, Purpose.D_REAL, step))


def training_data(sequences: Sequences, config: Config, what: str) -> TrainingSet | RandomDraws:
    """What training reads: with --train_size a fixed choice of `sequences`, without it draws from all of them.

    Raises DataError: --train_size is more than there are; the message calls them `what`.
    """
    size, count = config.train_size, len(sequences)
    if not size:
        return RandomDraws(sequences, config.batch_size, config.real_draws, config.seed)
    if size > count:
        raise DataError(f"--train_size: {size} is more than the {count} {what} of --data_dir {config.data_dir}")
    chosen = numpy_rng(config.seed, Purpose.TRAIN_SET).permutation(count)[:size]
    return TrainingSet(sequences[chosen], config.batch_size, config.seed)


def spread(rows: Sequences, most: int) -> np.ndarray:
    """At most `most` of the sequences, evenly spread over them."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)]
