"""tools/temperatures.py: the distribution at a temperature by enumeration, and the program on runs of each data."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import END, SIZES, TINY, all_sequences, probabilities, random_generator, randomise, tiny_config, train
from matplotlib.colors import to_hex
from test_guided import without, without_cnn
from test_nottingham import write_song

from model import SeqGAN
from oracle import OracleData
from tools import measured as tables
from tools import planes, temperatures

PRETRAINING = shlex.split("--pretrain_g_epochs 20 --total_epochs 0 --no-evaluate --no-jit")


def enumerated(generator, temperature: float) -> np.ndarray:
    """The probability of every sequence where each step's distribution is softmax(logits / temperature)."""
    sequences = all_sequences(generator.vocab_size, generator.seq_len, generator.end_token)
    logits = generator.logits(generator.states(tf.constant(sequences)).hidden).numpy() / temperature  # [T, n, V]
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    chosen = sequences != generator.vocab_size
    picked = np.take_along_axis(log_probs, np.where(chosen, sequences, 0).T[:, :, None], axis=2)[:, :, 0].T
    return np.exp((picked * chosen).sum(axis=1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("end_token", [None, 2])
def test_the_distribution_at_a_temperature(temperature, end_token):
    generator = random_generator(end_token=end_token, start_token=5 if end_token else 0)
    before, expected = generator.get_weights(), enumerated(generator, temperature)
    with generator.at_temperature(temperature):
        np.testing.assert_allclose(probabilities(generator), expected, rtol=1e-4)
    for ours, theirs in zip(generator.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # bit for bit, as it was
    assert (temperature == 1.0) == np.allclose(expected, probabilities(generator), rtol=1e-4)


def test_the_figures_at_a_temperature():
    config = tiny_config("--eval_samples", "5000")
    data, model = OracleData(config), SeqGAN(config, 4)
    randomise(model.generator, seed=1)
    p, g = probabilities(data.oracle), enumerated(model.generator, 0.6)
    with model.generator.at_temperature(0.6):
        figures = data.evaluate(model, 0, END)
    exact = {
        "nll": -(g * np.log(p)).sum() / 3,
        "nll_test": -(p * np.log(g)).sum() / 3,
        "g_entropy": -(g * np.log(g)).sum() / 3,
    }
    for name, value in exact.items():
        assert abs(figures[name][0] - value) < 4 * figures[name][1] + 1e-5, name


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A short run of each data set, one of two oracles, and one that went on to the adversarial phase."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("train", 1), ("valid", 2), ("test", 3)):
        letters = np.random.default_rng(seed).choice(list("abc"), [30, 3])
        (folder / "text").mkdir(exist_ok=True)
        (folder / "text" / f"{name}.txt").write_text("\n".join("".join(row) for row in letters))
        write_song(folder / "tunes" / name / "a.mid", list(np.random.default_rng(seed).integers(60, 72, 40)))
    text = ["--dataset", "text", "--vocab_size", "9", "--data_dir", str(folder / "text")]
    tunes = ["--dataset", "Nottingham", "--data_dir", str(folder / "tunes"), "--seq_len", "8"]
    for name, flags in (
        ("oracle", [*TINY, *PRETRAINING]),
        ("other", [*TINY, *PRETRAINING, "--oracle_seed", "5"]),
        ("adversarial", [*TINY, "--pretrain_g_epochs", "20", "--no-evaluate", "--no-jit", "--keep_checkpoints", "1"]),
        ("evaluated", [*TINY, *PRETRAINING, "--evaluate", "--eval_log_dir", str(folder / "eval")]),
        ("lines", [*SIZES, *PRETRAINING, *text, "--jit"]),
        ("music", [*SIZES, *PRETRAINING, *tunes]),
    ):
        assert train([*flags, "--log_dir", str(folder / name)]) == 0
    return folder


def measured(folder: Path, *argv: str) -> list[dict[str, str]]:
    """The rows of the CSV file."""
    assert temperatures.main([*map(str, argv), "--csv", str(folder / "points.csv")]) == 0
    with open(folder / "points.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_of_the_oracle(runs, tmp_path, capsys):
    few = ["--temperatures", "1.2", "0.5", "1", "-n", "400", "-o", str(tmp_path / "plane.png")]
    rows = measured(tmp_path, runs / "oracle", *few)
    assert [row["temperature"] for row in rows] == ["0.5", "1.0", "1.2", ""]
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
    sharp, own, flat, real = rows
    assert float(sharp["g_entropy"]) < float(own["g_entropy"]) < float(flat["g_entropy"])
    assert real["run"] == "real data" and real["nll"] == real["nll_test"] == real["g_entropy"] != ""
    model = SeqGAN.restored(runs / "oracle")
    data = OracleData(tiny_config(*PRETRAINING, "--eval_samples", "400"))
    for name, (value, error) in data.evaluate(model, 0, END).items():
        if name != "oracle_entropy":
            assert (float(own[name]), float(own[f"{name}_se"])) == (value, error), name
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "|  | oracle, temperature 0.5 | oracle | oracle, temperature 1.2 | real data |"
    nll = tables.Interval(float(own["nll"]), 0, float(own["nll"]) + float(own["nll_se"]), 1)
    assert printed[2].startswith("| NLL_oracle |") and printed[2].split("|")[3].strip() == str(nll)


def test_the_end_of_pretraining_is_a_curve_of_its_own(runs, tmp_path):
    """And the same as that of a run that ends there."""
    few = ["--temperatures", "0.7", "1", "--checkpoints"]
    rows = measured(tmp_path, runs / "adversarial", *few)
    whole = [row for row in rows if row["run"].endswith("adversarial")]
    pretrained = [row for row in rows if row["run"].endswith("adversarial pretrained")]
    assert len(whole) == len(pretrained) == 2 and len(rows) == 5
    alone = measured(tmp_path, runs / "oracle", *few)
    for ours, theirs, ended in zip(pretrained, alone, whole, strict=False):
        assert ours | {"run": ""} == theirs | {"run": ""} != ended | {"run": ""}


def test_the_path_of_adversarial_training(tmp_path, monkeypatch, capsys):
    """From the end of pretraining on: what the run has measured, with its epochs, and no line of the table."""
    monkeypatch.chdir(tmp_path)
    flags = [*TINY, "--pretrain_g_epochs", "5", "--no-jit", "--eval_every", "2", "--d_eval_samples", "0"]
    assert train([*flags, "--total_epochs", "6", "--log_dir", "run", "--eval_log_dir", "eval"]) == 0
    Path("moved").mkdir()
    for name in ("run", "eval"):
        Path(name).rename(f"moved/{name}")  # its path is that of this run, wherever it is
    assert train([*flags, "--total_epochs", "0", "--log_dir", "other", "--eval_log_dir", "eval"]) == 0
    with open("moved/eval/metrics.csv", encoding="utf-8") as file:
        made = {int(row["epoch"]): row for row in csv.DictReader(file)}
    drawn = []
    monkeypatch.setattr(planes.plt, "close", drawn.append)
    few = ["--temperatures", "0.7", "1", "-n", "50", "--path", "4", "-o", "plane.png"]
    capsys.readouterr()
    rows = measured(tmp_path, "moved/run", *few)
    path = [row for row in rows if row["epoch"]]
    ends = [epoch for epoch in sorted(made) if 4 <= epoch < 9]
    assert [int(row["epoch"]) for row in path] == ends and len(ends) > 2 and max(made) > 9
    assert len(rows) == 2 + len(path) + 1 and {row["run"] for row in path} == {"run, training"}
    for row in path:
        for name in ("nll", "nll_test", "g_entropy", "nll_se"):
            assert float(row[name]) == float(made[int(row["epoch"])][name])
    assert capsys.readouterr().out.splitlines()[0] == "|  | run, temperature 0.7 | run | real data |"
    line = next(line for line in drawn[0].axes[0].lines if line.get_label() == "run, during training")
    assert line.get_xydata().tolist() == [[float(row["nll_test"]), float(row["nll"])] for row in path]


def test_many_curves_have_a_colour_each_and_the_legend_names_all(tmp_path, monkeypatch):
    """Real data too, which is in the second panel alone; no name is cut off."""
    drawn = []
    monkeypatch.setattr(planes.plt, "close", drawn.append)
    whole = dict.fromkeys(("nll_test", "bleu2", "bleu4", "self_bleu4"), (1.0, 0.0))
    names = [f"run {i} of a long name" for i in range(11)]
    points = [tables.Point(name, 1.0, whole) for name in names]
    real = tables.Point(tables.REAL, 0.0, dict.fromkeys(("bleu4", "self_bleu4"), (1.0, 0.0)))
    planes.draw([*points, real], tmp_path / "plane.png")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [*names, "real data (validation set)"]
    entries = legend.get_window_extent()
    assert drawn[0].bbox.x0 <= entries.x0 and entries.x1 <= drawn[0].bbox.x1
    assert len({to_hex(line.lines[0].get_color()) for line in drawn[0].axes[0].containers[:11]}) == 11


def test_seeds_of_a_method_are_one_line(tmp_path, monkeypatch, capsys):
    """Their mean at each temperature with its standard deviation, by the table's label; read from a file as well."""
    drawn = []
    monkeypatch.setattr(planes.plt, "close", drawn.append)
    places = {"mle/1": (1, 4), "mle/12": (3, 8), "gan/1": (5, 5), "gan/1 pretrained": (2, 1), "mle/1, training": (7, 7)}
    places |= {"mle/1 guided": (0, 0)}
    points = [
        tables.Point(name, t, {"nll_test": (x + t, 9.0), "nll": (y, 9.0)}, 5 if "training" in name else None)
        for name, (x, y) in places.items()
        for t in ((1.0,) if "training" in name else (1.0, 0.5))  # in no order
    ]
    temperatures.write_csv(points, tmp_path / "plane.csv")
    (tmp_path / "hand.toml").write_text(
        'seeds = [1]\n[[methods]]\nname = "mle"\nlabel = "Maximum"\n[[methods]]\nname = "gan"\n'
    )
    planes.draw(points, tmp_path / "plane.png", {"mle": "Maximum"})
    command = [str(tmp_path / "plane.csv"), "--table", str(tmp_path / "hand.toml"), "-o", str(tmp_path / "again.png")]
    assert planes.main(command) == 0
    for figure in drawn:
        (panel,) = figure.axes
        bars = {bar.get_label(): bar for bar in panel.containers}
        assert bars.keys() == {"Maximum", "gan", "gan, end of its MLE pretraining", "Maximum, guided"}
        line, _, (across, up) = bars["Maximum"]
        assert line.get_xydata().tolist() == [[2.5, 6], [3, 6]]
        half = np.array([[2**0.5, 0], [0, 8**0.5]])  # the values are 2 and 4 apart
        np.testing.assert_allclose(across.get_segments()[0], [[2.5, 6] - half[0], [2.5, 6] + half[0]])
        np.testing.assert_allclose(up.get_segments()[1], [[3, 6] - half[1], [3, 6] + half[1]])
        assert not bars["gan"].lines[2][0].get_segments()[0].size  # no bar of one seed
        path = next(line for line in panel.lines if line.get_label() == "Maximum, during training")
        assert path.get_xydata().tolist() == [[8, 7]] and path.get_color() == line.get_color()
    for content, why in (("mle/1,warm\n", "plane.csv: no table of temperatures"), ("", "no figure")):
        (tmp_path / "plane.csv").write_text(f"run,temperature\n{content}")
        with pytest.raises(SystemExit) as stop:
            planes.main(command)
        assert stop.value.code == 2 and why in capsys.readouterr().err


def test_tables_are_of_the_means_over_seeds(tmp_path):
    """And their distances from real data, or of a likelihood from the first column's, are paired by seed."""
    figures = {"mle/1": (1.0, 8.0), "mle/2": (2.0, 9.0), "gan/1": (1.5, 6.0), "gan/2": (2.1, 6.5)}
    points = [tables.Point(name, 1.0, {"nll_test": (x, 0.1), "bleu4": (y, 0.1)}) for name, (x, y) in figures.items()]
    points += [tables.Point("mle/1", 0.5, {"nll_test": (3.0, 0.25)}), tables.Point("gan/1, training", 1.0, {}, 7)]
    points += [tables.Point(tables.REAL, 0.0, {"bleu4": (6.2, 0.35)})]  # the last column wherever it comes
    points += [tables.Point("gan/1, candidates", 1.0, {"bleu4": (5.0, 0.25)}, candidates=4)]
    temperatures.write_csv(points, tmp_path / "points.csv")
    head, nll, bleu = tables.table(tables.read_points(tmp_path / "points.csv"), {"mle": "Maximum"})
    assert head == ["", "Maximum", "gan", "Maximum, temperature 0.5", "gan, chosen by D, one of 4", "real data"]
    half = 12.7062 * 0.5  # Student's t of one degree of freedom, times the standard error
    assert nll == ["NLL_test", f"1.5 ± {half:.1f}", "1.8 ± 3.8", "3.00 ± 0.25", "", ""]
    assert bleu == ["BLEU-4", f"8.5 ± {half:.1f}", "6.2 ± 3.2", "", "5.00 ± 0.25", "6.20 ± 0.35"]
    head, nll, bleu, nearer, further = tables.apart(points, {})
    assert head[1:] == ["mle", "gan", "mle, temperature 0.5", "gan, chosen by D, one of 4"]
    assert nll == ["NLL_test", "", str(tables.interval([0.5, 2.1 - 2])), "2.000", ""]  # a mean of one has no error
    assert bleu[1] == str(tables.interval([8.0 - 6.2, 9.0 - 6.2]))
    assert nearer == ["nearer to real data", "", "1", "", "1"]
    assert further[1:] == ["", "0", "", ""]  # one run has no error
    assert [row[0] for row in tables.apart([p for p in points if p.curve != tables.REAL])][1] == "NLL_test"
    for point in points:
        if point.curve != tables.REAL:
            point.figures["nll_valid"] = point.temperature, 0.1
    assert tables.best(tables.columns(points, {})).title == "mle, temperature 0.5"
    assert tables.apart(points, {})[1] == ["NLL_valid", "0.500", "0.500", "", "0.500"]
    assert [row[3] for row in tables.apart(points, {})[2:]] == ["", "", "", ""]
    worse = tables.Point("gan/2", 1.0, {"bleu4": (16.2, 0.1)}), tables.Point("gan/1", 1.0, {"bleu4": (15.2, 0.1)})
    *_, nearer, further = tables.apart([points[0], points[1], *worse, points[-2]], {})
    assert nearer[2] == "0" and further[2] == "1"


@pytest.mark.parametrize(
    ("path", "name", "shown"),
    [("1/tunes/mle/1/train", "1", "mle/1"), ("logs/run/train", "run", "run"), ("/1/train", "1", "1")],
)
def test_a_seed_alone_is_shown_with_its_method(path, name, shown):
    assert temperatures.seed_of(Path(path), name) == shown


@pytest.mark.parametrize(("name", "orders"), [("lines", (2, 4)), ("music", (4,))])
def test_runs_of_lines_and_tunes(runs, tmp_path, name, orders):
    few = ["--temperatures", "0.5", "1", "-n", "12", "-o", str(tmp_path / "planes.png")]
    rows = measured(tmp_path, runs / name, *few)
    assert [row["temperature"] for row in rows] == ["0.5", "1.0", ""] and rows[-1]["run"] == "real data"
    for column in ("nll_test", "bleu4", "self_bleu4"):
        assert all(row[column] for row in rows[:2])
    assert rows[-1]["bleu4"] and rows[-1]["self_bleu4"] and not any(key.startswith("real_") for key in rows[0])
    assert (tmp_path / "planes.png").read_bytes().startswith(b"\x89PNG")
    figures = dict.fromkeys([key for key, value in rows[0].items() if value], (0.0, 0.0))
    pairs = planes.planes(figures)
    assert {(f"self_bleu{n}", f"bleu{n}") for n in orders} | {("nll_test", "bleu4")} <= set(pairs)


def test_texygens_figures(runs, tmp_path, capsys):
    """At each temperature its own, beside those that are there without the flag, and with a plane of their own."""
    few = [runs / "lines", "--temperatures", "0.5", "1", "-n", "30"]
    plain = measured(tmp_path, *few)
    rows = measured(tmp_path, *few, "--texygen", "-o", str(tmp_path / "planes.png"))
    printed = capsys.readouterr().out
    assert all(f"\n| {name} |" in printed for name in ("texygen_bleu2", "texygen_self_bleu4", "texygen_nll_gen"))
    for row, before in zip(rows, plain, strict=True):
        assert row.items() >= before.items()
    for name in ("texygen_bleu2", "texygen_bleu5", "texygen_self_bleu3", "texygen_nll_gen"):
        sharp, own, real = (row[name] for row in rows)
        assert sharp != own and bool(real) == ("bleu" in name)
    assert all(row["texygen_self_bleu3"] == row["self_bleu3"] for row in rows[:2])
    figures = dict.fromkeys(rows[0], (0.0, 0.0))
    assert ("texygen_self_bleu4", "texygen_bleu4") in planes.planes(figures)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{}/music", "--texygen"], "--texygen: {}/music is a run of --dataset Nottingham, not of text"),
        (["{}/oracle", "{}/other"], "other: a run with other data than"),
        (["{}/oracle", "{}/lines"], "lines: a run with other data than"),
        (["{}/absent"], "absent: no run"),
        (["{}/adversarial", "--path", "5", "--temperatures", "1"], "adversarial: no evaluations of this run"),
        (["{}/evaluated", "--path", "5", "--temperatures", "1"], "--path: no run has evaluations of an adversarial"),
        (["{}/oracle", "--path", "0"], "argument --path: 0 is less than 1"),
        (["{}/oracle", "--temperatures", "0"], "argument --temperatures: 0 is less than"),
        (
            ["{}/oracle", "--csv", "{}/absent/x.csv", "--temperatures", "1"],
            "argument --csv: {}/absent/x.csv: there is no such",
        ),
        (["{}/oracle", "--guide", "--checkpoints"], "--checkpoints measures the end of pretraining, when nothing"),
        (["{}/absent", "-o", "{}/x.docx"], "argument -o/--output: {}/x.docx: a picture's name ends in ."),
    ],
)
def test_what_cannot_be_measured_is_one_line(runs, capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        temperatures.main([word.format(runs) for word in argv])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message.format(runs) in error


def test_a_run_of_other_rounding_is_named(runs, tmp_path, capsys):
    """--jit decides on the last bits of the oracle's samples; --tf32 is the run's own."""
    shutil.copytree(runs / "oracle", tmp_path / "compiled")
    path = tmp_path / "compiled" / "config.json"
    content = json.loads(path.read_text())
    content["flags"] |= {"jit": True, "tf32": True, "oracle_seed": 5}  # as these few samples would be the same
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(SystemExit):
            temperatures.main([str(runs / "oracle"), str(tmp_path / "compiled"), "--temperatures", "1"])
        assert tf.config.experimental.tensor_float_32_execution_enabled()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    assert "compiled: a run with other data than" in (error := capsys.readouterr().err)
    assert "(--jit True, not False, rounds the oracle's samples otherwise)" in error


def test_changed_data_are_refused(runs, tmp_path, capsys):
    path = runs / "text" / "test.txt"
    before = path.read_text()
    path.write_text(before + "\nabc")
    with pytest.raises(SystemExit):
        temperatures.main([str(runs / "lines"), "--temperatures", "1"])
    assert "lines: the run has read other data than --data_dir" in capsys.readouterr().err
    path.write_text(before)


def test_candidates_are_a_curve_of_their_own(knowing, tmp_path, capsys):
    rows = measured(tmp_path, str(knowing), "--temperatures", "1", "0.9", "--candidates", "4", "1", "-n", "64")
    head = capsys.readouterr().out.splitlines()[0]
    assert "| run, chosen by D, one of 1 | run, chosen by D, one of 4 |" in head
    assert "| run, chosen by D*, one of 1 | run, chosen by D*, one of 4 |" in head
    cold, plain, *best, one, four, real = rows
    assert [row["candidates"] for row in rows] == ["", "", "1", "4", "1", "4", ""] and real["run"] == "real data"
    assert [row["run"] for row in best] == ["run, candidates by D*"] * 2
    assert float(best[1]["kl_forward"]) < float(four["kl_forward"]) < float(best[0]["kl_forward"])
    figures = ("nll", "nll_test", "g_entropy", "kl_forward", "kl_reverse")
    for name in figures:
        assert float(one[name]) == pytest.approx(float(plain[name]))
        assert float(four[name]) != float(plain[name]) != float(cold[name])
    assert 0 < float(four["distinct2"]) < 1
    evaluation = SeqGAN.restored(knowing).recorded  # of 16 candidates
    assert float(four["nll_test"]) < float(one["nll_test"])
    gains = [evaluation["d_gain_resampled"][0], float(one["nll_test"]) - float(four["nll_test"]), 0.0]
    assert gains == sorted(gains, reverse=True)


def test_candidates_of_lines_are_compared_with_lines(tmp_path, monkeypatch, capsys):
    (tmp_path / "lines").mkdir()
    for name in ("train", "valid", "test"):
        (tmp_path / "lines" / f"{name}.txt").write_text("ab\nabc\nbca\ncab\nc\n" * 6)
    words = [*SIZES, *shlex.split("--dataset text --vocab_size 9 --no-jit --total_epochs 0 --pretrain_d")]
    words += ["--data_dir", str(tmp_path / "lines"), "--d_eval_samples", "30", "--log_dir", str(tmp_path / "run")]
    assert train([*words, "--eval_log_dir", str(tmp_path / "eval")]) == 0
    monkeypatch.setattr(temperatures, "check_knows", lambda *_: None)
    few = ["--temperatures", "1", "--candidates", "1", "3", "-n", "32", "--texygen"]
    plain, one, three, _ = measured(tmp_path, str(tmp_path / "run"), *few)
    assert float(one["nll_test"]) == pytest.approx(float(plain["nll_test"]))
    for name in ("bleu2", "self_bleu2", "length", "copied_share", "texygen_bleu2", "texygen_self_bleu3"):
        assert float(three[name]) > 0 and float(three[name]) != float(plain[name])
    assert not three["g_entropy"]


def test_candidates_take_a_discriminator_that_knows(runs, knowing, capsys):
    assert temperatures.main([str(runs / "oracle"), "--temperatures", "1", "--candidates", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("|  | oracle | oracle, chosen by D*, one of 2 | real data |\n") and "--pretrain_d" in err
    for words, why in (([str(runs / "music")], "--pretrain_d"), ([str(knowing), "--guide"], "--guide")):
        with pytest.raises(SystemExit) as stopped:
            temperatures.main([*words, "--candidates", "4"])
        err = capsys.readouterr().err
        assert stopped.value.code == 2 and err.count("\n") == 1 and why in err


def test_the_path_of_a_guided_generator(tmp_path, monkeypatch):
    """It is that of the guided one, as the curve beside it."""
    monkeypatch.chdir(tmp_path)
    words = [*without(without_cnn(TINY), "--rollout_num", 1), "--discriminator", "bigram", "--d_draws", "8", "--no-jit"]
    words += shlex.split("--g_update expected --reward log_odds --rollout_num 0 --kl_weight 1 --total_epochs 4")
    assert train([*words, "--log_dir", "run", "--eval_log_dir", "eval"]) == 0
    rows = measured(tmp_path, "run", "--guide", "--temperatures", "1", "-n", "50", "--path", "4")
    with open("eval/metrics.csv", encoding="utf-8") as file:
        made = {row["epoch"]: row for row in csv.DictReader(file)}
    path = [row for row in rows if row["epoch"] and made[row["epoch"]]["nll_test_guided"]]
    assert len(path) > 1 and rows[0]["run"] == "run guided" and path[0]["run"] == "run, training"
    for row in path:
        assert row["nll_test"] == pytest.approx(made[row["epoch"]]["nll_test_guided"])
        assert float(row["nll"]) == float(made[row["epoch"]]["nll_guided"])
