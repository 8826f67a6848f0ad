"""Each reward, and the KL penalty, against exact gradients by enumeration; BLEU against nltk's."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import ENDS, TINY, cases, tiny_config, train
from enumeration import action_values, all_sequences, probabilities, random_generator, randomise_all
from fault_injection import timeless_rows
from test_model import exact_gradient, flat

from evaluation.ngrams import bleu
from generator import TokenSpec
from model import SeqGAN, build
from reward import Bleu
from support.registries import REWARDS
from support.seeds import Purpose, key

BETA = 0.7
STEP = tf.constant(0)


def model_of(reward: str, *flags: str, end_token: int | None = None) -> SeqGAN:
    """V = 4, T = 3, networks far from uniform; the reference policy differs from the policy."""
    oracle = random_generator(4, 3, seed=7, end_token=end_token)
    known = {"oracle": oracle, "references": lambda: some_references(end_token)}
    train_size = ["--train_size", "8"] if reward == "bleu" else []
    config = tiny_config("--reward", reward, *train_size, *flags)
    return randomise_all(build(config, TokenSpec(4, 3, 0, end_token), **known))


def some_references(end_token: int | None) -> np.ndarray:
    return all_sequences(4, 3, end_token)[[0, 9, 20, 33]]


def stripped(sequences: np.ndarray, end_token: int | None, padding: int = 4) -> list[list[int]]:
    """Without ends and padding."""
    return [[token for token in row if token not in (end_token, padding)] for row in sequences.tolist()]


def scores_of(model: SeqGAN) -> np.ndarray:
    """What the reward without --kl_weight pays each sequence, [n], from its definition."""
    end_token = model.generator.end_token
    sequences, reward = all_sequences(4, 3, end_token), model.config.reward
    if reward in ("discriminator", "log_odds"):
        real_prob = tf.sigmoid(model.discriminator.log_odds(tf.constant(sequences))).numpy().astype(np.float64)
        return real_prob if reward == "discriminator" else np.log(real_prob) - np.log1p(-real_prob)
    if reward in ("optimal", "log_ratio"):
        p, g = probabilities(model.reward.parts.oracle), probabilities(model.generator)
        return p / (p + g) if reward == "optimal" else np.log(p) - np.log(g)
    if reward == "bleu":
        return bleu(stripped(sequences, end_token), stripped(some_references(end_token), end_token), (3,))[:, 0]
    return np.ones(len(sequences))


def values_of(model: SeqGAN) -> tuple[np.ndarray, np.ndarray]:
    """The exact action values under the scorer, and the standard deviation of a completion's score; [n, T] each."""
    sequences = tf.constant(all_sequences(4, 3, model.generator.end_token))
    score = model.reward.scorer(sequences, STEP)
    scores = [score(sequences[None], tf.constant(n))[0].numpy().astype(np.float64) for n in (1, 2, 3)]
    powers = [[action_values(model.generator, scores[n] ** power)[:, n] for n in range(3)] for power in (1, 2)]
    mean, square = (np.stack(values, axis=1) for values in powers)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


@cases("beta, end_token", (0, None), (BETA, 2))
@cases("reward", *(name for name in REWARDS if name not in ("random", "permuted")))
def test_the_expected_gradient_is_that_of_the_expected_reward_less_the_divergence(reward, beta, end_token):
    model = model_of(reward, *(["--kl_weight", str(beta)] if beta else []), end_token=end_token)
    sequences, scores = all_sequences(4, 3, end_token), scores_of(model)
    values, _ = values_of(model)
    if not beta:
        np.testing.assert_allclose(values, action_values(model.generator, scores), rtol=1e-4, atol=1e-5)
    weights = probabilities(model.generator) * len(sequences)  # the loss is a mean over the batch
    rewards = values * weights[:, None]
    loss, gradients = model.policy_gradient(tf.constant(sequences), tf.constant(rewards, tf.float32))
    expected = -(model.generator.log_probs(tf.constant(sequences)).numpy() * rewards).sum(axis=1).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    exact = exact_gradient(model, scores)
    np.testing.assert_allclose(flat(gradients), exact, atol=3e-5)
    assert (np.linalg.norm(exact) > 0.05) == (reward != "constant" or beta > 0)


@ENDS
@cases("baseline", "none", "batch", "prefix")
def test_an_action_is_not_charged_for_what_came_before_it(baseline, end_token):
    """Not in its reward, or not once the prefix's is subtracted."""
    model = model_of("log_odds", "--kl_weight", str(BETA), "--baseline", baseline, end_token=end_token)
    sequences = tf.constant(all_sequences(4, 3, end_token))
    score, scores = model.reward.scorer(sequences, STEP), scores_of(model)
    ratios = (model.generator.log_probs(sequences) - model.reward.reference.log_probs(sequences)).numpy()
    for n in (1, 2, 3):
        found, counted = score(sequences[None], tf.constant(n))[0], ratios[:, 0 if baseline == "prefix" else n - 1 :]
        np.testing.assert_allclose(found, scores - BETA * counted.sum(axis=1), atol=1e-4)


@cases("reward, end_token", ("log_odds", None), ("log_ratio", 2), ("bleu", 2))
def test_rollouts_are_scored_as_the_sequences_that_they_are(reward, end_token):
    """Of many completions of every prefix, and inside the loop of the reward pass."""
    model = model_of(reward, "--kl_weight", str(BETA), end_token=end_token)
    sequences = tf.constant(all_sequences(4, 3, end_token))

    def passed(tokens):
        return model.rollout_policy.rewards(tokens, model.reward.scorer(tokens, STEP), 500, key(1, Purpose.ROLLOUT, 0))

    values, deviations = values_of(model)
    passed = tf.function(passed, jit_compile=True) if reward == "log_ratio" else passed
    found, errors = passed(sequences).numpy(), deviations / np.sqrt(500)
    assert (np.abs(found - values) < 5 * errors + 2e-4).all()
    assert (np.abs(np.diff(values, axis=1)).max(axis=0) > 10 * errors.max()).all()  # another step's would show


