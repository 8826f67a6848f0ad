"""What an evaluation measures against enumeration, V = 4 and T = 3; and that measuring changes nothing."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import BIGRAM, END, NOW, TINY, evaluation_of, tiny_config
from enumeration import all_sequences, index_of, probabilities, randomise
from test_generator import chi_square
from test_model import everything

from data.oracle import OracleData
from discriminator import Discriminator, Options
from evaluation.discriminator import MeasuredDiscriminator
from evaluation.policy import MeasuredPolicy
from generator import TokenSpec
from model import build


class World:
    """An oracle and a model, what measures them, and the probabilities that both give to every sequence."""

    def __init__(self, *flags: str, words=TINY, stddev: float = 1.0):
        self.config = config = tiny_config(*flags, words=words)
        data = OracleData(config)
        self.data, self.model = data, build(config, TokenSpec(4, 3), validation=lambda: data.valid)
        randomise(self.data.oracle, seed=3)
        randomise(self.model.generator, seed=1, stddev=stddev)
        randomise(self.model.discriminator, seed=19)
        self.evaluation = evaluation_of(config, self.data, self.model)
        self.p, self.g = (found / found.sum() for found in map(probabilities, (self.data.oracle, self.model.generator)))

    def of_discriminator(self, epoch: int, beside=None, discriminator: Discriminator | None = None):
        measured = self.evaluation.discriminator
        if discriminator:
            measured = MeasuredDiscriminator(discriminator, self.evaluation.policy)
        return self.evaluation.evaluator.of_discriminator(measured, epoch, beside)


def divergences(p: np.ndarray, g: np.ndarray) -> dict[str, float]:
    """The exact figures of a policy g against the oracle p, nats per token."""
    exact = {"nll": -(g @ np.log(p)), "nll_test": -(p @ np.log(g)), "g_entropy": -(g @ np.log(g))}
    exact |= {"kl_forward": p @ np.log(p / g), "kl_reverse": g @ np.log(g / p)}
    return {name: value / 3 for name, value in exact.items()}


def assert_near(figures: dict, exact: dict[str, float], largest_error: float, suffix: str = "") -> None:
    for name, value in exact.items():
        measured, error = figures[name + suffix]
        assert 0 < error < largest_error and abs(measured - value) < 4 * error + 1e-5, name


def test_the_figures_of_a_policy_agree_with_enumeration():
    world = World("--eval_samples", "5000")
    figures = world.evaluation.measure(3, NOW)
    assert figures["distinct2"][0] == 16 / 10_000  # each of the bigrams there are, in 5,000 sequences of two
    assert_near(figures, divergences(world.p, world.g), 0.05)
    p = probabilities(OracleData(world.config).oracle)
    assert abs(figures["oracle_entropy"][0] + (p @ np.log(p)) / 3) < 4 * figures["oracle_entropy"][1] + 1e-5
    assert set(figures) == {*divergences(world.p, world.g), "distinct2", "oracle_entropy"}
    other = world.evaluation.measure(4, NOW)
    assert other["nll"] != figures["nll"]  # fresh samples of the generator
    assert other["nll_test"] == figures["nll_test"]  # the same held-out sequences
    world.evaluation.teacher = MeasuredPolicy(world.data.oracle, 1, False)
    of_teacher = {"kl_of_teacher": world.p @ np.log(world.p / world.g)}  # in nats per sequence
    assert_near(world.evaluation.measure(4, NOW), of_teacher, 0.1)


def test_the_figures_of_the_guided_policy_are_those_of_its_distribution():
    world = World("--eval_samples", "4000", "--guide_eta", "0.8", words=BIGRAM)
    guided = probabilities(world.model.guidance.guided)
    assert np.abs(guided - world.g).max() > 0.01
    figures = world.evaluation.measure(0, END)
    assert figures["guide_eta"][0] == pytest.approx(0.8)
    assert_near(figures, divergences(world.p, guided), 0.1, "_guided")
    assert_near(figures, divergences(world.p, world.g), 0.1)


class Optimal(Discriminator):
    def __init__(self, oracle, generator):
        super().__init__(TokenSpec(4, 3), Options())
        self.both = (oracle, generator)  # a tuple, whose networks are not its own

    def log_odds(self, tokens, dropout_seed=None):
        p, g = (tf.reduce_sum(policy.log_probs(tokens), axis=1) for policy in self.both)
        return p - g


def test_a_discriminator_that_knows_all_gains_the_whole_kl():
    world = World("--d_eval_samples", "20000", stddev=0.7)
    figures = world.of_discriminator(0, discriminator=Optimal(world.data.oracle, world.model.generator))
    kl = world.p @ np.log(world.p / world.g) / 3
    assert kl > 0.02
    assert_near(figures, {"d_gain": kl, "d_gain_valid": kl}, 0.01)
    assert_near(figures, {"d_optimal_acc": np.maximum(world.p, world.g).sum() / 2}, 0.01)
    assert figures["d_test_acc"] == figures["d_optimal_acc"]
    eta, error = figures["d_eta"]
    assert eta == pytest.approx(1, abs=0.1) and np.isnan(error)


def test_what_a_discriminator_knows_agrees_with_enumeration():
    """The gain is the one of its log-odds at the best η, and no more than the KL."""
    world = World("--d_eval_samples", "20000", stddev=0.7)
    p, g, r = world.p, world.g, knowing(world)
    gains = [(eta * p @ r - np.log(g @ np.exp(eta * r))) / 3 for eta in np.linspace(0.0, 20.0, 20_001)]
    figures = world.of_discriminator(1)
    assert_near(figures, dict.fromkeys(("d_gain", "d_gain_valid"), max(gains)), max(gains) / 10)
    assert_near(figures, {"d_test_acc": (p @ (r > 0) + g @ (r <= 0)) / 2}, 0.01)
    assert figures["d_test_acc"][0] < figures["d_optimal_acc"][0]
    assert world.of_discriminator(2)["d_gain"] != figures["d_gain"]  # fresh samples of the generator


def knowing(world: World) -> np.ndarray:
    """The log-odds of every sequence, once their sign is such that they tell something: η is never below 0."""
    network = world.model.discriminator
    r = network.log_odds(tf.constant(all_sequences(4, 3))).numpy().astype(np.float64)
    if world.p @ r > world.g @ r:
        return r
    for weight in (network.output_layer.kernel, network.output_layer.bias):
        weight.assign(-weight)
    return -r


def test_a_discriminator_that_knows_nothing_gains_nothing():
    world = World("--d_eval_samples", "2000")
    kernel = world.model.discriminator.output_layer.kernel
    kernel.assign(tf.zeros_like(kernel))
    figures = world.of_discriminator(0)
    assert [*figures["d_gain"], *figures["d_gain_valid"]] == pytest.approx([0.0] * 4, abs=1e-9)
    assert figures["d_test_acc"] == (0.5, 0.0)


@pytest.mark.parametrize("size", [1, 256, 600])
def test_log_odds_are_taken_in_chunks(size):
    world = World("--d_eval_samples", "2")
    tokens = np.random.default_rng(0).integers(4, size=[size, 3]).astype(np.int32)
    expected = world.model.discriminator.log_odds(tf.constant(tokens))
    found = world.evaluation.discriminator.log_odds(tf.constant(tokens))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def resampled(g: np.ndarray, w: np.ndarray, count: int) -> np.ndarray:
    """The distribution of one of `count` draws of g, kept in proportion to its weight w: 1 / x = ∫ exp(-x t) dt."""
    t = np.geomspace(1e-8, 1e5, 100_000)
    decay = np.exp(-w[:, None] * t / w.max())
    return count * g * w / w.max() * np.trapezoid(decay * (g @ decay) ** (count - 1), t, axis=1)


def test_what_is_kept_of_candidates_agrees_with_enumeration():
    """By the discriminator, and by the optimal one."""
    world = World("--eval_samples", "4000", "--d_eval_samples", "4000", "--candidates", "8")
    p, g, r = world.p, world.g, knowing(world)
    beside = world.evaluation.measure(1, NOW, of_discriminator=False)
    figures = world.of_discriminator(1, beside)
    eta = figures["d_eta"][0]
    q = resampled(g, np.exp(eta * r), 8)
    assert q.sum() == pytest.approx(1, abs=1e-4) and np.abs(q - g).max() > 0.01
    assert_near(figures, divergences(p, q), 0.04, "_resampled")
    changes = {name: divergences(p, q)[name] - value for name, value in divergences(p, g).items()}
    for name in ("nll", "g_entropy", "kl_reverse"):  # the change is what is measured
        assert figures[f"{name}_resampled"][0] - beside[name][0] == pytest.approx(changes[name], abs=0.02), name
    assert_near(figures, {"d_gain_resampled": p @ np.log(q / g) / 3}, 0.02)
    assert figures["nll_test_resampled"][0] == pytest.approx(beside["nll_test"][0] - figures["d_gain_resampled"][0])
    keep = world.evaluation.discriminator.resample
    drawn = keep(20_000, tf.constant(8), tf.constant(eta, tf.float32), tf.constant(1)).numpy()
    assert chi_square(np.bincount(index_of(drawn, 4), minlength=64), q) > 1e-3
    assert not any("resampled" in name for name in world.of_discriminator(1))
    best = world.evaluation.evaluator.choose_optimally(world.evaluation.discriminator, 1, beside, 8)
    assert best.keys() == {f"{name}_resampled" for name in divergences(p, q)}
    assert_near(best, divergences(p, resampled(g, p / g, 8)), 0.06, "_resampled")


@pytest.mark.parametrize("words", [TINY, BIGRAM], ids=["cnn", "bigram"])
def test_measuring_twice_gives_the_same_and_changes_nothing(words):
    """No weight, no optimizer's state, no η: bit for bit."""
    world = World("--d_eval_samples", "40", words=words)
    guidance = world.model.guidance

    def kept() -> list[bytes]:
        eta = [guidance.eta.numpy()] if guidance else []
        return [value.tobytes() for value in (*everything(world.model), *eta)]

    if guidance:
        guidance.choose_eta()
        assert guidance.eta.numpy() not in (0.0, 1.0)
    before = kept()
    first, again = (world.evaluation.measure(2, END) for _ in range(2))
    np.testing.assert_equal(again, first)
    assert kept() == before and len(before) > 40
    assert ("guide_eta" in first) == bool(guidance) and set(first) <= set(world.evaluation.columns)
