"""SeqGAN's updates: how one step of each kind changes the networks. When they happen is main.py's affair."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from discriminator import FAKE, REAL, Discriminator, Loss, Options, discriminator_of
from generator import Generator, Policy, PolicyCopy, TokenSpec, average_lag, sample_many
from guidance.additive import AdditiveDiscriminator
from guidance.distilling import Distillation
from guidance.guided import Guidance
from reward import BatchScorer, Parts, Reward, reward_of
from rollout import RolloutPolicy, action_values, advantages_of
from support.config import Config
from support.errors import UsageError
from support.lookup import looped
from support.objective import Objective
from support.seeds import Purpose, fold, key, permutation, uniforms

Count: TypeAlias = tf.Tensor | int  # int32 scalar
GRADIENT_NORM = 5.0  # to which a generator gradient is clipped, as in the authors' code


def adam(rate: float, network: keras.layers.Layer, decay: int = 0) -> keras.Optimizer:
    """Adam with the epsilon of the authors' TensorFlow, its slots made at once so that a checkpoint can fill them.

    Its `rate` is constant, or falls to 0 by a cosine over `decay` updates.
    """
    falling = keras.optimizers.schedules.CosineDecay(rate, decay) if decay else rate
    optimizer = keras.optimizers.Adam(falling, epsilon=1e-8)
    optimizer.build(network.trainable_variables)
    return optimizer


class PolicyGradientStep(NamedTuple):
    """What one policy-gradient update saw."""

    loss: tf.Tensor  # float32 scalar
    reward: tf.Tensor  # the mean over chosen tokens, float32 scalar
    rewards: tf.Tensor  # action values Q, float32 [B, T]
    tokens: tf.Tensor  # int32 [B, T]
    mask: tf.Tensor  # float32 [B, T], 1 for a chosen token and 0 for padding


class SeqGAN:
    """The networks, their optimizers and the compiled steps, each a function of its arguments and the weights."""

    def __init__(
        self,
        config: Config,
        spec: TokenSpec,
        # Makes number 0, 1, ... of the run, of which all but --g_update fold need the first alone; None trains none.
        discriminators: Callable[[int], Discriminator] | None,
        reward: Callable[[Parts], BatchScorer],  # a function of `reward.py`
        *,
        oracle: Policy | None = None,  # the distribution of the real data, for the rewards that need it
        references: Callable[[], np.ndarray] | None = None,  # for them, too: returns the training set, int32 [n, T]
        validation: Callable[[], np.ndarray] | None = None,  # real ones, int32 [n, T], to choose η of guidance on
        batches: Callable[[int], tf.Tensor] | None = None,  # those of an epoch of MLE, int32 [n, B, T]
        objective: Objective | None = None,  # a user's score
        teacher: Policy | None = None,  # to distil, of other runs
    ):
        self.config = config
        self.objective: Any = objective
        sizes = spec.vocab_size, spec.seq_len, config.g_emb_dim, config.g_hidden_dim
        own: dict[str, Any] = {"start_token": spec.start_token, "end_token": spec.end_token}
        own["echoes"] = config.g_echo * (1 + config.g_echo_twice)
        self.generator = Generator(*sizes, seed=config.seed, dropout_keep_prob=config.g_dropout_keep_prob, **own)
        self.rollout_policy = RolloutPolicy(self.generator)
        updates = config.updates
        self.g_pretrain_optimizer = self._adam("g_pretrain", updates.mle_pretraining, self.generator)
        self.g_optimizer = self._adam("g", updates.g, self.generator)
        self.mle_optimizer = self._adam("g", updates.mle, self.generator) if config.mle_steps else None
        # What the flags do not ask for is not made: the checkpoints of runs without it stay as they are.
        self.discriminator: Any = discriminators(0) if discriminators else None
        self.d_optimizer: Any = None
        if self.discriminator is not None:
            self.d_optimizer = self._adam("d", updates.d, self.discriminator)
        self.average = PolicyCopy(self.generator) if config.average else None
        self.policy: Policy = self.average or self.generator  # what is drawn from and measured
        self.guidance: Any = None
        if discriminators and isinstance(self.discriminator, AdditiveDiscriminator):
            folds = [discriminators(k + 1) for k in range(config.total_epochs)] if config.g_update == "fold" else []
            given = folds, config.guide_eta or None, validation, config.jit
            self.guidance = Guidance(self.policy, self.discriminator, *given, copies=config.g_update == "distil")
            self.policy = self.guidance.policy
            self._d_optimizer_at_first = [variable.numpy() for variable in self.d_optimizer.variables]
        elif getattr(self.discriminator, "additive", False):
            raise UsageError(f"--discriminator {config.discriminator}: additive, but no AdditiveDiscriminator")
        # A policy gradient needs a D of the generator as it is now; the average lags behind it.
        self.opponent = self.generator if config.g_update in ("sampled", "expected") else self.policy
        known = oracle, references, config.rollouts_drawn, config.seed, config.jit
        parts = Parts(self.generator, self.discriminator, *known)
        share, weight, to_go = config.objective_share, config.kl_weight, config.baseline != "prefix"
        self.reward = Reward(reward, parts, objective_share=share, kl_weight=weight, to_go=to_go)
        keeps = config.objective or config.best_of_candidates  # for an objective's divergence, or to draw candidates
        self.pretrained = PolicyCopy(self.generator) if keeps else None
        self.teacher = teacher or (self.guidance.guided if self.guidance and self.guidance.copy else None)

        self.mle_epoch = self._compiled(self._mle_epoch)
        self.mle_step = self._compiled(functools.partial(self._mle_update, self.mle_optimizer))
        self._draw, self._ascend = map(self._compiled, (self._drawn, self._scored))
        self.g_step: Callable[[tf.Tensor], PolicyGradientStep] = self._compiled(self._sampled_step)
        if config.g_update == "fold":
            self.g_step = self._fold
        elif config.g_update == "distil":
            update = functools.partial(self._update_generator, self.g_optimizer)
            chosen_by = (None, None) if self.teacher else (self.discriminator, objective)
            base: Any = self.teacher or self.pretrained
            distil = Distillation(config, self.generator, base, *chosen_by, batches=batches, update=update)
            self.g_step = lambda step: PolicyGradientStep(*distil.step(step))
        elif objective and config.objective_share:
            self.g_step = self._scored_step
        self.d_step = self._compiled(self._d_step)
        # β ← lag·β + (1 - lag)·θ; and θ ← its average, so that what begins the adversarial phase is what was evaluated.
        self.follow_policy = self._compiled(functools.partial(self.rollout_policy.follow, self.generator))
        if self.average:
            self.adopt_average = self._compiled(functools.partial(self.generator.follow, self.average))
        self.is_finite = tf.function(self._is_finite, autograph=False)  # XLA takes a second to compile it for nothing

    def _adam(self, name: str, updates: int, network: keras.layers.Layer) -> keras.Optimizer:
        """The optimizer of so many updates whose rate is --NAME_lr, and decays where --cosine_decay says so."""
        decay = max(updates, 1) if name in self.config.cosine_decay else 0
        return adam(getattr(self.config, f"{name}_lr"), network, decay)

    def _compiled(self, step):
        return tf.function(step, jit_compile=self.config.jit, autograph=False)

    def checkpoint(self) -> tf.train.Checkpoint:
        """All that training changes; everything else follows from the flags."""
        names = "generator", "rollout_policy", "g_pretrain_optimizer", "g_optimizer", "mle_optimizer", "d_optimizer"
        state = {name: getattr(self, name) for name in (*names, "discriminator")}
        state |= {"reference_policy": self.reward.reference, "pretrained_policy": self.pretrained}
        state |= {"averaged": self.average} | (self.guidance.state() if self.guidance else {})
        return tf.train.Checkpoint(**{name: part for name, part in state.items() if part is not None})

    def pretrained_state(self) -> tf.train.Checkpoint:
        """The part of `checkpoint` that the generator's pretraining has changed."""
        averaged = {"averaged": self.average} if self.average else {}
        return tf.train.Checkpoint(generator=self.generator, g_pretrain_optimizer=self.g_pretrain_optimizer, **averaged)

    def _mle_epoch(self, batches: tf.Tensor, epoch: Count = 0) -> tf.Tensor:
        """A maximum-likelihood update a batch, in pretraining: int32 [n, B, T] → mean NLL before, nats per token."""
        config, count = self.config, batches.shape[0]

        def update(i, total):
            inputs = None
            if config.scheduled_sampling:
                seed = key(config.seed, Purpose.SCHEDULED_SAMPLING, epoch, i)
                inputs = self._scheduled_inputs(batches[i], seed, epoch)
            return (total + self._mle_update(self.g_pretrain_optimizer, batches[i], epoch, i, inputs),)

        return looped(update, 0.0, until=count)[0] / count

    def _scheduled_inputs(self, tokens: tf.Tensor, seed: tf.Tensor, epoch: Count) -> tf.Tensor:
        """What the policy reads in place of `tokens`, int32 [B, T]: by a coin per token, its own ones or the real ones.

        `seed` is a key. The share of own tokens grows from 0 by --scheduled_sampling an epoch, until it is 1.
        """
        share = self.config.scheduled_sampling * tf.cast(epoch, tf.float32)
        coins, numbers = tf.unstack(uniforms([2, *tokens.shape[::-1]], seed))
        return self.generator.scheduled_inputs(tokens, coins < share, numbers)

    def _mle_update(
        self, optimizer: keras.Optimizer, tokens: tf.Tensor, epoch: Count = 0, place: Count = 0, inputs: Any = None
    ) -> tf.Tensor:
        """One update on a batch, int32 [B, T], of which the policy has read `inputs`: its NLL before, nats per token.

        `epoch` counts the passes over the batches since pretraining began, and `place` the batches of a pass, for
        dropout. The loss is not per token of the batch, which would give a sequence more weight among short ones.
        """
        batch_size, seq_len = tokens.shape
        drops = self.config.g_dropout_keep_prob < 1
        dropout_seed = key(self.config.seed, Purpose.G_DROPOUT, epoch, place) if drops else None
        with tf.GradientTape() as tape:
            nats = -tf.reduce_sum(self.generator.log_probs(tokens, inputs, dropout_seed))
            loss = nats / (batch_size * seq_len)
        self._update_generator(optimizer, tape.gradient(loss, self.generator.trainable_variables))
        return nats / tf.reduce_sum(self.generator.mask(tokens))

    def _update_generator(self, optimizer: keras.Optimizer, gradients: list) -> None:
        """Clips by global norm and applies; the average, if there is one, takes the new weights in."""
        clipped, _ = tf.clip_by_global_norm(gradients, GRADIENT_NORM)
        optimizer.apply(clipped, self.generator.trainable_variables)
        if self.average:
            optimizers = (self.g_pretrain_optimizer, self.g_optimizer, self.mle_optimizer)
            taken = sum(tf.convert_to_tensor(o.iterations) for o in optimizers if o)
            self.average.follow(self.generator, average_lag(self.config.average, taken))

    def policy_gradient(self, tokens: tf.Tensor, rewards: tf.Tensor) -> tuple[tf.Tensor, list]:
        """The REINFORCE estimate of the gradient of -J(θ) (SeqGAN, equations 6 and 7).

        `tokens`: int32 [B, T], drawn from the policy. `rewards`: float32 [B, T], their action values, held constant;
        those of padding count in baselines alone. Returns the loss, where sampled -mean over b of Σ_t log G(y_t | y_<t)
        · advantage, and its gradient for each trainable variable.
        """
        advantages = tf.stop_gradient(advantages_of(rewards, self.config.baseline))
        with tf.GradientTape() as tape:
            if self.config.g_update == "expected":
                used, kl_weight = advantages if self.config.rollouts_drawn else None, self.config.kl_weight
                more: dict[str, Any] = {"reference": self.reward.reference, "kl_weight": kl_weight, "advantages": used}
                objective = self.discriminator.surrogate(self.generator, tokens, **more)
            else:
                objective = tf.reduce_sum(self.generator.log_probs(tokens) * advantages, axis=1)
            loss = -tf.reduce_mean(objective)
        return loss, tape.gradient(loss, self.generator.trainable_variables)

    def _sampled_step(self, step: tf.Tensor) -> PolicyGradientStep:
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

    def _scored_step(self, step: tf.Tensor) -> PolicyGradientStep:
        """`_sampled_step` in parts, as --objective is Python; raises UsageError: that fails; nothing has changed."""
        tokens, rollouts = self._draw(step)
        sequences = np.concatenate([rollouts.numpy(), np.broadcast_to(tokens, [1, *rollouts.shape[1:]])])
        scores = self.objective.score(sequences.reshape(-1, tokens.shape[1])).reshape(sequences.shape[:-1])
        return self._ascend(step, tokens, rollouts, tf.constant(scores))

    def _drawn(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The samples of a g-step, int32 [B, T], and all completions of their prefixes, int32 [K, N, B, T]."""
        tokens, *rollouts = self._batch(step)
        return tokens, self.rollout_policy.all_completions(tokens, *rollouts)

    def _scored(self, step: tf.Tensor, tokens: tf.Tensor, rollouts: tf.Tensor, scores: tf.Tensor) -> PolicyGradientStep:
        """The update by what was drawn and its scores by the objective, float32 [K + 1, N, B], the samples last."""
        last = rollouts.shape[0] - 1
        scorer = self.reward.scorer(tokens, step, scores)
        rewards = action_values(tokens, scorer, lambda prefix_len: rollouts[tf.minimum(prefix_len - 1, last)])
        return self._follow_gradient(tokens, rewards)

    def begin_adversarial(self) -> None:
        """β ← θ; and G₀ ← θ where a KL penalty, an objective's evaluation or the candidates of `distil` need it."""
        for copy in (self.rollout_policy, self.pretrained, self.reward.reference):
            if copy is not None:
                copy.follow(self.generator)

    def _fold(self, step: tf.Tensor) -> PolicyGradientStep:
        """The guided generator is that of the round after `step`, D begins anew; loss NLL_valid, rewards η s(y_t)."""
        loss, rewards, tokens = self.guidance.fold(int(step))
        for variable, value in zip(self.d_optimizer.variables, self._d_optimizer_at_first, strict=True):
            variable.assign(value)
        mask = self.generator.mask(tokens)
        return PolicyGradientStep(loss, tf.reduce_sum(rewards) / tf.reduce_sum(mask), rewards, tokens, mask)

    def _d_step(self, real: tf.Tensor, step: tf.Tensor) -> Loss:
        """Passes `d_epochs` times over real sequences, int32 [n, T], and with --d_loss sequence as many fakes.

        Each pass has its own order. A minibatch has --d_batch_size / 2 of each; what fills none is left out of a pass.
        `step`, int32 scalar, counts these steps. Returns means over the minibatches: the loss (nats, penalty included)
        and the accuracy, float32 scalars.
        """
        config, size, half = self.config, real.shape[0], self.config.d_batch_size // 2
        by_token, parts = config.by_token, {REAL: real}
        if not by_token:
            parts[FAKE] = sample_many(self.opponent, size, key(config.seed, Purpose.D_FAKE, step))
        labels = tf.constant([REAL] * half + [FAKE] * half)
        count, passes = size // half, config.d_epochs  # minibatches a pass

        def one_pass(epoch, *totals):
            seed = key(config.seed, Purpose.D_SHUFFLE, step, epoch)
            shuffled = [tf.gather(part, permutation(size, fold(seed, label))) for label, part in parts.items()]

            def update(i, *totals):
                tokens = tf.concat([tf.slice(p, [i * half, 0], [half, real.shape[1]]) for p in shuffled], axis=0)
                dropout, fakes = (key(config.seed, use, step, epoch, i) for use in (Purpose.DROPOUT, Purpose.D_FAKE))
                found = self.update_discriminator(tokens, labels, dropout, fakes if by_token else None)
                return tuple(total + each for total, each in zip(totals, found, strict=True))

            return looped(update, *totals, until=count)

        totals = looped(one_pass, 0.0, 0.0, until=passes)
        return totals[0] / (passes * count), totals[1] / (passes * count)

    def update_discriminator(
        self, tokens: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, fake_seed: tf.Tensor | None = None
    ) -> Loss:
        """One update on a minibatch: int32 [n, T] with labels int32 [n]; `seed` is the dropout's key.

        With `fake_seed`, the key of what is drawn in place of tokens, all are real, and `labels` are not read.
        """
        with tf.GradientTape() as tape:
            if fake_seed is None:
                loss, accuracy = self.discriminator.loss(tokens, labels, seed)
            else:
                of_tokens = getattr(self.discriminator, f"{self.config.d_loss}_loss")
                loss, accuracy = of_tokens(self.opponent, tokens, fake_seed, seed)
        variables = self.discriminator.trainable_variables
        # A Keras Embedding of a user's own has gradients in slices; both of Adam's moments want their sum.
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        # This zero makes every update wait for all gradients, when all weights have been read. So XLA updates these in
        # place, instead of copying them at each turn of a loop.
        zero = 0.0 * sum(tf.reshape(gradient, [-1])[0] for gradient in gradients)
        self.d_optimizer.apply([gradient + zero for gradient in gradients], variables)
        return loss, accuracy

    def _is_finite(self) -> tf.Tensor:
        """Whether every weight that training changes is a finite number."""
        networks = [net for net in (self.generator, self.rollout_policy, self.discriminator) if net is not None]
        networks += [fold.discriminator for fold in self.guidance.folds] if self.guidance else []
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for net in networks for v in net.weights])


def build(config: Config, spec: TokenSpec, sources: dict[str, dict[str, str]] | None = None, **data: Any) -> SeqGAN:
    """The SeqGAN of the flags, with the discriminator and the reward that they name.

    `sources` are the texts of a user's own code that a run has on record, {flag: source}; `data` are the keyword
    arguments of `SeqGAN`. Raises UsageError: a user's own code can't be used.
    """
    recorded = sources or {}
    named = config.discriminator, recorded.get("discriminator")
    kind: Any = discriminator_of(*named) if config.trains_discriminator else None

    def discriminators(copy: int) -> Discriminator:
        sizes = config.d_emb_dim, config.d_hidden_dim, config.d_filter_sizes, config.d_num_filters
        more: Any = (config.seed, copy, config.d_lags, config.by_token, config.d_init)
        return kind(spec, Options(*sizes, config.dropout_keep_prob, config.d_l2, *more))

    reward = reward_of("constant" if config.teacher else config.reward, recorded.get("reward"))  # a teacher needs none
    return SeqGAN(config, spec, discriminators if kind else None, reward, **data)
