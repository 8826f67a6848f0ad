"""The guided generator in the program: training, evaluation, folding, resuming, and the tools that use it."""

import csv
import shlex

import fault_injection
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, all_sequences, probabilities, randomise, train
from fault_injection import differing, outcome
from test_model import assert_same_gradient, flat
from test_reward import exact_gradient

from data import Due
from evaluation import sample_many
from generator import PolicyCopy
from guided import GuidedGenerator
from model import SeqGAN
from oracle import OracleData
from runs.schedule import Schedule
from support.parser import parse
from tools import sample, temperatures

ENDS = pytest.mark.parametrize("end_token", [None, 2], ids=["one length", "unequal lengths"])


def without_cnn(words: list[str]) -> list[str]:
    """A tiny command line without the flags of two convolutions."""
    return without(without(words, "--d_filter_sizes", 2), "--d_num_filters", 2)


def without(words: list[str], flag: str, values: int) -> list[str]:
    place = words.index(flag)
    return words[:place] + words[place + 1 + values :]


def argv(*more: str) -> list[str]:
    return [*without(without_cnn(TINY), "--rollout_num", 1), "--d_draws", "8", "--discriminator", "bigram", *more]


def model_of(*more: str, end_token: int | None = None) -> SeqGAN:
    """V = 4, T = 3, networks far from uniform."""
    rows = all_sequences(4, 3, end_token)[np.random.default_rng(2).integers(20, size=64)]
    model = SeqGAN(parse(argv("--no-jit", *more)), 4, end_token=end_token, validation=lambda: rows)
    randomise(model.generator, seed=1)
    randomise(model.discriminator, seed=2, stddev=0.5)
    return model


def test_defaults_are_those_of_the_discriminator():
    config = parse(["--discriminator", "lstm"])
    assert (config.pretrain_d_epochs, config.d_batch_size, config.d_l2, config.d_schedule) == (1, 1024, 0, "cosine")
    assert parse(["--discriminator", "lstm", "--d_lr", "0.5"]).d_lr == 0.5
    assert parse(["--discriminator", "bigram", "--g_update", "fold"]).d_steps == 1
    assert parse([]).d_batch_size == 64


def test_a_discriminator_that_guides_is_trained_without_an_adversarial_phase():
    guided, plain = (parse([*words, "--total_epochs", "0"]) for words in (argv(), TINY))
    assert [step.kind for step in Schedule(guided)] == ["mle"] * 4 + ["d"] * 2
    assert [step.kind for step in Schedule(plain)] == ["mle"] * 4


@ENDS
def test_eta_is_the_one_of_least_nll_on_the_validation_set(end_token):
    model = model_of(end_token=end_token)
    rows = model.validation()
    model.discriminator.successors.assign(model.discriminator.successors * 0.2)
    if not model.choose_eta():
        model.discriminator.successors.assign(-model.discriminator.successors)
    chosen = model.choose_eta()
    assert 0.05 < chosen < 3.9

    def nll(eta: float) -> float:
        guide = GuidedGenerator(model.generator, model.discriminator, tf.Variable(eta))
        return -float(tf.reduce_mean(tf.reduce_sum(guide.log_probs(tf.constant(rows)), axis=1)))

    around = [nll(eta) for eta in np.arange(0, 4, 0.02, dtype=np.float32)]
    assert nll(chosen) == pytest.approx(min(around), abs=1e-4)
    fixed = model_of("--guide_eta", "0.3", end_token=end_token)
    assert fixed.choose_eta() == pytest.approx(0.3)


