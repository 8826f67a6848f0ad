"""SeqGAN's updates: how one step of each kind changes the networks. When they happen is main.py's affair."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from additive import AdditiveDiscriminator, BigramDiscriminator, LSTMDiscriminator
from discriminator import FAKE, REAL, Discriminator, PooledDiscriminator
from evaluation import Evaluated, in_chunks, sample_many
from expected import surrogate
from generator import Generator, Policy, PolicyCopy
from guided import GuidedGenerator, best_guidance
from resampling import resample
from reward import Reward
from rollout import RolloutPolicy, action_values
from runs.checkpoints import Checkpoints
from runs.directories import CHECKPOINTS, lost_weights
from support.config import ADDITIVE, Config, UsageError
from support.config_file import CONFIG, from_flags, read_config
from support.objective import Objective
from support.seeds import Purpose, fold, key, permutation, uniforms


class PolicyGradientStep(NamedTuple):
    """What one policy-gradient update saw."""

    loss: tf.Tensor  # float32 scalar
    reward: tf.Tensor  # the mean over chosen tokens, float32 scalar
    rewards: tf.Tensor  # float32 [B, T]
    tokens: tf.Tensor  # int32 [B, T]
    mask: tf.Tensor  # float32 [B, T], 1 for a chosen token and 0 for padding


class DiscriminatorStep(NamedTuple):
    """Means over the minibatches of one d-step: `loss` (nats, penalty included) and `accuracy`; float32 scalars."""

    loss: tf.Tensor
    accuracy: tf.Tensor


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
        validation: Callable[[], np.ndarray] | None = None,
        objective: Objective | None = None,
    ):
        """Builds everything that is trained.

        `vocab_size` (V), `start_token` and `end_token` are those of `generator.Policy`. `oracle` is the distribution of
        the real data, and `references` returns the training set, int32 [n, T]: both for the rewards that need them.
        `validation` returns real sequences, int32 [n, T], on which η is chosen where a discriminator guides.
        """
        self.config = config
        sizes = vocab_size, config.seq_len, config.g_emb_dim, config.g_hidden_dim
        tokens: dict[str, Any] = {"start_token": start_token, "end_token": end_token}
        self.generator = Generator(*sizes, seed=config.seed, **tokens, dropout_keep_prob=config.g_dropout_keep_prob)
        self.rollout_policy = RolloutPolicy(self.generator)
        updates = config.updates
        self.g_pretrain_optimizer = adam(
            rate(config.g_pretrain_lr, config.g_pretrain_schedule, updates.mle_pretraining), self.generator
        )
        self.g_optimizer = adam(rate(config.g_lr, config.g_schedule, updates.g), self.generator)
        self.recorded: Mapping[str, Sequence[float]] = {}  # the newest evaluation that a run's checkpoint has
        self.taken = 0  # steps that a run's checkpoint has behind it
        # What the flags do not ask for is not made: the checkpoints of runs without it stay as they are.
        self.discriminator: Discriminator | AdditiveDiscriminator | None = None
        self.d_optimizer: Any = None
        self.mle_optimizer = None
        if config.trains_discriminator:
            self.discriminator = discriminator(config, vocab_size, start_token, end_token)
            self.d_optimizer = adam(rate(config.d_lr, config.d_schedule, updates.d), self.discriminator)
        if config.mle_steps:
            self.mle_optimizer = adam(rate(config.mle_lr, config.g_schedule, updates.mle), self.generator)
        self.average = RolloutPolicy(self.generator) if config.average else None
        self.averaged: Policy = self.average or self.generator  # what is evaluated
        self.eta = tf.Variable(config.guide_eta or 1.0, trainable=False)
        self.folds: tuple[GuidedGenerator, ...] = ()
        self.guided: Evaluated | None = None
        self.validation = validation
        if isinstance(self.discriminator, AdditiveDiscriminator):
            self._add_guides(config, vocab_size, start_token, end_token)
        self.reward = Reward(config, self.generator, self.discriminator, oracle, references)
        self.objective = objective
        self.pretrained = PolicyCopy(self.generator, "pretrained_policy") if config.objective else None

        self.mle_epoch = self._compiled(self._mle_epoch)
        self.mle_step = self._compiled(self._mle_step)
        self.g_step = self._fold if config.g_update == "fold" else self._compiled(self._g_step)
        if config.objective_share:
            self.g_step = self._scored_g_step
            self._draw, self._ascend = map(self._compiled, (self._drawn, self._rewarded))
        self.d_step = self._compiled(self._d_step)
        self.follow_policy = self._compiled(self._follow_policy)
        self.end_pretraining = self._compiled(self._end_pretraining)
        self.keep_reference = self._compiled(self.reward.keep_reference)
        self.keep_pretrained = self._compiled(self._keep_pretrained)
        self.is_finite = tf.function(self._is_finite, autograph=False)  # XLA takes a second to compile it for nothing
        self.plain = Evaluated(config, self.averaged)
        self.sample, self.nll, self.evaluate_against = self.plain.sample, self.plain.nll, self.plain.evaluate_against
        self.resample = self._compiled(self._resample)
        self.towards = self.plain.towards
        self.log_odds = self._compiled(self._log_odds)
        self.optimal_log_odds = self._compiled(self._optimal_log_odds)

    @classmethod
    def restored(cls, directory: str | Path, which: str | int = "newest") -> "SeqGAN":
        """The networks of a run as one of its checkpoints has them; the run may be under way.

        `which` is the `newest` good checkpoint, a marked one (`best`, of least NLL on the validation set, or just
        `pretrained`), or that after so many steps. Raises UsageError: the directory, a --log_dir, holds no run, no good
        checkpoint, or a run of another version. Raises OSError: it can't be read.
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
        model.taken, model.recorded = found[0], found[1].get("evaluation", {})
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
            "discriminator": self.discriminator,
            "d_optimizer": self.d_optimizer,
            "reference_policy": self.reward.reference,
            "pretrained_policy": self.pretrained,
            "averaged": self.average,
            "guide_eta": self.eta if self.guided else None,
            "mle_optimizer": self.mle_optimizer,
        }
        for k, guide in enumerate(self.folds):
            state |= {f"fold{k}": guide.discriminator, f"fold{k}_eta": guide.eta}
        return tf.train.Checkpoint(**{name: part for name, part in state.items() if part is not None})

    def pretrained_state(self) -> tf.train.Checkpoint:
        """The part of `checkpoint` that the generator's pretraining has changed."""
        averaged = {"averaged": self.average} if self.average else {}
        return tf.train.Checkpoint(generator=self.generator, g_pretrain_optimizer=self.g_pretrain_optimizer, **averaged)

    # ---- generator, maximum likelihood

    def _mle_epoch(self, batches: tf.Tensor, epoch: tf.Tensor | int = 0) -> tf.Tensor:
        """One maximum-likelihood update a batch, in pretraining.

        int32 [n, B, T] → the mean NLL before each update, nats per token, float32 scalar. `epoch`, int32 scalar, is for
        the random numbers and the share of own tokens that --scheduled_sampling feeds.
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
        """What the policy reads in place of `tokens`, int32 [B, T]: by a coin per token, its own ones or the real ones.

        `seed` is a key. The share of own tokens grows from 0 by --scheduled_sampling an epoch, until it is 1.
        """
        share = self.config.scheduled_sampling * tf.cast(epoch, tf.float32)
        coins, numbers = tf.unstack(uniforms([2, *tokens.shape[::-1]], seed))
        return self.generator.fed(tokens, coins < share, numbers)

    def _mle_step(self, tokens: tf.Tensor, epoch: tf.Tensor | int = 0, place: tf.Tensor | int = 0) -> tf.Tensor:
        """One maximum-likelihood update of an adversarial epoch, int32 [B, T] → NLL before it, nats per token.

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
        """One update on a batch, int32 [B, T], of which the policy has read `fed`: its NLL before, nats per token.

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
        if self.average:
            self.average.follow(self.generator, self._average_lag())

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
        assert self.average is not None
        for weight, average in zip(self.generator.weights, self.average.weights, strict=True):
            weight.assign(average)

    # ---- generator, policy gradient

    def policy_gradient(self, tokens: tf.Tensor, rewards: tf.Tensor) -> tuple[tf.Tensor, list]:
        """The REINFORCE estimate of the gradient of -J(θ) (SeqGAN, equations 6 to 8).

        `tokens`: int32 [B, T], drawn from the policy. `rewards`: float32 [B, T], the action values of these same
        tokens; held constant. Those of padding, which no action chose and whose log-probability is 0, have no effect on
        the gradient. Returns loss = -mean over b of Σ_t log G(y_t | y_<t) · advantage, and its gradient for each
        trainable variable.
        """
        advantages = tf.stop_gradient(self.advantages(rewards))
        with tf.GradientTape() as tape:
            if self.config.g_update == "expected":
                objective = self._expected(tokens, advantages)
            else:
                objective = tf.reduce_sum(self.generator.log_probs(tokens) * advantages, axis=1)
            loss = -tf.reduce_mean(objective)
        return loss, tape.gradient(loss, self.generator.trainable_variables)

    def _expected(self, tokens: tf.Tensor, advantages: tf.Tensor) -> tf.Tensor:
        """The objective whose gradient is summed over all next tokens; `advantages` count where there are rollouts."""
        assert isinstance(self.discriminator, AdditiveDiscriminator)
        used, weight = advantages if self.config.rollouts_drawn else None, self.config.kl_weight
        reference = self.reward.reference
        return surrogate(
            self.generator, self.discriminator, tokens, reference=reference, kl_weight=weight, advantages=used
        )

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
        tokens, *rollouts = self._batch(step)
        rewards = self.rollout_policy.rewards(tokens, self.reward.scorer(tokens, step), *rollouts)
        return self._follow_gradient(tokens, rewards)

    def _batch(self, step: tf.Tensor) -> tuple[tf.Tensor, int, tf.Tensor]:
        """The samples of a g-step, int32 [B, T], how many completions their prefixes have, and the key of these."""
        config = self.config
        seed = key(config.seed, Purpose.G_SAMPLE, step)
        tokens = self.generator.sample(uniforms([config.seq_len, config.batch_size], seed))
        return tokens, config.rollouts_drawn, key(config.seed, Purpose.ROLLOUT, step)

    def _follow_gradient(self, tokens: tf.Tensor, rewards: tf.Tensor) -> PolicyGradientStep:
        """The update by samples, int32 [B, T], and their action values, float32 [B, T]."""
        loss, gradients = self.policy_gradient(tokens, rewards)
        self._update_generator(self.g_optimizer, gradients)
        mask = self.generator.mask(tokens)
        return PolicyGradientStep(loss, tf.reduce_sum(rewards * mask) / tf.reduce_sum(mask), rewards, tokens, mask)

    def _scored_g_step(self, step: tf.Tensor) -> PolicyGradientStep:
        """`_g_step` in three parts, as --objective is Python: draw and complete, score, ascend the gradient.

        Raises UsageError: the objective fails; nothing has changed.
        """
        assert self.objective is not None
        tokens, rollouts = self._draw(step)
        sequences = np.concatenate([rollouts.numpy(), np.broadcast_to(tokens, [1, *rollouts.shape[1:]])])
        scores = self.objective.score(sequences.reshape(-1, tokens.shape[1])).reshape(sequences.shape[:-1])
        return self._ascend(step, tokens, rollouts, tf.constant(scores))

    def _drawn(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The samples of a g-step, int32 [B, T], and all completions of their prefixes, int32 [K, N, B, T]."""
        tokens, *rollouts = self._batch(step)
        return tokens, self.rollout_policy.all_completions(tokens, *rollouts)

    def _rewarded(
        self, step: tf.Tensor, tokens: tf.Tensor, rollouts: tf.Tensor, scores: tf.Tensor
    ) -> PolicyGradientStep:
        """The update by what was drawn and its scores by the objective, float32 [K + 1, N, B], the samples last."""
        last = rollouts.shape[0] - 1
        scorer = self.reward.scorer(tokens, step, scores)
        rewards = action_values(tokens, scorer, lambda prefix_len: rollouts[tf.minimum(prefix_len - 1, last)])
        return self._follow_gradient(tokens, rewards)

    def _keep_pretrained(self) -> None:
        """The policy, at the beginning of the adversarial phase, is the one that `kl_to_pretrained` compares with."""
        assert self.pretrained is not None
        self.pretrained.follow(self.generator)

    def _follow_policy(self, lag: float) -> None:
        """β ← lag·β + (1 - lag)·θ."""
        self.rollout_policy.follow(self.generator, lag)

    # ---- guidance

    def _add_guides(self, config: Config, vocab_size: int, start_token: int, end_token: int | None) -> None:
        """Makes the guided generator, and with --g_update fold a place for the discriminator of each round."""
        assert isinstance(self.discriminator, AdditiveDiscriminator)
        if config.g_update == "fold":
            for k in range(config.total_epochs):
                another = discriminator(config, vocab_size, start_token, end_token, copy=k + 1)
                assert isinstance(another, AdditiveDiscriminator)
                self.folds += (GuidedGenerator(self.averaged, another, tf.Variable(0.0, trainable=False)),)
                self.averaged = self.folds[-1]
            self._d_optimizer_at_first = [v.numpy() for v in self.d_optimizer.variables]
        guided = GuidedGenerator(self.averaged, self.discriminator, self.eta)
        self.guided = Evaluated(config, guided)

        def mean_nll(tokens: tf.Tensor) -> tf.Tensor:  # nats per token
            nats = in_chunks(lambda part: -tf.reduce_sum(guided.log_probs(part), axis=1), tokens)
            return tf.reduce_sum(nats) / tf.reduce_sum(guided.mask(tokens))

        self._guided_nll = self._compiled(mean_nll)

    def choice(self, guide: bool) -> Evaluated:
        """What is drawn from and measured: the generator or, with `guide`, the guided one.

        Raises UsageError: there is no guided one, or its discriminator is not trained yet.
        """
        if guide and not self.guided:
            raise UsageError(f"--guide: the run's discriminator is not one of {' and '.join(ADDITIVE)}")
        if guide and self.taken <= self.config.pretrain_g_epochs:
            raise UsageError("--guide: at this checkpoint the discriminator is not trained yet")
        return self.guided if guide and self.guided else self.plain

    def choose_eta(self) -> float:
        """η ← --guide_eta or, where that is 0, the one of least NLL on the validation set, and returns it.

        Raises UsageError: the validation set is empty.
        """
        if not self.config.guide_eta:
            tokens = self.validation() if self.validation else np.empty([0, 0])
            if not len(tokens):
                raise UsageError("--guide_eta 0: there is no validation set to choose it on; give another, such as 1")
            sequences = tf.constant(tokens)

            def nll(eta: float) -> float:
                self.eta.assign(eta)
                return float(self._guided_nll(sequences))

            self.eta.assign(best_guidance(nll))
        return float(self.eta.numpy())

    def _fold(self, step: tf.Tensor) -> PolicyGradientStep:
        """The guided generator becomes the generator of the next round; the discriminator begins anew.

        It takes the weights, fresh ones, that were in the place where it is kept. `step` counts the rounds. What is
        returned is of the validation set: the NLL of the new generator, and η s(y_t), what the guide scores each token.
        """
        assert isinstance(self.discriminator, AdditiveDiscriminator) and self.validation
        guide, eta, tokens = self.folds[int(step)], self.choose_eta(), tf.constant(self.validation())
        rewards, mask = eta * self.discriminator.token_scores(tokens), self.generator.mask(tokens)
        loss = self._guided_nll(tokens)
        for kept, present in zip(guide.discriminator.weights, self.discriminator.weights, strict=True):
            fresh = kept.numpy()
            kept.assign(present)
            present.assign(fresh)
        guide.eta.assign(eta)
        for variable, value in zip(self.d_optimizer.variables, self._d_optimizer_at_first, strict=True):
            variable.assign(value)
        return PolicyGradientStep(loss, tf.reduce_sum(rewards) / tf.reduce_sum(mask), rewards, tokens, mask)

    # ---- discriminator

    def _d_step(self, real: tf.Tensor, step: tf.Tensor) -> DiscriminatorStep:
        """Draws as many fakes as there are real sequences and passes `d_epochs` times over both.

        Each pass has its own order, and each minibatch is half real, half fake; what does not fill one is left out of
        that pass. int32 [n, T]; `step`, int32 scalar, counts these steps.
        """
        config, size, half = self.config, real.shape[0], self.config.d_batch_size // 2
        seed = key(config.seed, Purpose.D_FAKE, step)
        fake = sample_many(self.averaged, size, seed)  # what D is measured on and used with
        labels = tf.constant([REAL] * half + [FAKE] * half)
        count = size // half  # minibatches a pass

        def one_pass(epoch, loss, accuracy):
            seed = key(config.seed, Purpose.D_SHUFFLE, step, epoch)
            reals = tf.gather(real, permutation(size, fold(seed, REAL)))
            fakes = tf.gather(fake, permutation(size, fold(seed, FAKE)))

            def update(i, loss, accuracy):
                tokens = tf.concat([tf.slice(part, [i * half, 0], [half, -1]) for part in (reals, fakes)], axis=0)
                tokens = tf.ensure_shape(tokens, [2 * half, config.seq_len])
                dropout_seed = key(config.seed, Purpose.DROPOUT, step, epoch, i)
                batch_loss, batch_accuracy = self._update_discriminator(tokens, labels, dropout_seed)
                return i + 1, loss + batch_loss, accuracy + batch_accuracy

            start = (0, loss, accuracy)
            _, loss, accuracy = tf.while_loop(lambda i, *_: i < count, update, start, maximum_iterations=count)
            return epoch + 1, loss, accuracy

        start, passes = (0, 0.0, 0.0), config.d_epochs
        _, loss, accuracy = tf.while_loop(lambda e, *_: e < passes, one_pass, start, maximum_iterations=passes)
        updates = passes * count
        return DiscriminatorStep(loss / updates, accuracy / updates)

    def _update_discriminator(self, tokens: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> DiscriminatorStep:
        """One minibatch: int32 [n, T] with labels int32 [n]; `seed` is the dropout's key."""
        assert self.discriminator is not None
        with tf.GradientTape() as tape:
            loss, accuracy = self.discriminator.loss(tokens, labels, seed)
        variables = self.discriminator.trainable_variables
        # The embedding's gradient comes as one slice per token read; both of Adam's moments want their sum.
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
        networks += [guide.discriminator for guide in self.folds]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for net in networks for v in net.weights])

    # ---- sampling and evaluation

    def _resample(self, size: int, count: tf.Tensor, eta: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Draws `size` samples, each kept of `count` candidates by the discriminator's log-odds: int32 [size, T].

        `count`, `eta` (η) and `step`, which picks the random numbers, are scalars.
        """
        assert self.discriminator is not None
        log_odds = self.discriminator.log_odds
        seed = key(self.config.seed, Purpose.RESAMPLE, step)
        return resample(self.averaged, lambda tokens: eta * log_odds(tokens), size, count, seed)

    def _optimal_log_odds(self, oracle: Generator, tokens: tf.Tensor) -> tf.Tensor:
        """Log-odds of D* = p / (p + G), the best of all discriminators: log p(Y) - log G(Y), int32 [n, T] → [n].

        `oracle` is the distribution p of the real data.
        """
        g = self.averaged
        return in_chunks(lambda part: tf.reduce_sum(oracle.log_probs(part) - g.log_probs(part), axis=1), tokens)


def discriminator(
    config: Config, vocab_size: int, start_token: int, end_token: int | None, copy: int = 0
) -> Discriminator | AdditiveDiscriminator:
    """The discriminator that the flags ask for; `copy` tells the weights of several of one run apart."""
    sizes = vocab_size, config.seq_len, config.d_emb_dim
    others: dict[str, Any] = {"dropout_keep_prob": config.dropout_keep_prob, "l2": config.d_l2, "seed": config.seed}
    if config.discriminator not in ADDITIVE:
        filters = config.d_filter_sizes, config.d_num_filters
        others["padded"] = end_token is not None
        if config.discriminator == "pooled":
            return PooledDiscriminator(*sizes, *filters, units=config.d_hidden_dim, **others)
        return Discriminator(*sizes, *filters, **others)
    others |= {"start_token": start_token, "end_token": end_token, "copy": copy}
    if config.discriminator == "bigram":
        return BigramDiscriminator(*sizes, **others)
    return LSTMDiscriminator(*sizes, config.d_hidden_dim, **others)


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
