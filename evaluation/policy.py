"""What is asked of a policy where it is measured: samples, likelihoods, and the divergences from an oracle."""

from collections.abc import Callable
from functools import partial

import numpy as np
import tensorflow as tf

from generator import SAMPLE_ROWS, Policy, sample_many
from support.seeds import Purpose, key, uniforms

# What `compare_with` measures, nats per token. KL(oracle ‖ G) and KL(G ‖ oracle) are along the sequences of `nll_test`
# and of `nll`, NLL_oracle: the distributions of the next token compared at each prefix.
COMPARED = ("nll", "nll_test", "g_entropy", "kl_forward", "kl_reverse")


class MeasuredPolicy:
    """A policy as evaluation sees it; all methods are compiled, and follow the policy's weights."""

    def __init__(self, policy: Policy, seed: int, jit: bool):
        """`policy` is what is measured, `seed` the run's; `jit` compiles with XLA."""
        self.policy, self.seed, self.jit = policy, seed, jit
        compiled = partial(tf.function, jit_compile=jit, autograph=False)
        # int32 [size, T]; the last argument, an int32 scalar, picks the random numbers of the purpose.
        self.sample = compiled(lambda size, purpose, step: sample_many(policy, size, key(seed, purpose, step)))
        self.nll = compiled(lambda tokens: -tf.reduce_sum(policy.log_probs(tokens), axis=1))  # [n, T] → [n], nats
        # Of COMPARED and of KL(policy ‖ other): both take another policy, a number of sequences and an epoch.
        self.compare_with = partial(self._in_chunks, compiled(self._compare_with))
        self.divergence = partial(self._in_chunks, compiled(self._diverged))

    def _compare_with(self, oracle: Policy, rows: int, epoch: tf.Tensor, chunk: tf.Tensor) -> list[tf.Tensor]:
        """Measures `rows` of the policy, drawn afresh each epoch, and as many of the oracle, always the same.

        `epoch` and `chunk`, which counts the parts of one evaluation, are int32 scalars. Returns what is COMPARED, each
        float32 [rows], one value a sequence, and the sequences that the policy drew, int32 [rows, T].
        """
        seq_len = self.policy.seq_len
        fresh = uniforms([seq_len, rows], key(self.seed, Purpose.EVALUATE, epoch, chunk))
        generated, g_entropy, nll_oracle = self.policy.sample_and_compare(fresh, oracle)
        held_out = uniforms([seq_len, rows], key(self.seed, Purpose.TEST_SET, chunk))
        _, entropy, nll_test = oracle.sample_and_compare(held_out, self.policy)
        nats = nll_oracle, nll_test, g_entropy, nll_test - entropy, nll_oracle - g_entropy
        return [*(each / seq_len for each in nats), generated]

    def _diverged(self, other: Policy, rows: int, epoch: tf.Tensor, chunk: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Samples, int32 [rows, T], and KL(policy ‖ other) along them, float32 [rows], nats per sequence."""
        numbers = uniforms([self.policy.seq_len, rows], key(self.seed, Purpose.EVALUATE, epoch, chunk))
        tokens, entropy, cross_entropy = self.policy.sample_and_compare(numbers, other)
        return tokens, cross_entropy - entropy

    def _in_chunks(self, measure: Callable, other: Policy | None, size: int, epoch: int) -> list[np.ndarray]:
        """What `measure` returns for `size` sequences, SAMPLE_ROWS at once: [size, ...] each."""
        rows = min(size, SAMPLE_ROWS)
        parts = [measure(other, rows, tf.constant(epoch), tf.constant(chunk)) for chunk in range(-(-size // rows))]
        return [np.concatenate(values)[:size] for values in zip(*parts, strict=True)]