def test_the_evaluation_of_the_guided_generator_is_that_of_its_distribution():
    config = parse(argv("--no-jit", "--eval_samples", "4000", "--guide_eta", "0.8"))
    data, model = OracleData(config), SeqGAN(config, 4)
    randomise(data.oracle, seed=3)
    randomise(model.generator, seed=1)
    randomise(model.discriminator, seed=2, stddev=0.5)
    p, g = probabilities(data.oracle), probabilities(model.guided.policy)
    assert np.abs(g - probabilities(model.generator)).max() > 0.01
    figures = data.evaluate(model.guided, 0, Due(True, True, True))
    exact = {"nll": -(g * np.log(p)).sum() / 3, "nll_test": -(p * np.log(g)).sum() / 3}
    exact |= {"kl_reverse": (g * np.log(g / p)).sum() / 3, "kl_forward": (p * np.log(p / g)).sum() / 3}
    for name, value in exact.items():
        measured, error = figures[name]
        assert abs(measured - value) < 4 * error, name


@pytest.mark.parametrize("kind", ["bigram", "lstm"])
def test_folding_makes_the_guided_generator_the_generator(kind, monkeypatch):
    model = model_of("--discriminator", kind, "--g_update", "fold", "--total_epochs", "2")
    before, fresh = probabilities(model.generator), [fold.discriminator.get_weights() for fold in model.folds]
    np.testing.assert_allclose(probabilities(model.averaged), before, atol=1e-6)
    drawn: list = []
    monkeypatch.setattr("model.sample_many", lambda policy, *of: drawn.append(policy) or sample_many(policy, *of))
    for round_ in range(2):
        model.d_step(tf.constant(all_sequences(4, 3)[:4]), tf.constant(round_))
        assert drawn and all(policy is model.averaged for policy in drawn)  # against which D is trained
        if not model.choose_eta():
            model.discriminator.successors.assign(-model.discriminator.successors)
        eta = model.choose_eta()
        guided, nll = probabilities(model.guided.policy), float(model._guided_nll(tf.constant(model.validation())))
        assert eta > 0.05 and np.abs(guided - before).max() > 1e-3
        result = model.g_step(tf.constant(round_))
        np.testing.assert_allclose(probabilities(model.averaged), guided, atol=1e-5)
        assert float(result.loss) == pytest.approx(nll, rel=1e-5)
        for mine, first in zip(model.discriminator.get_weights(), fresh[round_], strict=True):
            np.testing.assert_array_equal(mine, first)  # D begins anew
        assert int(model.d_optimizer.iterations) == 0
        assert all((v.numpy() == 0).all() for v in model.d_optimizer.variables if "momentum" in v.path)
        before = guided
        randomise(model.discriminator, seed=5, stddev=0.3)
    np.testing.assert_array_equal(model.d_step(tf.constant(all_sequences(4, 3)[:4]), tf.constant(9)).loss.shape, [])


@ENDS
def test_without_what_follows_the_expected_update_ends_at_the_guided_generator(end_token):
    """At β = 1, where Σ_a G(a)·(s(a) - log G(a) + log G₀(a)) is greatest for each prefix."""
    model = model_of(
        *shlex.split("--g_update expected --reward log_odds --rollout_num 0 --kl_weight 1 --g_lr 0.03 --batch_size 64"),
        end_token=end_token,
    )
    model.keep_reference()
    reference = PolicyCopy(model.generator, "before")
    wanted = probabilities(GuidedGenerator(reference, model.discriminator, tf.Variable(1.0)))

    def divergence() -> float:
        found = probabilities(model.generator)
        return (found * np.log(found / wanted)).sum()

    first = divergence()
    for step in range(300):
        model.g_step(tf.constant(step))
    assert first > 0.1 and divergence() < 0.05 * first


@ENDS
@pytest.mark.parametrize("flags", ["--baseline batch", "--baseline prefix --kl_weight 0.7"])
def test_with_rollouts_the_expected_update_follows_the_exact_gradient(flags, end_token):
    """That of E[log-odds] - β KL(G‖G₀), by enumeration: what follows a token is in it."""
    words = f"--g_update expected --reward log_odds --rollout_num 2 --batch_size 40000 {flags}"
    model = model_of(*shlex.split(words), end_token=end_token)
    if model.reward.reference is not None:
        randomise(model.reward.reference, seed=3)
    model.follow_policy(lag=0.0)
    scores = model.discriminator.log_odds(tf.constant(all_sequences(4, 3, end_token))).numpy().astype(np.float64)
    seen = []
    model._update_generator = lambda optimizer, gradients: seen.append(flat(gradients))
    model._g_step(tf.constant(0))
    assert_same_gradient(seen[0], exact_gradient(model, scores))


