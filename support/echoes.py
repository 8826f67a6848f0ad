"""Echoes: how likely each earlier token of a sequence comes again, from how well the last tokens repeat earlier ones.

An LSTM has to remember what it would repeat. A neural cache (Grave et al., ICLR 2017) and a pointer (Vinyals et al.,
NIPS 2015) look back at the tokens themselves; so does this, by position.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from support.lookup import summed_in_rows

SPANS = (1, 2, 4, 8, 16)  # how many of the last tokens are compared with those so many places before
UNITS = 16  # of the layer that all lags share
NOTHING = -1  # in place of a token before the first


class Heard(NamedTuple):
    """What is heard after the last tokens, for each of L lags; twice as many where tokens are pitches."""

    repeated: tf.Tensor  # the token that a lag would repeat, int32 [..., L], NOTHING where there is none
    echo: tf.Tensor  # float32 [..., L], nats; 0 where there is no such token
    units: tf.Tensor  # z_l of the shared layer, float32 [..., L, UNITS]

    def spread(self, vocab_size: int) -> tf.Tensor:
        """The sum of the echoes by the token that they repeat: float32 [..., V]."""
        return summed_in_rows(self.echo, self.repeated, vocab_size)


def transposed(tokens: tf.Tensor, pitches: tf.Tensor, by: tf.Tensor, keys: int) -> tf.Tensor:
    """Tokens so many half tones higher, NOTHING where that is no pitch or `by` is 0; a rest, 0, stays one.

    `tokens`, `by`: int32 [..., L]. `pitches`: those of the tokens, 0 to `keys` - 1, as `generator.TokenSpec` has them.
    """
    moved = pitches + by
    sounds = (tokens > 0) & (moved >= 0) & (moved < keys) & (by != 0)
    return tf.where(sounds, tokens + by, tf.where((tokens == 0) & (by != 0), 0, NOTHING))


class Echoes(keras.layers.Layer):
    """e_l = w_l · z_l + w_l0, the echo of each lag l = 1..T-1, with z_l = ReLU(W h_l).

    h_l has two numbers for each of `SPANS`: the share of its last tokens that agree with those l places before, and
    whether there are any. Where tokens are pitches, each lag has a second echo: of y_{t-l} at another pitch, moved by
    what y_{t-1} lies above y_{t-1-l}. All echoes share W; each has a w_l. They are 0 at first.
    """

    def __init__(self, seq_len: int, keys: int, seed: int):
        """`seq_len` is T; `keys` is that of `generator.TokenSpec`, 0 where tokens are no pitches; `seed` decides W."""
        super().__init__()
        self.lag_count, self.keys = seq_len - 1, keys
        self.memory_dim = self.lag_count + max(SPANS)  # P, how many tokens are remembered
        glorot = keras.initializers.GlorotUniform(seed)
        self.shared = keras.layers.Dense(UNITS, "relu", kernel_initializer=glorot)
        self.shared.build((None, 2 * len(SPANS)))
        shape = (self.lag_count * (2 if keys else 1), UNITS + 1)
        self.lag_weights = self.add_weight(shape=shape, initializer="zeros", name="lag_weights")

    def pasts(self, tokens: tf.Tensor) -> tf.Tensor:
        """The last P tokens before each of int32 [B, T]: int32 [T, B, P]."""
        before = tf.fill([tokens.shape[0], self.memory_dim], NOTHING)
        padded = tf.concat([before, tokens[:, :-1]], axis=1)
        return tf.stack([padded[:, t : t + self.memory_dim] for t in range(tokens.shape[1])])

    def after(self, past: tf.Tensor) -> Heard:
        """What is heard after the last tokens: int32 [..., P], the newest last, NOTHING where there is none."""
        past = tf.reverse(past, [-1])  # y_{t-1}, y_{t-2}, ...

        def lagged(j: int, of: tf.Tensor = past) -> tf.Tensor:  # y_{t-j-l} for l = 1..L
            return of[..., j : j + self.lag_count]

        heard = [self._compared(past, lagged)]
        if self.keys:
            pitches = tf.math.floormod(past - 1, self.keys)
            sound = (past[..., :1] > 0) & (lagged(1) > 0)
            by = tf.where(sound, pitches[..., :1] - lagged(1, pitches), 0)
            heard.append(self._compared(past, lambda j: transposed(lagged(j), lagged(j, pitches), by, self.keys)))
        repeated, features = (
            tf.concat(parts, axis) for parts, axis in zip(zip(*heard, strict=True), (-1, -2), strict=True)
        )
        exists = tf.cast(repeated != NOTHING, tf.float32)
        units = self.shared(features) * exists[..., None]  # [..., L, UNITS]
        echo = (tf.reduce_sum(units * self.lag_weights[:, :-1], axis=-1) + self.lag_weights[:, -1]) * exists
        return Heard(repeated, echo, units)

    def _compared(self, past: tf.Tensor, lagged: Callable[[int], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """What lags would repeat, int32 [..., L], and their h_l, float32 [..., L, 2 · SPANS].

        `past`: y_{t-1}, y_{t-2}, ... `lagged` gives what stands in place of y_{t-j-l} for all lags.
        """
        agree, there, features = tf.zeros([]), tf.zeros([]), []
        for j in range(1, max(SPANS) + 1):
            other = lagged(j)
            known = tf.cast(other != NOTHING, tf.float32)
            agree += tf.cast(past[..., j - 1, None] == other, tf.float32) * known
            there += known
            if j in SPANS:
                features += [agree / tf.maximum(there, 1.0), tf.minimum(there, 1.0)]
        return lagged(0), tf.stack(features, axis=-1)
