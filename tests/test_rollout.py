import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import assert_same
from enumeration import action_values, all_sequences, index_of, probabilities, random_generator, randomise
from test_generator import chi_square

from generator import sample_tokens
from rollout import RolloutPolicy
from support.seeds import Purpose, key, uniforms

KEY = key(5, Purpose.ROLLOUT, 0)
TABLE = np.random.default_rng(9).random(5**4).astype(np.float32)


def known_scorer(rollouts, prefix_len=None):
    """A reward in 0..1 that depends on every token: of 4, or of padding."""
    powers = tf.constant(5 ** np.arange(rollouts.shape[-1])[::-1], tf.int32)
    return tf.gather(tf.constant(TABLE), tf.reduce_sum(rollouts * powers, axis=-1))


@pytest.fixture(params=[(None, False), (2, True)], ids=["one length, no-jit", "unequal lengths, jit"])
def both(request):
    """A policy, and how its functions are compiled."""
    end_token, jit = request.param
    policy = RolloutPolicy(random_generator(4, 4, seed=3, end_token=end_token))
    return policy, lambda f: tf.function(f, jit_compile=jit)


def test_rollouts_keep_their_prefix_and_follow_the_conditional_distribution(both):
    policy, function = both
    sequences, probs = all_sequences(4, 4, policy.end_token), probabilities(policy)
    tokens = sequences[np.linspace(0, len(sequences) - 1, 8).astype(int)]
    numbers = uniforms([4, 20_000, 8], KEY)
    complete = function(lambda tokens, n: policy.complete(tokens, policy.states(tokens), n, numbers))
    for prefix_len, b in itertools.product(range(4), range(8)):
        if b == 0:
            rollouts = complete(tf.constant(tokens), tf.constant(prefix_len)).numpy()
            assert rollouts.shape == (20_000, 8, 4)
        same = (sequences[:, :prefix_len] == tokens[b, :prefix_len]).all(axis=1)
        counts = np.bincount(index_of(rollouts[:, b], 4, policy.end_token), minlength=len(sequences))
        assert counts[~same].sum() == 0  # the prefix is kept
        if same.sum() > 1:
            assert chi_square(counts[same], probs[same]) > 1e-4
        else:  # finished: not rolled on
            assert policy.end_token in tokens[b, :prefix_len]


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 255, 256, 257, 389, 640])
def test_drawing_in_blocks_draws_the_same(rows):
    policy = RolloutPolicy(random_generator(40, 4, seed=3))
    hidden, numbers = tf.random.stateless_normal([rows, policy.hidden_dim], [1, 2]), uniforms([rows], KEY)
    drawn = tf.function(lambda: policy.draw(hidden, policy.projection(), numbers), jit_compile=rows in (1, 389))()
    expected = sample_tokens(policy.logits(hidden), numbers).numpy()
    assert len(set(expected)) > 5 or rows == 1
    np.testing.assert_array_equal(drawn, expected)


def test_rewards_converge_to_the_action_values_at_every_step(both):
    policy, function = both
    every = all_sequences(4, 4, policy.end_token)
    sequences, scores = every[::5], known_scorer(tf.constant(every)).numpy()  # of each length, with and without an end
    exact, n = action_values(policy, scores)[::5], 8000
    rewards = function(lambda tokens: policy.rewards(tokens, known_scorer, n, KEY))(tf.constant(sequences))
    assert rewards.shape == exact.shape
    error = 0.5 / np.sqrt(n)  # scores lie in [0, 1]: their standard deviation is at most 0.5
    np.testing.assert_allclose(rewards, exact, atol=4.5 * error)
    np.testing.assert_allclose(rewards[:, -1], scores[::5], rtol=1e-6)  # Q(T) is the score itself
    ended = np.cumsum(sequences == policy.end_token, axis=1) > 0  # and so is that of a finished sequence
    np.testing.assert_allclose(rewards[ended], np.broadcast_to(scores[::5, None], ended.shape)[ended], rtol=1e-4)
    assert (np.abs(np.diff(exact, axis=1)).max(axis=0) > 3 * 4.5 * error).all()  # an entry of another step would show


def test_prefix_lengths_and_rollouts_draw_independent_numbers():
    """With four tokens alike the same numbers would draw the same tokens; others agree in one of four."""
    generator = random_generator(4, 4, seed=3)
    randomise(generator, seed=0, stddev=0.0)
    policy, seen = RolloutPolicy(generator), []

    def record(rollouts, prefix_len):
        seen.append((int(prefix_len), rollouts.numpy()))
        return tf.zeros(rollouts.shape[:2])

    policy.rewards(tf.zeros([3, 4], tf.int32), record, 500, KEY)
    assert [(n, r.shape) for n, r in seen] == [(4, (1, 3, 4)), (1, (500, 3, 4)), (2, (500, 3, 4)), (3, (500, 3, 4))]
    last = [rollouts[:, :, 3] for _, rollouts in seen[1:]]  # drawn for each prefix length
    for first, second in itertools.pairwise(last):
        assert (first == second).mean() < 0.3
    assert (last[2][:, 0] == last[2][:, 1]).mean() < 0.35


@pytest.mark.parametrize("lag", [0.0, 0.8, 1.0])
def test_the_rollout_policy_lags(lag):
    policy = random_generator(seed=1)
    rollout_policy = RolloutPolicy(policy)
    before = [w.numpy() for w in rollout_policy.weights]
    assert_same(before, policy.weights)
    randomise(policy, seed=2)
    tf.function(lambda: rollout_policy.follow(policy, lag), jit_compile=True)()
    for old, theta, beta in zip(before, policy.weights, rollout_policy.weights, strict=True):
        np.testing.assert_allclose(beta, lag * old + (1 - lag) * theta.numpy(), rtol=1e-6, atol=1e-7)
