"""The guided generator: what an additive discriminator knows, put into the policy token by token."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf
from scipy.optimize import minimize_scalar

from additive import AdditiveDiscriminator
from generator import Policy, State

LARGEST_ETA = 4.0  # the scores of a discriminator that is right have the best η at 1


class GuidedGenerator(Policy):
    """G'(y_t | y_<t) ∝ G(y_t | y_<t) · exp(η s(y_t | y_<t)).

    With the optimal discriminator, s = log p(y_t | y_<t) - log G(y_t | y_<t), and η = 1 it is p. Both factors are
    softmax of what is linear in a state. So their product is, too: its `hidden` is [hidden of G, η · context of D].
    """

    def __init__(self, policy: Policy, discriminator: AdditiveDiscriminator, eta: tf.Variable):
        """Guides `policy` by `discriminator`; all three stay what they are, and are followed when they change.

        `policy`: G, which may be a guided one. `discriminator`: gives s; of the same vocabulary. `eta`: η >= 0, float32
        scalar.
        """
        self.policy, self.discriminator, self.eta = policy, discriminator, eta
        self.vocab_size, self.seq_len = policy.vocab_size, policy.seq_len
        self.start_token, self.end_token = policy.start_token, policy.end_token
        self.hidden_dim = policy.hidden_dim + discriminator.rank

    @property
    def weights(self) -> list[tf.Variable]:  # type: ignore[override]
        """Those of the policy and of the discriminator, and η."""
        return [*self.policy.weights, *self.discriminator.weights, self.eta]

    def _joined(self, state: State, context: State) -> State:
        hidden = tf.concat([state.hidden, self.eta * context.hidden], axis=-1)
        return State(hidden, tf.concat([state.cell, context.cell], axis=-1))

    def first_state(self, batch_size: int) -> State:
        """As in `Policy`."""
        return self._joined(self.policy.first_state(batch_size), self.discriminator.first_state(batch_size))

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """As in `Policy`."""
        own = state.cell.shape[-1] - self.discriminator.memory_dim
        read = State(state.hidden[:, : self.policy.hidden_dim], state.cell[:, :own])
        context = self.discriminator.next_state(tokens, state.cell[:, own:])
        return self._joined(self.policy.next_state(tokens, read), context)

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `Policy`; there is no dropout in what the discriminator says."""
        return self._joined(self.policy.states(tokens, dropout_seed), self.discriminator.contexts(tokens))

    def projection(self) -> tf.Tensor:
        """As in `Policy`, [H + K + 1, V]."""
        own, scores = self.policy.projection(), self.discriminator.projection()
        return tf.concat([own[:-1], scores[:-1], own[-1:] + self.eta * scores[-1:]], axis=0)

    @contextlib.contextmanager
    def at_temperature(self, temperature: float) -> Iterator[None]:
        """Meanwhile the logits are divided by `temperature` > 0."""
        eta = self.eta.numpy()
        with self.policy.at_temperature(temperature):
            self.eta.assign(eta / temperature)
            try:
                yield
            finally:
                self.eta.assign(eta)


def best_guidance(nll: Callable[[float], float]) -> float:
    """The η of 0 to 4 with the least NLL on real sequences, by Brent's method, to 0.01; 0 where none is better.

    `nll` gives the guided generator's NLL at an η. It is convex: -η·s is linear in η, log Σ G·exp(η·s) is convex.
    """
    found = minimize_scalar(nll, bounds=(0.0, LARGEST_ETA), method="bounded", options={"xatol": 0.01})
    return float(found.x) if found.fun < nll(0.0) else 0.0
