"""What is asked of a policy where it is measured: samples, likelihoods, and the divergences from an oracle."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from generator import Policy
from support.config import Config
from support.metrics import mean_and_error
from support.objective import Objective
from support.seeds import Purpose, fold, key, uniforms

SAMPLE_ROWS = 256  # sequences drawn at once where many are wanted: their logits then stay in cache


class OracleEvaluation(NamedTuple):
    """One value a sequence, float32 [n], nats per token; and the sequences that the policy drew, int32 [n, T].

    `kl_reverse` and `kl_forward` are KL(G ‖ oracle) and KL(oracle ‖ G) along the sequences of `nll_oracle` and of
    `nll_test`: the distributions of the next token compared at each prefix.
    """

    nll_oracle: tf.Tensor
    g_entropy: tf.Tensor
    nll_test: tf.Tensor
    kl_reverse: tf.Tensor
    kl_forward: tf.Tensor
    generated: tf.Tensor


class Evaluated:
    """A policy as evaluation sees it; all methods are compiled, and follow the policy's weights."""

    def __init__(self, config: Config, policy: Policy):
        """`config` is the run's, `policy` what is measured."""
        self.config, self.policy = config, policy

        def compiled(method: Callable) -> Callable:
            return tf.function(method, jit_compile=config.jit, autograph=False)

        self.sample = compiled(self._sample)
        self.nll = compiled(lambda tokens: -tf.reduce_sum(policy.log_probs(tokens), axis=1))  # [n, T] → [n], nats
        self.evaluate_against = compiled(self._evaluate_against)
        self._diverge = compiled(self._diverged)

    def _sample(self, size: int, purpose: Purpose, step: tf.Tensor) -> tf.Tensor:
        """Draws `size` sequences: int32 [size, T]; `step`, int32 scalar, picks the random numbers of the purpose."""
        return sample_many(self.policy, size, key(self.config.seed, purpose, step))

    def _evaluate_against(self, oracle: Policy, rows: int, epoch: tf.Tensor, chunk: tf.Tensor) -> OracleEvaluation:
        """Measures the policy where the truth is known.

        `rows` are drawn from the policy, afresh each epoch, and as many from the oracle, always the same. `epoch` and
        `chunk`, which counts the parts of one evaluation, are int32 scalars.
        """
        seq_len, seed = self.config.seq_len, self.config.seed
        shape = [seq_len, rows]
        fresh = uniforms(shape, key(seed, Purpose.EVALUATE, epoch, chunk))
        generated, g_entropy, nll_oracle = self.policy.sample_and_compare(fresh, oracle)
        held_out = uniforms(shape, key(seed, Purpose.TEST_SET, chunk))
        _, entropy, nll_test = oracle.sample_and_compare(held_out, self.policy)
        nats = nll_oracle, g_entropy, nll_test, nll_oracle - g_entropy, nll_test - entropy
        return OracleEvaluation._make([*(each / seq_len for each in nats), generated])

    def _diverged(self, other: Policy, rows: int, epoch: tf.Tensor, chunk: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Samples, int32 [rows, T], and KL(policy ‖ other) along them, float32 [rows], nats per sequence."""
        numbers = uniforms([self.policy.seq_len, rows], key(self.config.seed, Purpose.EVALUATE, epoch, chunk))
        tokens, entropy, cross_entropy = self.policy.sample_and_compare(numbers, other)
        return tokens, cross_entropy - entropy

    def towards(
        self, objective: Objective, pretrained: Policy | None, samples: int, epoch: int
    ) -> dict[str, tuple[float, float]]:
        """How far the policy has come with an objective, and how far it has gone for it.

        Returns (mean, standard error) of `objective`, and of `kl_to_pretrained`, KL(G ‖ G₀) in nats per sequence, along
        the same `samples`, whose random numbers `epoch` picks; `pretrained` is G₀. Raises UsageError: the objective
        fails.
        """
        assert pretrained is not None
        rows = min(samples, SAMPLE_ROWS)
        chunks = range(-(-samples // rows))
        parts = [self._diverge(pretrained, rows, tf.constant(epoch), tf.constant(chunk)) for chunk in chunks]
        tokens, divergence = (np.concatenate(values)[:samples] for values in zip(*parts, strict=True))
        return {"objective": mean_and_error(objective.score(tokens)), "kl_to_pretrained": mean_and_error(divergence)}


def sample_many(policy: Policy, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws `size` sequences, SAMPLE_ROWS at once: int32 [size, T]; `seed` is a key."""
    rows = min(size, SAMPLE_ROWS)
    chunks = -(-size // rows)
    seq_len = policy.seq_len

    def draw(i, tokens):
        numbers = uniforms([seq_len, rows], fold(seed, i))
        return i + 1, tf.tensor_scatter_nd_update(tokens, [[i]], policy.sample(numbers)[None])

    start = (0, tf.zeros([chunks, rows, seq_len], tf.int32))
    _, tokens = tf.while_loop(lambda i, _: i < chunks, draw, start, maximum_iterations=chunks)
    return tf.reshape(tokens, [chunks * rows, seq_len])[:size]


def in_chunks(measure: Callable[[tf.Tensor], tf.Tensor], tokens: tf.Tensor) -> tf.Tensor:
    """One value a sequence, taking at most SAMPLE_ROWS of them at once: int32 [n, T] → float32 [n].

    `measure` does the same for [rows, T]; that the shape is always one keeps memory bounded and compiles once.
    """
    size, seq_len = tokens.shape
    rows = min(size, SAMPLE_ROWS)
    chunks = -(-size // rows)
    parts = tf.reshape(tf.pad(tokens, [[0, chunks * rows - size], [0, 0]]), [chunks, rows, seq_len])

    def fill(i, values):
        return i + 1, tf.tensor_scatter_nd_update(values, [[i]], measure(parts[i])[None])

    start = (0, tf.zeros([chunks, rows]))
    _, values = tf.while_loop(lambda i, _: i < chunks, fill, start, maximum_iterations=chunks)
    return tf.reshape(values, [chunks * rows])[:size]
