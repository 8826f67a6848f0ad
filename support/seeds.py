"""Stateless randomness: every draw is a pure function of (seed, purpose, step), so nothing random needs saving."""

import enum
from typing import TypeAlias

import numpy as np
import tensorflow as tf

Seed: TypeAlias = tf.Tensor | None  # a key, for dropout; None applies none


class Purpose(enum.IntEnum):
    """What a random draw is for. The numbers are part of a run's identity: append, never renumber."""

    G_INIT = 0
    D_INIT = 1
    ORACLE_INIT = 2
    TRAIN_SET = 3
    TEST_SET = 4
    MLE_BATCH = 5
    G_SAMPLE = 6
    ROLLOUT = 7
    D_REAL = 8
    D_FAKE = 9
    D_SHUFFLE = 10
    DROPOUT = 11
    EVALUATE = 12
    ORACLE_ENTROPY = 13
    MLE_SHUFFLE = 14
    IMAGES = 15
    TOOL_SAMPLE = 16
    SCHEDULED_SAMPLING = 17
    D_TEST_REAL = 18
    D_TEST_FAKE = 19
    REWARD = 20
    G_DROPOUT = 21
    VALIDATION = 22
    RESAMPLE = 23


def key(seed: int, purpose: Purpose, *steps: int | tf.Tensor) -> tf.Tensor:
    """The seed of one stateless random op.

    `seed` is the run's, 0 <= seed < 2**31; `steps` are any number of counters (epoch, batch, ...). Returns int32 [2],
    for the `seed` argument of `tf.random.stateless_*` with `alg="philox"`: XLA refuses int64 in some of these ops.
    """
    return fold(tf.constant([seed, int(purpose)], tf.int32), *steps)


def fold(seed: tf.Tensor, *steps: int | tf.Tensor) -> tf.Tensor:
    """A new key from a key and any number of counters."""
    for step in steps:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(step, tf.int32), alg="philox")
    return seed


def uniforms(shape: tuple[int, ...] | list[int] | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1), float32 of `shape`, from a `key`: the same with and without XLA.

    They are made of random bits as XLA makes them, of the upper ones; TensorFlow's own kernel takes the lower ones.
    """
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
    mantissa = tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32))
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, tf.constant(0x3F800000, tf.uint32)), tf.float32) - 1.0


def dropout(values: tf.Tensor, rate: float, seed: tf.Tensor | None, *place: int) -> tf.Tensor:
    """`values`, float32 of any shape, with a share `rate` set to 0 and the others scaled up, alike in expectation.

    `seed` is a `key`, without which they stay as they are; `place` tells several places of one network apart.
    """
    if seed is None or not rate:
        return values
    return tf.where(uniforms(tf.shape(values), fold(seed, *place)) >= rate, values * (1 / (1 - rate)), 0.0)


def permutation(size: int, seed: tf.Tensor) -> tf.Tensor:
    """A random order of 0..size-1, int32 [size], from a `key` (it sorts random numbers, which XLA compiles)."""
    return tf.argsort(uniforms([size], seed), stable=True)


def numpy_rng(seed: int, purpose: Purpose, step: int = 0) -> np.random.Generator:
    """NumPy's random numbers of (seed, purpose, step), and of nothing else."""
    return np.random.default_rng([seed, int(purpose), step])


def variable_seed(seed: int, purpose: Purpose, index: int) -> int:
    """The seed (0 <= s < 2**31) of one variable's initialiser: variable number `index` of a network."""
    return int(np.random.SeedSequence([seed, int(purpose), index]).generate_state(1)[0] >> 1)
