"""Distilling: a generator learns the guided generator, whose distribution of every next token is known.

No reward and no rollouts: the teacher T(a | y_<t) ∝ G₀(a | y_<t) · exp(η s(a | y_<t)) is followed in full.
"""

from collections.abc import Callable

import tensorflow as tf

from generator import Generator, Policy
from support.config import Config
from support.seeds import Purpose, fold, key, uniforms


def divergence(
    student: Policy, teacher: Policy, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The cross-entropy -Σ_a T(a | y_<t) · log G(a | y_<t) of each place, and KL(T(· | y_<t) ‖ G(· | y_<t)) of it.

    Along sequences that the teacher drew, the sums over t have the exact gradient of KL(T ‖ G) (Hinton et al., 2015, by
    sequences: Kim and Rush, EMNLP 2016).

    `tokens`: int32 [B, T]. `dropout_seed` is that of the student's `states`. The teacher is held constant. Returns
    float32 [B, T] twice, nats, 0 for padding.
    """
    log_probs = tf.nn.log_softmax(student.logits(student.states(tokens, dropout_seed).hidden))  # [T, B, V]
    targets = tf.stop_gradient(tf.nn.log_softmax(teacher.logits(teacher.states(tokens).hidden)))
    probs, mask = tf.exp(targets), student.mask(tokens)
    crossed = -tf.transpose(tf.reduce_sum(probs * log_probs, axis=2)) * mask
    entropy = -tf.transpose(tf.reduce_sum(tf.math.multiply_no_nan(targets, probs), axis=2)) * mask
    return crossed, crossed - entropy


class Distillation:
    """The g-step of --g_update distil."""

    def __init__(
        self,
        config: Config,
        student: Generator,
        teacher: Policy,
        batches: Callable[[int], tf.Tensor] | None,
        update: Callable[..., None],
    ):
        """The `student` learns from sequences of the `teacher` and from real ones, --distil_real of a batch.

        `batches` are those of an epoch of maximum likelihood, int32 [n, B, T]. `update` applies an optimizer's
        gradients to the student.
        """
        self.config, self.student, self.teacher = config, student, teacher
        self._batches, self._update = batches, update
        self.real = round(config.distil_real * config.batch_size)  # real sequences of a batch
        self._compiled = tf.function(self._distilled, jit_compile=config.jit, autograph=False)

    def step(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """One update; `step` counts them, int32 scalar. Returns what `model.PolicyGradientStep` has.

        In place of rewards it has -KL(T(· | y_<t) ‖ G(· | y_<t)).
        """
        config, real = self.config, tf.zeros([0, self.config.seq_len], tf.int32)
        if self.real and self._batches:
            passes, place = divmod(int(step), config.mle_batches)
            real = self._batches(config.pretrain_g_epochs + passes)[place][: self.real]
        return self._compiled(real, step)

    def _distilled(self, real: tf.Tensor, step: tf.Tensor):
        config, student = self.config, self.student
        seed = key(config.seed, Purpose.G_SAMPLE, step)
        drawn = self.teacher.sample(uniforms([config.seq_len, config.batch_size - self.real], seed))
        tokens = tf.concat([real, drawn], axis=0)
        with tf.GradientTape() as tape:
            crossed, apart = divergence(student, self.teacher, tokens, fold(seed, 1))
            loss = tf.reduce_sum(crossed) / (config.batch_size * config.seq_len)
        self._update(tape.gradient(loss, student.trainable_variables))
        mask = student.mask(tokens)
        return loss, -tf.reduce_sum(apart) / tf.reduce_sum(mask), -apart, tokens, mask
