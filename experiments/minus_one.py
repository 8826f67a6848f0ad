"""A reward of -1 for every sequence, a control of experiments/controls.toml."""

import tensorflow as tf


def minus_one(tokens: tf.Tensor) -> tf.Tensor:
    """-1 for each sequence: int32 [n, T] → float32 [n]."""
    return -tf.ones(tokens.shape[:1])
