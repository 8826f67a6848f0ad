"""A fixed set of real sequences, in the order and the portions that training reads them."""

import numpy as np
import tensorflow as tf


class TrainingSet:
    """Sequences that do not change during a run; an epoch is one pass over them in an order of its own."""

    def __init__(self, sequences: np.ndarray, batch_size: int, seed: int):
        """Keeps `sequences`, int32 [n, T] with n >= batch_size; `seed` decides the orders."""
        self.sequences = np.asarray(sequences, np.int32)
        self.batch_size, self.seed = batch_size, seed

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """The batches of one pass, int32 [n // B, B, T]; what does not fill a batch waits for another epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.sequences))
        count = len(order) // self.batch_size
        chosen = self.sequences[order[: count * self.batch_size]]
        return tf.constant(chosen.reshape(count, self.batch_size, -1))

    def real(self, step: int) -> tf.Tensor:
        """The real sequences of a d-step: all of them, int32 [n, T]."""
        del step
        return tf.constant(self.sequences)
