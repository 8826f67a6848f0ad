import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from conftest import all_sequences, index_of, probabilities, random_generator

from generator import Generator, State, block_shape, chosen_log_probs, run_lstm, sample_tokens
from support.seeds import Purpose, key, permutation, uniforms

ALMOST_ONE = np.float32(1 - 2**-24)  # the largest uniform number


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    """The p-value of counts under probs; cells of fewer than 5 expected counts are merged into one."""
    expected = probs / probs.sum() * counts.sum()
    small = expected < 5
    observed = np.append(counts[~small], counts[small].sum())
    expected = np.append(expected[~small], expected[small].sum())
    keep = expected > 0
    assert observed[~keep].sum() == 0
    return scipy.stats.chisquare(observed[keep], expected[keep]).pvalue


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_policy_is_the_lstm_of_the_equations():
    generator = random_generator(vocab_size=6, seq_len=4, emb_dim=3, hidden_dim=5)
    embedding, kernel, recurrent, bias, out, out_bias = (w.numpy().astype(np.float64) for w in generator.weights)
    tokens = np.array([[5, 0, 3, 3], [1, 2, 4, 0]])
    hidden = cell = np.zeros([2, 5])
    expected = []
    for t in range(4):
        read = np.zeros(2, int) if t == 0 else tokens[:, t - 1]
        i, f, c, o = np.split(embedding[read] @ kernel + hidden @ recurrent + bias, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
        logits = hidden @ out + out_bias
        expected.append(logits[[0, 1], tokens[:, t]] - np.log(np.exp(logits).sum(axis=1)))
    measured = generator.log_probs(tf.constant(tokens, tf.int32))
    np.testing.assert_allclose(measured, np.transpose(expected), atol=1e-5)


def test_weights_start_from_the_authors_distribution():
    generator = Generator(500, 3, 40, 50, seed=3)
    for weight in generator.weights:
        values = weight.numpy().ravel()
        assert abs(values.std() - 0.1) < 0.1 * 5 / np.sqrt(2 * len(values)), weight.path
        assert abs(values.mean()) < 0.1 * 5 / np.sqrt(len(values))
    first, again, other = (Generator(500, 3, 40, 50, seed=s).get_weights() for s in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


ENDS = pytest.mark.parametrize("end_token", [None, 1], ids=["one length", "unequal lengths"])


@ENDS
@pytest.mark.parametrize(("vocab_size", "seq_len"), [(3, 4), (5, 3)])
def test_probabilities_of_all_sequences_sum_to_one(vocab_size, seq_len, end_token):
    probs = probabilities(random_generator(vocab_size, seq_len, end_token=end_token))
    assert probs.sum() == pytest.approx(1.0, abs=1e-5)
    assert probs.max() > 2 * probs.min()  # far from uniform


@pytest.mark.parametrize("end_token", [None, 3, 0])
def test_a_shorter_sequence_is_as_likely_as_its_tokens(end_token):
    """Padding costs nothing and changes nothing; the end token costs what any token does."""
    padded = random_generator(4, 5, end_token=end_token)
    plain = random_generator(4, 5)  # the same weights, but for the embedding of padding
    for mine, theirs in zip(plain.weights, padded.weights, strict=True):
        mine.assign(theirs[: mine.shape[0]])
    for row in ([1, 2, end_token, 4, 4], [end_token, 4, 4, 4, 4], [1, 2, 1, 2, end_token], [2, 1, 1, 2, 2]):
        if end_token is None and None in row:
            continue
        length = 5 - row.count(4)
        log_probs = padded.log_probs(tf.constant([row]))
        np.testing.assert_allclose(log_probs[:, :length], plain.log_probs(tf.constant([row[:length]])), rtol=1e-5)
        np.testing.assert_array_equal(log_probs[:, length:], 0)
        np.testing.assert_array_equal(padded.mask(tf.constant([row])), [[1] * length + [0] * (5 - length)])


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(("start_token", "end_token"), [(0, None), (2, None), (4, None), (5, 3), (5, 0), (2, 1)])
def test_sampled_frequencies_match_probabilities(jit, start_token, end_token):
    generator = Generator(4, 3, 3, 5, seed=0, stddev=1.0, start_token=start_token, end_token=end_token)
    sample = tf.function(lambda seed: generator.sample(uniforms([3, 40_000], seed)), jit_compile=jit)
    tokens = sample(key(1, Purpose.G_SAMPLE, 0)).numpy()
    probs = probabilities(generator)
    counts = np.bincount(index_of(tokens, 4, end_token), minlength=len(probs))
    assert chi_square(counts, probs) > 1e-3


@ENDS
def test_entropy_and_cross_entropy_match_enumeration(end_token):
    generator, other = (random_generator(seed=seed, end_token=end_token) for seed in (1, 2))
    p, q = probabilities(generator), probabilities(other)
    numbers = uniforms([3, 20_000], key(1, Purpose.EVALUATE))
    tokens, entropy, cross_entropy = generator.sample_and_compare(numbers, other)
    for values, exact in ((entropy, -(p * np.log(p)).sum()), (cross_entropy, -(p * np.log(q)).sum())):
        error = np.std(values) / np.sqrt(20_000)
        assert abs(np.mean(values) - exact) < 4 * error + 1e-5
    direct = -tf.reduce_sum(other.log_probs(tokens), axis=1)
    if end_token is None:
        assert np.std(cross_entropy) < np.std(direct)  # what it is for
    alone = generator.sample_and_compare(numbers)
    np.testing.assert_array_equal(alone[0], tokens)
    np.testing.assert_allclose(alone[1], entropy, rtol=1e-6)


def test_entropy_counts_impossible_tokens_as_nothing():
    generator = random_generator()
    generator.output_layer.bias.assign([0.0, -np.inf, 0.0, -1e30])
    _, entropy, cross_entropy = generator.sample_and_compare(uniforms([3, 10], key(1, Purpose.EVALUATE)), generator)
    assert np.isfinite(entropy).all() and np.isfinite(cross_entropy).all()


@pytest.mark.parametrize("jit", [True, False])
def test_chosen_log_probs_and_their_gradient_are_those_of_log_softmax(jit):
    rng = np.random.default_rng(0)
    hidden, projection = (tf.constant(rng.normal(0, 2, shape), tf.float32) for shape in ([9, 3], [4, 7]))
    tokens = tf.constant([0, 6, 6, 2, 2, 2, 5, 1, 0])  # some twice, some never
    weights = tf.constant(rng.normal(size=9), tf.float32)

    def plain(hidden, projection, tokens):
        return tf.gather(tf.nn.log_softmax(hidden @ projection[:-1] + projection[-1]), tokens, batch_dims=1)

    def with_gradient(function):
        with tf.GradientTape() as tape:
            tape.watch([hidden, projection])
            values = function(hidden, projection, tokens)
            total = tf.reduce_sum(values * weights)
        return values, *tape.gradient(total, [hidden, projection])

    ours = tf.function(lambda: with_gradient(chosen_log_probs), jit_compile=jit)()
    for mine, theirs in zip(ours, with_gradient(plain), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_log_probs_of_extreme_logits_are_finite():
    projection = tf.constant([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
    values = chosen_log_probs(tf.constant([[1.0], [1.0]]), projection, tf.constant([0, 1]))
    np.testing.assert_allclose(values, [0.0, -2e4], atol=1e-3)


# ---- the sampler


def draw(logits, numbers, jit=False):
    logits, numbers = tf.constant(logits, tf.float32), tf.constant(numbers, tf.float32)
    return tf.function(sample_tokens, jit_compile=jit)(logits, numbers).numpy()


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("vocab_size", [5000, 4999])
def test_a_skewed_distribution_over_many_tokens(jit, vocab_size):
    logits = np.random.default_rng(0).normal(0, 3, [1, vocab_size])
    numbers = np.random.default_rng(1).random([400, 1000], np.float32)
    draws = draw(np.repeat(logits, 1000, axis=0), numbers, jit)
    counts = np.bincount(draws.ravel(), minlength=vocab_size)
    assert counts.shape == (vocab_size,)
    assert chi_square(counts, np.exp(logits[0])) > 1e-3


@pytest.mark.parametrize("jit", [True, False])
def test_draws_invert_the_distribution_function_in_block_order(jit):
    vocab_size = 12
    probs = np.random.default_rng(2).dirichlet(np.ones(vocab_size))
    edges = np.concatenate([[0], np.cumsum(probs)])
    inside = np.concatenate([edges[:-1] + 1e-5, edges[1:] - 1e-5])
    draws = draw(np.log(probs)[None], inside[:, None], jit)
    np.testing.assert_array_equal(draws[:, 0], np.tile(np.arange(vocab_size), 2))


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("vocab_size", [2, 3, 7, 100, 5000])
def test_extreme_numbers_draw_tokens_that_have_mass(jit, vocab_size):
    rng = np.random.default_rng(vocab_size)
    for scale in (0.0, 1.0, 100.0, 1e4):  # ties, ordinary, and logits far beyond what exp can hold
        logits = rng.normal(0, scale, [64, vocab_size]).astype(np.float32)
        logits[:, rng.random(vocab_size) < 0.3] = -np.inf
        logits[:, rng.integers(vocab_size)] = scale  # at least one token is possible
        numbers = np.stack([np.zeros(64), np.full(64, ALMOST_ONE), rng.random(64)]).astype(np.float32)
        draws = draw(logits, numbers, jit)
        assert draws.min() >= 0 and draws.max() < vocab_size
        chosen = np.take_along_axis(logits[None].repeat(3, axis=0), draws[..., None], axis=2)[..., 0]
        assert (chosen > logits.max(axis=1) - 104).all()  # exp(-104) is 0 in float32


def test_ties_are_equally_likely():
    counts = np.bincount(draw(np.zeros([1000, 9]), np.random.default_rng(0).random([90, 1000])).ravel(), minlength=9)
    assert chi_square(counts, np.ones(9)) > 1e-3


def test_one_row_can_be_drawn_from_many_times():
    logits = np.random.default_rng(0).normal(size=[5, 30])
    numbers = np.random.default_rng(1).random([7, 5])
    together = draw(logits, numbers)
    np.testing.assert_array_equal(together, [draw(logits, row) for row in numbers])


@pytest.mark.parametrize("vocab_size", [2, 3, 4, 71, 89, 4999, 5000, 10_000])
def test_blocks_hold_the_vocabulary(vocab_size):
    width, blocks = block_shape(vocab_size)
    assert width * blocks >= vocab_size > width * (blocks - 1)
    assert width < 2 * np.sqrt(vocab_size) + 1


# ---- the random numbers


@pytest.mark.parametrize("jit", [True, False])
def test_keys_give_the_same_numbers_again_and_other_keys_others(jit):
    numbers = tf.function(lambda *steps: uniforms([1000], key(7, Purpose.ROLLOUT, *steps)), jit_compile=jit)
    first = numbers(tf.constant(1), tf.constant(2))
    np.testing.assert_array_equal(first, numbers(tf.constant(1), tf.constant(2)))
    others = [
        numbers(tf.constant(2), tf.constant(1)),
        numbers(tf.constant(1)),
        uniforms([1000], key(8, Purpose.ROLLOUT, 1, 2)),
        uniforms([1000], key(7, Purpose.DROPOUT, 1, 2)),
    ]
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.15
    assert scipy.stats.kstest(first, "uniform").pvalue > 1e-3


def test_permutations_are_permutations_and_uniform():
    orders = np.array([permutation(3, key(1, Purpose.D_SHUFFLE, i)).numpy() for i in range(1200)])
    assert (np.sort(orders, axis=1) == np.arange(3)).all()
    counts = np.bincount(index_of(orders, 3))
    assert chi_square(counts[counts > 0], np.ones(6)) > 1e-3


def test_enumeration_helper_lists_every_sequence_once():
    sequences = all_sequences(3, 4)
    np.testing.assert_array_equal(index_of(sequences, 3), np.arange(81))


@pytest.mark.parametrize("jit", [True, False, None], ids=["XLA", "graph", "eager"])
def test_teacher_forcing_and_its_gradient_are_those_of_the_cell_step_by_step(jit):
    """Gradients of what is read, kernel, recurrent kernel and bias, from both parts of all states."""
    cell = random_generator(seq_len=6).cell
    random = np.random.default_rng(0)
    inputs = tf.constant(random.normal(size=[6, 4, cell.kernel.shape[0]]), tf.float32)
    weights = tf.constant(random.normal(size=[2, 6, 4, cell.units]), tf.float32)

    def one_by_one(inputs: tf.Tensor) -> State:
        states = [State(*[tf.zeros([4, cell.units])] * 2)]
        for read in inputs:
            states.append(State(*cell(read, list(states[-1]))[1]))
        return State(*map(tf.stack, zip(*states[1:], strict=True)))

    def values_and_gradients(run, inputs: tf.Tensor):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            states = tf.stack(run(inputs))
            total = tf.reduce_sum(weights * states)
        return [states, *map(tf.convert_to_tensor, tape.gradient(total, [inputs, *cell.trainable_variables]))]

    expected = values_and_gradients(one_by_one, inputs)

    def looped(inputs):
        return values_and_gradients(lambda inputs: run_lstm(cell, inputs), inputs)

    found = looped(inputs) if jit is None else tf.function(looped, jit_compile=jit, autograph=False)(inputs)
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
