"""tools/temperatures.py: exact figures at a temperature, and the program on runs of each kind of data."""

import dataclasses
import shlex
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import BIGRAM, END, ROOT, SIZES, TINY, cases, evaluation_of, refusal, train
from enumeration import probabilities
from fault_injection import change, rows_of
from test_evaluation import World, assert_near, divergences

from data.music.midi import midi_file
from data.music.tokens import Grid
from evaluation.policy import MeasuredPolicy
from experiments import tempered
from generator import Tempered
from tools import temperatures
from tools.restored import restore

PRETRAINING = shlex.split("--reward constant --pretrain_g_epochs 20 --total_epochs 0 --seed 3")
MEASURED = shlex.split("--pretrain_g_epochs 1 --total_epochs 0 --pretrain_d_epochs 100 --d_lr 0.01 --d_batch_size 64")
MEASURED += ["--d_eval_samples", "60"]
UNSEEN = ["--no-evaluate"]


def test_the_figures_at_a_temperature():
    """By enumeration; the temperature may change between two measurements."""
    world, temperature = World("--eval_samples", "5000"), tf.Variable(1.0, trainable=False)
    policy = MeasuredPolicy(Tempered(world.model.generator, temperature), 1, jit=True)
    for value in (1.0, 0.6):
        temperature.assign(value)
        figures = world.evaluation.evaluator.of_policy(policy, 0, END)
        assert_near(figures, divergences(world.p, probabilities(Tempered(world.model.generator, value))), 0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs of each data set, of two oracles, and of two seeds on lines, of which D knows something."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("train", 1), ("valid", 2), ("test", 3)):
        rng = np.random.default_rng(seed)
        lines = "\n".join("".join(row) for row in rng.choice(list("abc"), [60, 3]))
        for kind in ("text", "untested"):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{name}.txt").write_text(lines if kind == "text" or name != "test" else "")
        (folder / "tunes" / name).mkdir(parents=True)
        (folder / "tunes" / name / "a.mid").write_bytes(midi_file(rng.integers(40, 52, 40), Grid()))
    text = ["--dataset", "text", "--vocab_size", "9", "--data_dir"]
    tunes = ["--dataset", "Nottingham", "--data_dir", str(folder / "tunes"), "--seq_len", "8"]
    for name, flags in (
        *(("oracle", [*TINY, *PRETRAINING]), ("other", [*TINY, *PRETRAINING, *UNSEEN, "--oracle_seed", "5"])),
        ("lines", [*SIZES, *MEASURED, *text, str(folder / "text")]),
        ("again", [*SIZES, *MEASURED, *text, str(folder / "text"), "--seed", "2"]),
        ("larger", [*SIZES, *PRETRAINING, *text, str(folder / "text"), "--g_hidden_dim", "6", *UNSEEN]),
        ("bare", [*SIZES, *PRETRAINING, *text, str(folder / "untested"), *UNSEEN]),
        ("music", [*SIZES, *PRETRAINING, *tunes, *UNSEEN]),
    ):
        logs = [] if UNSEEN[-1] in flags else ["--eval_log_dir", f"{folder}/{name}_eval"]
        assert train([*flags, "--log_dir", f"{folder}/{name}", *logs]) == 0
    return folder


def measured(folder: Path, *argv: object) -> list[dict[str, str]]:
    assert temperatures.main([*map(str, argv), "--csv", f"{folder}/points.csv"]) == 0
    return rows_of(folder / "points.csv")


def as_evaluated(logdir: Path, samples: int) -> dict[str, tuple[float, float]]:
    run = restore(logdir)
    config = dataclasses.replace(run.config, eval_samples=samples)
    return evaluation_of(config, run.data(), run.seqgan).measure(0, END, of_discriminator=False)


def assert_same(row: dict[str, str], figures: dict[str, tuple[float, float]]) -> None:
    """A row has the figures of an evaluation, those of real data aside."""
    own = {name: pair for name, pair in figures.items() if name != "oracle_entropy" and not name.startswith("real_")}
    assert len(own) > 2
    for name, (value, error) in own.items():
        assert float(row[name]) == pytest.approx(value, rel=1e-6), name
        assert float(row[f"{name}_se"]) == pytest.approx(error, rel=1e-5), name


def ended(capsys, argv, status: int = 2) -> str:
    return refusal(capsys, temperatures.main, [str(word) for word in argv], status=status, alone=False)


def test_a_run_of_the_oracle(runs, tmp_path, capsys, eagerly):
    """Its candidates are chosen by D* alone, as it has no discriminator."""
    few = shlex.split("--temperatures 1.2 0.5 1 -n 400 --candidates 2")
    sharp, own, flat, best, real = measured(tmp_path, runs / "oracle", *few, "-o", tmp_path / "plane.png")
    assert [row["temperature"] for row in (sharp, own, flat, best, real)] == ["0.5", "1.0", "1.2", "1.0", ""]
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
    assert float(sharp["g_entropy"]) < float(own["g_entropy"]) < float(flat["g_entropy"])
    assert real["run"] == "real data" and real["nll"] == real["nll_test"] == real["g_entropy"] != ""
    assert_same(own, as_evaluated(runs / "oracle", 400))
    assert (best["run"], best["candidates"]) == ("oracle, candidates by D*", "2")
    assert float(best["kl_forward"]) < float(own["kl_forward"])
    out, err = capsys.readouterr()
    assert "--candidates: " in err and "has no discriminator" in err
    heads = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| oracle")]
    chosen = "oracle, chosen by D*, one of 2"
    assert heads[:4] == ["oracle, temperature 0.5", "oracle", "oracle, temperature 1.2", chosen]


def test_pretraining_and_the_path_of_adversarial_training(runs, here, eagerly):
    """The end of pretraining is that of a run that ends there; the path is what the run has measured since."""
    words = "--pretrain_g_epochs 20 --total_epochs 6 --d_steps 1 --d_epochs 1 --log_dir run --eval_log_dir eval"
    assert train([*TINY, "--seed", "3", *shlex.split(words)]) == 0
    Path("moved").mkdir()
    for name in ("run", "eval"):
        Path(name).rename(f"moved/{name}")  # its path is that of this run, wherever it is
    few = shlex.split("--temperatures 0.7 1 -n 50 --checkpoints --path 4 -o plane.png")
    found = measured(here, "moved/run", *few)
    path = [row for row in found if row["epoch"]]
    names = ["run pretrained"] * 2 + ["run"] * 2 + ["run, training"] * len(path) + ["real data"]
    assert [row["run"] for row in found] == names and Path("plane.png").stat().st_size > 1000
    assert_same(found[1], as_evaluated(runs / "oracle", 50))
    assert found[0]["nll"] != found[1]["nll"] != found[3]["nll"]
    made = {int(row["epoch"]): row for row in rows_of(Path("moved/eval/metrics.csv"))}  # the last of an epoch
    ends = [epoch for epoch in sorted(made) if 19 <= epoch < 24]
    assert [int(row["epoch"]) for row in path] == ends and len(ends) > 2 and max(made) > 24
    for row in path:
        for name in ("nll", "nll_test", "g_entropy", "nll_se"):
            assert float(row[name]) == float(made[int(row["epoch"])][name])


def test_the_path_of_a_guided_generator(here, eagerly):
    words = "--g_update expected --reward log_odds --rollout_num 0 --kl_weight 1 --total_epochs 4"
    words += " --d_steps 1 --d_epochs 1 --guide_eta 2"
    assert train([*BIGRAM, *shlex.split(f"{words} --log_dir run --eval_log_dir eval")]) == 0
    found = measured(here, "run", "--guide", "--temperatures", "1", "-n", "50", "--path", "4")
    made = {row["epoch"]: row for row in rows_of(Path("eval/metrics.csv"))}
    path = [row for row in found if row["epoch"]]
    assert len(path) > 1 and found[0]["run"] == "run guided" and path[0]["run"] == "run, training"
    for row in path:
        for name, guided in (("nll", "nll_guided"), ("nll_test", "nll_test_guided"), ("nll_se", "nll_guided_se")):
            assert float(row[name]) == float(made[row["epoch"]][guided])


def test_lines_with_all_that_is_measured_of_them(runs, tmp_path, capsys, eagerly):
    words = "--temperatures 0.5 1 -n 400 --texygen --candidates 1 4 --controls --average"
    found = measured(tmp_path, runs / "lines", *words.split(), runs / "again", "-o", tmp_path / "planes.png")
    sharp, own, one, likely_one, _, four, likely, permuted, sharp_average, average, real = found
    names = ["candidates", "candidates by likelihood", "candidates by permuted log-odds"]
    assert [row["run"] for row in found[2:8]] == [f"lines, {name}" for name in names * 2]
    assert [row["candidates"] for row in found] == ["", "", "1", "1", "1", "4", "4", "4", "", "", ""]
    assert (tmp_path / "planes.png").stat().st_size > 1000 and real["run"] == "real data"
    assert not any(name.startswith("real_") for name in found[0])
    assert_same(own, as_evaluated(runs / "lines", 400))  # whatever Texygen measures besides
    for name in ("texygen_bleu2", "texygen_bleu5", "texygen_self_bleu3", "texygen_nll_gen"):
        assert sharp[name] != own[name] and bool(real[name]) == name.startswith("texygen_bleu"), name  # few are real
    assert all(row["texygen_self_bleu3"] == row["self_bleu3"] for row in (sharp, own))
    # What is chosen: of one nothing, by D what is nearer to real lines, by log-odds of others what G has.
    nll = [float(row["nll_test"]) for row in found[:-1]]
    assert nll[1] == pytest.approx(nll[2]) == pytest.approx(nll[3]) == pytest.approx(nll[7])
    assert nll[5] < nll[1] - 0.1 and nll[6] > nll[1] + 0.1 and not four["g_entropy"]
    *_, evaluated = rows_of(runs / "lines_eval" / "metrics.csv")
    assert nll[5] > float(evaluated["nll_test_resampled"])  # of 16
    bleu = {row["run"] + row["candidates"]: float(row["bleu2"]) for row in found[1:8]}
    assert bleu["lines, candidates4"] > bleu["lines"] + 0.1
    assert abs(bleu["lines, candidates by permuted log-odds4"] - bleu["lines"]) < 0.08
    assert likely["length"] < permuted["length"] < four["length"] and likely_one["bleu2"] != one["bleu2"]
    # The average's NLL is at most the mean of both (Jensen).
    assert average["run"] == "average of 2/1" and sharp_average["temperature"] == "0.5"
    assert nll[9] < (nll[1] + as_evaluated(runs / "again", 400)["nll_test"][0]) / 2
    assert "| average of 2 " in capsys.readouterr().out


def test_candidates_on_the_oracle(knowing, tmp_path, capsys, eagerly):
    """By D and by D*, which knows more; and the average of a generator with itself is itself, up to rounding."""
    shutil.copytree(knowing, tmp_path / "again")
    words = "--temperatures 1 0.9 --candidates 4 1 -n 64 --average"
    found = measured(tmp_path, knowing, *words.split(), tmp_path / "again")
    cold, plain, *best, one, four, cold_average, average, real = found
    assert [row["candidates"] for row in found] == ["", "", "1", "4", "1", "4", "", "", ""]
    assert [row["run"] for row in found[2:6]] == ["run, candidates by D*"] * 2 + ["run, candidates"] * 2
    assert float(best[1]["kl_forward"]) < float(four["kl_forward"]) < float(best[0]["kl_forward"])
    for name in ("nll", "nll_test", "g_entropy", "kl_forward", "kl_reverse"):
        assert float(one[name]) == pytest.approx(float(plain[name]))
        for mean, single in ((average, plain), (cold_average, cold)):
            assert float(mean[name]) == pytest.approx(float(single[name]), abs=1e-4)
        assert float(four[name]) != float(plain[name]) != float(cold[name])
    assert 0 < float(four["distinct2"]) < 1
    gains = [restore(knowing).recorded["d_gain_resampled"][0]]  # of 16 candidates
    gains += [float(one["nll_test"]) - float(four["nll_test"]), 0.0]
    assert gains == sorted(gains, reverse=True) and real["run"] == "real data"
    assert "| run, chosen by D*, one of 4 " in capsys.readouterr().out


def test_a_run_of_tunes(runs, tmp_path, eagerly):
    found = measured(tmp_path, runs / "music", *shlex.split("--temperatures 0.5 1 -n 12 -o"), tmp_path / "planes.png")
    assert [row["temperature"] for row in found] == ["0.5", "1.0", ""] and found[-1]["run"] == "real data"
    for column in ("nll_test", "bleu4", "self_bleu4"):
        assert all(row[column] for row in found[:2]) and bool(found[2][column]) == (column == "bleu4")  # few are real
    assert (tmp_path / "planes.png").read_bytes().startswith(b"\x89PNG")


@cases(
    "argv, message",
    ("{}/music --texygen", "--texygen: {}/music is a run of --dataset Nottingham, not of text"),
    *(("{}/oracle {}/other", "other: a run with other data than"), ("{}/absent --path 5", "absent: no run")),
    ("{}/lines {}/bare", "bare: a run with other data than {}/lines"),
    ("{}/other --path 5", "other: no evaluations of this run"),
    ("{}/oracle --path 5", "--path: no run has evaluations of an adversarial"),
    ("{}/oracle --path 0", "argument --path: 0 is less than 1"),
    ("{}/oracle --temperatures 0", "argument --temperatures: 0 is less than"),
    ("{}/oracle --guide", "--guide: the run's discriminator is not an additive one"),
    ("{}/oracle --guide --checkpoints", "--checkpoints measures the end of pretraining, when nothing"),
    ("{}/oracle --guide --candidates 4", "--candidates are drawn from the generators themselves"),
    ("{}/absent -o {}/x.docx", "argument -o/--output: {}/x.docx: a picture's name ends in ."),
    ("{}/music --candidates 4", "--candidates: {}/music has no discriminator"),
    ("{}/oracle -o {}/x.png --csv {}/text/../x.png", "/x.png: is -o, too"),
    ("{}/oracle --csv {}/oracle/metrics.csv", "{}/oracle/metrics.csv: a run's own file"),
    ("{}/absent --csv {}", "argument --csv: {}: a folder, not a file"),
    ("{}/lines --controls", "--controls has no effect without --candidates"),
    ("{}/bare --controls --candidates 4", "--controls: {}/bare has no test set"),
    ("{}/lines --average {}/lines", "--average: a run is given twice"),
    ("{}/lines {}/again --average {}/lines", "--average: one LOGDIR alone"),
    ("{}/lines --average {}/oracle", "--average {}/oracle: a run with other data than {}/lines"),
    ("{}/lines --average {}/larger", "--average {}/larger: a generator of another size than that of {}/lines"),
    ("{}/lines --best_of 4", "lines: no run that has trained with --objective"),
)
def test_what_cannot_be_measured_is_one_line(runs, capsys, monkeypatch, argv, message):
    """Before another run is measured."""
    monkeypatch.setattr(temperatures.MeasuredRun, "tempered", lambda *_: pytest.fail("measures"))
    status = 3 if "no discriminator" in message else 2  # which tells a script that nothing else is wrong
    error = ended(capsys, [*argv.replace("{}", str(runs)).split(), "-n", "20", "--temperatures", "1"], status)
    assert message.replace("{}", str(runs)) in error and error.count("error: ") == 1


def test_what_was_measured_is_printed_before_a_file_that_cannot_be_written(runs, capsys, monkeypatch, eagerly):
    monkeypatch.setattr(temperatures, "write_whole", Mock(side_effect=OSError(28, "No space left on device")))
    words = [str(runs / "oracle"), "-n", "20", "--temperatures", "1", "--csv", f"{runs}/full.csv"]
    with pytest.raises(SystemExit, match="2"):
        temperatures.main(words)
    out, err = capsys.readouterr()
    assert "No space left" in err and "| oracle " in out


def test_runs_of_one_method_in_two_experiments_are_told_apart():
    named = lambda *paths: temperatures.names_of([Path(path) for path in paths])  # noqa: E731
    assert named("a/mle/1/train", "b/mle/2/train") == ["a/mle/1", "b/mle/2"]
    assert named("mle/1/train", "mle/2/train") == ["mle/1", "mle/2"]
    assert named("a/mle/1/train", "a/seqgan/2/train") == ["mle/1", "seqgan/2"]


def test_what_was_made_otherwise_is_named(runs, tmp_path, capsys):
    """--jit decides on the last bits of the oracle's samples; and data may have changed since."""
    shutil.copytree(runs / "oracle", tmp_path / "compiled")
    # Another oracle, as these few samples would be the same.
    change(tmp_path / "compiled" / "config.json", flags={"jit": True, "deterministic": False, "oracle_seed": 5})
    try:
        error = ended(capsys, [runs / "oracle", tmp_path / "compiled", "--temperatures", "1", "-n", "20"])
        assert tf.config.experimental.tensor_float_32_execution_enabled()  # as in its own evaluations
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    assert "compiled: a run with other data than" in error
    assert "(--jit True, not False, rounds the oracle's samples otherwise)" in error
    path, before = runs / "text" / "test.txt", (runs / "text" / "test.txt").read_text()
    path.write_text(before + "\nabc")
    assert "lines: the run has read other data than --data_dir" in ended(capsys, [runs / "lines"])
    path.write_text(before)


def test_best_temperatures_are_vertices_of_parabolas(tmp_path, capsys):
    """And those of captions follow from the study's files."""
    files = [ROOT / "results/distil" / f"{name}.csv" for name in ("temperatures", "guided_temperatures", "kneser_ney")]
    files += [ROOT / "results/distil" / f"{name}.csv" for name in ("kneser_ney_fresh", "averages", "no_dropout")]
    assert tempered.main([*map(str, files), "-o", str(tmp_path / "of.csv")]) == 0
    assert (tmp_path / "of.csv").read_bytes() == (ROOT / "results/distil/tempered.csv").read_bytes()
    points = pd.DataFrame({"run": "mle/1", "temperature": [1, 1.05, 1.1, 1.12], "bleu4": range(4), "self_bleu4": 0})
    points = points.assign(nll_valid=(points.temperature - 1.06) ** 2 + 2, nll_test=(points.temperature - 1.2) ** 2)
    (found,) = tempered.of_points(points)
    assert found["temperature"] == pytest.approx(1.06) and found["nll_valid"] == pytest.approx(2)
    assert found["nll_test"] == pytest.approx(0.14**2)
    assert found["bleu4"] == 1 and found["nll_test_1"] == pytest.approx(0.2**2)
    points[1:].to_csv(tmp_path / "less.csv")
    wanted = [str(tmp_path / "less.csv"), "-o", str(tmp_path / "no.csv")]
    assert "less.csv: mle/1: lacks temperature 1" in refusal(capsys, tempered.main, wanted)
    points.drop(columns="bleu4").to_csv(tmp_path / "no_bleu.csv")
    for name, output, why in (("less", "less", "less.csv: is read"), ("no_bleu", "no", "not a file with run, temp")):
        wanted = [str(tmp_path / f"{name}.csv"), "-o", str(tmp_path / f"{output}.csv")]
        assert why in refusal(capsys, tempered.main, wanted)
    assert "two rows of mle/1" in refusal(capsys, tempered.main, [str(files[0])] * 2 + wanted[1:])
    assert not (tmp_path / "no.csv").exists()
