"""Echoes: how likely each earlier token of a sequence comes again, from how well the last tokens repeat earlier ones.

An LSTM has to remember what it would repeat. A neural cache (Grave et al., ICLR 2017) and a pointer (Vinyals et al.,
NIPS 2015) look back at the tokens themselves; so does this, by position.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from support.lookup import summed_in_rows

SPANS = (1, 2, 4, 8, 16)  # how many of the last tokens are compared with those so many places before
UNITS = 16  # of the layer that all lags share
NOTHING = -1  # in place of a token before the first


def pasts(tokens: tf.Tensor, count: int) -> tf.Tensor:
    """The last `count` tokens before each of int32 [B, T], NOTHING before the first: int32 [T, B, count]."""
    # One gather: a slice for each t would take seconds to compile where T is 128.
    padded = tf.pad(tf.transpose(tokens[:, :-1]), [[count, 0], [0, 0]], constant_values=NOTHING)
    places = tf.range(tokens.shape[1])[:, None] + tf.range(count)
    return tf.transpose(tf.gather(padded, places), [0, 2, 1])


class Heard(NamedTuple):
    """What is heard after the last tokens, for each of L lags."""

    repeated: tf.Tensor  # y_{t-l}, the token that a lag would repeat, int32 [..., L], NOTHING where there is none
    echo: tf.Tensor  # float32 [..., L], nats; 0 where there is no such token
    units: tf.Tensor  # z_l of the shared layer, float32 [..., L, UNITS]

    def spread(self, vocab_size: int) -> tf.Tensor:
        """The sum of the echoes by the token that they repeat: float32 [..., V]."""
        return summed_in_rows(self.echo, self.repeated, vocab_size)


class Echoes(keras.layers.Layer):
    """e_l = w_l · z_l + w_l0, the echo of each lag l = 1..T-1, with z_l = ReLU(W h_l).

    h_l has two numbers for each of `SPANS`: the share of its last tokens that agree with those l places before, and
    whether there are any. With 2 `times` it has the same of 2 l places before, and so hears what has been repeated
    already. All lags share W; each has a w_l. The echoes are 0 at first.
    """

    def __init__(self, seq_len: int, seed: int, times: int = 1):
        """`seq_len` is T; `seed` decides W."""
        super().__init__()
        self.times = times
        self.lag_count = seq_len - 1  # L
        self.memory_dim = self.lag_count + max(SPANS)  # P, how many tokens are remembered
        self.shared = keras.layers.Dense(UNITS, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed))
        self.shared.build((None, 2 * len(SPANS) * times))
        self.lag_weights = self.add_weight(shape=(self.lag_count, UNITS + 1), initializer="zeros", name="lag_weights")

    def after(self, past: tf.Tensor) -> Heard:
        """What is heard after the last tokens: int32 [..., P], the newest last, NOTHING where there is none."""
        past = tf.reverse(past, [-1])  # y_{t-1}, y_{t-2}, ...
        padded = tf.pad(past, [[0, 0]] * (past.shape.rank - 1) + [[0, self.lag_count]], constant_values=NOTHING)

        def lagged(j: int, times: int = 1) -> tf.Tensor:  # y_{t-j-times·l} for l = 1..L
            return padded[..., j + times - 1 : j + times * self.lag_count : times]

        features = []
        for times in range(1, self.times + 1):
            agree, there = tf.zeros([]), tf.zeros([])
            for j in range(1, max(SPANS) + 1):
                other = lagged(j, times)
                known = tf.cast(other != NOTHING, tf.float32)
                agree += tf.cast(past[..., j - 1, None] == other, tf.float32) * known
                there += known
                if j in SPANS:
                    features += [agree / tf.maximum(there, 1.0), tf.minimum(there, 1.0)]
        repeated = lagged(0)
        exists = tf.cast(repeated != NOTHING, tf.float32)
        units = self.shared(tf.stack(features, axis=-1)) * exists[..., None]  # [..., L, UNITS]
        echo = (tf.reduce_sum(units * self.lag_weights[:, :-1], axis=-1) + self.lag_weights[:, -1]) * exists
        return Heard(repeated, echo, units)
