"""Echo: an additive discriminator that hears what a sequence repeats.

Folk tunes repeat bars and phrases. An LSTM does not follow that, as it would have to remember every token. A neural
cache (Grave et al., ICLR 2017) and a pointer (Vinyals et al., NIPS 2015) look back at the tokens themselves; so does
this, by position.
"""

from collections.abc import Sequence
from itertools import islice

import keras
import tensorflow as tf

from discriminator import Options, glorot_layer
from generator import State, TokenSpec
from guidance.additive import BigramDiscriminator

SPANS = (1, 2, 4, 8, 16)  # how many of the last tokens are compared with those so many places before
UNITS = 16  # of the layer that all lags share
NOTHING = -1  # in place of a token before the first


class EchoDiscriminator(BigramDiscriminator):
    """s(y_t | y_<t) = Σ_l e_l · 1[y_t = y_{t-l}] + q(y_<t) + the bigram's score, over all lags l < T.

    The echo e_l = w_l · z_l + w_l0 says how likely the token of l places before comes again, from how well the last
    tokens agree with those l before: z_l = ReLU(W h_l), where h_l has two numbers for each of `SPANS`, the share of
    places that agree and whether there are any. All lags share W; each has a w_l. The offset is linear in the largest
    and the mean of the lags' z_l, and in the largest e_l: where one token is sure, the others are not.
    """

    def __init__(self, spec: TokenSpec, options: Options):
        """The layer has `UNITS` units; the rest is as in `BigramDiscriminator`."""
        super().__init__(spec, options)
        self.lag_count = spec.seq_len - 1  # L
        self.memory_dim = self.lag_count + max(SPANS)  # P, tokens that are remembered
        self.shared = glorot_layer(2 * len(SPANS), UNITS, next(islice(self.seeds(), 50, None)))
        self.lag_weights = self.add_weight(shape=(self.lag_count, UNITS + 1), initializer="zeros", name="lag_weights")
        self.level = keras.layers.Dense(1, kernel_initializer="zeros")
        self.level.build((None, 2 * UNITS + 1))
        self.rank += spec.vocab_size

    def _heard(self, past: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What the last tokens make of each lag: int32 [..., P], the newest last, NOTHING where there is none.

        Returns the token that each lag would repeat, int32 [..., L], its echo and the offset: float32 [..., L], [...].
        """
        newest = self.memory_dim  # past[..., newest - j] is y_{t-j}

        def lagged(j: int) -> tf.Tensor:  # y_{t-j-l} for l = 1..L
            return tf.reverse(past[..., newest - j - self.lag_count : newest - j], [-1])

        agree, there, features = tf.zeros([]), tf.zeros([]), []
        for j in range(1, max(SPANS) + 1):
            token, other = past[..., newest - j, None], lagged(j)
            known = tf.cast(other != NOTHING, tf.float32)
            agree += tf.cast(token == other, tf.float32) * known
            there += known
            if j in SPANS:
                features += [agree / tf.maximum(there, 1.0), tf.minimum(there, 1.0)]
        repeated = lagged(0)
        exists = tf.cast(repeated != NOTHING, tf.float32)
        units = tf.nn.relu(self.shared(tf.stack(features, axis=-1))) * exists[..., None]  # [..., L, UNITS]
        echo = (tf.reduce_sum(units * self.lag_weights[:, :-1], axis=-1) + self.lag_weights[:, -1]) * exists
        parts = tf.reduce_max(units, axis=-2), tf.reduce_mean(units, axis=-2), tf.reduce_max(echo, axis=-1)[..., None]
        return repeated, echo, self.level(tf.concat(parts, axis=-1))[..., 0]

    def _pasts(self, tokens: tf.Tensor) -> tf.Tensor:
        """The last P tokens before each of int32 [B, T]: int32 [T, B, P]."""
        before = tf.fill([tokens.shape[0], self.memory_dim], NOTHING)
        padded = tf.concat([before, tokens[:, :-1]], axis=1)
        return tf.stack([padded[:, t : t + self.memory_dim] for t in range(tokens.shape[1])])

    def _known(self, past: tf.Tensor, offset: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """The bigram's context of `past`, with the echoes' part of q: float32 [..., K or K + 1]."""
        read = tf.where(past == NOTHING, self.spec.start_token, past)
        context = self._context(lambda lag: read[..., self.memory_dim - lag], dropout_seed)
        return (
            context
            if not self.options.offset
            else tf.concat([context[..., :-1], context[..., -1:] + offset[..., None]], -1)
        )

    def scores_of(
        self, tokens: tf.Tensor, candidates: Sequence[tf.Tensor], dropout_seed: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """As in `AdditiveDiscriminator`; no array of all V tokens is made."""
        past = self._pasts(tokens)
        repeated, echo, offset = self._heard(past)
        scores, squares = self._scored(self._known(past, offset, dropout_seed), tokens, candidates)
        mask = self.mask(tokens)
        for i, each in enumerate(candidates):
            heard = tf.reduce_sum(tf.where(repeated == tf.transpose(each)[..., None], echo, 0.0), axis=-1)
            scores[i] += tf.transpose(heard) * mask
        return scores, squares

    def _state(self, past: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """c, q and the V tokens' echoes after `past`, int32 [..., P], which is remembered."""
        repeated, echo, offset = self._heard(past)
        lags, size = echo.shape[-1], self.vocab_size
        rows = tf.reshape(tf.one_hot(repeated, size), [-1, lags, size])
        echoes = tf.reshape(tf.matmul(tf.reshape(echo, [-1, 1, lags]), rows), [*past.shape[:-1], size])
        context = self._known(past, offset, dropout_seed)
        return State(tf.concat([context, echoes], axis=-1), tf.cast(past, tf.float32))

    def projection(self) -> tf.Tensor:
        """As in `AdditiveDiscriminator`, with a row of its own for each token's echoes."""
        rows = super().projection()[: self.rank - self.vocab_size]
        return tf.concat([rows, tf.eye(self.vocab_size), self.successors[None, :, -1]], axis=0)

    def contexts(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `AdditiveDiscriminator`; its numbers are c, q and the V tokens' echoes."""
        return self._state(self._pasts(tokens), dropout_seed)

    def first_state(self, batch_size: int) -> State:
        """As in `AdditiveDiscriminator`; there is nothing to hear yet."""
        return self._state(tf.fill([batch_size, self.memory_dim], NOTHING))

    def next_state(self, tokens: tf.Tensor, memory: tf.Tensor) -> State:
        """As in `AdditiveDiscriminator`."""
        return self._state(tf.concat([tf.cast(memory[:, 1:], tf.int32), tokens[:, None]], axis=1))
