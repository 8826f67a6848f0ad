"""Discriminators, D_φ(Y) = P(Y is real): what each answers, and the paper's CNN (SeqGAN, "Discriminative model")."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from generator import Scorer, TokenSpec
from support import own_code
from support.errors import UsageError
from support.lookup import look_up, looped
from support.registries import DISCRIMINATORS
from support.seeds import Purpose, dropout, variable_seed

FAKE, REAL = 0, 1  # the classes of the softmax

PAIRS_A_LOOKUP = 20  # looking up and adding a number takes as long as multiplying and adding about so many pairs
MOST_TABLES = 2**30  # bytes of all tables together


def authors_layer(inputs: int, units: int, seed: int) -> keras.layers.Dense:
    """A linear layer with the initial weights of the authors' convolutions and output layer."""
    truncated = keras.initializers.TruncatedNormal(stddev=0.1, seed=seed)
    layer = keras.layers.Dense(units, kernel_initializer=truncated, bias_initializer=keras.initializers.Constant(0.1))
    layer.build((None, inputs))
    return layer


def glorot_layer(inputs: int, units: int, seed: int) -> keras.layers.Dense:
    """A linear layer with Keras' initial weights. A convolution's fan_out is its F here; in Keras' Conv1D it is w F."""
    layer = keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed=seed))
    layer.build((None, inputs))
    return layer


Loss = tuple[tf.Tensor, tf.Tensor]  # the loss and the accuracy, float32 scalars
# By --d_init: the range of the embedding's initial weights, and what makes the other layers.
INITIAL_WEIGHTS = {"authors": (1.0, authors_layer), "keras": (0.05, glorot_layer)}


@dataclass(frozen=True)
class Options:
    """The numbers that a discriminator is made from; each takes those that it knows."""

    emb_dim: int = 32
    hidden_dim: int = 64
    filter_sizes: tuple[int, ...] = (3, 5, 5, 5)
    num_filters: tuple[int, ...] = (50, 80, 80, 100)
    dropout_keep_prob: float = 0.75  # the share that dropout keeps in training
    l2: float = 0.2  # the weight of a penalty
    seed: int = 0  # decides the initial weights
    copy: int = 0  # tells those of several discriminators of one run apart
    lags: tuple[int, ...] = (1,)  # of additive discriminators, as is the offset
    offset: bool = False
    init: str = "authors"  # or "keras": whose initial weights the paper's CNN has


