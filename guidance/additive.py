"""Causal discriminators whose log-odds are a sum over positions: r(Y) = Σ_t s(y_t | y_<t).

Those of the optimal discriminator are log p(Y) - log G(Y) = Σ_t [log p(y_t | y_<t) - log G(y_t | y_<t)]. Whole
sequences leave the scores open: s + φ(y_≤t) - φ(y_<t) has the same sum. Told token by token (`token_loss`) they are
unique: log p(y_t | y_<t) - log G(y_t | y_<t), of which E_G[exp s] = 1 after every prefix.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import keras
import tensorflow as tf

from discriminator import Discriminator, Loss, Options, cross_entropy
from generator import Policy, State, TokenSpec, chosen_log_probs, joined, logits_of, run_lstm, sample_tokens, with_one
from support.echoes import NOTHING, UNITS, Echoes, Heard, pasts
from support.lookup import look_up, rows_of
from support.seeds import Seed, fold, uniforms

Scored = tuple[list[tf.Tensor], tf.Tensor]  # what `AdditiveDiscriminator.scores_of` returns
STDDEV = 0.03  # of the initial weights; a bigram learns less in as many updates with 0.1


class AdditiveDiscriminator(Discriminator):
    """s(y_t | y_<t) = c(y_<t) · b(y_t) + u(y_t) + q(y_<t): a context of K numbers, K + 1 numbers of each token.

    The offset q is there where `options.offset` asks for it. It is the same for all next tokens, so that it does not
    change the guided policy; without it a score can't say "sure of one token, so none of the others".

    A subclass makes the context, from a `State` whose `hidden` it is, [..., C], and whose `cell`, [..., M], is what the
    next one depends on. Its last number is q where there is an offset: C = K + 1, else K. With an `added_dim` of V a
    number for each token follows, which is added to its score. Padding, the id V, scores 0.
    """

    additive, added_dim = True, 0

    def __init__(self, spec: TokenSpec, options: Options, context_dim: int = 0):
        """Makes and initialises the weights, from N(0, STDDEV²); u, biases and most q are 0, forget gates 1.

        `context_dim` is K, by default `options.emb_dim`. Dropout is applied to the numbers that are read, and to an
        LSTM's hidden state; `l2` is the weight of the penalty, see `loss`.
        """
        super().__init__(spec, options)
        self.context_dim, self.memory_dim = context_dim or options.emb_dim, 0  # K, M
        self.rank = self.context_dim + options.offset  # C
        self._initializers = (keras.initializers.RandomNormal(stddev=STDDEV, seed=each) for each in self.seeds())
        self.embedding = self._embedding(options.emb_dim)
        self.successors = self.add_weight(  # b and, as a last column, u
            shape=(spec.vocab_size, self.context_dim + 1), initializer=next(self._initializers), name="successors"
        )
        self.successors.assign(tf.concat([self.successors[:, :-1], tf.zeros([spec.vocab_size, 1])], axis=1))

    def _embedding(self, size: int, initializer: keras.initializers.Initializer | str | None = None):
        """A row for each token that may be read: the V tokens, the start token and, where sequences end, padding."""
        readable = max(self.vocab_size + (self.spec.end_token is not None), self.spec.start_token + 1)
        embedding = keras.layers.Embedding(readable, size, initializer or next(self._initializers))
        embedding.build()
        return embedding

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """What predicts each token of int32 [B, T]: State of float32 [T, B, C] and [T, B, M].

        `dropout_seed` is a key of `support.seeds`; None applies no dropout.
        """
        raise NotImplementedError

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """Reads one token a row, int32 [B], with the memory of those before, float32 [B, M]; State: [B, C], [B, M]."""
        raise NotImplementedError

    def projection(self) -> tf.Tensor:
        """b, a row of ones for an offset, and u as a last row: float32 [C + 1, V]."""
        rows = tf.transpose(tf.convert_to_tensor(self.successors))
        return tf.concat([rows[:-1], tf.ones([int(self.options.offset), self.vocab_size]), rows[-1:]], axis=0)

    def next_scores(self, contexts: tf.Tensor) -> tf.Tensor:
        """The score of every next token: contexts [..., C] or [..., C + V] → float32 [..., V], nats."""
        return logits_of(contexts, self.projection())

    def token_scores(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """s(y_t | y_<t) of each token, 0 for padding: int32 [B, T] → float32 [B, T], nats."""
        return self.scores_of(tokens, [tokens], dropout_seed)[0][0]

    def scores_of(self, tokens: tf.Tensor, candidates: Sequence[tf.Tensor], dropout_seed: Seed = None) -> Scored:
        """The scores of candidates, each int32 [B, T], for the place of each of `tokens`, int32 [B, T].

        Returns one float32 [B, T] a candidate, 0 where `tokens` has padding, and the mean over tokens and candidates of
        the squares of the numbers that make the scores.
        """
        return self._scored(self.contexts(tokens, dropout_seed).hidden, tokens, candidates)

    def _scored(self, contexts: tf.Tensor, tokens: tf.Tensor, candidates: Sequence[tf.Tensor]) -> Scored:
        """`scores_of` from contexts, float32 [T, B, C] or [T, B, C + V]."""
        real = tf.transpose(self.mask(tokens))  # [T, B]
        own, offset = contexts[..., : self.context_dim], contexts[..., self.context_dim : self.rank]
        added, offset = contexts[..., self.rank :], tf.reduce_sum(offset, axis=-1)
        scores, squares = [], tf.zeros([])
        for each in candidates:
            chosen = tf.where(real > 0, tf.transpose(each), 0)
            rows = rows_of(tf.convert_to_tensor(self.successors), chosen)  # [T, B, K + 1]
            level = offset + tf.gather(added, chosen, batch_dims=2) if added.shape[-1] else offset
            scores.append(tf.transpose((tf.reduce_sum(with_one(own) * rows, axis=-1) + level) * real))
            squares += tf.reduce_sum((tf.reduce_sum(own**2, axis=-1) + tf.reduce_sum(rows**2, axis=-1)) * real)
        return scores, squares / (tf.reduce_sum(real) * len(candidates))

    def log_odds(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """As in `Discriminator`: the sum of the tokens' scores."""
        return tf.reduce_sum(self.token_scores(tokens, dropout_seed), axis=1)

    def loss(self, tokens: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor | None) -> Loss:
        """As in `Discriminator`, plus l2 / 2 times the mean over tokens of |c|² + |b|² + u²."""
        (scores,), squares = self.scores_of(tokens, [tokens], dropout_seed)
        loss, accuracy = cross_entropy(tf.reduce_sum(scores, axis=1), labels)
        return loss + self.l2 / 2 * squares, accuracy

    def token_loss(self, policy: Policy, tokens: tf.Tensor, seed: tf.Tensor, dropout_seed: tf.Tensor | None) -> Loss:
        """The cross-entropy of telling each real token from one that the policy draws in its place, and the accuracy.

        It is noise-contrastive estimation (Gutmann and Hyvärinen, JMLR 2012) with the policy as the noise: no sequence
        is generated. The optimum over all scores is log p(y_t | y_<t) - log G(y_t | y_<t). The penalty is as in `loss`.
        `policy`: G, held constant. `tokens`: real sequences, int32 [B, T]. `seed`: the key of the draws. Returns
        float32 scalars, the loss in nats per label.
        """
        fake = tf.stop_gradient(drawn_in_place(policy, tokens, seed))
        (of_real, of_fake), squares = self.scores_of(tokens, [tokens, fake], dropout_seed)
        mask = self.mask(tokens)
        labels = 2 * tf.reduce_sum(mask)
        loss = tf.reduce_sum((tf.nn.softplus(-of_real) + tf.nn.softplus(of_fake)) * mask) / labels
        right = tf.cast(of_real > 0, tf.float32) + tf.cast(of_fake < 0, tf.float32)
        return loss + self.l2 / 2 * squares, tf.reduce_sum(right * mask) / labels

    def expected_loss(self, policy: Policy, tokens: tf.Tensor, seed: tf.Tensor, dropout_seed: tf.Tensor | None) -> Loss:
        """The expectation of `token_loss` over what is drawn: all V tokens are fakes, each weighed by G(· | y_<t).

        The optimum is the same, and so are arguments and results; nothing is drawn, and no penalty is added.
        """
        fakes = tf.stop_gradient(tf.nn.softmax(policy.logits(policy.states(tokens).hidden)))  # [T, B, V]
        scores, mask = self.next_scores(self.contexts(tokens, dropout_seed).hidden), tf.transpose(self.mask(tokens))
        own = tf.gather(scores, tf.where(mask > 0, tf.transpose(tokens), 0), batch_dims=2)
        losses = tf.nn.softplus(-own) + tf.reduce_sum(fakes * tf.nn.softplus(scores), axis=-1)
        right = tf.cast(own > 0, tf.float32) + tf.reduce_sum(tf.where(scores < 0, fakes, 0.0), axis=-1)
        labels = 2 * tf.reduce_sum(mask)
        return tf.reduce_sum(losses * mask) / labels, tf.reduce_sum(right * mask) / labels

    def likelihood_loss(self, policy: Policy, tokens: tf.Tensor, seed: tf.Tensor, dropout_seed: Seed) -> Loss:
        """The NLL of real tokens under the guided policy of η = 1, and how many are likelier than under G; no GAN.

        Arguments and results are those of `token_loss`, the loss in nats per token; nothing is drawn, and no penalty
        is added. The same module learns by maximum likelihood, so that it is a control of the discriminator.
        """
        hidden, (own, scores) = policy.states(tokens).hidden, (policy.projection(), self.projection())
        own, chosen, mask = tf.stop_gradient(own), tf.where(self.mask(tokens) > 0, tokens, 0), self.mask(tokens)
        chosen = tf.reshape(tf.transpose(chosen), [-1])
        before = tf.reshape(tf.stop_gradient(hidden), [chosen.shape[0], -1])
        context = tf.reshape(self.contexts(tokens, dropout_seed).hidden, [chosen.shape[0], -1])
        projection = tf.concat([own[:-1], scores[:-1], own[-1:] + scores[-1:]], axis=0)
        both = joined(before, context, (policy.hidden_dim - policy.added_dim, self.rank))
        nats = chosen_log_probs(both, projection, chosen)
        likelier = tf.cast(nats > chosen_log_probs(before, own, chosen), tf.float32)
        weights = tf.reshape(tf.transpose(mask), [-1]) / tf.reduce_sum(mask)
        return -tf.reduce_sum(nats * weights), tf.reduce_sum(likelier * weights)

    def surrogate(
        self, policy: Policy, tokens: tf.Tensor, reference: Any = None, kl_weight: float = 0.0, advantages: Any = None
    ) -> tf.Tensor:
        """What has the policy gradient of E[r(Y)] - β·KL(G ‖ G₀) as its gradient, along drawn sequences (equation 6).

        REINFORCE sees only the drawn token's reward, and so is noisy; here the sum is over all next tokens. With
        v(a) = s(a | y_<t) - β·(log G(a | y_<t) - log G₀(a | y_<t)) held constant it is

            Σ_t [ Σ_a G(a | y_<t) · v(a) + log G(y_t | y_<t) · A_t ],

        where A_t is what follows y_t: its advantage by rollouts less v(y_t) - Σ_a G(a | y_<t) · v(a), which is in the
        first term. Without `advantages` A_t is 0: a bias, as what a token does for later scores is left out.
        `tokens`, int32 [B, T], are drawn from G, the `policy`; `reference` is G₀ (None where β, the `kl_weight`, is 0),
        and `advantages`, float32 [B, T], are for r(Y) - β·(log G(Y) - log G₀(Y)). Returns float32 [B], nats.
        """
        states = policy.states(tokens).hidden  # [T, B, H]
        log_probs = tf.nn.log_softmax(policy.logits(states))  # [T, B, V]
        value = self.next_scores(self.contexts(tokens).hidden)
        if reference is not None:
            ratio = log_probs - tf.nn.log_softmax(reference.logits(reference.states(tokens).hidden))
            value -= kl_weight * ratio
        value, mask = tf.stop_gradient(value), tf.transpose(policy.mask(tokens))  # [T, B, V], [T, B]
        expected = tf.reduce_sum(tf.exp(log_probs) * value, axis=2)  # [T, B]
        if advantages is None:
            return tf.reduce_sum(expected * mask, axis=0)
        chosen = tf.where(mask > 0, tf.transpose(tokens), 0)
        known = tf.gather(value, chosen, batch_dims=2) - expected
        follows = tf.stop_gradient(tf.transpose(advantages) - known) * mask
        return tf.reduce_sum(expected * mask + tf.gather(log_probs, chosen, batch_dims=2) * follows, axis=0)


