"""What is measured against hand computation and nltk itself."""

from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from enumeration import by_token, of_tokens
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from evaluation.discriminator import balanced_accuracy, best_eta, cross_fitted_gain, reweighting_gain
from evaluation.ngrams import bleu, distinct, self_bleu
from experiments.kneser_ney import KneserNey, Mixture
from generator import Generator
from support.statistics import log_mean_exp, mean_and_error, ratio_and_error

SENTENCES = st.lists(st.integers(0, 3), max_size=9)


def test_mean_and_error_by_hand():
    mean, error = mean_and_error(np.array([1, 2, 3, 4]))
    assert mean == 2.5
    assert error == pytest.approx(np.sqrt(5 / 3) / 2)  # variance 5/3, four values
    assert mean_and_error(np.array([False, True]))[0] == 0.5
    assert mean_and_error(np.array([7.0])) == pytest.approx((7, np.nan), nan_ok=True)  # of one it is unknown


def test_bleu_by_hand():
    # n-grams found: 4 of 4, 3 of 3 (two in one reference, one in the other), 1 of 2, and 0 of 1, which counts as 0.1.
    scores = bleu(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 3, 5], [9, 9, 3, 4]]))
    np.testing.assert_allclose(scores, [[1, (1 / 2) ** (1 / 3), (1 / 2 * 0.1) ** (1 / 4)]])


@given(
    samples=st.lists(SENTENCES, min_size=1, max_size=4),
    references=st.lists(SENTENCES, min_size=1, max_size=12),
    orders=st.sampled_from([(4,), (2, 3, 4), (1,)]),
)
def test_bleu_is_nltks_with_all_references(samples, references, orders):
    """To the bit, though nltk is given only those that count."""
    expected = [[nltks(references, sample, order) for order in orders] for sample in samples]
    np.testing.assert_array_equal(bleu(samples, references, orders), expected)


@given(samples=st.lists(SENTENCES, min_size=2, max_size=8))
def test_self_bleu_is_nltks_with_all_others(samples):
    others = [[*samples[:i], *samples[i + 1 :]] for i in range(len(samples))]
    expected = [[nltks(other, sample, n) for n in (2, 3)] for other, sample in zip(others, samples, strict=True)]
    np.testing.assert_array_equal(self_bleu(samples, (2, 3)), expected)


def test_bleu_takes_words_and_characters():
    references, samples = ["a red bus", "a dog runs . a", "bus"], ["a red dog runs .", "bus a", ""]
    for split in (str.split, str):
        words, others = [split(line) for line in samples], [split(line) for line in references]
        expected = [[nltks(list(map(list, others)), list(line), n) for n in (2, 3)] for line in words]
        np.testing.assert_array_equal(bleu(words, others, (2, 3)), expected)
        assert np.ptp(expected) > 0.1


def nltks(references: list[list[int]], sample: list[int], order: int) -> float:
    return sentence_bleu(references, sample, (1 / order,) * order, SmoothingFunction().method1)


def test_distinct_by_hand_and_its_error_is_its_spread():
    # Bigrams 11, 11, 11 | 12, 23, 34 | 34, 43, 34: five different ones of 9.
    samples = np.array([[1, 1, 1, 1], [1, 2, 3, 4], [3, 4, 3, 4]])
    share, error = distinct(samples)
    assert share == pytest.approx(5 / 9)
    without = np.array([4, 3, 4]) / 6  # without the first 11 goes, without the second 12 and 23, without the third 43
    assert error == pytest.approx(np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum()))
    assert distinct([[1, 2, 1], [5], [1, 2, 3, 1, 2]], 2)[0] == pytest.approx(4 / 6)  # 12, 21, 23, 31
    assert distinct([[1, 2, 1], [1, 2, 1]], 1)[0] == pytest.approx(2 / 6)
    rng = np.random.default_rng(0)
    found = np.array([distinct(rng.zipf(1.5, [40, 8]) % 50) for _ in range(400)])
    assert 0.95 < found[:, 1].mean() / found[:, 0].std() < 1.3  # rather too large than too small


def test_log_mean_exp_has_hardly_a_bias_and_an_honest_error():
    """Of equal values it is their value; log E[exp(r)] = σ²/2 for r from N(0, σ²)."""
    assert log_mean_exp(np.full(7, -3.0)) == pytest.approx((-3.0, 0.0), abs=1e-12)
    assert log_mean_exp(np.array([0.0, np.log(3)])) == pytest.approx((np.log(4) - np.log(3) / 2, np.log(3) / 2))
    for values in ([800.0, -800.0], [-1e5, -1e5 - 1], [0.0, 0.0, -1e4]):
        assert np.isfinite(log_mean_exp(np.array(values))).all()
    sigma, draws = 1.0, np.random.default_rng(0).normal(0.0, 1.0, [4000, 50])
    found = np.array([log_mean_exp(row) for row in draws])
    plain = np.log(np.exp(draws).mean(axis=1)).mean() - sigma**2 / 2
    assert plain < -0.012  # of the logarithm of the mean
    assert abs(found[:, 0].mean() - sigma**2 / 2) < 0.006 and 0.85 < found[:, 1].mean() / found[:, 0].std() < 1.1


def test_balanced_accuracy_by_hand():
    accuracy, error = balanced_accuracy(np.array([1.0, -1.0, 2.0, 0.0]), np.array([-1.0, 0.0, 3.0]))
    assert accuracy == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert error == pytest.approx(np.hypot(np.sqrt(1 / 3) / 2, np.sqrt(1 / 3) / np.sqrt(3)) / 2)
    assert balanced_accuracy(np.zeros(5), np.zeros(9)) == (0.5, 0.0)  # no opinion