class Discriminator(keras.layers.Layer):
    """What a discriminator answers: how much likelier each sequence is real than generated.

    A subclass makes its weights in the constructor and defines `log_odds`; the rest follows from that. It may define
    `loss` and `completion_log_odds` as well, to train otherwise or to score rollouts faster.
    """

    additive = False  # whether its log-odds are a sum over positions, so that it can guide a generator
    defaults: dict[str, Any] = {}  # values of flags that come with a class of one's own

    def __init__(self, spec: TokenSpec, options: Options):
        """`spec` and `options` are those of the run; a subclass takes the same two."""
        super().__init__(name=f"discriminator{options.copy or ''}")
        self.spec, self.options = spec, options
        self.vocab_size, self.seq_len = spec.vocab_size, spec.seq_len
        self.dropout_rate, self.l2 = 1.0 - options.dropout_keep_prob, options.l2

    def seeds(self) -> Iterator[int]:
        """A seed for the initial values of each weight in turn."""
        return (variable_seed(self.options.seed, Purpose.D_INIT, 100 * self.options.copy + i) for i in count())

    def log_odds(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Log-odds, log D(Y) - log(1 - D(Y)), of each sequence: int32 [B, T] → float32 [B].

        `dropout_seed` is a key of `support.seeds`; None applies no dropout.
        """
        raise NotImplementedError

    def mask(self, tokens: tf.Tensor) -> tf.Tensor:
        """1 for each token, its end token included, 0 for padding: float32 like `tokens`."""
        return tf.cast(tokens != self.vocab_size, tf.float32)

    def dropped(self, values: tf.Tensor, dropout_seed: tf.Tensor | None, index: int = 0) -> tf.Tensor:
        """`values` with dropout; `index` tells several places of one network apart."""
        return dropout(values, self.dropout_rate, dropout_seed, index)

    def loss(self, tokens: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor | None) -> Loss:
        """What training minimises, here the cross-entropy (SeqGAN, equation 5), and the accuracy; float32 scalars.

        `tokens`: int32 [B, T]. `labels`: int32 [B], FAKE or REAL. `dropout_seed`: as in `log_odds`. In nats a sequence.
        """
        return cross_entropy(self.log_odds(tokens, dropout_seed), labels)

    def completion_log_odds(self, tokens: tf.Tensor, rollout_num: int = 1) -> Scorer:
        """Log-odds of many completions of the same sequences' prefixes; here each is read from its beginning.

        `tokens`: int32 [B, T]. `rollout_num`: N, completions of each prefix that are going to be scored; the outputs do
        not depend on it. Returns a function of rollouts, int32 [N, B, T], and the int32 number n of tokens that they
        share with `tokens`, 1..T; it returns their `log_odds`, float32 [N, B].
        """

        def score(rollouts: tf.Tensor, prefix_len: tf.Tensor) -> tf.Tensor:
            return tf.reshape(self.log_odds(tf.reshape(rollouts, [-1, rollouts.shape[2]])), rollouts.shape[:2])

        return score


def cross_entropy(log_odds: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The mean cross-entropy of log-odds, float32 [B], with labels, int32 [B], in nats, and the accuracy.

    Raises UsageError: the log-odds have another shape or dtype, as those of a user's own class may.
    """
    if log_odds.shape != labels.shape or log_odds.dtype != tf.float32:
        count, found = labels.shape[0], f"{log_odds.dtype.name} of shape {log_odds.shape}"
        raise UsageError(f"--discriminator: log_odds: {found} for {count} sequences, not float32 ({count},)")
    real = tf.cast(labels == REAL, tf.float32)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=real, logits=log_odds))
    return loss, tf.reduce_mean(tf.cast((log_odds > 0) == (labels == REAL), tf.float32))


