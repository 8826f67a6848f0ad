"""Resampling against enumeration, V = 3 and T = 3, all sequences and their probabilities being known; its figures."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import ENDS, cases
from enumeration import all_sequences, index_of, probabilities, random_generator
from test_generator import chi_square

from guidance.choosing import GROUPS, Groups, resample
from runs.schedule import Schedule
from support.parser import parse
from support.seeds import Purpose, key

LOG_ODDS = np.random.default_rng(3).normal(0, 1.5, 27)


class World:
    """A generator, an oracle, and log-odds of every sequence (those of D*, unless others are given)."""

    def __init__(self, end_token: int | None = None, log_odds: np.ndarray | None = None):
        self.policy = random_generator(3, 3, seed=1, end_token=end_token)
        self.tokens = all_sequences(3, 3, end_token)
        other = random_generator(3, 3, seed=2, end_token=end_token)
        self.g, self.p = (found / found.sum() for found in map(probabilities, (self.policy, other)))
        self.r = np.log(self.p / self.g) if log_odds is None else log_odds[: len(self.g)]
        self.end_token, self._draws = end_token, {}

    def log_odds(self, tokens: tf.Tensor) -> tf.Tensor:
        """r of int32 [rows, 3], as a discriminator gives them."""
        powers, table = 4 ** np.arange(3)[::-1].astype(np.int32), np.zeros(64, np.float32)
        table[self.tokens @ powers] = self.r
        return tf.gather(table, tf.linalg.matvec(tokens, powers))

    def drawn(self, size: int, count: int, jit: bool = False, seed: int = 1) -> np.ndarray:
        """Draws of q_n, int32 [size, 3]."""
        if (size, jit) not in self._draws:
            draw = functools.partial(resample, self.policy, self.log_odds, size)
            self._draws[size, jit] = tf.function(draw, jit_compile=jit)
        return self._draws[size, jit](tf.constant(count), key(seed, Purpose.RESAMPLE)).numpy()

    def counts(self, tokens: np.ndarray) -> np.ndarray:
        return np.bincount(index_of(tokens, 3, self.end_token), minlength=len(self.g))

    def q(self, count: int) -> np.ndarray:
        """q_n of every sequence, by listing what the n - 1 others can be."""
        if count == 1:
            return self.g
        w = np.exp(self.r)
        others = np.array(list(itertools.product(range(len(w)), repeat=count - 1)))
        likely, sums = self.g[others].prod(axis=1), w[others].sum(axis=1)
        q = count * self.g * w * (likely / (w[:, None] + sums)).sum(axis=1)
        assert q.sum() == pytest.approx(1)
        return q

    def groups(self, rng: np.random.Generator, count: int, groups: int = GROUPS) -> tuple[Groups, np.ndarray]:
        """Groups of draws, and which sequences they are, [m, n]."""
        places = rng.choice(len(self.g), size=[groups, count], p=self.g)
        return Groups(self.r[places]), places


@pytest.mark.parametrize(("end_token", "jit"), [(None, True), (2, False)])
def test_what_is_drawn_has_the_distribution_q_n(end_token, jit):
    world = World(end_token, LOG_ODDS)
    for count in (1, 2, 4):
        counts, exact = world.counts(world.drawn(20_000, count, jit)), world.q(count)
        assert chi_square(counts, exact) > 1e-3
        if count > 1:
            assert chi_square(counts, world.q(count - 1)) < 1e-6


@ENDS
def test_constant_log_odds_change_nothing(end_token):
    world = World(end_token, np.full(27, 40.0))
    assert chi_square(world.counts(world.drawn(20_000, 4)), world.g) > 1e-3
    groups, places = world.groups(np.random.default_rng(1), 4)
    assert groups.gain(world.r, np.full(len(world.r), 3)) == pytest.approx((0, 0), abs=1e-12)
    f = np.random.default_rng(2).normal(size=places.shape)
    assert groups.change(f, slope=1.0)[0] == pytest.approx(0, abs=1e-12)


@ENDS
def test_with_the_best_discriminator_many_candidates_approach_the_oracle(end_token):
    world, kl = World(end_token), []
    for count in (1, 4, 16, 256):
        groups, _ = world.groups(np.random.default_rng(1), count)
        q = world.g * np.exp(groups.log_ratios(world.r)).mean(axis=1)
        kl.append((world.p * np.log(world.p / q)).sum())
    assert kl[0] > 0.05 and kl == sorted(kl, reverse=True) and kl[-1] < 0.02 * kl[0]
    assert chi_square(world.counts(world.drawn(2_000, 256)), world.p) > 1e-3


def test_more_samples_and_more_candidates_begin_with_the_fewer():
    world = World(log_odds=LOG_ODDS)
    many = world.drawn(600, 4)
    np.testing.assert_array_equal(world.drawn(40, 4), many[:40])
    assert (many[:40] != many[256:296]).any() and (world.drawn(40, 4, seed=2) != many[:40]).any()
    # With equal weights the fifth candidate is kept by one row of five. All others keep what they had.
    equal = World(log_odds=np.zeros(27))
    changed = (equal.drawn(20_000, 5) != equal.drawn(20_000, 4)).any(axis=1).mean()
    differ = 1 - (equal.g**2).sum()  # two independent draws
    assert changed == pytest.approx(differ / 5, abs=0.01)
    # One candidate alone counts: wherever it was drawn, it is kept.
    only = World(log_odds=np.where(np.arange(27) == equal.g.argmax(), 1e6, 0.0))
    held = [(index_of(only.drawn(600, n), 3) == equal.g.argmax()) for n in (1, 2, 4)]
    assert (held[0] <= held[1]).all() and (held[1] <= held[2]).all() and held[2].sum() > held[0].sum()


def errors_of(estimate, exact: float, repetitions: int) -> None:
    """Checks that estimates are `exact` on average and that their errors are what they deviate by."""
    found = np.array([estimate(np.random.default_rng(i)) for i in range(repetitions)])
    z = (found[:, 0] - exact) / found[:, 1]
    assert abs(z.mean()) < 4 / np.sqrt(repetitions) + 0.1
    assert z.std() == pytest.approx(1, abs=4 / np.sqrt(2 * repetitions) + 0.03)


@pytest.mark.parametrize(("end_token", "tests", "count"), [(None, 30, 4), (2, 30, 2), (None, 1_000, 2), (2, 1_000, 4)])
def test_the_gain_is_that_of_q_n_and_its_error_is_its_deviation(end_token, tests, count):
    world = World(end_token, LOG_ODDS)
    lengths = (world.tokens != 3).sum(axis=1)
    exact = world.p @ np.log(world.q(count) / world.g) / (world.p @ lengths)

    def estimate(rng: np.random.Generator) -> tuple[float, float]:
        groups, _ = world.groups(rng, count, groups=64)
        places = rng.choice(len(world.p), size=tests, p=world.p)
        return groups.gain(world.r[places], lengths[places])

    errors_of(estimate, exact, 200)
    one, _ = world.groups(np.random.default_rng(1), 1)
    assert one.gain(world.r, lengths) == (0, 0)


@cases("end_token, kind, count", (None, "nll", 4), (2, "entropy", 4), (None, "kl", 4), (2, "nll", 2))
def test_expectations_under_q_n_and_their_errors(end_token, kind, count):
    world = World(end_token, LOG_ODDS)
    g, p, q = world.g, world.p, world.q(count)
    f, slope, exact = {
        "nll": (-np.log(p), 0.0, (g - q) @ np.log(p)),
        "entropy": (-np.log(g), -1.0, g @ np.log(g) - q @ np.log(q)),
        "kl": (np.log(g / p), 1.0, q @ np.log(q / p) - g @ np.log(g / p)),
    }[kind]

    def estimate(rng: np.random.Generator) -> tuple[float, float]:
        groups, places = world.groups(rng, count, groups=64)
        return groups.change(f[places], slope)

    assert abs(exact) > 0.02
    errors_of(estimate, exact, 200)


def test_huge_weights_are_numbers_and_the_others_are_those_of_other_groups():
    """Two groups of two, by hand: each draw is weighed against the second one of the other group."""
    groups = Groups(np.random.default_rng(1).normal(0, 1e5, [16, 4]))
    pairs = [groups.gain(np.array([-1e6, 0.0, 1e6]), np.full(3, 3)), groups.change(np.ones([16, 4]), -1.0)]
    assert np.isfinite(pairs).all()
    weights = np.array([[1.0, 2.0], [3.0, 5.0]])
    log_ratio = np.log(2 * weights / (weights + [[5.0], [2.0]]))
    expected = ((weights / weights.sum(axis=1, keepdims=True)) * log_ratio).sum(axis=1).mean()
    assert Groups(np.log(weights)).change(np.zeros([2, 2]), 1.0)[0] == pytest.approx(expected)


@cases("words, epochs", ("", 50), ("--total_epochs 0", 0), ("--total_epochs 0 --pretrain_d_epochs 7", 7))
def test_the_paper_s_discriminator_is_pretrained_where_it_is_of_use_or_asked_for(words, epochs):
    assert Schedule(parse(words.split())).pretrain_d.epochs == epochs
    assert [*Schedule(parse([])).taken_of(1064).values()] == [1000, 50, 3, 11]  # 2 rounds, and a step of each
