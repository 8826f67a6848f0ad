import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from conftest import assert_same, cases
from enumeration import all_sequences, index_of, of_tokens, probabilities, random_generator, randomise
from scipy.special import expit as sigmoid

import generator as policies
from generator import Averaged, Excluding, Generator, Policy, PolicyWrapper, State, Tempered, chosen_log_probs
from support.seeds import Purpose, key, uniforms

ENDS = pytest.mark.parametrize("end_token", [None, 1], ids=["one length", "unequal lengths"])
JIT = pytest.mark.parametrize("jit", [True, False], ids=["XLA", "no XLA"])


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    """The p-value of counts under probs; cells of fewer than 5 expected counts are merged into one."""
    expected = probs / probs.sum() * counts.sum()
    small = expected < 5
    observed = np.append(counts[~small], counts[small].sum())
    expected = np.append(expected[~small], expected[small].sum())
    keep = expected > 0
    assert observed[~keep].sum() == 0
    return scipy.stats.chisquare(observed[keep], expected[keep]).pvalue


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
        length, log_probs = 5 - row.count(4), padded.log_probs(tf.constant([row]))
        np.testing.assert_allclose(log_probs[:, :length], plain.log_probs(tf.constant([row[:length]])), rtol=1e-5)
        np.testing.assert_array_equal(log_probs[:, length:], 0)
        np.testing.assert_array_equal(padded.mask(tf.constant([row])), [[1] * length + [0] * (5 - length)])


@cases(
    "jit, start_token, end_token",
    *((False, 0, None), (True, 2, None), (False, 4, None), (True, 5, 3), (False, 5, 0), (False, 2, 1)),
)
def test_sampled_frequencies_match_probabilities(jit, start_token, end_token):
    generator = Generator(4, 3, 3, 5, seed=0, stddev=1.0, start_token=start_token, end_token=end_token)
    assert drawn_by(generator, jit) > 1e-3 and probabilities(generator).sum() == pytest.approx(1, abs=1e-5)


def drawn_by(policy: Policy, jit: bool = False, probs: np.ndarray | None = None, prefix=None) -> float:
    """The p-value of 40,000 samples under probabilities of all sequences, by default the policy's own."""

    def sample(seed: tf.Tensor) -> tf.Tensor:
        return policy.sample_on(policy.start(40_000), uniforms([3, 40_000], seed), prefix)[0]

    sample = tf.function(sample, jit_compile=True) if jit else sample
    probs = probabilities(policy) if probs is None else probs
    places = index_of(sample(key(1, Purpose.G_SAMPLE, 0)).numpy(), policy.vocab_size, policy.end_token)
    return chi_square(np.bincount(places, minlength=len(probs)), probs)


@cases(
    "prefix, end_token",
    *(([2, -1, -1], None), ([-1, 3, -1], None), ([-1, -1, 0], None), ([2, -1, -1], 1), ([0, 3, -1], 1)),
)
def test_a_prefix_is_kept_and_the_rest_follows_it(prefix, end_token):
    """Each free token has its distribution after those before it, drawn or given."""
    policy, sequences = random_generator(end_token=end_token), all_sequences(4, 3, end_token)
    token_probs = np.exp(policy.log_probs(tf.constant(sequences)).numpy().astype(np.float64))
    probs = np.ones(len(sequences))
    for t, token in enumerate(prefix):
        probs *= token_probs[:, t] if token < 0 else sequences[:, t] == token
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    assert drawn_by(policy, probs=probs, prefix=tf.constant(prefix)) > 1e-3


@pytest.mark.parametrize(("jit", "end_token"), [(True, 1), (False, None)])
def test_sequences_drawn_in_stretches_are_those_drawn_at_once(jit, end_token):
    policy, numbers = random_generator(vocab_size=5, seq_len=7, end_token=end_token), uniforms([7, 300], [1, 2])
    on = tf.function(policy.sample_on, jit_compile=jit, autograph=False)
    for given in (None, tf.constant([-1, 2, -1, -1, -1, 3, -1])):
        place, parts = policy.start(300), []
        whole, _ = policy.sample_on(place, numbers, given)
        for first, last in ((0, 1), (1, 4), (4, 7)):
            part, place = on(place, numbers[first:last], None if given is None else given[first:last])
            parts.append(part)
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    many = policies.sample_many(policy, 600, key(1, Purpose.EVALUATE)).numpy()
    assert many.shape == (600, 7) and (many[:256] != many[256:512]).any()  # each chunk has numbers of its own


WRAPPERS = {  # what wraps two policies, and its next token's probabilities, up to a factor, by theirs
    "wrapped": (lambda a, b: PolicyWrapper(a), lambda p, q: p),
    "cooled": (lambda a, b: Tempered(a, 0.5), lambda p, q: p**2),
    "heated": (lambda a, b: Tempered(a, 3.0), lambda p, q: p ** (1 / 3)),
    "excluding": (lambda a, b: Excluding(a, [2]), lambda p, q: p * [1, 1, 0, 1]),
    "both": (lambda a, b: Excluding(Tempered(a, 0.5), [2]), lambda p, q: p**2 * [1, 1, 0, 1]),
    "averaged": (lambda a, b: Averaged([a, b]), lambda p, q: p + q),
    "cooled average": (lambda a, b: Tempered(Averaged([a, b]), 0.5), lambda p, q: (p + q) ** 2),
}