def tried(discriminator: Any) -> Discriminator:
    """Returns a discriminator whose log-odds and loss were traced, so that what is wrong is told before training.

    Raises UsageError: log-odds have another shape than [B], of completions [N, B], a loss or accuracy than [], layers
    make weights after the constructor, numbers are drawn, a weight is where checkpoints do not look, or is not used, or
    an additive one has other contexts token by token.
    """
    made, rows = len(discriminator.weights), discriminator.seq_len + 1  # a number that no axis of a sequence has
    name, unused = f"--discriminator: {type(discriminator).__name__}", list[str]()

    def loss(tokens: tf.Tensor) -> tf.Tensor:
        real, fakes = tf.fill([rows], REAL), tf.fill([rows], FAKE)
        with tf.GradientTape(persistent=True) as tape:
            found = cross_entropy(discriminator.log_odds(tokens), fakes)[0]
            both = tf.tile(tokens, [2, 1]), tf.concat([real, fakes], 0)
            own = discriminator.loss(*both, tf.zeros([2], tf.int32))  # with a key, as training has it
        score = discriminator.completion_log_odds(tokens, 2)
        shapes = [each.shape for each in (*own, score(tf.tile(tokens[None], [2, 1, 1]), tf.constant(1)))]
        if shapes != [[], [], [2, rows]]:
            raise UsageError(f"{name}: loss, accuracy and completion_log_odds have shapes {shapes}, not (), (), (N, B)")
        if not (weights := discriminator.trainable_variables):
            raise UsageError(f"{name} has no weight to train; a fixed score may be a --reward")
        for what, value in (("log_odds", found), ("loss", own[0])):
            for weight, gradient in zip(weights, tape.gradient(value, weights), strict=True):
                if gradient is None:
                    unused.append(f"{what} does not depend on the weight {weight.path}")
        return found

    wanted = tf.TensorSpec([rows, discriminator.seq_len], tf.int32)
    graph = tf.function(loss, autograph=False).get_concrete_function(wanted).graph
    own_code.refuse(drawn := f"{name} draws numbers without `dropout_seed`", own_code.DRAWS, graph)
    if any("seed_generator" in each.name for each in graph.variables):
        raise UsageError(f"{drawn} (Keras' Dropout), so that a resumed run would differ; see `dropped`")
    if later := len(discriminator.weights) - made:
        raise UsageError(
            f"{name} makes {later} weights after its constructor; build each layer there, with layer.build(shape)"
        )
    if unused:
        raise UsageError(f"{name}: {unused[0]}")
    kept = {id(each) for each in tf.train.TrackableView(discriminator).descendants()}
    kept |= {id(weight.value) for weight in discriminator.weights if id(weight) in kept}
    used = {id(each): each.name for each in graph.variables}
    used |= {id(weight.value): weight.path for weight in discriminator.weights}
    if lost := [path for variable, path in used.items() if variable not in kept]:
        raise UsageError(f"{name}: checkpoints leave out the weight {lost[0]}; keep layers in attributes or tuples")
    if hasattr(discriminator, "contexts"):  # else the guided samples would be of another policy than the guided NLL
        tokens = tf.constant((np.arange(2 * rows - 2) ** 2 % discriminator.vocab_size).reshape(2, -1), tf.int32)
        contexts, memories = (part.numpy() for part in discriminator.contexts(tokens))
        found = contexts.shape[-1], memories.shape[-1]
        wanted = discriminator.rank + discriminator.added_dim, discriminator.memory_dim
        if found != wanted:
            raise UsageError(f"{name}: contexts have {found} numbers, not (rank + added_dim, memory_dim) = {wanted}")
        for t in range(rows - 2):
            context, memory = discriminator.next_state(tokens[:, t], tf.constant(memories[t]))
            for found, wanted in ((context, contexts[t + 1]), (memory, memories[t + 1])):
                largest = np.abs(wanted).max(initial=0)
                if found.shape != wanted.shape or np.abs(found - wanted).max(initial=0) > 1e-3 * largest:
                    raise UsageError(f"{name}: next_state after {t + 1} tokens is not what contexts has there")
    return discriminator


def discriminator_of(name: str, source: dict[str, str] | None = None) -> Callable[[TokenSpec, Options], Discriminator]:
    """What --discriminator names; of a user's own class `source` is on record. Raises UsageError: it can't be used."""
    if not own_code.is_own(name):
        return DISCRIMINATORS[name].load()
    found = own_code.load("--discriminator", name, source)
    if not (isinstance(found, type) and issubclass(found, Discriminator)):
        raise UsageError(f"--discriminator {name}: not a subclass of discriminator.Discriminator")

    blamed = own_code.blamed("--discriminator", name.rpartition(":")[0])
    return blamed(lambda spec, options: tried(found(spec, options)))


