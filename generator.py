"""The generator: an LSTM policy G_θ(y_t | y_<t) over tokens (SeqGAN, Yu et al. 2017, section "Generative model")."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from support.echoes import Echoes, pasts
from support.lookup import look_up, looped, summed_by_token, with_row
from support.seeds import Purpose, Seed, dropout, fold, uniforms, variable_seed

# A number for each of whole sequences: (rollouts int32 [N, B, T], how many first tokens they share with the sample they
# complete, int32) → float32 [N, B]. This count saves work; `reward.random` and `Reward.scorer` need it.
Scorer = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

SAMPLE_ROWS = 256  # sequences drawn at once where many are wanted: their logits then stay in cache


class TokenSpec(NamedTuple):
    """What a sequence is made of."""

    vocab_size: int  # V tokens
    seq_len: int  # T, at most so many of them
    start_token: int = 0  # is read before the first token
    end_token: int | None = None  # ends a sequence early, padding, the id V, following; None where all have T tokens


class State(NamedTuple):
    """The LSTM's memory after some tokens: `hidden` and `cell`, float32 [B, H] (or [T, B, H] where stacked)."""

    hidden: tf.Tensor
    cell: tf.Tensor


class Place(NamedTuple):
    """Where sequences under way are: the last `token` that was read, int32 [B], and the `state` after it."""

    token: tf.Tensor
    state: State


