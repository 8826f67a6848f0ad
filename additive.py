"""Causal discriminators whose log-odds are a sum over positions: r(Y) = Σ_t s(y_t | y_<t).

Those of the optimal discriminator are log p(Y) - log G(Y) = Σ_t [log p(y_t | y_<t) - log G(y_t | y_<t)]. A maximum
over time, as the paper's CNN takes it, keeps one window per filter and can't form that sum.
"""

import itertools
from collections.abc import Callable

import keras
import tensorflow as tf

from discriminator import REAL, whole_log_odds
from generator import State, run_lstm, with_one
from support.lookup import look_up, rows_of
from support.seeds import Purpose, dropout, fold, variable_seed

STDDEV = 0.03  # of the initial weights; with 0.1 a bigram takes in half as much in as many updates


class AdditiveDiscriminator(keras.layers.Layer):
    """s(y_t | y_<t) = c(y_<t) · b(y_t) + u(y_t): a context of K numbers, and K + 1 numbers of each token.

    A subclass makes the context, from a `State` whose `hidden` it is, [..., K], and whose `cell`, [..., M], is what
    the next one depends on. Padding, the id V, has the score 0.
    """

    def __init__(
        self,
        vocab_size: int,
        seq_len: int,
        rank: int,
        *,
        dropout_keep_prob: float = 1.0,
        l2: float = 0.0,
        seed: int = 0,
        start_token: int = 0,
        end_token: int | None = None,
        copy: int = 0,
    ):
        """Makes and initialises the weights, from N(0, STDDEV²); u and biases are 0, but 1 of an LSTM's forget gate.

        V, T and the tokens are those of `generator.Policy`, K is the `rank`. A share `dropout_keep_prob` of the numbers
        that are read, and of an LSTM's hidden state, is kept in training; `l2` is the weight of the penalty, see
        `loss`, and `copy` tells the weights of several discriminators of one run apart.
        """
        super().__init__(name=f"discriminator{copy or ''}")
        self.vocab_size, self.seq_len, self.rank = vocab_size, seq_len, rank
        self.start_token, self.end_token = start_token, end_token
        self.dropout_rate, self.l2 = 1.0 - dropout_keep_prob, l2
        self.memory_dim = 0  # M
        seeds = (variable_seed(seed, Purpose.D_INIT, 100 * copy + index) for index in itertools.count())
        self._initializers = (keras.initializers.RandomNormal(stddev=STDDEV, seed=each) for each in seeds)
        readable = max(vocab_size + (end_token is not None), start_token + 1)
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
        return self.next_state(tf.fill([batch_size], self.start_token), memory)

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

    def mask(self, tokens: tf.Tensor) -> tf.Tensor:
        """1 for each token, its end token included, 0 for padding: float32 like `tokens`."""
        if self.end_token is None:
            return tf.ones(tokens.shape)
        return tf.cast(tokens != self.vocab_size, tf.float32)

    def _read(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        """Embeddings of the start token and of all tokens but the last: int32 [B, T] → float32 [T, B, K]."""
        start = tf.fill([1, tokens.shape[0]], self.start_token)
        embedded = look_up(self.embedding, tf.concat([start, tf.transpose(tokens)[:-1]], axis=0))
        return self._dropped(embedded, dropout_seed, 0)

    def _dropped(self, values: tf.Tensor, dropout_seed: tf.Tensor | None, place: int) -> tf.Tensor:
        if dropout_seed is None or not self.dropout_rate:
            return values
        return dropout(values, self.dropout_rate, fold(dropout_seed, place))

    def log_odds(self, tokens: tf.Tensor) -> tf.Tensor:
        """r(Y) = log D(Y) - log(1 - D(Y)) of each sequence, without dropout: int32 [B, T] → float32 [B]."""
        return tf.reduce_sum(self.token_scores(tokens), axis=1)

    def completion_log_odds(
        self, tokens: tf.Tensor, rollout_num: int = 1
    ) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """D of completions, as `Discriminator.completion_log_odds`; each is read from its beginning."""
        del tokens, rollout_num
        return whole_log_odds(self.log_odds)

    def completion_scorer(self, tokens: tf.Tensor, rollout_num: int = 1) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """D(Y) of completions; otherwise as `completion_log_odds`."""
        score = self.completion_log_odds(tokens, rollout_num)
        return lambda rollouts, prefix_len: tf.sigmoid(score(rollouts, prefix_len))

    def loss(self, tokens: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropy plus l2 / 2 times the mean over tokens of |c|² + |b|² + u².

        `tokens`: int32 [B, T]. `labels`: int32 [B], FAKE or REAL. `dropout_seed`: as in `contexts`. Returns loss, nats
        per sequence (penalty included), and the accuracy; float32 scalars.
        """
        scores, squares = self._scores(tokens, self.contexts(tokens, dropout_seed).hidden)
        log_odds = tf.reduce_sum(scores, axis=1)
        real = tf.cast(labels == REAL, tf.float32)
        cross_entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=real, logits=log_odds))
        correct = tf.cast((log_odds > 0) == (labels == REAL), tf.float32)
        return cross_entropy + self.l2 / 2 * squares, tf.reduce_mean(correct)


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

    def __init__(self, vocab_size: int, seq_len: int, rank: int, units: int, **others):
        """`units` are the LSTM's; the rest is as in `AdditiveDiscriminator`."""
        super().__init__(vocab_size, seq_len, rank, **others)
        kernel, recurrent, output = (next(self._initializers) for _ in range(3))
        self.lstm = keras.layers.LSTMCell(units, kernel_initializer=kernel, recurrent_initializer=recurrent)
        self.output_layer = keras.layers.Dense(rank, kernel_initializer=output)
        self.lstm.build((None, rank))
        self.output_layer.build((None, units))
        self.memory_dim = 2 * units

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `AdditiveDiscriminator`; the LSTM's two states are remembered."""
        states = run_lstm(self.lstm, self._read(tokens, dropout_seed))
        context = self.output_layer(self._dropped(states.hidden, dropout_seed, 1))
        return State(context, tf.concat(states, axis=-1))

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """As in `AdditiveDiscriminator`."""
        _, states = self.lstm(self.embedding(tokens), tf.split(memory, 2, axis=-1))
        return State(self.output_layer(states[0]), tf.concat(states, axis=-1))