class ConvolutionalDiscriminator(Discriminator):
    """The paper's CNN: embedding → convolutions of several widths → ReLU → max over time → highway → dropout → softmax.

    Where sequences may be shorter than T, they end in padding, the id V, and the output for one is that for the tokens
    before it alone: a window that reaches into the padding does not count, except the first of its width, which sees
    zeros there, so that a filter wider than the sequence sees something.
    """

    def __init__(self, spec: TokenSpec, options: Options):
        """Makes and initialises the weights as the authors' code, but for highway biases, or as Keras (`options.init`).

        E is `options.emb_dim`; the convolutions of `filter_sizes`, 1..T tokens, have `num_filters` each. Dropout is
        applied to the highway layer's outputs; `l2` is the weight of the output layer's penalty. Raises UsageError: the
        two lists differ in length, or a width is outside 1..T.
        """
        super().__init__(spec, options)
        filter_sizes, num_filters, emb_dim = options.filter_sizes, options.num_filters, options.emb_dim
        if len(filter_sizes) != len(num_filters) or not all(1 <= width <= spec.seq_len for width in filter_sizes):
            widths, numbers = (" ".join(map(str, each)) for each in (filter_sizes, num_filters))
            what = f"--d_filter_sizes {widths} and --d_num_filters {numbers}"
            raise UsageError(f"{what} do not fit sequences of {spec.seq_len} tokens")
        self.emb_dim, self.filter_sizes, self.padded = emb_dim, filter_sizes, spec.end_token is not None
        embedding_range, self.initialised = INITIAL_WEIGHTS[options.init]
        seeds = self.seeds()
        uniform = keras.initializers.RandomUniform(-embedding_range, embedding_range, next(seeds))
        self.embedding = keras.layers.Embedding(spec.vocab_size, emb_dim, uniform)
        self.embedding.build()
        # A tuple: tf.train.Checkpoint drops layers held in a list.
        self.convolutions = tuple(
            self.initialised(width * emb_dim, filters, next(seeds))
            for width, filters in zip(filter_sizes, num_filters, strict=True)
        )
        self._add_head(sum(num_filters), seeds)

    def _add_head(self, features: int, seeds: Iterator[int]) -> None:
        """Makes what follows the pooling of so many features, from a seed a layer."""
        self.gate, self.transform = (glorot_layer(features, features, next(seeds)) for _ in range(2))
        self.output_layer = self.initialised(features, 2, next(seeds))

    def features(self, tokens: tf.Tensor) -> tf.Tensor:
        """Max over time of every filter (taken first, as it commutes with ReLU): int32 [B, T] → float32 [B, F]."""
        return self.activated([tf.reduce_max(response, axis=1) for response in self.responses(tokens)])

    def embedded(self, tokens: tf.Tensor) -> tf.Tensor:
        """The tokens' embeddings, zeros for padding: int32 [..., T] → float32 [..., T, E]."""
        if not self.padded:
            return look_up(self.embedding, tokens)
        real = tokens != self.vocab_size
        return tf.where(real[..., None], look_up(self.embedding, tf.where(real, tokens, 0)), 0.0)

    def lengths(self, tokens: tf.Tensor) -> tf.Tensor:
        """Tokens before the padding: int32 [..., T] → int32 [...]."""
        return tf.reduce_sum(tf.cast(tokens != self.vocab_size, tf.int32), axis=-1)

    def responses(self, tokens: tf.Tensor) -> list[tf.Tensor]:
        """What each filter makes of each window, before bias and ReLU: one float32 [B, T - width + 1, filters] a width.

        -inf where a window does not count. A convolution of width w is a linear layer on each window of w embeddings.
        The windows are laid out and multiplied once a width: XLA's own convolution is slow inside a compiled loop.
        """
        embedded = self.embedded(tokens)  # [B, T, E]
        batch_size, seq_len = tokens.shape
        responses = []
        for width, layer in zip(self.filter_sizes, self.convolutions, strict=True):
            steps = seq_len - width + 1
            windows = tf.concat([embedded[:, i : i + steps] for i in range(width)], axis=2)  # [B, steps, w·E]
            flat = tf.reshape(windows, [batch_size * steps, width * self.emb_dim])
            response = tf.reshape(tf.matmul(flat, layer.kernel), [batch_size, steps, layer.units])
            if self.padded:
                first = tf.range(steps)
                counts = (first + width <= self.lengths(tokens)[:, None]) | (first == 0)
                response = tf.where(counts[:, :, None], response, -np.inf)
            responses.append(response)
        return responses

    def activated(self, maxima: list[tf.Tensor]) -> tf.Tensor:
        """Adds the bias to each width's largest responses, [..., filters], and applies ReLU: float32 [..., F]."""
        biased = [tf.nn.relu(best + layer.bias) for best, layer in zip(maxima, self.convolutions, strict=True)]
        return tf.concat(biased, axis=-1)

    def logits(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Scores of the classes (FAKE, REAL): int32 [B, T] → float32 [B, 2]."""
        return self.classify(self.features(tokens), dropout_seed)

    def classify(self, features: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Highway layer, dropout and output layer: float32 [B, F] → scores of (FAKE, REAL), float32 [B, 2]."""
        gate = tf.sigmoid(tf.matmul(features, self.gate.kernel) + self.gate.bias)
        transform = tf.nn.relu(tf.matmul(features, self.transform.kernel) + self.transform.bias)
        highway = gate * transform + (1.0 - gate) * features
        return self.output_layer(dropout(highway, self.dropout_rate, dropout_seed))

    def log_odds(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """As in `Discriminator`."""
        return odds(self.logits(tokens, dropout_seed))

    def worth_a_table(self, sequences: int) -> list[bool]:
        """Which convolutions of a reward pass of N·B `sequences` are worth a table, from the shapes alone.

        A table of width w holds (V + 1)·w·F numbers, each a product of E pairs; then each of the M windows that the
        completions of all prefixes add costs w·F lookups instead of products. So there is one where
        M·(E - PAIRS_A_LOOKUP) > (V + 1)·E, as long as all fit in MOST_TABLES bytes, the narrowest widths first.
        """
        rows, kept, left = self.vocab_size + 1, [False] * len(self.filter_sizes), MOST_TABLES
        for index in sorted(range(len(kept)), key=lambda i: self.filter_sizes[i]):
            width, filters = self.filter_sizes[index], self.convolutions[index].units
            windows = sequences * sum(min(self.seq_len - width + 1, self.seq_len - n) for n in range(1, self.seq_len))
            size = 4 * rows * width * filters
            if windows * (self.emb_dim - PAIRS_A_LOOKUP) > rows * self.emb_dim and size <= left:
                kept[index], left = True, left - size
        return kept

    def table(self, width: int, kernel: tf.Tensor) -> tf.Tensor:
        """What each token adds to the responses of a convolution from each place of a window.

        A convolution is linear: the response of a window is the sum of `width` rows, that of token k in place i being
        row k·width + i. Padding, token V, adds zeros. float32 [(V + 1)·width, filters].
        """
        places = tf.reshape(kernel, [width, self.emb_dim, -1])  # [w, E, F]
        filters = places.shape[2]
        beside = tf.reshape(tf.transpose(places, [1, 0, 2]), [self.emb_dim, width * filters])
        padding = tf.zeros([1, self.emb_dim])
        rows = tf.matmul(tf.concat([self.embedding.embeddings, padding], axis=0), beside)  # [V + 1, w·F]
        return tf.reshape(rows, [(self.vocab_size + 1) * width, filters])

    def completion_log_odds(self, tokens: tf.Tensor, rollout_num: int = 1) -> Scorer:
        """As in `Discriminator`; each window inside a prefix is looked at once.

        The other windows' responses are sums of rows of tables that are made here, once for all prefixes, or products
        where `worth_a_table` finds that a table costs more than it saves.
        """
        batch_size, seq_len = tokens.shape
        layers = zip(self.filter_sizes, self.convolutions, self.worth_a_table(rollout_num * batch_size), strict=True)
        tables = [self.table(width, layer.kernel) if pays else None for width, layer, pays in layers]
        lengths = tf.range(seq_len + 1)[:, None]
        known = []  # a width: the largest response inside each prefix, [T + 1, B, filters]; -inf where no window fits
        for width, response in zip(self.filter_sizes, self.responses(tokens), strict=True):
            inside = tf.range(seq_len - width + 1) + width <= lengths  # [T + 1, steps]
            known.append(tf.reduce_max(tf.where(inside[:, None, :, None], response[None], -np.inf), axis=2))

        def score(rollouts: tf.Tensor, prefix_len: tf.Tensor) -> tf.Tensor:
            rollout_num = rollouts.shape[0]
            rows = rollout_num * batch_size
            embedded = tf.reshape(self.embedded(rollouts), [rows, seq_len * self.emb_dim])
            lengths = tf.reshape(self.lengths(rollouts), [rows, 1])
            maxima: list[tf.Tensor] = []
            flat = tf.reshape(rollouts, [rows, seq_len])
            for width, layer, inside, table in zip(self.filter_sizes, self.convolutions, known, tables, strict=True):

                def look(i, best, width=width, kernel=layer.kernel, table=table):
                    if table is None:
                        window = tf.slice(embedded, [0, i * self.emb_dim], [rows, width * self.emb_dim])
                        response = tf.matmul(window, kernel)
                    else:
                        window = tf.slice(flat, [0, i], [rows, width]) * width
                        response = tf.add_n([tf.gather(table, window[:, place] + place) for place in range(width)])
                    if self.padded:
                        response = tf.where((i + width <= lengths) | (i == 0), response, -np.inf)
                    return (tf.maximum(best, response),)

                best = tf.tile(inside[prefix_len], [rollout_num, 1])
                first = tf.maximum(prefix_len - width + 1, 0)  # windows from here on reach beyond the prefix
                maxima += looped(look, best, since=first, until=seq_len - width + 1)
            return tf.reshape(odds(self.classify(self.activated(maxima))), [rollout_num, batch_size])

        return score

    def loss(self, tokens: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor | None) -> Loss:
        """As in `Discriminator`, plus the output layer's L2 penalty, l2 · (‖W‖² + ‖b‖²) / 2, as the authors do."""
        logits = self.logits(tokens, dropout_seed)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        penalty = tf.nn.l2_loss(self.output_layer.kernel) + tf.nn.l2_loss(self.output_layer.bias)
        correct = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return loss + self.l2 * penalty, tf.reduce_mean(tf.cast(correct, tf.float32))


class PooledDiscriminator(ConvolutionalDiscriminator):
    """Embedding → convolutions → ReLU → max and mean over time → dense → ReLU → dropout → linear → softmax.

    A maximum tells whether a sequence has a window that a filter looks for, the mean also how many. Rollouts are scored
    whole. The initial weights are Keras' own, which learn at a lower rate than the authors'.
    """

    completion_log_odds = Discriminator.completion_log_odds  # of whole sequences, as a mean depends on all windows

    def __init__(self, spec: TokenSpec, options: Options):
        super().__init__(spec, replace(options, init="keras"))

    def _add_head(self, features: int, seeds: Iterator[int]) -> None:
        units = self.options.hidden_dim
        self.dense = self.initialised(2 * features, units, next(seeds))
        self.output_layer = self.initialised(units, 2, next(seeds))

    def features(self, tokens: tf.Tensor) -> tf.Tensor:
        """Max and mean of every filter over the windows that count: int32 [B, T] → float32 [B, 2 F]."""
        responses, means = self.responses(tokens), []
        for width, response, layer in zip(self.filter_sizes, responses, self.convolutions, strict=True):
            total = tf.reduce_sum(tf.nn.relu(response + layer.bias), axis=1)  # 0 of a window that does not count
            means.append(total / tf.cast(tf.maximum(self.lengths(tokens) - width + 1, 1), tf.float32)[:, None])
        maxima = self.activated([tf.reduce_max(response, axis=1) for response in responses])
        return tf.concat([maxima, *means], axis=1)

    def classify(self, features: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Dense layer, dropout and output layer: float32 [B, 2 F] → scores of (FAKE, REAL), float32 [B, 2]."""
        return self.output_layer(dropout(tf.nn.relu(self.dense(features)), self.dropout_rate, dropout_seed))


def odds(logits: tf.Tensor) -> tf.Tensor:
    """The log-odds of REAL from scores of (FAKE, REAL): float32 [..., 2] → float32 [...]."""
    return logits[..., REAL] - logits[..., FAKE]
