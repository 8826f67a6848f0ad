"""The guided policy: what an additive discriminator knows, put into the policy token by token."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar

from discriminator import Discriminator
from generator import SAMPLE_ROWS, Generator, Policy, PolicyCopy, State, in_chunks, joined
from guidance.additive import AdditiveDiscriminator

ETAS = 4.0, 16.0, 64.0  # upper bounds of η; the scores of a discriminator that is right have the best η at 1


class GuidedPolicy(Policy):
    """G'(y_t | y_<t) ∝ G(y_t | y_<t) · exp(η s(y_t | y_<t)).

    With the optimal discriminator, s = log p(y_t | y_<t) - log G(y_t | y_<t), and η = 1 it is p. Both factors are
    softmax of what is linear in a state. So their product is, too: its `hidden` is [hidden of G, η · context of D], and
    then the sum of what both add to the logits.
    """

    def __init__(self, policy: Policy, discriminator: AdditiveDiscriminator, eta: tf.Variable):
        """Guides G, maybe a guided one, by s, of the same V, and η >= 0, float32; follows all when they change."""
        self.policy, self.discriminator, self.eta = policy, discriminator, eta
        self.weights = [*policy.weights, *discriminator.weights, eta]
        self.vocab_size, self.seq_len = policy.vocab_size, policy.seq_len
        self.start_token, self.end_token = policy.start_token, policy.end_token
        self.sizes = policy.hidden_dim - policy.added_dim, discriminator.rank
        self.added_dim = max(policy.added_dim, discriminator.added_dim)
        self.hidden_dim = sum(self.sizes) + self.added_dim

    def _joined(self, state: State, context: State) -> State:
        hidden = joined(state.hidden, self.eta * context.hidden, self.sizes)
        return State(hidden, tf.concat([state.cell, context.cell], axis=-1))

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """As in `Policy`."""
        own = state.cell.shape[-1] - self.discriminator.memory_dim
        read = State(state.hidden[:, : self.sizes[0]], state.cell[:, :own])
        context = self.discriminator.next_state(tokens, state.cell[:, own:])
        return self._joined(self.policy.next_state(tokens, read), context)

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `Policy`; there is no dropout in what the discriminator says."""
        return self._joined(self.policy.states(tokens, dropout_seed), self.discriminator.contexts(tokens))

    def projection(self) -> tf.Tensor:
        """As in `Policy`, [H + C + 1, V]: a context has C numbers, the offset included."""
        own, scores = self.policy.projection(), self.discriminator.projection()
        return tf.concat([own[:-1], scores[:-1], own[-1:] + self.eta * scores[-1:]], axis=0)


def best_guidance(nll: Callable[[float], float]) -> float:
    """The η of 0 to 64 with the least NLL on real sequences, by Brent's method, to 0.01; 0 where none is better.

    The upper bound is 4, then 16, then 64, while the best η is there; the last one is said. `nll` gives the guided
    policy's NLL at an η. It is convex: -η·s is linear in η, log Σ G·exp(η·s) is convex.
    """
    for bound in ETAS:
        found = minimize_scalar(nll, bounds=(0.0, bound), method="bounded", options={"xatol": 0.01})
        if found.x < 0.99 * bound:
            break
    else:
        print(f"warning: η is {found.x:.1f}: the NLL still falls at the largest that is tried", file=sys.stderr)
    return float(found.x) if found.fun < nll(0.0) else 0.0


class Guidance:
    """The guided policy of a run, its weight η, and the discriminators that earlier rounds have folded into G."""

    def __init__(
        self,
        policy: Policy,
        discriminator: AdditiveDiscriminator,
        folds: Sequence[Discriminator],  # one for each round of --g_update fold
        eta: float | None,  # η, None where it is chosen
        validation: Callable[[], np.ndarray] | None,  # returns what it is chosen on, real sequences, int32 [n, T]
        jit: bool,  # compiles with XLA
        copies: bool = False,  # guides a copy, the teacher of --g_update distil, which follows when η is chosen
    ):
        self.discriminator, self.given = discriminator, eta
        self._validation: Any = validation  # None where nothing is trained
        self.eta = tf.Variable(eta or 1.0, trainable=False)
        self.folds: tuple[GuidedPolicy, ...] = ()
        for fold in folds:
            assert isinstance(fold, AdditiveDiscriminator)
            self.folds += (GuidedPolicy(policy, fold, tf.Variable(0.0, trainable=False)),)
            policy = self.folds[-1]
        self.policy = policy
        self.copy = PolicyCopy(policy) if copies and isinstance(policy, Generator) else None
        self.guided = guided = GuidedPolicy(self.copy or policy, discriminator, self.eta)

        def mean_nll(tokens: tf.Tensor) -> tf.Tensor:  # nats per token
            nats = in_chunks(lambda part: -tf.reduce_sum(guided.log_probs(part), axis=1), tokens)
            return tf.reduce_sum(nats) / tf.reduce_sum(guided.mask(tokens))

        self._nll = tf.function(mean_nll, jit_compile=jit, autograph=False)

    def state(self) -> dict[str, Any]:
        """What training changes, by its names in a checkpoint."""
        state: dict[str, Any] = {"guide_eta": self.eta} | ({"teacher": self.copy} if self.copy else {})
        for k, guide in enumerate(self.folds):
            state |= {f"fold{k}": guide.discriminator, f"fold{k}_eta": guide.eta}
        return state

    def choose_eta(self) -> float:
        """A copy ← the policy; η ← the one that was given or else that of least NLL on the validation set."""
        if self.copy and isinstance(self.policy, Generator):
            self.copy.follow(self.policy)
        if self.given is None:
            sequences = tf.constant(self._validation())

            def nll(eta: float) -> float:
                self.eta.assign(eta)
                return float(self._nll(sequences))

            self.eta.assign(best_guidance(nll))
        return float(self.eta.numpy())

    def fold(self, round_: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Folds the discriminator into the policy, and gives it the fresh weights of the one that it replaces.

        Returns the new policy's NLL of the validation set, nats per token, float32 scalar; η s(y_t) of each of its
        tokens, float32 [n, T], and the tokens, int32 [n, T].
        """
        guide, eta, tokens = self.folds[round_], self.choose_eta(), tf.constant(self._validation())
        parts = [tokens[i : i + SAMPLE_ROWS] for i in range(0, len(tokens), SAMPLE_ROWS)]  # as echoes take much memory
        rewards = eta * tf.concat([self.discriminator.token_scores(part) for part in parts], axis=0)
        loss = self._nll(tokens)
        for kept, present in zip(guide.discriminator.weights, self.discriminator.weights, strict=True):
            fresh = kept.numpy()
            kept.assign(present)
            present.assign(fresh)
        guide.eta.assign(eta)
        return loss, rewards, tokens
