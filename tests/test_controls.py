"""tools/controls.py: averaged generators by enumeration, and the program on tunes."""

import csv
import shlex
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZES, all_sequences, probabilities, random_generator, train
from test_generator import chi_square
from test_nottingham import write_song
from test_resampling import LOG_ODDS, World

from support.seeds import Purpose, key, uniforms
from tools import controls, temperatures


@pytest.mark.parametrize("end_token", [None, 2], ids=["one length", "unequal lengths"])
def test_an_average_of_generators_by_enumeration(end_token):
    """Of the next token, not of the sequences; its NLL is below the mean of both NLLs (Jensen)."""
    both = [random_generator(3, 3, seed=seed, end_token=end_token) for seed in (1, 2)]
    average, tokens = controls.Average(both), all_sequences(3, 3, end_token)
    apart = [np.exp(each.log_probs(tf.constant(tokens)).numpy().astype(np.float64)) for each in both]
    expected = np.prod(np.mean(apart, axis=0), axis=1)
    found = probabilities(average)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found.sum() == pytest.approx(1)
    assert np.abs(found - np.mean([np.prod(each, axis=1) for each in apart], axis=0)).max() > 0.001
    real = probabilities(random_generator(3, 3, seed=3, end_token=end_token))
    nll, *others = (-(real @ np.log(probabilities(each))) for each in (average, *both))
    assert nll < np.mean(others) - 0.01
    drawn, entropy, cross = average.sample_and_compare(uniforms([3, 20_000], key(1, Purpose.EVALUATE)), both[0])
    places = [np.flatnonzero((tokens == row).all(axis=1))[0] for row in drawn.numpy()]
    assert chi_square(np.bincount(places, minlength=len(tokens)), found) > 1e-3
    of_first = probabilities(both[0])
    assert entropy.numpy().mean() == pytest.approx(-(found @ np.log(found)), abs=0.02)
    assert cross.numpy().mean() == pytest.approx(-(found @ np.log(of_first)), abs=0.03)


def test_what_stands_for_chosen_samples_has_their_distribution():
    world, rng = World(log_odds=LOG_ODDS), np.random.default_rng(1)
    places = rng.choice(len(world.g), size=200_000, p=world.g)
    kept = world.tokens[places[controls.chosen(world.r[places], 4, rng)]]
    assert np.abs(world.counts(kept) / len(kept) - world.q(4)).max() < 0.004
    assert np.abs(world.q(4) - world.q(3)).max() > 0.01
    drawn = controls.Chosen(kept).sample(uniforms([3, 50_000], key(1, Purpose.EVALUATE))).numpy()
    assert np.abs(world.counts(drawn) / len(drawn) - world.q(4)).max() < 0.01


def on_alternating_tunes(folder, flags: str) -> list[str]:
    """Writes tunes of two notes each, and returns the command line of a run on them that trains a discriminator."""
    for name, songs in (("train", 3), ("valid", 6), ("test", 6)):
        for i in range(songs):
            write_song(folder / "tunes" / name / f"{i}.mid", [60 + i % 2, 67] * 80)
    words = [*SIZES, "--dataset", "Nottingham", "--data_dir", str(folder / "tunes"), "--seq_len", "8", "--no-jit"]
    words += shlex.split("--total_epochs 0 --pretrain_d --d_batch_size 64 --d_lr 0.01 --d_eval_samples 1000")
    return [*words, *shlex.split(flags)]


@pytest.fixture(scope="module")
def tunes(tmp_path_factory):
    """Two runs on tunes that alternate, of which one's discriminator was trained and measured."""
    folder = tmp_path_factory.mktemp("tunes")
    words = on_alternating_tunes(folder, "--pretrain_d_epochs 40 --candidates 4 --pretrain_g_epochs 30")
    for seed in ("1", "2"):
        flags = ["--seed", seed, "--log_dir", str(folder / seed), "--eval_log_dir", str(folder / f"eval{seed}")]
        assert train([*words, *flags]) == 0
    return folder


