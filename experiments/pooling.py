"""Small CNNs of the paper's form with other pooling over time, for experiments/resampling_oracle.toml."""

import tensorflow as tf

from discriminator import ConvolutionalDiscriminator, Discriminator, PooledDiscriminator


class Both(ConvolutionalDiscriminator):
    """Max and mean over time of every filter, float32 [B, 2 F], before the paper's highway layer."""

    features = PooledDiscriminator.features
    completion_log_odds = Discriminator.completion_log_odds  # of whole sequences, as a mean depends on all windows

    def _add_head(self, features, seeds):
        super()._add_head(2 * features, seeds)


class Mean(Both):
    """The mean over time of every filter, float32 [B, F]."""

    def _add_head(self, features, seeds):
        ConvolutionalDiscriminator._add_head(self, features, seeds)

    def features(self, tokens: tf.Tensor) -> tf.Tensor:
        """The second half of what `Both` has."""
        return tf.split(super().features(tokens), 2, axis=1)[1]
