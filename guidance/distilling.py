"""Distilling: a generator learns a teacher. No reward and no rollouts.

Of most teachers the distribution of every next token is known, and learnt in full: of the guided generator, T(a | y_<t)
∝ G₀(a | y_<t) · exp(η s(a | y_<t)), and of the averages of --teacher. Of the best of n candidates the tokens alone are.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from discriminator import Discriminator
from generator import Generator, Policy
from guidance.choosing import keep_one
from support.config import Config
from support.objective import Objective
from support.seeds import Purpose, fold, key, uniforms


def divergence(student: Policy, teacher: Policy, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The cross-entropy -Σ_a T(a | y_<t) · log G(a | y_<t) of each place, and KL(T(· | y_<t) ‖ G(· | y_<t)) of it.

    Along sequences that the teacher drew, the sums over t have the exact gradient of KL(T ‖ G) (Hinton et al., 2015, by
    sequences: Kim and Rush, EMNLP 2016).
    `tokens`: int32 [B, T]. The teacher is held constant. Returns float32 [B, T] twice, nats, 0 for padding.
    """
    log_probs = tf.nn.log_softmax(student.logits(student.states(tokens).hidden))  # [T, B, V]
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
        discriminator: Discriminator | None = None,
        objective: Objective | None = None,
        *,
        batches: Callable[[int], tf.Tensor] | None,  # those of an epoch of maximum likelihood, int32 [n, B, T]
        update: Callable[..., None],  # applies an optimizer's gradients to the student
    ):
        """The `student` learns from sequences of the `teacher` and from real ones, --distil_real of a batch.

        There is no dropout: a student with dropout can't take in a teacher without, and ends further from it.

        With a `discriminator` or an `objective` the teacher draws --candidates for each sequence. The objective takes
        the best, the discriminator one with a probability in proportion to D / (1 - D), see `guidance.choosing`. Their
        tokens are learnt as if they were real ones ("hard labels").
        """
        self.config, self.student, self.teacher = config, student, teacher
        self.discriminator, self.objective = discriminator, objective
        self._batches, self._update = batches, update
        self.real = round(config.distil_real * config.batch_size)  # real sequences of a batch
        compiled = functools.partial(tf.function, jit_compile=config.jit, autograph=False)
        self._candidates, self._distilled = compiled(self._all_candidates), compiled(self._learnt)
        self._whole = compiled(lambda real, step: self._learnt(real, self._drawn(step)))

    def step(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """One update; `step` counts them, int32 scalar. Returns what `model.PolicyGradientStep` has.

        In place of rewards it has -KL(T(· | y_<t) ‖ G(· | y_<t)) or, with hard labels, log G(y_t | y_<t). Raises
        UsageError: the objective fails; nothing has changed.
        """
        config, real = self.config, tf.zeros([0, self.config.seq_len], tf.int32)
        if self.real and self._batches:
            passes, place = divmod(int(step), config.mle_batches)
            real = self._batches(config.pretrain_g_epochs + passes)[place][: self.real]
        if not self.objective:
            return self._whole(real, step)
        candidates = self._candidates(step)
        scores = self.objective.score(candidates.numpy().reshape(-1, config.seq_len)).reshape(candidates.shape[:2])
        best = tf.constant(scores.argmax(axis=0))
        return self._distilled(real, tf.gather(tf.transpose(candidates, [1, 0, 2]), best, batch_dims=1))

    def _draw(self, seed: tf.Tensor) -> tf.Tensor:
        """The teacher's sequences that fill the batch, int32 [B - n, T]; `seed` is a key."""
        if self.real == self.config.batch_size:
            return tf.zeros([0, self.config.seq_len], tf.int32)
        return self.teacher.sample(uniforms([self.config.seq_len, self.config.batch_size - self.real], seed))

    def _all_candidates(self, step: tf.Tensor) -> tf.Tensor:
        """All candidates of a step, int32 [--candidates, B - n, T]."""
        seed = key(self.config.seed, Purpose.G_SAMPLE, step)
        return tf.map_fn(lambda i: self._draw(fold(seed, i + 2)), tf.range(self.config.candidates))

    def _drawn(self, step: tf.Tensor) -> tf.Tensor:
        """What is learnt beside the real sequences, int32 [B - n, T]."""
        seed = key(self.config.seed, Purpose.G_SAMPLE, step)
        if self.discriminator is None:
            return self._draw(seed)
        like = (tf.zeros([self.config.batch_size - self.real, self.config.seq_len], tf.int32),)
        return keep_one(lambda s: (self._draw(s),), self.discriminator.log_odds, self.config.candidates, seed, like)[0]

    def _learnt(self, real: tf.Tensor, drawn: tf.Tensor):
        config, student = self.config, self.student
        tokens = tf.concat([real, drawn], axis=0)
        with tf.GradientTape() as tape:
            if self.discriminator or self.objective:
                rewards = student.log_probs(tokens)
                crossed = -rewards
            else:
                crossed, apart = divergence(student, self.teacher, tokens)
                rewards = -apart
            loss = tf.reduce_sum(crossed) / (config.batch_size * config.seq_len)
        self._update(tape.gradient(loss, student.trainable_variables))
        mask = student.mask(tokens)
        return loss, tf.reduce_sum(rewards) / tf.reduce_sum(mask), rewards, tokens, mask
