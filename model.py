"""SeqGAN's updates: how one step of each kind changes the networks. When they happen is main.py's affair."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from discriminator import FAKE, REAL, Discriminator
from generator import Generator
from reward import Reward
from rollout import RolloutPolicy
from runs.checkpoints import Checkpoints
from runs.directories import CHECKPOINTS, lost_weights
from support.config import Config, UsageError
from support.config_file import CONFIG, from_flags, read_config
from support.seeds import Purpose, fold, key, permutation, uniforms

SAMPLE_ROWS = 256  # sequences drawn at once where many are wanted: their logits then stay in cache


class PolicyGradientStep(NamedTuple):
    """What one policy-gradient update saw.

    `loss` and `reward`, the mean over chosen tokens, are float32 scalars; `rewards` float32 [B, T]; `tokens` int32
    [B, T]; `mask` float32 [B, T], 1 for a chosen token and 0 for padding.
    """

    loss: tf.Tensor
    reward: tf.Tensor
    rewards: tf.Tensor
    tokens: tf.Tensor
    mask: tf.Tensor


class DiscriminatorStep(NamedTuple):
    """Means over the minibatches of one d-step: `loss` (nats, penalty included) and `accuracy`; float32 scalars."""

    loss: tf.Tensor
    accuracy: tf.Tensor


class OracleEvaluation(NamedTuple):
    """One value a sequence, float32 [n], nats a token; and the sequences that the generator drew, int32 [n, T].

    `kl_reverse` and `kl_forward` are KL(G ‖ oracle) and KL(oracle ‖ G) along the sequences of `nll_oracle` and of
    `nll_test`: the laws of the next token compared at each prefix.
    """

    nll_oracle: tf.Tensor
    g_entropy: tf.Tensor
    nll_test: tf.Tensor
    kl_reverse: tf.Tensor
    kl_forward: tf.Tensor
    generated: tf.Tensor


class SeqGAN:
    """The networks, their optimizers and the compiled steps.

    Every step draws its random numbers from (seed, purpose, step), so a step is a function of its arguments and the
    weights alone.
    """

    def __init__(
        self,
        config: Config,
        vocab_size: int,
        start_token: int = 0,
        end_token: int | None = None,
        *,
        oracle: Generator | None = None,
        references: Callable[[], np.ndarray] | None = None,
    ):
        """Builds everything that is trained.

        Args:
            config: the run's flags.
            vocab_size: V of the data.
            start_token: the id fed before the first token.
            end_token: the id that ends a sequence early, or None where all sequences have T tokens.
            oracle: the law of the real data, for the rewards that need it.
            references: returns the training set, int32 [n, T], for the reward that needs it.
        """
        self.config = config
        self.generator = Generator(
            vocab_size,
            config.seq_len,
            config.g_emb_dim,
            config.g_hidden_dim,
            seed=config.seed,
            start_token=start_token,
            end_token=end_token,
            dropout_keep_prob=config.g_dropout_keep_prob,
        )
        self.rollout_policy = RolloutPolicy(self.generator)
        updates = config.updates
        self.g_pretrain_optimizer = adam(
            rate(config.g_pretrain_lr, config.g_pretrain_schedule, updates.mle_pretraining), self.generator
        )
        self.g_optimizer = adam(rate(config.g_lr, config.g_schedule, updates.g), self.generator)
        # What the flags do not ask for is not made: the checkpoints of runs without it stay as they are.
        self.discriminator: Discriminator | None = None
        if config.trains_discriminator:
            self.discriminator = Discriminator(
                vocab_size,
                config.seq_len,
                config.d_emb_dim,
                config.d_filter_sizes,
                config.d_num_filters,
                dropout_keep_prob=config.dropout_keep_prob,
                l2=config.d_l2,
                seed=config.seed,
                padded=end_token is not None,
            )
            self.d_optimizer = adam(rate(config.d_lr, config.d_schedule, updates.d), self.discriminator)
        self.mle_optimizer = None
        if config.mle_steps:
            self.mle_optimizer = adam(rate(config.mle_lr, config.g_schedule, updates.mle), self.generator)
        self.averaged = RolloutPolicy(self.generator) if config.average else self.generator  # what is evaluated
        self.reward = Reward(config, self.generator, self.discriminator, oracle, references)

        self.mle_epoch = self._compiled(self._mle_epoch)
        self.mle_step = self._compiled(self._mle_step)
        self.g_step = self._compiled(self._g_step)
        self.d_step = self._compiled(self._d_step)
        self.follow_policy = self._compiled(self._follow_policy)
        self.end_pretraining = self._compiled(self._end_pretraining)
        self.keep_reference = self._compiled(self.reward.keep_reference)
        self.is_finite = tf.function(self._is_finite, autograph=False)  # XLA takes a second to compile it for nothing
        self.sample = self._compiled(lambda size, purpose, step: self._sample(size, purpose, step, self.averaged))
        self.nll = self._compiled(lambda tokens: -tf.reduce_sum(self.averaged.log_probs(tokens), axis=1))
        self.evaluate_against = self._compiled(self._evaluate_against)
        self.log_odds = self._compiled(self._log_odds)
        self.optimal_log_odds = self._compiled(self._optimal_log_odds)

    @classmethod
    def restored(cls, directory: str | Path, which: str | int = "newest") -> "SeqGAN":
        """The networks of a run as one of its checkpoints has them; the run may be under way.

        Args:
            directory: the run's --log_dir.
            which: the `newest` good checkpoint, a marked one (`best` by NLL of valid, just `pretrained`), or that after
                so many steps.

        Raises:
            UsageError: it holds no run, no good checkpoint, or a run of another version.
            OSError: it can't be read.
        """
        path = Path(directory) / CONFIG
        if not path.is_file():
            raise UsageError(f"{directory}: no run (there is no {CONFIG})")
        try:
            content = read_config(path)
            try:
                model = cls(from_flags(content["flags"]), **content["tokens"])
            except (UsageError, KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{path}: {error}") from None
            found = Checkpoints(path.parent / CHECKPOINTS, model.checkpoint(), keep=1).look(which)
        except UsageError as error:  # whose advice is to someone who trains
            raise UsageError(str(error).removesuffix("; --overwrite starts afresh")) from None
        if not found:
            raise UsageError(f"{directory}: {lost_weights(path.parent, content) or 'the run has no checkpoint yet'}")
        return model

    def _compiled(self, step):
        return tf.function(step, jit_compile=self.config.jit, autograph=False)

    def checkpoint(self) -> tf.train.Checkpoint:
        """All that training changes; everything else follows from the flags."""
        state = {
            "generator": self.generator,
            "rollout_policy": self.rollout_policy,
            "g_pretrain_optimizer": self.g_pretrain_optimizer,
            "g_optimizer": self.g_optimizer,
        }
        if self.discriminator is not None:
            state |= {"discriminator": self.discriminator, "d_optimizer": self.d_optimizer}
        if self.reward.reference is not None:
            state["reference_policy"] = self.reward.reference
        if self.config.average:
            state["averaged"] = self.averaged
        if self.mle_optimizer is not None:
            state["mle_optimizer"] = self.mle_optimizer
        return tf.train.Checkpoint(**state)

    def pretrained_state(self) -> tf.train.Checkpoint:
        """The part of `checkpoint` that the generator's pretraining has changed."""
        averaged = {"averaged": self.averaged} if self.config.average else {}
        return tf.train.Checkpoint(generator=self.generator, g_pretrain_optimizer=self.g_pretrain_optimizer, **averaged)

    # ---- generator, maximum likelihood

    def _mle_epoch(self, batches: tf.Tensor, epoch: tf.Tensor | int = 0) -> tf.Tensor:
        """One maximum-likelihood update a batch, in pretraining.

        Args:
            batches: int32 [n, B, T].
            epoch: decides the random numbers and the share of own tokens that --scheduled_sampling feeds; int32 scalar.

        Returns:
            the mean NLL before each update, nats a token: float32 scalar.
        """
        config, count = self.config, batches.shape[0]

        def update(i, total):
            fed = None
            if config.scheduled_sampling:
                fed = self._fed(batches[i], key(config.seed, Purpose.SCHEDULED_SAMPLING, epoch, i), epoch)
            return i + 1, total + self._mle_update(self.g_pretrain_optimizer, batches[i], epoch, i, fed)

        _, total = tf.while_loop(lambda i, _: i < count, update, (0, 0.0), maximum_iterations=count)
        return total / count

    def _fed(self, tokens: tf.Tensor, seed: tf.Tensor, epoch: tf.Tensor | int) -> tf.Tensor:
        """What the policy reads in place of `tokens`, int32 [B, T]: by a coin a token, its own ones or the real ones.

        `seed` is a key. The share of own tokens grows from 0 by --scheduled_sampling an epoch, until it is 1.
        """
        share = self.config.scheduled_sampling * tf.cast(epoch, tf.float32)
        coins, numbers = tf.unstack(uniforms([2, *tokens.shape[::-1]], seed))
        return self.generator.fed(tokens, coins < share, numbers)

    def _mle_step(self, tokens: tf.Tensor, epoch: tf.Tensor | int = 0, place: tf.Tensor | int = 0) -> tf.Tensor:
        """One maximum-likelihood update of an adversarial epoch, int32 [B, T] → NLL before it, nats a token.

        `epoch` counts the passes over the batches, those of pretraining included, and `place` the batches of a pass;
        int32 scalars.
        """
        return self._mle_update(self.mle_optimizer, tokens, epoch, place)

    def _mle_update(
        self,
        optimizer: keras.optimizers.Optimizer,
        tokens: tf.Tensor,
        epoch: tf.Tensor | int,
        place: tf.Tensor | int,
        fed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """One update on a batch, int32 [B, T], of which the policy has read `fed`: its NLL before, nats a token.

        (epoch, place) are the batch's, and decide what --g_dropout_keep_prob drops.
        The gradient is that of the mean NLL of a sequence, scaled by 1/T. Dividing by the batch's own number of tokens
        instead would give a sequence more weight among short ones.
        """
        batch_size, seq_len = tokens.shape
        dropout_seed = None
        if self.config.g_dropout_keep_prob < 1:
            dropout_seed = key(self.config.seed, Purpose.G_DROPOUT, epoch, place)
        with tf.GradientTape() as tape:
            nats = -tf.reduce_sum(self.generator.log_probs(tokens, fed, dropout_seed))
            loss = nats / (batch_size * seq_len)
        self._update_generator(optimizer, tape.gradient(loss, self.generator.trainable_variables))
        return nats / tf.reduce_sum(self.generator.mask(tokens))

    def _update_generator(self, optimizer: keras.optimizers.Optimizer, gradients: list) -> None:
        """Clips by global norm and applies; the average, if there is one, takes the new weights in."""
        clipped, _ = tf.clip_by_global_norm(gradients, self.config.grad_clip)
        optimizer.apply(clipped, self.generator.trainable_variables)
        if self.config.average:
            self.averaged.follow(self.generator, self._average_lag())

    def _average_lag(self) -> tf.Tensor:
        """The share of the old average in the new one, after the last of t updates: float32 scalar.

        For a decay of a the weights after update i count in proportion to a^(t-i), as in Keras' average. But Keras'
        gives the first ones, from which it begins, the weight of all that there could have been before them: a third of
        the whole after 1,000 updates at a decay of 0.999. Here they have no more than their own: the correction of
        Adam's averages.
        """
        optimizers = (self.g_pretrain_optimizer, self.g_optimizer, self.mle_optimizer)
        taken = tf.cast(sum(tf.convert_to_tensor(o.iterations) for o in optimizers if o), tf.float32)
        decay = tf.constant(self.config.average)
        return decay * (1 - decay ** (taken - 1)) / (1 - decay**taken)

    def _end_pretraining(self) -> None:
        """The policy takes on its average: so what begins the adversarial phase is what was evaluated."""
        for weight, average in zip(self.generator.weights, self.averaged.weights, strict=True):
            weight.assign(average)

    # ---- generator, policy gradient

    def policy_gradient(self, tokens: tf.Tensor, rewards: tf.Tensor) -> tuple[tf.Tensor, list]:
        """The REINFORCE estimate of the gradient of -J(θ) (SeqGAN, equations 6 to 8).

        Args:
            tokens: int32 [B, T], drawn from the policy.
            rewards: float32 [B, T], the action values of these same tokens; held constant. Those of padding, which no
                action chose and whose log-probability is 0, have no effect on the gradient.

        Returns:
            loss = -mean over b of Σ_t log G(y_t | y_<t) · advantage, and its gradient for each trainable variable.
        """
        advantages = tf.stop_gradient(self.advantages(rewards))
        with tf.GradientTape() as tape:
            log_probs = self.generator.log_probs(tokens)
            loss = -tf.reduce_mean(tf.reduce_sum(log_probs * advantages, axis=1))
        return loss, tape.gradient(loss, self.generator.trainable_variables)

    def advantages(self, rewards: tf.Tensor) -> tf.Tensor:
        """Rewards less the baseline, float32 [B, T].

        The `batch` baseline of a token is the mean, in its place, over the batch's other samples, a finished one
        counting with its score. The `prefix` baseline is the value of the prefix that the token follows, Q(t - 1), by
        other rollouts; before the first token, which follows none, it is the batch's. Neither depends on
        the token once its prefix is given, so the gradient's expectation stays as it is; a constant reward gives
        exactly zero.
        """
        if self.config.baseline == "none":
            return rewards
        batch_size = rewards.shape[0]
        shifted = rewards - rewards[:1]  # exactly 0 where all are equal, which a mean of equal numbers need not be
        centred = shifted - tf.reduce_mean(shifted, axis=0)
        against_batch = centred * (batch_size / (batch_size - 1))  # = rewards - mean of the others
        if self.config.baseline == "batch":
            return against_batch
        return tf.concat([against_batch[:, :1], rewards[:, 1:] - rewards[:, :-1]], axis=1)

    def _g_step(self, step: tf.Tensor) -> PolicyGradientStep:
        """Draws a batch, rolls it out, and ascends its policy gradient; `step` counts these updates, int32 scalar."""
        config = self.config
        seed = key(config.seed, Purpose.G_SAMPLE, step)
        tokens = self.generator.sample(uniforms([config.seq_len, config.batch_size], seed))
        rewards = self.rollout_policy.rewards(
            tokens,
            self.reward.scorer(tokens, step),
            config.rollouts_drawn,
            key(config.seed, Purpose.ROLLOUT, step),
        )
        loss, gradients = self.policy_gradient(tokens, rewards)
        self._update_generator(self.g_optimizer, gradients)
        mask = self.generator.mask(tokens)
        return PolicyGradientStep(loss, tf.reduce_sum(rewards * mask) / tf.reduce_sum(mask), rewards, tokens, mask)

    def _follow_policy(self, lag: float) -> None:
        """β ← lag·β + (1 - lag)·θ."""
        self.rollout_policy.follow(self.generator, lag)

    # ---- discriminator

    def _d_step(self, real: tf.Tensor, step: tf.Tensor) -> DiscriminatorStep:
        """Draws as many fakes as there are real sequences and passes `d_epochs` times over both.

        Each pass has its own order, and each minibatch is half real, half fake; what does not fill one is left out of
        that pass.

        Args:
            real: int32 [n, T].
            step: counts these steps, int32 scalar.
        """
        config, size, half = self.config, real.shape[0], self.config.d_batch_size // 2
        fake = self._sample(size, Purpose.D_FAKE, step, self.averaged)  # what D is measured on and used with
        labels = tf.constant([REAL] * half + [FAKE] * half)
        count = size // half  # minibatches a pass

        def one_pass(epoch, loss, accuracy):
            seed = key(config.seed, Purpose.D_SHUFFLE, step, epoch)
            reals = tf.gather(real, permutation(size, fold(seed, REAL)))
            fakes = tf.gather(fake, permutation(size, fold(seed, FAKE)))

            def update(i, loss, accuracy):
                tokens = tf.concat([tf.slice(part, [i * half, 0], [half, -1]) for part in (reals, fakes)], axis=0)
                tokens = tf.ensure_shape(tokens, [2 * half, config.seq_len])
                batch_loss, batch_accuracy = self._update_discriminator(
                    tokens, labels, key(config.seed, Purpose.DROPOUT, step, epoch, i)
                )
                return i + 1, loss + batch_loss, accuracy + batch_accuracy

            _, loss, accuracy = tf.while_loop(
                lambda i, *_: i < count, update, (0, loss, accuracy), maximum_iterations=count
            )
            return epoch + 1, loss, accuracy

        _, loss, accuracy = tf.while_loop(
            lambda e, *_: e < config.d_epochs, one_pass, (0, 0.0, 0.0), maximum_iterations=config.d_epochs
        )
        updates = config.d_epochs * count
        return DiscriminatorStep(loss / updates, accuracy / updates)

    def _update_discriminator(self, tokens: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> DiscriminatorStep:
        """One minibatch: int32 [n, T] with labels int32 [n]; `seed` is the dropout's key."""
        assert self.discriminator is not None
        with tf.GradientTape() as tape:
            loss, accuracy = self.discriminator.loss(tokens, labels, seed)
        variables = self.discriminator.trainable_variables
        # The embedding's gradient comes as one slice a token read; both of Adam's moments want their sum.
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        # This zero makes every update wait for the embedding's gradient, which backpropagation reaches last, when all
        # weights have been read. XLA then updates them in place; it copied them at each turn of a loop, on one core.
        zero = 0.0 * gradients[0][0, 0]
        self.d_optimizer.apply([gradient + zero for gradient in gradients], variables)
        return DiscriminatorStep(loss, accuracy)

    def _log_odds(self, tokens: tf.Tensor) -> tf.Tensor:
        """Log-odds of D, int32 [n, T] → float32 [n]."""
        assert self.discriminator is not None
        return in_chunks(self.discriminator.log_odds, tokens)

    def _is_finite(self) -> tf.Tensor:
        """Whether every weight that training changes is a finite number."""
        networks = [net for net in (self.generator, self.rollout_policy, self.discriminator) if net is not None]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for net in networks for v in net.weights])

    # ---- sampling and evaluation

    def _sample(self, size: int, purpose: Purpose, step: tf.Tensor, policy: Generator) -> tf.Tensor:
        """Draws `size` sequences from a policy: int32 [size, T]."""
        rows = min(size, SAMPLE_ROWS)
        chunks = -(-size // rows)
        seq_len = self.config.seq_len

        def draw(i, tokens):
            numbers = uniforms([seq_len, rows], key(self.config.seed, purpose, step, i))
            return i + 1, tf.tensor_scatter_nd_update(tokens, [[i]], policy.sample(numbers)[None])

        start = (0, tf.zeros([chunks, rows, seq_len], tf.int32))
        _, tokens = tf.while_loop(lambda i, _: i < chunks, draw, start, maximum_iterations=chunks)
        return tf.reshape(tokens, [chunks * rows, seq_len])[:size]

    def _evaluate_against(self, oracle: Generator, rows: int, epoch: tf.Tensor, chunk: tf.Tensor) -> OracleEvaluation:
        """Measures the generator where the truth is known.

        Args:
            oracle: the law of the real data.
            rows: n, sequences drawn from the generator, afresh each epoch, and from the oracle, always the same.
            epoch: int32 scalar.
            chunk: counts the parts of one evaluation, int32 scalar.
        """
        seq_len, seed = self.config.seq_len, self.config.seed
        shape = [seq_len, rows]
        fresh = uniforms(shape, key(seed, Purpose.EVALUATE, epoch, chunk))
        generated, g_entropy, nll_oracle = self.averaged.sample_and_compare(fresh, oracle)
        held_out = uniforms(shape, key(seed, Purpose.TEST_SET, chunk))
        _, entropy, nll_test = oracle.sample_and_compare(held_out, self.averaged)
        return OracleEvaluation(
            nll_oracle=nll_oracle / seq_len,
            g_entropy=g_entropy / seq_len,
            nll_test=nll_test / seq_len,
            kl_reverse=(nll_oracle - g_entropy) / seq_len,
            kl_forward=(nll_test - entropy) / seq_len,
            generated=generated,
        )

    def _optimal_log_odds(self, oracle: Generator, tokens: tf.Tensor) -> tf.Tensor:
        """Log-odds of D* = p / (p + G), the best of all discriminators: log p(Y) - log G(Y), int32 [n, T] → [n].

        `oracle` is the law p of the real data.
        """

        def log_ratio(part: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(oracle.log_probs(part) - self.averaged.log_probs(part), axis=1)

        return in_chunks(log_ratio, tokens)


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


def rate(start: float, schedule: str, updates: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that stays at `start`, or with the schedule `cosine` falls to 0 over so many updates."""
    if schedule == "constant":
        return start
    return keras.optimizers.schedules.CosineDecay(start, max(updates, 1))


def adam(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule, network: keras.layers.Layer
) -> keras.optimizers.Optimizer:
    """Adam with the epsilon of the authors' TensorFlow, its slots made at once so that a checkpoint can fill them."""
    optimizer = keras.optimizers.Adam(learning_rate, epsilon=1e-8)
    optimizer.build(network.trainable_variables)
    return optimizer