def test_the_controls_of_a_run(tunes, tmp_path, capsys):
    argv = [tunes / "1", "--average", tunes / "2", "--candidates", "4", "--fresh", "-n", "300"]
    assert controls.main([*map(str, argv), "--csv", str(tmp_path / "controls.csv")]) == 0
    with open(tmp_path / "controls.csv", newline="") as file:
        rows = {row["run"].removesuffix("/1"): row for row in csv.DictReader(file)}  # the seed
    assert list(rows) == [
        *("generator", "average of 2", "one of 4", "one of 4 by its likelihood", "one of 4 by permuted log-odds"),
        *("fresh discriminator, one of 4", "real data"),
    ]
    nll = {name: float(row["nll_test"]) for name, row in rows.items() if row["nll_test"]}
    assert nll["one of 4"] < nll["generator"] == nll["one of 4 by permuted log-odds"]
    with open(tunes / "eval1" / "metrics.csv", newline="") as file:
        *_, evaluated = csv.DictReader(file)
    own = float(evaluated["nll_test_resampled"])  # with other samples
    assert abs(nll["one of 4"] - own) < 0.002 < abs(nll["one of 4 by its likelihood"] - own) - 0.001
    assert float(rows["fresh discriminator, one of 4"]["d_gain"]) > 0
    # Likely samples are nearer to real tunes than those of G, and so are those that the discriminator has chosen.
    bleu = {name: float(row["bleu2"]) for name, row in rows.items() if row["bleu2"]}
    assert bleu["one of 4"] > bleu["generator"] + 0.02
    assert abs(bleu["one of 4 by permuted log-odds"] - bleu["generator"]) < 0.05
    assert bleu["one of 4 by permuted log-odds"] < bleu["one of 4"]
    assert "| average of 2 |" in capsys.readouterr().out


def test_on_the_oracle_there_are_averages_alone(knowing, tmp_path, capsys):
    """That of a generator with itself is itself, up to rounding."""
    again = shutil.copytree(knowing, tmp_path / "again")
    assert controls.main([str(knowing), "--average", str(again), "-n", "300", "--csv", str(tmp_path / "c.csv")]) == 0
    with open(tmp_path / "c.csv", newline="") as file:
        own, average, real = csv.DictReader(file)
    assert [row["run"] for row in (own, average, real)] == ["generator/1", "average of 2/1", "real data"]
    for name in ("nll", "nll_test", "kl_reverse", "kl_forward"):
        assert float(average[name]) == pytest.approx(float(own[name]), abs=1e-4)
    assert "| average of 2 |" in capsys.readouterr().out


def test_what_cannot_be_compared_is_one_line(tunes, knowing, tmp_path, capsys):
    larger = [*SIZES, "--dataset", "Nottingham", "--data_dir", str(tunes / "tunes"), "--seq_len", "8", "--no-jit"]
    larger += ["--g_hidden_dim", "6", "--total_epochs", "0", "--log_dir", str(tmp_path / "larger"), "--no-evaluate"]
    assert train(larger) == 0
    capsys.readouterr()
    for argv, why in (
        ([knowing], "--average alone"),
        ([knowing, "--average", tmp_path / "larger", "--fresh"], "--average alone"),
        ([knowing, "--average", tmp_path / "larger", "--candidates", "4"], "--average alone"),
        ([knowing, "--average", knowing], "given twice"),
        ([tunes / "1", "--average", knowing], "other data"),
        ([tunes / "1", "--average", tmp_path / "larger"], "of another size"),
    ):
        with pytest.raises(SystemExit) as stopped:
            controls.main([*map(str, argv), "-n", "20"])
        err = capsys.readouterr().err
        assert stopped.value.code == 2 and err.splitlines()[-1].count(why) == 1, err


def test_data_without_a_test_set_are_told_apart_too(tmp_path, capsys):
    for name, letters in (("one", "abc"), ("other", "xyz")):
        (tmp_path / name).mkdir()
        lines = [f"{a}{b}{c}\n" for a in letters for b in letters for c in letters]
        (tmp_path / name / "train.txt").write_text("".join(lines))
        (tmp_path / name / "valid.txt").write_text("".join(lines[::3]))
        words = [*SIZES, *shlex.split("--vocab_size 9 --dataset text --no-jit --total_epochs 0 --pretrain_g_epochs 1")]
        words += ["--data_dir", str(tmp_path / name), "--log_dir", str(tmp_path / f"{name}/run")]
        assert train([*words, "--eval_log_dir", str(tmp_path / f"{name}/eval")]) == 0
    one, other = str(tmp_path / "one" / "run"), str(tmp_path / "other" / "run")
    for program, argv, why in (
        (controls, [one, "--average", other], "a run with other data than"),
        (temperatures, [one, other, "--temperatures", "1"], "a run with other data than"),
        (controls, [one, "--candidates", "4"], "a run without a test set has the control --average alone"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            program.main(argv)
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and why in error, error
