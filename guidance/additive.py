"""Causal discriminators whose log-odds are a sum over positions: r(Y) = Σ_t s(y_t | y_<t).

Those of the optimal discriminator are log p(Y) - log G(Y) = Σ_t [log p(y_t | y_<t) - log G(y_t | y_<t)].
"""

import keras
import tensorflow as tf

from discriminator import Discriminator, Options, cross_entropy
from generator import State, TokenSpec, run_lstm, with_one
from support.lookup import look_up, rows_of

STDDEV = 0.03  # of the initial weights; a bigram learns less in as many updates with 0.1


class AdditiveDiscriminator(Discriminator):
    """s(y_t | y_<t) = c(y_<t) · b(y_t) + u(y_t): a context of K numbers, and K + 1 numbers of each token.

    A subclass makes the context, from a `State` whose `hidden` it is, [..., K], and whose `cell`, [..., M], is what
    the next one depends on. Padding, the id V, has the score 0.
    """

    additive = True

    def __init__(self, spec: TokenSpec, options: Options):
        """Makes and initialises the weights, from N(0, STDDEV²); u and biases are 0, but 1 of an LSTM's forget gate.

        K is `options.emb_dim`. Dropout is applied to the numbers that are read, and to an LSTM's hidden state; `l2` is
        the weight of the penalty, see `loss`.
        """
        super().__init__(spec, options)
        self.rank = options.emb_dim
        self.memory_dim = 0  # M
        vocab_size, rank = spec.vocab_size, self.rank
        self._initializers = (keras.initializers.RandomNormal(stddev=STDDEV, seed=each) for each in self.seeds())
        readable = max(vocab_size + (spec.end_token is not None), spec.start_token + 1)
        self.embedding = keras.layers.Embedding(readable, rank, next(self._initializers))
        self.embedding.build()
        self.successors = self.add_weight(  # b and, as a last column, u
            shape=(vocab_size, rank + 1), initializer=next(self._initializers), name="successors"
        )
        self.successors.assign(tf.concat([self.successors[:, :-1], tf.zeros([vocab_size, 1])], axis=1))

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """What predicts each token of int32 [B, T]: State of float32 [T, B, K] and [T, B, M].

        `dropout_seed` is a key of `support.seeds`; None applies no dropout.
        """
        raise NotImplementedError

    def first_state(self, batch_size: int) -> State:
        """The state after the start token: float32 [B, K] and [B, M]."""
        memory = tf.zeros([batch_size, self.memory_dim])
        return self.next_state(tf.fill([batch_size], self.spec.start_token), memory)

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """Reads one token a row, int32 [B], with the memory of those before, float32 [B, M]."""
        raise NotImplementedError

    def projection(self) -> tf.Tensor:
        """b, and u as a last row, float32 [K + 1, V]."""
        return tf.transpose(tf.convert_to_tensor(self.successors))

    def next_scores(self, contexts: tf.Tensor) -> tf.Tensor:
        """The score of every next token: contexts [..., K] → float32 [..., V], nats."""
        return with_one(contexts) @ self.projection()

    def token_scores(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """s(y_t | y_<t) of each token, 0 for padding: int32 [B, T] → float32 [B, T], nats."""
        return self._scores(tokens, self.contexts(tokens, dropout_seed).hidden)[0]

    def _scores(self, tokens: tf.Tensor, contexts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The scores, float32 [B, T], and the mean over tokens of the squares of the numbers that make them."""
        real = tf.transpose(self.mask(tokens))  # [T, B]
        chosen = tf.where(real > 0, tf.transpose(tokens), 0)
        rows = rows_of(tf.convert_to_tensor(self.successors), chosen)  # [T, B, K + 1]
        scores = tf.reduce_sum(with_one(contexts) * rows, axis=-1) * real
        squares = (tf.reduce_sum(contexts**2, axis=-1) + tf.reduce_sum(rows**2, axis=-1)) * real
        return tf.transpose(scores), tf.reduce_sum(squares) / tf.reduce_sum(real)

    def _read(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        """Embeddings of the start token and of all tokens but the last: int32 [B, T] → float32 [T, B, K]."""
        start = tf.fill([1, tokens.shape[0]], self.spec.start_token)
        embedded = look_up(self.embedding, tf.concat([start, tf.transpose(tokens)[:-1]], axis=0))
        return self.dropped(embedded, dropout_seed, 0)

    def log_odds(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """As in `Discriminator`: the sum of the tokens' scores."""
        return tf.reduce_sum(self.token_scores(tokens, dropout_seed), axis=1)

    def loss(self, tokens: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """As in `Discriminator`, plus l2 / 2 times the mean over tokens of |c|² + |b|² + u²."""
        scores, squares = self._scores(tokens, self.contexts(tokens, dropout_seed).hidden)
        loss, accuracy = cross_entropy(tf.reduce_sum(scores, axis=1), labels)
        return loss + self.l2 / 2 * squares, accuracy


class BigramDiscriminator(AdditiveDiscriminator):
    """The context is a(y_{t-1}), K numbers of the token before: s = a(y_{t-1}) · b(y_t) + u(y_t)."""

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `AdditiveDiscriminator`; nothing is remembered."""
        read = self._read(tokens, dropout_seed)
        return State(read, tf.zeros([*read.shape[:2], 0]))

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """As in `AdditiveDiscriminator`."""
        return State(self.embedding(tokens), memory)


class LSTMDiscriminator(AdditiveDiscriminator):
    """The context is a linear function of an LSTM that has read the tokens before: s = q(h_{t-1}) · b(y_t) + u(y_t)."""

    def __init__(self, spec: TokenSpec, options: Options):
        """The LSTM has `options.hidden_dim` units; the rest is as in `AdditiveDiscriminator`."""
        super().__init__(spec, options)
        units, rank = options.hidden_dim, self.rank
        kernel, recurrent, output = (next(self._initializers) for _ in range(3))
        self.lstm = keras.layers.LSTMCell(units, kernel_initializer=kernel, recurrent_initializer=recurrent)
        self.output_layer = keras.layers.Dense(rank, kernel_initializer=output)
        self.lstm.build((None, rank))
        self.output_layer.build((None, units))
        self.memory_dim = 2 * units

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `AdditiveDiscriminator`; the LSTM's two states are remembered."""
        states = run_lstm(self.lstm, self._read(tokens, dropout_seed))
        context = self.output_layer(self.dropped(states.hidden, dropout_seed, 1))
        return State(context, tf.concat(states, axis=-1))

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """As in `AdditiveDiscriminator`."""
        _, states = self.lstm(self.embedding(tokens), tf.split(memory, 2, axis=-1))
        return State(self.output_layer(states[0]), tf.concat(states, axis=-1))
