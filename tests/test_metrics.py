"""support/metrics.py against hand computation and nltk itself."""

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

from support.metrics import bleu, copies, mean_and_error, self_bleu

METHOD1 = SmoothingFunction().method1


def test_mean_and_error_by_hand():
    mean, error = mean_and_error(np.array([1, 2, 3, 4]))
    assert mean == 2.5
    assert error == pytest.approx(np.sqrt(5 / 3) / 2)  # variance 5/3, four values
    assert mean_and_error(np.array([False, True]))[0] == 0.5


def test_the_error_of_one_value_is_unknown():
    mean, error = mean_and_error(np.array([7.0]))
    assert mean == 7 and np.isnan(error)


def test_bleu_by_hand():
    # n-grams found: 4 of 4, 3 of 3 (two in one reference, one in the other), 1 of 2, and 0 of 1, which counts as 0.1.
    scores = bleu(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 3, 5], [9, 9, 3, 4]]))
    np.testing.assert_allclose(scores, [[1, (1 / 2) ** (1 / 3), (1 / 2 * 0.1) ** (1 / 4)]])


def test_bleu_counts_an_ngram_as_often_as_the_reference_that_has_it_most():
    # 1 occurs twice in a reference, four times in the sample: 2 of 4. (1, 1): 1 of 3. References don't add up.
    scores = bleu(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 3], [1, 1, 4, 5], [1, 6, 1, 7]]), orders=(2,))
    np.testing.assert_allclose(scores, [[np.sqrt(2 / 4 * 1 / 3)]])


@pytest.mark.parametrize("orders", [(4,), (2, 3, 4)])
def test_bleu_is_nltks(orders):
    rng = np.random.default_rng(1)
    samples, references = rng.integers(5, size=(6, 10)), rng.integers(5, size=(4, 10))
    scores = bleu(samples, references, orders)
    assert scores.shape == (6, len(orders))
    for sample, row in zip(samples.tolist(), scores, strict=True):
        for order, score in zip(orders, row, strict=True):
            weights = (1 / order,) * order
            assert score == pytest.approx(corpus_bleu([references.tolist()], [sample], weights, METHOD1))


def test_self_bleu_is_bleu_against_the_others():
    samples = np.random.default_rng(2).integers(4, size=(5, 9))
    others = [np.delete(samples, i, axis=0) for i in range(5)]
    expected = np.concatenate([bleu(samples[i : i + 1], others[i]) for i in range(5)])
    np.testing.assert_array_equal(self_bleu(samples), expected)


def test_self_bleu_leaves_a_sample_itself_out_but_not_its_duplicate():
    apart = np.arange(12).reshape(3, 4)
    assert np.all(self_bleu(apart) < 0.1)
    np.testing.assert_allclose(self_bleu(np.array([apart[0], apart[1], apart[0]]))[[0, 2]], 1)


def test_copies_starts_at_the_given_length():
    tune = np.arange(40, dtype=np.int32)
    fifteen, sixteen = np.full((2, 20), 99)
    fifteen[2:17], sixteen[4:20] = tune[10:25], tune[24:40]
    samples = np.array([fifteen, sixteen, tune[5:25]])  # int64, the corpus int32: the numbers count, not the type
    np.testing.assert_array_equal(copies(samples, [tune[::-1], tune], 16), [False, True, True])


def test_copies_does_not_join_two_tunes():
    tunes = [np.arange(10), np.arange(10, 20)]
    sample = np.arange(20)[None]
    assert not copies(sample, tunes, 11)[0]
    assert copies(sample, tunes, 10)[0]


def test_copies_of_what_is_too_short():
    np.testing.assert_array_equal(copies(np.zeros((2, 5), int), [np.zeros(100, int)], 16), [False, False])
    np.testing.assert_array_equal(copies(np.zeros((2, 20), int), [np.zeros(5, int)], 16), [False, False])