def test_the_reference_policy_is_kept_where_the_adversarial_phase_begins(eagerly):
    model = model_of("log_odds", "--kl_weight", "0.5")
    model.begin_adversarial()
    reference = probabilities(model.generator)
    model.g_step(STEP)
    np.testing.assert_array_equal(probabilities(model.reward.reference), reference)
    assert (probabilities(model.generator) != reference).any()


def test_a_random_reward_is_a_function_of_seed_step_and_place(eagerly):
    model, other = (model_of("random", "--seed", seed, "--batch_size", "500") for seed in "12")
    first, second = (model.g_step(tf.constant(step)) for step in (0, 1))
    again = model.g_step(STEP)  # by now the policy is another
    assert (first.tokens.numpy() != again.tokens.numpy()).any()
    np.testing.assert_array_equal(first.rewards, again.rewards)
    values = [r.rewards.numpy().ravel() for r in (first, second, other.g_step(STEP))]
    for one in values:
        assert len(np.unique(one)) > 1450 and one.min() >= 0 and one.max() < 1  # a number for each place
        assert abs(one.mean() - 0.5) < 0.04 and abs(one.var() - 1 / 12) < 0.01
    for one, two in itertools.combinations(values, 2):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_permuted_rewards_are_those_of_other_samples(eagerly):
    own, moved = (model_of(reward, "--batch_size", "50").g_step(STEP) for reward in ("discriminator", "permuted"))
    np.testing.assert_array_equal(own.tokens, moved.tokens)
    rows, others = own.rewards.numpy(), moved.rewards.numpy()
    order = np.lexsort(rows.T), np.lexsort(others.T)
    np.testing.assert_allclose(rows[order[0]], others[order[1]], atol=1e-6)  # whole rows, each once
    assert (rows == others).all(axis=1).sum() < 10
    model = model_of("permuted", "--batch_size", "50")
    first, second = (model.reward.scorer(own.tokens, tf.constant(step)) for step in (0, 1))
    assert np.any(first(own.tokens[None], tf.constant(3)) != second(own.tokens[None], tf.constant(3)))


@cases("reward", *REWARDS)
def test_rollouts_and_a_discriminator_exist_only_where_they_are_needed(eagerly, reward):
    def drawn(*flags: str) -> bool:
        rollouts = model_of(reward, *flags)._drawn(STEP)[1]
        return rollouts.shape[:2] == (2, 2)  # of each shorter prefix two

    assert drawn() == REWARDS[reward].rollouts == (reward not in ("constant", "random"))
    if not REWARDS[reward].rollouts:
        assert drawn("--kl_weight", "1")  # for the divergence
    needed = reward in ("discriminator", "permuted", "log_odds")
    assert (model_of(reward).discriminator is not None) == REWARDS[reward].discriminator == needed
    if reward == "constant":
        np.testing.assert_array_equal(model_of(reward).g_step(STEP).rewards, np.ones([4, 3]))


def test_a_run_without_a_discriminator(tmp_path, eagerly):
    words = f"--pretrain_g_epochs 2 --total_epochs 2 --log_dir {tmp_path}/train --eval_log_dir {tmp_path}/eval"
    assert train([*TINY, "--reward", "random", *words.split()]) == 0
    found = timeless_rows(tmp_path / "train")
    assert [row["phase"] for row in found] == ["pretrain_g"] * 2 + ["adversarial"] * 2
    assert not any(value for row in found for name, value in row.items() if name.startswith("d_"))
    assert all(0 < float(row["g_reward"]) < 1 for row in found[2:])
    newest = max((tmp_path / "train" / "checkpoints").iterdir()) / "weights"
    kept = tf.train.load_checkpoint(str(newest)).get_variable_to_shape_map()
    assert not any("discriminator" in name or "d_optimizer" in name for name in kept)
    assert all(row["nll_test"] for row in timeless_rows(tmp_path / "eval"))


@cases("seq_len", 2, 3, 8)
@cases("end_token", None, 6, ids=["one length", "unequal lengths"])
def test_bleu_is_nltks(seq_len, end_token):
    """Also where references are longer or shorter, where an n-gram occurs repeatedly, and where nothing matches."""
    rng = np.random.default_rng(seq_len)

    def drawn(count: int, low: int) -> np.ndarray:
        tokens = rng.integers(low, 7, [count, seq_len]).astype(np.int32)
        ended = np.cumsum(tokens == end_token, axis=1) - (tokens == end_token) > 0
        return np.where(ended, 7, tokens)

    references, samples = drawn(12, low=2), drawn(60, low=0)
    samples[0], samples[1, 0] = 3, 0
    if end_token is not None:
        samples[2] = [end_token] + [7] * (seq_len - 1)
        references = references[references[:, 0] != end_token]  # none is empty
    table = Bleu(references, 7, end_token)
    found = tf.function(table.score, jit_compile=True)(tf.constant(samples.reshape(3, 20, seq_len)))
    exact = bleu(stripped(samples, end_token, 7), stripped(references, end_token, 7), (3,))[:, 0]
    np.testing.assert_allclose(found.numpy().ravel(), exact, atol=1e-6)
    assert len(np.unique(exact)) > 3 and (seq_len < 3 or exact.max() > 0.4)
