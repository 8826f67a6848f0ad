"""Looking up the rows of tokens in a table, and the sum of rows by token, which is its gradient; loops.

Such a sum is a scatter of many rows into few places. A CPU adds them one after the other. A GPU adds them in any order,
so that no two runs are alike; or, where runs are to be alike, one after the other too, which is what it does worst.
There the sum is taken as a product with one-hot rows, as repeatable and as fast as any other product. A CPU has no time
to spare for all the zeros. This is the one place where that is decided.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def by_product() -> bool:
    """Whether sums are products, for a GPU; else they are taken row by row, for a CPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def summed_by_token(rows: tf.Tensor, tokens: tf.Tensor, vocab_size: int) -> tf.Tensor:
    """The sum of each token's rows, zeros for a token that has none: the same by both forms but for rounding.

    The product takes R·V numbers of memory where it isn't fused.
    `rows`: float32 [R, E]. `tokens`: whose each row is, int32 [R], of 0..V-1. `vocab_size`: V. Returns float32 [V, E].
    """
    if by_product():
        return tf.matmul(tf.one_hot(tokens, vocab_size), rows, transpose_a=True)
    return tf.math.unsorted_segment_sum(rows, tokens, vocab_size)


def summed_in_rows(values: tf.Tensor, tokens: tf.Tensor, vocab_size: int) -> tf.Tensor:
    """The sum of each row's values by their tokens: float32 [..., L], int32 [..., L] → float32 [..., V].

    A token that is negative, or beyond V - 1, counts nowhere. On a CPU the one-hot product takes 25 times as long.
    """
    shape, size = [*values.shape[:-1], vocab_size], values.shape[-1]
    values, tokens = tf.reshape(values, [-1, size]), tf.reshape(tokens, [-1, size])
    if by_product():
        return tf.reshape(tf.matmul(values[:, None], tf.one_hot(tokens, vocab_size)), shape)
    rows = values.shape[0]
    places = tf.where((tokens < 0) | (tokens >= vocab_size), -1, tokens + vocab_size * tf.range(rows)[:, None])
    flat = tf.reshape(values, [-1]), tf.reshape(places, [-1])
    return tf.reshape(tf.math.unsorted_segment_sum(*flat, rows * vocab_size), shape)


def look_up(embedding: keras.layers.Embedding, tokens: tf.Tensor) -> tf.Tensor:
    """The layer's rows of `tokens`, of 0..V-1: int32 [...] → float32 [..., E]; its gradient is one array, no slices."""
    return rows_of(tf.convert_to_tensor(embedding.embeddings), tokens)


@tf.custom_gradient
def rows_of(table: tf.Tensor, tokens: tf.Tensor):
    """The rows of float32 [V, E] at int32 [...], and the function that carries a gradient back."""
    vocab_size, emb_dim = table.shape

    def gradient(upstream: tf.Tensor):
        return summed_by_token(tf.reshape(upstream, [-1, emb_dim]), tf.reshape(tokens, [-1]), vocab_size), None

    return tf.gather(table, tokens), gradient


def with_row(array: tf.Tensor, t: int | tf.Tensor, entry: tf.Tensor) -> tf.Tensor:
    """The array, [T, ...], with another entry, [...] of its dtype, at index t; returns [T, ...]."""
    return tf.tensor_scatter_nd_update(array, [[t]], entry[None])


def looped(step: Callable[..., tuple], *carried: Any, until: int, since: int | tf.Tensor = 0) -> tuple:
    """What is left after `carried = step(t, *carried)` for each t from `since` to `until` - 1: a loop of the graph.

    `step` returns a tuple, even of one. Where `since` is not below `until`, nothing happens.
    """

    def body(t, *carried):
        return t + 1, *step(t, *carried)

    return tf.while_loop(lambda t, *_: t < until, body, (since, *carried), maximum_iterations=until)[1:]