@ENDS
@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapper_has_the_distribution_of_the_next_token_that_it_says(kind, end_token):
    """And follows when what it wraps changes."""
    wrap, next_token = WRAPPERS[kind]
    both, sequences = [random_generator(end_token=end_token) for _ in range(2)], all_sequences(4, 3, end_token)
    wrapper = wrap(*both)
    for seed, policy in enumerate(both, start=1):
        randomise(policy, seed)
    assert {id(weight) for weight in wrapper.weights} <= {id(weight) for policy in both for weight in policy.weights}
    logits = (policy.logits(policy.states(tf.constant(sequences)).hidden) for policy in both)
    probs = next_token(*(tf.nn.softmax(each).numpy().astype(np.float64) for each in logits))  # [T, n, V]
    log_probs = np.log(np.maximum(probs / probs.sum(axis=2, keepdims=True), 1e-99))
    exact = np.exp(of_tokens(log_probs, sequences).sum(axis=1))
    assert exact.sum() == pytest.approx(1, abs=1e-5)
    assert drawn_by(wrapper, jit=kind == "both" and end_token == 1, probs=exact) > 1e-3
    assert (np.abs(exact - probabilities(both[0])).max() < 1e-5) == (kind == "wrapped")
    np.testing.assert_allclose(probabilities(wrapper), exact, rtol=1e-3, atol=1e-12)
    _, entropy, _ = wrapper.sample_and_compare(uniforms([3, 20_000], key(1, Purpose.EVALUATE)))
    expected = -exact @ np.log(np.maximum(exact, 1e-30))
    assert abs(np.mean(entropy) - expected) < 4 * np.std(entropy) / np.sqrt(20_000) + 1e-5


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
    generator.output_layer.bias.assign([0.0, -np.inf, 0.0, -1e30])  # impossible tokens count as nothing
    _, entropy, cross_entropy = generator.sample_and_compare(numbers, generator)
    assert np.isfinite(entropy).all() and np.isfinite(cross_entropy).all()


@JIT
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
    assert_same(ours, with_gradient(plain), rtol=1e-4, atol=1e-5)
    projection = tf.constant([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
    values = chosen_log_probs(tf.constant([[1.0], [1.0]]), projection, tf.constant([0, 1]))
    np.testing.assert_allclose(values, [0.0, -2e4], atol=1e-3)


def draw(logits, numbers, jit=False):
    logits, numbers = tf.constant(logits, tf.float32), tf.constant(numbers, tf.float32)
    return tf.function(policies.sample_tokens, jit_compile=jit)(logits, numbers).numpy()


@pytest.mark.parametrize(("vocab_size", "jit"), [(5000, True), (4999, False)])
def test_a_skewed_distribution_over_many_tokens(vocab_size, jit):
    logits = np.random.default_rng(0).normal(0, 3, [1, vocab_size])
    numbers = np.random.default_rng(1).random([100, 1000], np.float32)
    draws = draw(np.repeat(logits, 1000, axis=0), numbers, jit)
    counts = np.bincount(draws.ravel(), minlength=vocab_size)
    assert counts.shape == (vocab_size,) and chi_square(counts, np.exp(logits[0])) > 1e-3


@JIT
def test_draws_invert_the_distribution_function_in_block_order(jit):
    vocab_size = 12
    probs = np.random.default_rng(2).dirichlet(np.ones(vocab_size))
    edges = np.concatenate([[0], np.cumsum(probs)])
    inside = np.concatenate([edges[:-1] + 1e-5, edges[1:] - 1e-5])
    draws = draw(np.log(probs)[None], inside[:, None], jit)
    np.testing.assert_array_equal(draws[:, 0], np.tile(np.arange(vocab_size), 2))
    rounded = tf.constant([0.5, 1.0, 1.0]), tf.constant([0.5, 0.5, 0.0]), tf.constant([0.0, 0.5, 1.0])
    np.testing.assert_array_equal(policies.first_above(*rounded), [0, 1, 1])  # of all, the last with mass


@cases("vocab_size, jit", (2, True), (2, False), (3, False), (7, True), (100, False), (5000, True), (5000, False))
def test_extreme_numbers_draw_tokens_that_have_mass(jit, vocab_size):
    rng = np.random.default_rng(vocab_size)
    for scale in (0.0, 1.0, 100.0, 1e4):  # ties, ordinary, and logits far beyond what exp can hold
        logits = rng.normal(0, scale, [64, vocab_size]).astype(np.float32)
        logits[:, rng.random(vocab_size) < 0.3] = -np.inf
        logits[:, rng.integers(vocab_size)] = scale  # at least one token is possible
        numbers = np.stack([np.zeros(64), np.full(64, 1 - 2**-24), rng.random(64)]).astype(np.float32)  # the largest
        draws = draw(logits, numbers, jit)
        assert draws.min() >= 0 and draws.max() < vocab_size
        chosen = np.take_along_axis(logits[None].repeat(3, axis=0), draws[..., None], axis=2)[..., 0]
        assert (chosen > logits.max(axis=1) - 104).all()  # exp(-104) is 0 in float32


@pytest.mark.parametrize("jit", [True, False, None], ids=["XLA", "graph", "eager"])
def test_teacher_forcing_and_its_gradient_are_those_of_the_cell_step_by_step(jit):
    """Gradients of what is read, kernel, recurrent kernel and bias, from both parts of all states."""
    cell, random = random_generator(seq_len=6).cell, np.random.default_rng(0)
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
        return values_and_gradients(lambda inputs: policies.run_lstm(cell, inputs), inputs)

    found = looped(inputs) if jit is None else tf.function(looped, jit_compile=jit, autograph=False)(inputs)
    assert len(found) == 5
    assert_same(found, expected, rtol=1e-4, atol=1e-5)