def drawn_in_place(policy: Policy, tokens: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A token that the policy draws after each prefix of sequences, int32 [B, T] → int32 [B, T]; `seed` is a key."""
    hidden, projection = policy.states(tokens).hidden, policy.projection()
    numbers = uniforms(tokens.shape[::-1], fold(seed, 0))  # [T, B]

    def draw(each: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return sample_tokens(policy.logits(each[0], projection), each[1])

    return tf.transpose(tf.map_fn(draw, (hidden, numbers), fn_output_signature=tf.int32))


class BigramDiscriminator(AdditiveDiscriminator):
    """The context is a_l(y_{t-l}), K numbers of the token at each lag l: s = Σ_l a_l(y_{t-l}) · b_l(y_t) + u(y_t) + q.

    With the one lag 1 it scores pairs of neighbours. The offset is q(y_{t-1}). Start tokens precede the first token.
    """

    def __init__(self, spec: TokenSpec, options: Options):
        """`options.lags` are the lags, each of `options.emb_dim` numbers; the rest is as in `AdditiveDiscriminator`."""
        super().__init__(spec, options, options.emb_dim * len(options.lags))
        self.lags = options.lags
        self.further = tuple(self._embedding(options.emb_dim) for _ in self.lags[1:])
        self.offsets = (self._embedding(1, "zeros"),) if options.offset else ()
        self.memory_dim = max(self.lags)  # P, how many tokens are remembered

    def _context(self, past: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """The numbers of the tokens that stand each lag before: c, and q as the last; `past` as of `_state`."""
        past = tf.where(past == NOTHING, self.spec.start_token, past)
        tables = enumerate(zip(self.lags, (self.embedding, *self.further), strict=True))
        read = [self.dropped(look_up(table, past[..., -lag]), dropout_seed, i) for i, (lag, table) in tables]
        return tf.concat([*read, *(look_up(table, past[..., -1]) for table in self.offsets)], axis=-1)

    def _state(self, past: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """The state after the last tokens `past`, int32 [..., P], NOTHING before the first; they are remembered."""
        return State(self._context(past, dropout_seed), tf.cast(past, tf.float32))  # exact up to 2^24

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `AdditiveDiscriminator`; what is remembered are the last P tokens, NOTHING before the first."""
        return self._state(pasts(tokens, self.memory_dim), dropout_seed)

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """As in `AdditiveDiscriminator`."""
        return self._state(tf.concat([tf.cast(memory[:, 1:], tf.int32), tokens[:, None]], axis=1))


class LSTMDiscriminator(AdditiveDiscriminator):
    """Context and offset are linear in an LSTM's state after earlier tokens: s = c(h_{t-1}) · b(y_t) + u(y_t) + q."""

    def __init__(self, spec: TokenSpec, options: Options):
        """The LSTM has `options.hidden_dim` units; the rest is as in `AdditiveDiscriminator`."""
        super().__init__(spec, options)
        units = options.hidden_dim
        kernel, recurrent, output = (next(self._initializers) for _ in range(3))
        self.lstm = keras.layers.LSTMCell(units, kernel_initializer=kernel, recurrent_initializer=recurrent)
        self.output_layer = keras.layers.Dense(self.rank, kernel_initializer=output)
        self.lstm.build((None, options.emb_dim))
        self.output_layer.build((None, units))
        self.memory_dim = 2 * units

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `AdditiveDiscriminator`; the LSTM's two states are remembered."""
        start = tf.fill([1, tokens.shape[0]], self.spec.start_token)
        read = look_up(self.embedding, tf.concat([start, tf.transpose(tokens)[:-1]], axis=0))  # [T, B, E]
        states = run_lstm(self.lstm, self.dropped(read, dropout_seed, 0))
        return State(self.output_layer(self.dropped(states.hidden, dropout_seed, 1)), tf.concat(states, axis=-1))

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """As in `AdditiveDiscriminator`."""
        _, states = self.lstm(self.embedding(tokens), tf.split(memory, 2, axis=-1))
        return State(self.output_layer(states[0]), tf.concat(states, axis=-1))


class EchoDiscriminator(BigramDiscriminator):
    """s(y_t | y_<t) = Σ_l e_l · 1[y_t = y_{t-l}] + q(y_<t) + the bigram's score, over all lags l < T.

    The echo e_l of `Echoes` says how likely the token of l places before comes again. The offset is
    linear in the largest and the mean of the lags' z_l, and in the largest e_l: where one is sure, the others are not.
    """

    def __init__(self, spec: TokenSpec, options: Options):
        super().__init__(spec, options)
        self.echoes = Echoes(spec.seq_len, next(islice(self.seeds(), 50, None)))
        self.memory_dim = self.echoes.memory_dim  # P
        if options.offset:
            self.level = keras.layers.Dense(1, kernel_initializer="zeros")
            self.level.build((None, 2 * UNITS + 1))
        self.added_dim = spec.vocab_size

    def _known(self, past: tf.Tensor, heard: Heard, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """The bigram's context of `past`, int32 [..., P], with the echoes' part of q: float32 [..., K or K + 1]."""
        context = self._context(past, dropout_seed)
        if not self.options.offset:
            return context
        largest = tf.reduce_max(heard.echo, axis=-1, keepdims=True)
        parts = tf.reduce_max(heard.units, axis=-2), tf.reduce_mean(heard.units, axis=-2), largest
        return tf.concat([context[..., :-1], context[..., -1:] + self.level(tf.concat(parts, axis=-1))], axis=-1)

    def scores_of(self, tokens: tf.Tensor, candidates: Sequence[tf.Tensor], dropout_seed: Seed = None) -> Scored:
        """As in `AdditiveDiscriminator`; no array of all V tokens is made."""
        past = pasts(tokens, self.memory_dim)
        heard = self.echoes.after(past)
        scores, squares = self._scored(self._known(past, heard, dropout_seed), tokens, candidates)
        mask = self.mask(tokens)
        for i, each in enumerate(candidates):
            again = heard.repeated == tf.transpose(each)[..., None]
            scores[i] += tf.transpose(tf.reduce_sum(tf.where(again, heard.echo, 0.0), axis=-1)) * mask
        return scores, squares

    def _state(self, past: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `BigramDiscriminator`, with the V tokens' echoes."""
        heard = self.echoes.after(past)
        parts = self._known(past, heard, dropout_seed), heard.spread(self.vocab_size)
        return State(tf.concat(parts, axis=-1), tf.cast(past, tf.float32))