def sample_tokens(logits: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Draws tokens from softmax(logits) by inverting the distribution function, one uniform number a draw.

    That picks one of about √V blocks of tokens by their masses, then a token inside: an exact inversion, which
    exponentiates each logit once, where `tf.random.categorical` needs V random numbers a draw.
    `logits`: float32 [R, V], finite or -inf (but not all of a row). `uniforms`: float32 [..., R] in [0, 1); leading
    axes draw repeatedly from a row. Returns int32 [..., R]. A token of probability zero is never drawn.
    """
    rows, vocab_size = logits.shape
    width, blocks = block_shape(vocab_size)
    if width * blocks > vocab_size:
        logits = tf.pad(logits, [[0, 0], [0, width * blocks - vocab_size]], constant_values=-np.inf)
    largest = tf.reduce_max(logits, axis=1)[:, None, None]
    # Nothing below reads the logits: so XLA exponentiates them in place.
    token_mass = tf.exp(tf.reshape(logits, [rows, blocks, width]) - largest)
    mass = tf.reduce_sum(token_mass, axis=2)  # [R, blocks]
    below = tf.cumsum(mass, axis=1)  # [R, blocks]: mass of the blocks up to and including each
    target = uniforms * below[:, -1]  # [..., R]

    row = tf.broadcast_to(tf.range(rows), tf.shape(uniforms))
    block = first_above(below, mass, target)
    before = tf.where(block > 0, tf.gather_nd(below, tf.stack([row, tf.maximum(block - 1, 0)], -1)), 0.0)
    chosen = tf.gather_nd(token_mass, tf.stack([row, block], -1))  # [..., R, width]
    return block * width + first_above(tf.cumsum(chosen, axis=-1), chosen, target - before)


def block_shape(vocab_size: int) -> tuple[int, int]:
    """(tokens a block, blocks) near √V each; without padding where V has a divisor there, as 5000 = 100 · 50."""
    root = int(np.ceil(np.sqrt(vocab_size)))
    width = next((w for w in range(root, 2 * root) if vocab_size % w == 0), root)
    return width, -(-vocab_size // width)


def first_above(below: tf.Tensor, mass: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Index of the first entry that has mass and whose cumulative mass exceeds `target`.

    Rounding can leave `target` at or above the last cumulative sum; the draw then belongs to the last entry with mass.
    `below`, `mass`: [..., n], `target`: [...]; returns int32 [...].
    """
    positions = tf.range(mass.shape[-1])
    last = tf.reduce_max(tf.where(mass > 0, positions, 0), axis=-1, keepdims=True)
    return tf.reduce_min(tf.where((below > target[..., None]) & (mass > 0), positions, last), axis=-1)


def with_one(hidden: tf.Tensor) -> tf.Tensor:
    """Appends a constant 1, whose weights are a layer's bias: [..., H] → [..., H + 1]."""
    return tf.concat([hidden, tf.ones_like(hidden[..., :1])], axis=-1)


def logits_of(hidden: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
    """with_one(h) · projection, plus a: float32 [..., V]; `hidden` is h, [..., H], or h and then a, [..., H + V].

    `projection`: kernel and bias, float32 [H + 1, V].
    """
    size = projection.shape[0] - 1
    logits = with_one(hidden[..., :size]) @ projection
    return logits + hidden[..., size:] if hidden.shape[-1] > size else logits


@tf.custom_gradient
def chosen_log_probs(hidden: tf.Tensor, projection: tf.Tensor, tokens: tf.Tensor):
    """The entries at `tokens` of log softmax(logits_of(hidden, projection)), in nats.

    float32 [R, H] or [R, H + V], float32 [H + 1, V], int32 [R] → float32 [R], and a function: the gradient. It divides
    products with the exponentials by their sums, so that no [R, V] matrix of probabilities is made.
    """
    size = projection.shape[0] - 1
    logits, added, hidden = logits_of(hidden, projection), hidden[:, size:], with_one(hidden[:, :size])
    largest = tf.reduce_max(logits, axis=1)
    exps = tf.exp(logits - largest[:, None])  # [R, V]
    total = tf.reduce_sum(exps, axis=1)
    columns = tf.transpose(projection)  # [V, H + 1]
    chosen = tf.gather(columns, tokens)  # [R, H + 1]

    def gradient(upstream: tf.Tensor):
        # Row by row, d log p(token) / d logits = one-hot(token) - exps / total.
        scale = upstream / total
        of_hidden = upstream[:, None] * chosen - scale[:, None] * (exps @ columns)
        pulled = summed_by_token(hidden * upstream[:, None], tokens, projection.shape[1])  # [V, H + 1]
        pushed = tf.matmul(hidden * scale[:, None], exps, transpose_a=True)  # [H + 1, V]
        of_hidden = of_hidden[:, :-1]
        if added.shape[1]:
            of_added = tf.one_hot(tokens, projection.shape[1]) * upstream[:, None] - scale[:, None] * exps
            of_hidden = tf.concat([of_hidden, of_added], axis=1)
        return of_hidden, tf.transpose(pulled) - pushed, None

    own = tf.reduce_sum(hidden * chosen, axis=1) - largest - tf.math.log(total)
    return own + tf.gather(added, tokens, batch_dims=1) if added.shape[1] else own, gradient


def joined(first: tf.Tensor, second: tf.Tensor, sizes: tuple[int, int]) -> tf.Tensor:
    """What `logits_of` takes for the sum of two sets of logits: both h, of these sizes, and the sum of both a.

    float32 [..., h + a] each → [..., both h + a].
    """
    parts = [(part[..., :size], part[..., size:]) for part, size in zip((first, second), sizes, strict=True)]
    added = [each for _, each in parts if each.shape[-1]]
    return tf.concat([*(own for own, _ in parts), *([tf.add_n(added)] if added else [])], axis=-1)


def run_lstm(lstm: keras.layers.LSTMCell, inputs: tf.Tensor) -> State:
    """Reads float32 [T, B, E] from a state of zeros; returns the states after each of the T, [T, B, H]."""
    seq_len, batch_size, size = inputs.shape
    read = tf.reshape(inputs, [seq_len * batch_size, size]) @ lstm.kernel + lstm.bias
    read = tf.reshape(read, [seq_len, batch_size, 4 * lstm.units])
    return State(*recurrence(read, tf.convert_to_tensor(lstm.recurrent_kernel)))


@tf.custom_gradient
def recurrence(read: tf.Tensor, kernel: tf.Tensor):
    """What an LSTM remembers, from a state of zeros; the kernel's gradient is one product over all steps.

    `read`: float32 [T, B, 4H], what the inputs and the bias add to the gates i, f, candidate and o. `kernel`: float32
    [H, 4H], what multiplies `hidden`. Returns `hidden` and `cell` after each step, float32 [T, B, H], and the gradient.
    """
    seq_len, batch_size, width = read.shape
    zeros = tf.zeros([batch_size, width // 4])
    states = tf.zeros([seq_len, batch_size, width // 4])

    def forward(t, hidden, cell, all_gates, all_hidden, all_cell):
        i, f, candidate, o = tf.split(read[t] + hidden @ kernel, 4, axis=1)
        gates = i, f, candidate, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(candidate), tf.sigmoid(o)
        cell = f * cell + i * candidate
        hidden = o * tf.tanh(cell)
        kept = with_row(all_gates, t, tf.concat(gates, 1)), with_row(all_hidden, t, hidden), with_row(all_cell, t, cell)
        return hidden, cell, *kept

    empty = tf.zeros_like(read), states, states
    _, _, all_gates, all_hidden, all_cell = looped(forward, zeros, zeros, *empty, until=seq_len)

    def gradient(of_hidden: tf.Tensor, of_cell: tf.Tensor):
        columns = tf.transpose(kernel)
        # One array: a gradient of 0, as that of `cell` mostly is, would be a constant of the loop. TensorFlow gives it
        # one of two names by chance, and what XLA has compiled would not be found again.
        of_states = tf.stack([of_hidden, of_cell], axis=1)
        hidden_before, cell_before = (tf.concat([zeros[None], s[:-1]], axis=0) for s in (all_hidden, all_cell))

        def backward(k, d_hidden, d_cell, d_read):
            t = seq_len - 1 - k
            i, f, candidate, o = tf.split(all_gates[t], 4, axis=1)
            squashed = tf.tanh(all_cell[t])
            d_hidden += of_states[t, 0]
            d_cell += of_states[t, 1] + d_hidden * o * (1 - squashed**2)
            d_gates = (
                d_cell * candidate * i * (1 - i),
                d_cell * cell_before[t] * f * (1 - f),
                d_cell * i * (1 - candidate**2),
                d_hidden * squashed * o * (1 - o),
            )
            d_step = tf.concat(d_gates, axis=1)
            return d_step @ columns, d_cell * f, with_row(d_read, t, d_step)

        _, _, d_read = looped(backward, zeros, zeros, tf.zeros_like(read), until=seq_len)
        rows = seq_len * batch_size
        d_kernel = tf.matmul(tf.reshape(hidden_before, [rows, -1]), tf.reshape(d_read, [rows, -1]), transpose_a=True)
        return d_read, d_kernel

    return (all_hidden, all_cell), gradient


class Policy:
    """A distribution over sequences, read token by token: softmax of the `logits_of` a state, `hidden`.

    With an end token it is one of sequences of up to T tokens: one that draws the end token is finished, and what is
    left of its T places holds padding, the id V, which is never drawn. A sequence of T tokens needs no end.
    """

    weights: list[tf.Variable]  # all variables on which it depends
    vocab_size: int  # V, how many tokens can be generated
    seq_len: int  # T, tokens a sequence
    hidden_dim: int  # numbers of a state from which the next token is predicted: H, and then `added_dim`
    added_dim = 0  # V where a state also has a number for each token, which is added to its logit
    start_token: int  # the id that is read before the first token
    end_token: int | None  # one of 0..V-1, or None where every sequence has T tokens

    def first_state(self, batch_size: int) -> State:
        """The state after the start token, from which y_1 is drawn: float32 [B, ...]."""
        return State(*(part[0] for part in self.states(tf.zeros([batch_size, 1], tf.int32))))

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """Reads one token a row, int32 [B]; returns the state from which the next one is drawn."""
        raise NotImplementedError

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """Teacher forcing: the states that predict each token of `tokens`, int32 [B, T].

        Entry t of the State, float32 [T, B, ...], is that after the start token and the first t tokens, so that
        logits(hidden[t]) is the distribution of tokens[:, t]. `dropout_seed` is a key of `support.seeds` for dropout
        where Zaremba et al. (2014) have it: of what is read and of what the next token is predicted from, not from step
        to step; None applies none.
        """
        raise NotImplementedError

    def projection(self) -> tf.Tensor:
        """What multiplies a state's first H numbers and a 1 to give the logits, see `logits_of`: float32 [H + 1, V]."""
        raise NotImplementedError

    def after(self, previous: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
        """What follows the tokens `previous`: what was drawn, or padding once a sequence is finished; int32, alike."""
        if self.end_token is None:
            return drawn
        return tf.where((previous == self.end_token) | (previous == self.vocab_size), self.vocab_size, drawn)

    def mask(self, tokens: tf.Tensor) -> tf.Tensor:
        """1 for each token that the policy chose, its end token included, 0 for padding: float32 like `tokens`."""
        return tf.cast(tokens != self.vocab_size, tf.float32)

    def logits(self, hidden: tf.Tensor, projection: tf.Tensor | None = None) -> tf.Tensor:
        """Logits of the next token: [..., `hidden_dim`] → float32 [..., V]; `projection` is that of `projection()`."""
        return logits_of(hidden, self.projection() if projection is None else projection)

    def log_probs(self, tokens: tf.Tensor, inputs: tf.Tensor | None = None, dropout_seed: Seed = None) -> tf.Tensor:
        """Log-probabilities log G(y_t | y_<t) of the given tokens, in nats: int32 [B, T] → float32 [B, T].

        That of padding is 0. With `inputs`, int32 [B, T], the policy has read these instead.
        """
        batch_size, seq_len = tokens.shape
        states = self.states(tokens if inputs is None else inputs, dropout_seed)
        hidden = tf.reshape(states.hidden, [seq_len * batch_size, self.hidden_dim])
        chosen = self._log_probs_after(hidden, tf.reshape(tf.transpose(tokens), [-1]), self.projection())
        return tf.transpose(tf.reshape(chosen, [seq_len, batch_size]))

    def _log_probs_after(self, hidden: tf.Tensor, tokens: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
        """Log-probability of one token a row: [R, ...], int32 [R] → float32 [R]; `projection` is `projection()`."""
        if self.end_token is None:
            return chosen_log_probs(hidden, projection, tokens)
        drawn = tokens != self.vocab_size
        return tf.where(drawn, chosen_log_probs(hidden, projection, tf.where(drawn, tokens, 0)), 0.0)

    def completion_log_probs(self, tokens: tf.Tensor) -> Scorer:
        """Log G of many completions of the same sequences' prefixes, each prefix being read once.

        `tokens`: int32 [B, T]. Returns a function of rollouts, int32 [N, B, T], and the int32 number n of first tokens
        that they share with `tokens`, 0..T; it returns the log-probability of what follows these n, float32 [N, B],
        nats. Only N·B rows of logits exist at a time.
        """
        batch_size, seq_len = tokens.shape
        states, projection = self.states(tokens), self.projection()

        def score(rollouts: tf.Tensor, prefix_len: tf.Tensor) -> tf.Tensor:
            rollout_num = rollouts.shape[0]
            rows = rollout_num * batch_size
            by_time = tf.reshape(tf.transpose(rollouts, [2, 0, 1]), [seq_len, rows])
            shared = tf.minimum(prefix_len, seq_len - 1)  # of T shared tokens nothing is left to read
            tiled = State(*(tf.tile(s[shared], [rollout_num, 1]) for s in states))  # [N·B, H]

            def read(t, state, total):
                total += self._log_probs_after(state.hidden, by_time[t], projection)
                return self.next_state(by_time[t], state), total

            _, total = looped(read, tiled, tf.zeros([rows]), since=prefix_len, until=seq_len)
            return tf.reshape(total, [rollout_num, batch_size])

        return score

    def sample(self, uniforms: tf.Tensor) -> tf.Tensor:
        """Draws sequences: `uniforms`, float32 [T, B] in [0, 1), of which [t] draws token t → int32 [B, T]."""
        return self.sample_on(self.start(uniforms.shape[1]), uniforms)[0]

    def start(self, batch_size: int) -> Place:
        """The place before the first token of `batch_size` sequences."""
        return Place(tf.fill([batch_size], self.start_token), self.first_state(batch_size))

    def sample_on(self, place: Place, uniforms: tf.Tensor, prefix: tf.Tensor | None = None) -> tuple[tf.Tensor, Place]:
        """Draws the next n tokens of sequences that are under way.

        `place`: where the sequences are. `uniforms`: float32 [n, B], as in `sample`. `prefix`: token ids with which all
        go on, int32 [n], -1 where a token is drawn; None draws all. Returns tokens, int32 [B, n], and the place after.
        """
        steps, batch_size = uniforms.shape
        projection = self.projection()

        def draw(t, token, state, tokens):
            token = self.after(token, sample_tokens(self.logits(state.hidden, projection), uniforms[t]))
            if prefix is not None:
                token = tf.where(prefix[t] < 0, token, prefix[t])
            return token, self.next_state(token, state), with_row(tokens, t, token)

        token, state, tokens = looped(draw, *place, tf.zeros([steps, batch_size], tf.int32), until=steps)
        return tf.transpose(tokens), Place(token, state)

    def sample_and_compare(self, uniforms: tf.Tensor, other: "Policy | None" = None) -> tuple[tf.Tensor, ...]:
        """Draws Y ~ G and measures, at each prefix, G's next-token distribution against its own and another model's.

        The expectation over the next token is taken in full and only prefixes are drawn. The means over rows are
        therefore unbiased for G's entropy and for the cross-entropy -E_{Y~G}[log p_other(Y)], and their standard
        deviation is a third (against the default oracle) of that of -log p_other(Y) (Rao-Blackwell).
        `uniforms`: float32 [T, B] in [0, 1). `other`: a model over the same vocabulary, with the same end token; None
        measures the entropy alone. Returns tokens, int32 [B, T]; entropy and cross-entropy (0 without `other`), float32
        [B], nats per sequence.
        """
        seq_len, batch_size = uniforms.shape
        models = (self,) if other is None else (self, other)
        projections = [model.projection() for model in models]

        def draw(t, token, states, tokens, entropy, cross_entropy):
            logits, *others = (m.logits(s.hidden, p) for m, s, p in zip(models, states, projections, strict=True))
            token = self.after(token, sample_tokens(logits, uniforms[t]))
            chosen = self.mask(token)  # once a sequence is finished nothing is left to expect
            log_probs = tf.nn.log_softmax(logits)
            probs = tf.exp(log_probs)

            def expected(log_probs):  # over the next token; a token of probability 0 counts 0
                return -tf.reduce_sum(tf.math.multiply_no_nan(log_probs, probs), axis=1) * chosen

            for other_logits in others:  # [B, V], as logits
                cross_entropy += expected(tf.nn.log_softmax(other_logits))
            states = tuple(m.next_state(token, s) for m, s in zip(models, states, strict=True))
            return token, states, with_row(tokens, t, token), entropy + expected(log_probs), cross_entropy

        token, tokens = tf.fill([batch_size], self.start_token), tf.zeros([seq_len, batch_size], tf.int32)
        states, zeros = tuple(model.first_state(batch_size) for model in models), tf.zeros([batch_size])
        _, _, tokens, *sums = looped(draw, token, states, tokens, zeros, zeros, until=seq_len)
        return tf.transpose(tokens), *sums


class Generator(keras.layers.Layer, Policy):
    """Token embedding → LSTM → linear → softmax.

    A plain LSTM, without the added forget-gate bias: i, f, o = sigmoid, candidate and output through tanh. With
    `echoes` the logit of each token also has the echoes that repeat it (`support/echoes.py`). `hidden` of a `State`
    then has V more numbers, and `cell` the last P tokens.
    """

    def __init__(
        self,
        vocab_size: int,
        seq_len: int,
        emb_dim: int,
        hidden_dim: int,  # H, the LSTM's units
        *,
        seed: int,
        purpose: Purpose = Purpose.G_INIT,  # tells the weights of several networks of one run apart
        stddev: float = 0.1,  # as the authors' code has it; 1.0 is what the paper gives the oracle
        start_token: int = 0,
        end_token: int | None = None,
        dropout_keep_prob: float = 1.0,
        echoes: int = 0,  # 1 or 2: the `times` of `Echoes`
    ):
        """Makes and initialises the weights, from N(0, stddev²) but for those of `Echoes`; for tokens see `Policy`.

        The start token may be an id that is never generated: V, or V + 1 where V is padding. `log_probs` with a
        `dropout_seed` keeps a share of `dropout_keep_prob`.
        """
        super().__init__()
        self.vocab_size, self.seq_len = vocab_size, seq_len
        self.added_dim = vocab_size if echoes else 0
        self.units, self.hidden_dim = hidden_dim, hidden_dim + self.added_dim
        self.start_token, self.end_token = start_token, end_token
        self.dropout_rate = 1.0 - dropout_keep_prob

        def normal(index: int) -> keras.initializers.Initializer:
            return keras.initializers.RandomNormal(stddev=stddev, seed=variable_seed(seed, purpose, index))

        readable = max(vocab_size + (end_token is not None), start_token + 1)
        self.embedding = keras.layers.Embedding(readable, emb_dim, normal(0))
        initializers = {f"{kind}_initializer": normal(i) for i, kind in enumerate(("kernel", "recurrent", "bias"), 1)}
        self.cell = keras.layers.LSTMCell(hidden_dim, **initializers, unit_forget_bias=False)
        self.output_layer = keras.layers.Dense(vocab_size, kernel_initializer=normal(4), bias_initializer=normal(5))
        self.embedding.build()
        self.cell.build((None, emb_dim))
        self.output_layer.build((None, hidden_dim))
        self.echoes = Echoes(seq_len, variable_seed(seed, purpose, 6), echoes) if echoes else None

    def follow(self, policy: "Generator", lag: float | tf.Tensor = 0.0) -> None:
        """β ← lag·β + (1 - lag)·θ, weight by weight: θ are those of `policy`, with lag 0 they become its own."""
        for beta, theta in zip(self.weights, policy.weights, strict=True):
            beta.assign(lag * beta + (1.0 - lag) * theta)

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """Reads one token a row, int32 [B]; returns the state from which the next one is drawn."""
        _, states = self.cell(self.embedding(tokens), [part[:, : self.units] for part in state])
        past = tf.cast(state.cell[:, self.units + 1 :], tf.int32)  # exact up to 2^24
        return self._with_echoes(State(*states), tf.concat([past, tokens[:, None]], axis=1) if self.echoes else None)

    def _with_echoes(self, state: State, past: tf.Tensor | None) -> State:
        """The LSTM's state, [..., units], with what is heard after the last tokens `past`, int32 [..., P]."""
        if self.echoes is None or past is None:
            return state
        heard, remembered = self.echoes.after(past).spread(self.vocab_size), tf.cast(past, tf.float32)
        return State(tf.concat([state.hidden, heard], axis=-1), tf.concat([state.cell, remembered], axis=-1))

    def projection(self) -> tf.Tensor:
        """The output layer's kernel, and its bias as a last row, to spare a pass over memory: float32 [H + 1, V]."""
        return tf.concat([self.output_layer.kernel, self.output_layer.bias[None]], axis=0)

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """Teacher forcing, as in `Policy`."""
        start = tf.fill([1, tokens.shape[0]], self.start_token)
        embedded = look_up(self.embedding, tf.concat([start, tf.transpose(tokens)[:-1]], axis=0))  # [T, B, E]
        hidden, cell = run_lstm(self.cell, dropout(embedded, self.dropout_rate, dropout_seed, 0))
        state = State(dropout(hidden, self.dropout_rate, dropout_seed, 1), cell)
        return self._with_echoes(state, pasts(tokens, self.echoes.memory_dim) if self.echoes else None)

    def scheduled_inputs(self, tokens: tf.Tensor, own: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """What scheduled sampling has the policy read (Bengio et al., NIPS 2015): here and there its own token.

        An own token is drawn from the policy after all that it has read so far, own and real, and is a constant to the
        gradient. Where it is the end token it is read like any other, as the real sequence goes on.
        `tokens`: the real sequences, int32 [B, T]. `own`: whether the policy reads its own token in this place, bool
        [T, B]. `uniforms`: float32 [T, B] in [0, 1). Returns int32 [B, T], for `log_probs`; the last tokens, which
        nothing follows, stay as they are.
        """
        batch_size, seq_len = tokens.shape
        real, projection = tf.transpose(tokens), self.projection()

        def read(t, state, inputs):
            token = tf.where(own[t], sample_tokens(self.logits(state.hidden, projection), uniforms[t]), real[t])
            return self.next_state(token, state), with_row(inputs, t, token)

        return tf.transpose(looped(read, self.first_state(batch_size), real, until=seq_len - 1)[1])


class PolicyCopy(Generator):
    """A copy of the policy that is not trained: it stays as it is until it is told to follow."""

    def __init__(self, policy: Generator):
        sizes = policy.vocab_size, policy.seq_len, policy.embedding.output_dim, policy.units
        ends: dict[str, Any] = {"start_token": policy.start_token, "end_token": policy.end_token}
        super().__init__(*sizes, seed=0, **ends, echoes=policy.echoes.times if policy.echoes else 0)
        self.trainable = False
        self.follow(policy)


def average_lag(decay: float, taken: tf.Tensor) -> tf.Tensor:
    """The share of the old average in the new one, after the last of `taken` = t updates: float32 scalar.

    For a decay of a the weights after update i count in proportion to a^(t-i), with the correction of Adam's averages:
    Keras' average gives the first ones a third of the whole after 1,000 updates at a decay of 0.999.
    """
    updates, decayed = tf.cast(taken, tf.float32), tf.constant(decay)
    return decayed * (1 - decayed ** (updates - 1)) / (1 - decayed**updates)


class PolicyWrapper(Policy):
    """A policy that differs from another, `policy`, in what a subclass says; it follows when that one changes."""

    def __init__(self, policy: Policy):
        self.policy, self.weights = policy, policy.weights
        self.vocab_size, self.seq_len = policy.vocab_size, policy.seq_len
        self.hidden_dim, self.added_dim = policy.hidden_dim, policy.added_dim
        self.start_token, self.end_token = policy.start_token, policy.end_token

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """As in `Policy`."""
        return self.policy.next_state(tokens, state)

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `Policy`."""
        return self.policy.states(tokens, dropout_seed)

    def projection(self) -> tf.Tensor:
        """As in `Policy`."""
        return self.policy.projection()

    def logits(self, hidden: tf.Tensor, projection: tf.Tensor | None = None) -> tf.Tensor:
        """As in `Policy`."""
        return self.policy.logits(hidden, self.projection() if projection is None else projection)

    def _log_probs_after(self, hidden: tf.Tensor, tokens: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
        # By the logits, which a subclass may change, and which need not be linear in the state: an average's are not.
        log_probs, drawn = tf.nn.log_softmax(self.logits(hidden, projection)), tokens != self.vocab_size
        return tf.where(drawn, tf.gather(log_probs, tf.where(drawn, tokens, 0), batch_dims=1), 0.0)


class Tempered(PolicyWrapper):
    """A policy whose logits are divided by a temperature: below 1 likely tokens become likelier."""

    def __init__(self, policy: Policy, temperature: float | tf.Tensor):
        """`temperature` > 0, a float32 scalar."""
        super().__init__(policy)
        self.temperature = temperature

    def logits(self, hidden: tf.Tensor, projection: tf.Tensor | None = None) -> tf.Tensor:
        """As in `Policy`."""
        return super().logits(hidden, projection) / self.temperature


class Excluding(PolicyWrapper):
    """A policy that never draws certain tokens; the probabilities of the others are scaled up to 1. To sample from."""

    def __init__(self, policy: Policy, tokens: Sequence[int]):
        """`tokens` are the ids that are never drawn, fewer than V."""
        super().__init__(policy)
        self._allowed = np.zeros(policy.vocab_size, np.float32)
        self._allowed[list(tokens)] = -np.inf

    def logits(self, hidden: tf.Tensor, projection: tf.Tensor | None = None) -> tf.Tensor:
        """As in `Policy`, -inf for the excluded tokens."""
        return super().logits(hidden, projection) + self._allowed


class Averaged(Policy):
    """The mean of several policies' probabilities of the next token; by Jensen its NLL is at most their mean."""

    def __init__(self, policies: Sequence[Policy]):
        """`policies` are of one vocabulary, length and size."""
        first = policies[0]
        self.policies, self.weights = policies, [weight for each in policies for weight in each.weights]
        self.vocab_size, self.seq_len = first.vocab_size, first.seq_len
        self.start_token, self.end_token = first.start_token, first.end_token
        self.hidden_dim = first.hidden_dim * len(policies)

    def _split(self, joined: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(joined, len(self.policies), axis=-1)

    def _join(self, states: Sequence[State]) -> State:
        return State(*(tf.concat(parts, axis=-1) for parts in zip(*states, strict=True)))

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """As in `Policy`; the policies' states side by side."""
        own = map(State, self._split(state.hidden), self._split(state.cell))
        return self._join([each.next_state(tokens, s) for each, s in zip(self.policies, own, strict=True)])

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `Policy`."""
        return self._join([each.states(tokens, dropout_seed) for each in self.policies])

    def projection(self) -> tf.Tensor:
        """Those of the k policies, float32 [k, H + 1, V]."""
        return tf.stack([each.projection() for each in self.policies])

    def _mean(self, log_probs: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.reduce_logsumexp(tf.stack(log_probs), axis=0) - np.log(len(self.policies)).astype(np.float32)

    def logits(self, hidden: tf.Tensor, projection: tf.Tensor | None = None) -> tf.Tensor:
        """The logarithm of the mean probability of each next token: [..., k · H] → float32 [..., V]."""
        projections = tf.unstack(self.projection() if projection is None else projection)
        parts = zip(self.policies, self._split(hidden), projections, strict=True)
        return self._mean([tf.nn.log_softmax(each.logits(*pair)) for each, *pair in parts])

    def _log_probs_after(self, hidden: tf.Tensor, tokens: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
        parts = zip(self.policies, self._split(hidden), tf.unstack(projection), strict=True)
        return self._mean([each._log_probs_after(part, tokens, p) for each, part, p in parts])


def sample_many(policy: Policy, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws `size` sequences, SAMPLE_ROWS at once: int32 [size, T]; `seed` is a key."""
    shape = policy.seq_len, min(size, SAMPLE_ROWS)
    chunks = tf.range(-(-size // shape[1]))
    drawn = tf.map_fn(lambda i: policy.sample(uniforms(shape, fold(seed, i))), chunks)
    return tf.reshape(drawn, [-1, policy.seq_len])[:size]


def in_chunks(measure: Callable[[tf.Tensor], tf.Tensor], tokens: tf.Tensor) -> tf.Tensor:
    """One value a sequence, int32 [n, T] → float32 [n], by a `measure` of at most SAMPLE_ROWS of them, of one shape."""
    size, seq_len = tokens.shape
    rows = min(size, SAMPLE_ROWS)
    chunks = -(-size // rows)
    parts = tf.reshape(tf.pad(tokens, [[0, chunks * rows - size], [0, 0]]), [chunks, rows, seq_len])
    return tf.reshape(tf.map_fn(measure, parts, fn_output_signature=tf.float32), [chunks * rows])[:size]
