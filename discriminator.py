"""The discriminator: a convolutional network's opinion D_φ(Y) = P(Y is real) (SeqGAN, "Discriminative model")."""

import itertools

import keras
import tensorflow as tf

from support.seeds import Purpose, variable_seed

FAKE, REAL = 0, 1  # the classes of the softmax


class Discriminator(keras.layers.Layer):
    """Embedding → convolutions of several widths → ReLU → max over time → highway → dropout → linear → softmax."""

    def __init__(
        self,
        vocab_size: int,
        seq_len: int,
        emb_dim: int,
        filter_sizes: tuple[int, ...],
        num_filters: tuple[int, ...],
        *,
        dropout_keep_prob: float,
        l2: float,
        seed: int,
    ):
        """Makes and initialises the weights as the authors' code does.

        Args:
            vocab_size: V.
            seq_len: T, tokens a sequence.
            emb_dim: E, size of a token's embedding.
            filter_sizes: the convolutions' widths, 1..T tokens each.
            num_filters: filters of each width, as many entries as `filter_sizes`.
            dropout_keep_prob: share of the highway layer's outputs kept in training, in (0, 1].
            l2: weight of the output layer's L2 penalty.
            seed: the run's seed.

        Raises:
            ValueError: the two lists differ in length, or a width is outside 1..T.
        """
        super().__init__(name="discriminator")
        if len(filter_sizes) != len(num_filters) or not all(1 <= width <= seq_len for width in filter_sizes):
            raise ValueError(f"{filter_sizes=} and {num_filters=} do not fit sequences of {seq_len} tokens")
        self.seq_len, self.emb_dim, self.filter_sizes = seq_len, emb_dim, filter_sizes
        self.dropout_rate, self.l2 = 1.0 - dropout_keep_prob, l2
        seeds = (variable_seed(seed, Purpose.D_INIT, index) for index in itertools.count())

        def truncated() -> keras.initializers.Initializer:
            return keras.initializers.TruncatedNormal(stddev=0.1, seed=next(seeds))

        def glorot() -> keras.initializers.Initializer:
            return keras.initializers.GlorotUniform(seed=next(seeds))

        def built(layer: keras.layers.Layer, inputs: int) -> keras.layers.Layer:
            layer.build((None, inputs))
            return layer

        small = keras.initializers.Constant(0.1)
        features = sum(num_filters)
        uniform = keras.initializers.RandomUniform(-1.0, 1.0, next(seeds))
        self.embedding = built(keras.layers.Embedding(vocab_size, emb_dim, uniform), emb_dim)
        # A tuple: tf.train.Checkpoint drops layers held in a list.
        self.convolutions = tuple(
            built(keras.layers.Dense(filters, kernel_initializer=truncated(), bias_initializer=small), width * emb_dim)
            for width, filters in zip(filter_sizes, num_filters, strict=True)
        )
        self.gate = built(keras.layers.Dense(features, "sigmoid", kernel_initializer=glorot()), features)
        self.transform = built(keras.layers.Dense(features, "relu", kernel_initializer=glorot()), features)
        self.output_layer = built(
            keras.layers.Dense(2, kernel_initializer=truncated(), bias_initializer=small), features
        )
        self.built = True

    def features(self, tokens: tf.Tensor) -> tf.Tensor:
        """Max over time of every filter: int32 [B, T] → float32 [B, F].

        A convolution of width w is a linear layer on each window of w embeddings. Laying the windows out and
        multiplying once a width takes 1.8 ms a training step where XLA's own convolution takes 35 (default size, inside
        a compiled loop). The max is taken first, since it commutes with bias and ReLU.
        """
        embedded = self.embedding(tokens)  # [B, T, E]
        batch_size, seq_len = tokens.shape
        pooled = []
        for width, layer in zip(self.filter_sizes, self.convolutions, strict=True):
            steps = seq_len - width + 1
            windows = tf.concat([embedded[:, i : i + steps] for i in range(width)], axis=2)  # [B, steps, w·E]
            flat = tf.reshape(windows, [batch_size * steps, width * self.emb_dim])
            responses = tf.reshape(tf.matmul(flat, layer.kernel), [batch_size, steps, layer.units])
            pooled.append(tf.nn.relu(tf.reduce_max(responses, axis=1) + layer.bias))
        return tf.concat(pooled, axis=1)

    def logits(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Scores of the classes (FAKE, REAL): int32 [B, T] → float32 [B, 2].

        Args:
            tokens: the sequences.
            dropout_seed: a key of `support.seeds`; None applies no dropout.
        """
        features = self.features(tokens)
        gate = self.gate(features)
        highway = gate * self.transform(features) + (1.0 - gate) * features
        if dropout_seed is not None and self.dropout_rate > 0.0:
            highway = tf.nn.experimental.stateless_dropout(highway, self.dropout_rate, dropout_seed, rng_alg="philox")
        return self.output_layer(highway)

    def real_prob(self, tokens: tf.Tensor) -> tf.Tensor:
        """D(Y), the probability that each sequence is real, without dropout: int32 [B, T] → float32 [B]."""
        return tf.nn.softmax(self.logits(tokens))[:, REAL]

    def loss(self, tokens: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropy plus the L2 penalty of the output layer, l2 · (‖W‖² + ‖b‖²) / 2, as in the authors' code.

        Args:
            tokens: int32 [B, T].
            labels: int32 [B], FAKE or REAL.
            dropout_seed: as in `logits`.

        Returns:
            loss, nats a sequence (penalty included), and the share of sequences classified correctly; float32 scalars.
        """
        logits = self.logits(tokens, dropout_seed)
        cross_entropy = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        penalty = tf.nn.l2_loss(self.output_layer.kernel) + tf.nn.l2_loss(self.output_layer.bias)
        correct = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return cross_entropy + self.l2 * penalty, tf.reduce_mean(tf.cast(correct, tf.float32))