def test_a_run_shows_what_guidance_changes(tmp_path, capsys):
    folders = ["--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(tmp_path / "eval")]
    assert train(argv("--total_epochs", "0", "--no-jit", "--d_lr", "0.3", "--guide_eta", "2", *folders)) == 0
    out = capsys.readouterr().out
    assert "guided" in out and "nll_test_guided" in out
    with open(tmp_path / "eval" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not rows[0]["nll_guided"] and float(rows[-1]["nll_guided"]) > 0 and float(rows[-1]["guide_eta"]) == 2
    assert abs(float(rows[-1]["nll_test_guided"]) - float(rows[-1]["nll_test"])) > 0.01

    # the tools
    logdir = str(tmp_path / "train")
    assert sample.main([logdir, "-n", "300", "--guide"]) == 0
    guided = capsys.readouterr().out
    assert sample.main([logdir, "-n", "300"]) == 0
    plain, model = capsys.readouterr().out, SeqGAN.restored(logdir)
    for text, view in ((guided, model.guided), (plain, model.plain)):
        rows_of = np.concatenate(list(sample.portions(view, 300, [], 1.0, 1)))
        assert text.splitlines() == [" ".join(map(str, row)) for row in rows_of.tolist()]
    assert guided != plain
    assert float(model.eta) == pytest.approx(float(rows[-1]["guide_eta"]), rel=1e-5)
    model.eta.assign(0.0)
    drawn = [next(sample.portions(view, 64, [], 1.0, 1)) for view in (model.plain, model.guided)]
    np.testing.assert_array_equal(*drawn)
    assert temperatures.main([logdir, "--guide", "--temperatures", "1", "-n", "16"]) == 0
    shown = capsys.readouterr().out
    assert f"{float(rows[-1]['nll_test_guided']):.3f}" in shown


@pytest.mark.parametrize("update", ["fold", "expected"])
def test_a_resumed_run_is_bitwise_the_same(trainer, tmp_path, update):
    def words(folder: str) -> list[str]:
        logs = ["--log_dir", str(tmp_path / folder / "train"), "--eval_log_dir", str(tmp_path / folder / "eval")]
        return [*sizes, *updates[update], *shlex.split("--discriminator bigram --d_draws 6 --d_eval_samples 0"), *logs]

    updates = {
        "fold": shlex.split("--g_update fold --d_steps 2 --total_epochs 2 --pretrain_g_epochs 2 --eval_samples 2"),
        "expected": shlex.split(
            "--g_update expected --reward log_odds --kl_weight 1 --baseline prefix --rollout_num 2 --total_epochs 2"
        ),
    }
    (tmp_path / "lines").mkdir()
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / "lines" / name).write_text("ab\na\nbab\nba\nabb\n")
    sizes = without(without_cnn(fault_injection.SIZES), "--rollout_num", 1)
    sizes += ["--dataset", "text", "--data_dir", str(tmp_path / "lines")]
    assert trainer.run(words("whole"), eager=True).status == 0
    for at in (45, 40):
        assert trainer.run(words("broken"), eager=True, at=at, action="SIGTERM").status == 143
    assert trainer.run(words("broken"), eager=True).status == 0
    assert not differing(outcome(tmp_path / "broken"), outcome(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--g_update fold", "--g_update fold needs --discriminator bigram or lstm"),
        ("--discriminator lstm --g_update expected", "needs --reward log_odds"),
        ("--discriminator lstm --g_update fold --mle_steps 1", "--mle_steps"),
        ("--discriminator bigram --d_hidden_dim 3", "--d_hidden_dim has no effect without --discriminator lstm"),
        ("--discriminator bigram --d_filter_sizes 2 --d_num_filters 2", "no effect without --discriminator cnn"),
        ("--guide_eta 1", "--guide_eta has no effect without --discriminator bigram or lstm"),
        ("--discriminator bigram --reward constant", "--discriminator has no effect without --reward"),
        ("--discriminator bigram --d_draws 100", "--d_draws: 100 is less than half a --d_batch_size of 1024"),
        ("--train_size 100 --d_draws 100", "--d_draws has no effect with --train_size 100"),
        (
            "--discriminator bigram --g_update expected --reward log_odds --rollout_num 0 --baseline batch",
            "--baseline has no effect with --g_update expected",
        ),
        (
            "--discriminator bigram --g_update fold --g_schedule cosine",
            "--g_schedule has no effect with --g_update fold",
        ),
        ("--discriminator bigram --g_update fold --d_steps 0", "--d_steps are 1 or more"),
        ("--discriminator bigram --g_update fold --pretrain_d_epochs 0", "--pretrain_d_epochs and --d_steps are 1"),
        ("--baseline prefix --rollout_num 0", "--baseline prefix needs a --rollout_num of 1 or more"),
    ],
)
def test_flags_that_contradict_each_other(capsys, words, why):
    with pytest.raises(SystemExit) as stopped:
        parse(shlex.split(words))
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.count("\n") == 1 and why in err, err


def test_what_cannot_be_guided_is_named(tmp_path, capsys):
    folders = ["--log_dir", str(tmp_path / "train"), "--no-evaluate"]
    assert train([*TINY, "--total_epochs", "0", *folders]) == 0
    for tool in (sample, temperatures):
        with pytest.raises(SystemExit) as stopped:
            tool.main([str(tmp_path / "train"), "--guide"])
        assert stopped.value.code == 2 and "--guide" in capsys.readouterr().err


def test_an_empty_validation_set_is_named(tmp_path, capsys):
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.txt").write_text("ab\na\nbab\nba\nabb\n" * 4)
    words = [*without_cnn(fault_injection.SIZES), "--dataset", "text", "--data_dir", str(tmp_path / "lines")]
    words += [
        "--discriminator",
        "bigram",
        "--d_draws",
        "4",
        "--total_epochs",
        "0",
        "--no-jit",
        "--log_dir",
        str(tmp_path / "train"),
    ]
    assert train([*words, "--eval_log_dir", str(tmp_path / "eval")]) == 2
    assert "--guide_eta 0 needs a validation set" in capsys.readouterr().err
    assert not (tmp_path / "train").exists(), "found out before training"
    folded = without(
        without([*words, "--g_update", "fold", "--guide_eta", "1"], "--total_epochs", 1), "--rollout_num", 1
    )
    assert train([*folded, "--eval_log_dir", str(tmp_path / "eval")]) == 2
    assert "--g_update fold needs a validation set" in capsys.readouterr().err
    assert train([*words, "--eval_log_dir", str(tmp_path / "eval"), "--guide_eta", "1"]) == 0


def test_eta_is_that_of_the_weights_that_are_saved(tmp_path, capsys):
    """Also where nothing is evaluated; and what is not trained yet guides nobody."""
    words = [*argv("--no-jit", "--total_epochs", "0", "--d_lr", "0.05")]
    for name, more in (("seen", ["--eval_log_dir", str(tmp_path / "eval")]), ("unseen", ["--no-evaluate"])):
        assert train([*words, "--log_dir", str(tmp_path / name), *more]) == 0
    seen, unseen = (float(SeqGAN.restored(tmp_path / name).eta) for name in ("seen", "unseen"))
    assert seen == unseen != 1.0
    capsys.readouterr()
    for tool, more, why in (
        (sample, ["--checkpoint", "pretrained"], "the discriminator is not trained yet"),
        (temperatures, ["--checkpoints"], "--checkpoints measures the end of pretraining, when nothing guides yet"),
    ):
        with pytest.raises(SystemExit) as stopped:
            tool.main([str(tmp_path / "seen"), "--guide", *more])
        assert stopped.value.code == 2 and why in capsys.readouterr().err