def test_the_best_eta_of_normal_log_odds():
    """η m - η² σ² / 2 is largest at η = m / σ² for reals of mean m and fakes from N(0, σ²)."""
    rng = np.random.default_rng(1)
    real, fake = 0.3 + rng.normal(0.0, 0.5, 200_000), rng.normal(0.0, 0.5, 200_000)
    assert best_eta(real, fake) == pytest.approx(1.2, abs=0.02)
    assert best_eta(real / 50, fake / 50) == pytest.approx(60, abs=1)  # whatever the scale
    assert best_eta(fake, real) == 0.0  # worse than nothing: not used


def test_the_gain_of_unequal_lengths_is_that_of_a_ratio():
    rng = np.random.default_rng(3)
    real, fake, lengths = rng.normal(1.0, 1.0, 50), np.zeros(2), rng.integers(1, 9, 50)
    assert reweighting_gain(1.0, real, fake, lengths) == pytest.approx(ratio_and_error(real, lengths))
    assert reweighting_gain(0.0, real, fake, lengths) == (0.0, 0.0)
    real, fake = np.tile([0.5, -0.5], 100) + rng.normal(0.0, 1.0, 200), rng.normal(0.0, 1.0, 200)
    assert cross_fitted_gain(real, fake, np.ones(200))[0] < -0.1  # what one half of these chooses harms the other


def test_eta_is_not_trusted_beyond_what_the_draws_can_tell():
    """Reals beyond all fakes: the sample's gain grows for ever with η, one draw standing for all the others."""
    fake = np.random.default_rng(4).normal(size=1000)
    eta = best_eta(np.full(1000, 9.0), fake)
    assert effective_draws(eta * fake) == pytest.approx(100, rel=1e-3)
    assert 0 < best_eta(np.array([1.0, 2.0]), np.array([0.0, 0.5])) < np.inf
    outlier = np.append(fake, 20.0)  # among those that measure, one of which would weigh more than all the others
    smaller = best_eta(np.full(1000, 9.0), fake, outlier)
    assert effective_draws(smaller * outlier) == pytest.approx(100, rel=1e-3) and 0 < smaller < eta


def effective_draws(log_weights: np.ndarray) -> float:
    weights = np.exp(log_weights)
    return weights.sum() ** 2 / (weights**2).sum()


@pytest.mark.parametrize(("s", "n"), [(0.5, 1024), (3.0, 1024), (1.0, 50)])
def test_gains_and_their_errors_are_right_however_heavy_the_tails(s, n):
    """G's log-odds are from N(-s²/2, s²), real ones from N(s²/2, s²): gain(η) is η s² - η² s² / 2, s² / 2 at most."""
    rng, lengths, found = np.random.default_rng(6), np.full(n, 20), []
    for _ in range(80):  # of both gains: the figure, its error, and what it would be exactly
        (a, b), (c, d) = (rng.normal(mean, s, [2, n]) for mean in (s**2 / 2, -(s**2) / 2))
        halves, eta = [best_eta(a[i::2], c[i::2], c[1 - i :: 2]) for i in (0, 1)], best_eta(a, c, d)
        exact = [np.mean([(eta - eta**2 / 2) * s**2 / 20 for eta in etas]) for etas in ([eta], halves)]
        pairs = (reweighting_gain(eta, b, d, lengths), cross_fitted_gain(a, c, lengths))
        found.append([(*pair, truth) for pair, truth in zip(pairs, exact, strict=True)])
    for value, error, exact in np.array(found).transpose(1, 2, 0):
        assert value.mean() < s**2 / 40 + 0.002 and abs((value - exact).mean()) < 0.35 * (value - exact).std()
        assert 0.88 < (abs(value - exact) < 1.96 * error).mean() < 0.995
    if s < 3 and n > 50:
        assert np.array(found)[:, :, 0].mean() == pytest.approx(s**2 / 40, rel=0.05)  # all of it is seen


def test_the_trigram_model_is_kneser_ney():
    """Its probabilities sum to 1, also after what was never seen; and of a small corpus, by hand."""
    model = KneserNey(np.random.default_rng(0).choice([0, 0, 0, 1, 2, 3], size=(20, 6)), start=4, padding=5)
    np.testing.assert_allclose(model.rows(np.array([*product(range(5), repeat=2)])).sum(axis=1), 1)
    model = KneserNey(np.array([[0, 1], [0, 1], [0, 2]]), start=2, padding=2)  # 2 is padding
    bigram = 1 / 2 + 1 / 2 * (1 / 4 + 1 / 2 * 1 / 2)  # p(1 | 0), from p(1) with V = 2; the discount is 1/2, above 1/3
    assert model.probs(np.array([[0, 1]]))[1] == pytest.approx((2 - 1 / 3 + 1 / 3 * bigram) / 2)


def test_a_mixture_with_the_trigram_model_is_a_policy():
    """Its next tokens have w · p + (1 - w) · G after every prefix, read at once or token by token."""
    policy = Generator(3, 3, 4, 5, seed=0, stddev=1.0, start_token=4)
    model = KneserNey(np.array([[0, 1, 2], [1, 1, 0], [0, 2, 3]]), start=4, padding=3)
    mixture, tokens = Mixture(policy, model, 0.3), np.array([*product(range(3), repeat=3)], np.int32)
    counted = model.probs(tokens).reshape(tokens.shape)
    log_probs = tf.nn.log_softmax(mixture.logits(mixture.states(tf.constant(tokens)).hidden))
    found = np.exp(of_tokens(log_probs, tokens))
    np.testing.assert_allclose(found, 0.3 * counted + 0.7 * np.exp(policy.log_probs(tf.constant(tokens))), rtol=1e-5)
    alone = tf.nn.log_softmax(mixture.logits(by_token(mixture, tokens).hidden))
    np.testing.assert_allclose(alone, log_probs, atol=1e-5)
