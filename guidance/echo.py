"""Echo: an additive discriminator that hears what a sequence repeats, as folk tunes repeat bars and phrases."""

from collections.abc import Sequence
from itertools import islice

import keras
import tensorflow as tf

from discriminator import Options
from generator import State, TokenSpec
from guidance.additive import BigramDiscriminator
from support.echoes import UNITS, Echoes, Heard, pasts


class EchoDiscriminator(BigramDiscriminator):
    """s(y_t | y_<t) = Σ_l e_l · 1[y_t = y_{t-l}] + q(y_<t) + the bigram's score, over all lags l < T.

    The echo e_l of `Echoes` says how likely the token of l places before comes again. The offset is
    linear in the largest and the mean of the lags' z_l, and in the largest e_l: where one is sure, the others are not.
    """

    def __init__(self, spec: TokenSpec, options: Options):
        """As in `BigramDiscriminator`."""
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

    def scores_of(
        self, tokens: tf.Tensor, candidates: Sequence[tf.Tensor], dropout_seed: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
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
