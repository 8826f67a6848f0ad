import csv
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from runs.directories import CHECKPOINTS, METRICS
from runs.experiment import Cell, read
from runs.manifest import CHECKSUM, MANIFEST
from runs.schedule import Schedule
from support.config import UsageError
from support.config_file import CONFIG
from support.parser import read_flags
from tools import front_page, measured, outcomes, report
from tools.measured import Point
from tools.outcomes import Interval, Outcome, Results, band, holm, interval, p_value, times
from tools.plot_curves import Curve, Run, colours
from tools.report import main

TABLE = """
title = "Hand-made"
seeds = [1, 2, 3, 4]
flags = "--vocab_size 10 --seq_len 5 --d_filter_sizes 2 --d_num_filters 3"
[[methods]]
name = "mle"
label = "MLE"
flags = "--pretrain_g_epochs 3 --total_epochs 0"
[[methods]]
name = "long"
label = "MLE | longer"
flags = "--pretrain_g_epochs 4 --total_epochs 0"
[report]
against = "mle"
"""


def make_run(cell: Cell, rows: list[dict], data: str = "") -> None:
    """Leaves what a run of main.py leaves, its evaluations being `rows`, and `data` the checksum of what it read."""
    config = read_flags(cell.argv)
    described = {
        "flags": dataclasses.asdict(config),
        "run": str(cell.directory),
        "data": {"lines": data} if data else {},
    }
    for directory in (cell.log_dir, cell.eval_log_dir):
        directory.mkdir(parents=True)
        (directory / CONFIG).write_text(json.dumps(described))
    with open(cell.eval_log_dir / METRICS, "w", newline="") as file:
        rows = [{"epoch": epoch, "phase": "pretrain_g", **row} for epoch, row in enumerate(rows)]
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    seconds = "".join(f"{epoch},pretrain_g,0.5\n" for epoch in range(cell.epochs))
    (cell.log_dir / METRICS).write_text(f"epoch,phase,seconds_per_epoch\n{seconds}")
    save(cell)


def save(cell: Cell) -> None:
    """Leaves its last checkpoint, which tells of its records as they are now."""
    checkpoint = cell.log_dir / CHECKPOINTS / f"step-{len(Schedule(read_flags(cell.argv))):09d}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    positions = {}
    for kind, directory in (("train", cell.log_dir), ("eval", cell.eval_log_dir)):
        content = (directory / METRICS).read_bytes()
        positions[kind] = {METRICS: len(content), CHECKSUM: hashlib.sha256(content).hexdigest(), "events": 99}
    text = json.dumps({"details": {"positions": positions}})
    (checkpoint / MANIFEST).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


@pytest.fixture
def made(tmp_path):
    """A table of two methods and four seeds with runs that end with known figures: (file, cells, {method: values})."""
    path = tmp_path / "hand.toml"
    path.write_text(TABLE)
    ends = {"mle": [3.0, 3.2, 3.1, 3.3], "long": [2.9, 3.05, 3.05, 3.1]}
    cells = read(path).cells(tmp_path / "logs")
    for cell in cells:
        value = ends[cell.method.name][cell.seed - 1]
        rows = [
            {"nll": value - 1, "nll_se": 0.1, "g_entropy": 2, "oracle_entropy": 1.5} for _ in range(cell.epochs - 1)
        ]
        make_run(cell, [*rows, {"nll": value, "nll_se": 0.1, "g_entropy": 2, "oracle_entropy": 1.5}])
    return path, cells, ends


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_intervals_are_students():
    values = [3.0, 3.2, 3.1, 3.3]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert interval(values)[:4] == pytest.approx((np.mean(values), low, high, 4))
    # By hand: the deviation of 1, 2, 3 is 1, and the quantile of two degrees of freedom 4.302653.
    assert interval([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)
    alone = interval([5.0])
    assert alone.mean == 5 and math.isnan(alone.low) and alone.seeds == 1


def test_as_many_digits_as_the_interval_is_worth():
    assert str(Interval(8.12345, 8.1, 8.1469, 5)) == "8.123 ± 0.023"
    assert str(Interval(123.4, 100.0, 146.8, 5)) == "123 ± 23"
    assert str(Interval(5.0, math.nan, math.nan, 1)) == "5.000"


def test_holms_correction():
    # Holm (1979): the smallest of three times 3, the next times 2, the largest once, none below the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    corrected = holm([math.nan, 0.01])
    assert math.isnan(corrected[0]) and corrected[1] == 0.01


def test_p_values_are_of_the_paired_test():
    ours, theirs = [2.9, 3.05, 3.05, 3.1], [3.0, 3.2, 3.1, 3.3]
    assert p_value(np.subtract(ours, theirs)) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert math.isnan(p_value([1.0])) and math.isnan(p_value([2.0, 2.0]))


def test_seconds_are_without_compilation():
    epochs, first = np.arange(6), np.array([0, 3, 4])  # started again in epoch 4, after adversarial training began in 3
    unknown = np.full(6, math.nan)
    clock = Curve(epochs, np.array([0.25, 2.0, 4.0, 1.0, 0.5, 8.0]), unknown)
    compiling = Curve(first, np.array([30.0, 20.0, 10.0]), unknown[:3])
    curves = {"seconds_per_epoch": clock, "compile_seconds": compiling}
    assert times(Run(curves, 3)) == {"seconds": 3 + 2 + 4 + 8 + 8 + 8, "compile_seconds": 60}
    assert times(Run(curves, 5))["seconds"] == 3 + 2 + 4 + 3 + 3 + 8
    assert times(Run({"seconds_per_epoch": clock}, 3)) == {"seconds": 15.75}  # an older run's, compilation included
    alone = {name: Curve(curve.epochs[:1], curve.values[:1], unknown[:1]) for name, curve in curves.items()}
    assert times(Run(alone, None)) == {"seconds": 30.25, "compile_seconds": 30}  # no other epoch tells


def test_final_values_means_and_differences(made, tmp_path, capsys):
    path, _, ends = made
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and str(tmp_path / "out" / "README.md") in printed.out
    runs = rows_of(tmp_path / "out" / "hand_runs.csv")
    assert [float(row["nll"]) for row in runs if row["method"] == "mle"] == ends["mle"]  # the last, not the best
    assert {float(row["seconds"]) for row in runs if row["method"] == "long"} == {2.0}
    means = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "out" / "hand_means.csv")}
    low, high = stats.t.interval(0.95, 3, loc=np.mean(ends["long"]), scale=stats.sem(ends["long"]))
    row = means["long", "nll"]
    assert [float(row[name]) for name in ("mean", "low", "high")] == pytest.approx([np.mean(ends["long"]), low, high])
    assert row["seeds"] == "4"
    found = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "out" / "hand_differences.csv")}
    paired = np.subtract(ends["long"], ends["mle"])
    row = found["long", "nll"]
    assert float(row["mean"]) == pytest.approx(paired.mean())
    assert float(row["p"]) == pytest.approx(stats.ttest_rel(ends["long"], ends["mle"]).pvalue)
    assert row["p_holm"] == row["p"]  # the only one whose differences vary
    text = (tmp_path / "out" / "README.md").read_text()
    assert "# Hand-made" in text and "MLE \\| longer" in text and "1.500 nats" in text and "hand.png" in text
    assert "Not all runs" not in text
    assert (tmp_path / "out" / "hand.png").stat().st_size > 10_000


@pytest.mark.parametrize(("other", "said"), [("--g_hidden_dim 51", True), ("--oracle_init normal", False)])
def test_an_entropy_is_given_where_there_is_one_oracle(tmp_path, capsys, other, said):
    path = tmp_path / "two.toml"
    path.write_text(f"""
seeds = [1]
flags = "--total_epochs 0 --pretrain_g_epochs 2"
[[methods]]
name = "one"
[[methods]]
name = "other"
flags = "{other}"
""")
    for cell, entropy in zip(read(path).cells(tmp_path / "logs"), (1.4, 1.6), strict=True):
        make_run(cell, [{"nll": 3.0, "oracle_entropy": entropy}] * 2)
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    assert ("entropy is 1.500" in (tmp_path / "out" / "README.md").read_text()) == said
    assert ("The oracle's entropy" in (tmp_path / "out" / "README.md").read_text()) == said


def test_what_is_missing_is_named(made, tmp_path, capsys):
    path, cells, _ = made
    gone, unfinished = cells[0], cells[-1]
    for file in sorted(gone.directory.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    last = f"step-{len(Schedule(read_flags(unfinished.argv))):09d}"
    shutil.rmtree(unfinished.log_dir / CHECKPOINTS / last)
    gone.log_dir.rmdir() if gone.log_dir.exists() else None
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    lines = ["mle, seed 1: not started", "long, seed 4: unfinished, after 4 of 4 epochs"]
    text, errors = (tmp_path / "out" / "README.md").read_text(), capsys.readouterr().err
    assert all(line in text and line in errors for line in lines)
    means = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "out" / "hand_means.csv")}
    assert means["mle", "nll"]["seeds"] == "3" and means["long", "nll"]["seeds"] == "3"
    found = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "out" / "hand_differences.csv")}
    assert found["long", "nll"]["seeds"] == "2"  # seeds that both have


def test_what_has_not_begun_has_a_line_a_method(made, tmp_path):
    path, *_ = made
    lines = ["mle, seed 1, 2, 3, 4: not started", "long, seed 1, 2, 3, 4: not started"]
    assert Results.of(read(path), tmp_path / "elsewhere").missing == lines


def test_a_figure_that_no_run_has_is_named(made, tmp_path, capsys):
    """Such as a misspelt one."""
    path, *_ = made
    path.write_text(TABLE + 'metrics = ["nll", "nll_tets"]\ncurves = ["nll", "entropy"]\n')
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    text, errors = (tmp_path / "out" / "README.md").read_text(), capsys.readouterr().err.splitlines()
    lines = ["nll_tets, which report.metrics names: no run has it", "entropy, which report.curves names: no run has it"]
    assert errors == [f"report.py: {line}" for line in lines] and all(f"- {line}\n" in text for line in lines)


def test_an_evaluation_that_lacks_a_figure_at_the_end_has_none(made, tmp_path):
    path, cells, _ = made
    for cell in cells:
        lines = (cell.eval_log_dir / METRICS).read_text().splitlines()
        lines[-1] = ",".join([*lines[-1].split(",")[:4], "", "1.5"])
        (cell.eval_log_dir / METRICS).write_text("\n".join(lines) + "\n")
        save(cell)
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    assert "g_entropy" not in rows_of(tmp_path / "out" / "hand_runs.csv")[0]


CLOSED = """
seeds = [1, 2]
flags = "--pretrain_g_epochs 2 --total_epochs 2 --seq_len 5"
[[methods]]
name = "few"
flags = "--vocab_size 10 --reward log_odds --pretrain_d_epochs 1 --d_filter_sizes 2 --d_num_filters 3"
[[methods]]
name = "many"
flags = "--vocab_size 100 --reward log_odds --pretrain_d_epochs 1 --d_filter_sizes 2 --d_num_filters 3"
[[methods]]
name = "drift"
flags = "--vocab_size 10 --reward constant"
[report]
metrics = ["closed_kl_forward", "known", "before_d_gain", "d_gain", "before_kl_forward"]
against = "few"
[report.closed]
metrics = ["kl_forward"]
along = "vocab_size"
by = "reward"
"""


def test_the_share_of_a_divergence_that_is_closed(tmp_path, monkeypatch, capsys):
    """From the end of pretraining to that of the run; what D knows is taken where its pretraining ends."""
    path, phases = tmp_path / "shares.toml", ("pretrain_g", "pretrain_g", "pretrain_d", "adversarial", "adversarial")
    path.write_text(CLOSED)
    ends = {"few": 0.3, "many": 0.5, "drift": 0.6}
    for cell in read(path).cells(tmp_path / "logs"):
        figures = ["kl_forward", "d_gain"]
        values = [(0.9, ""), (0.4, ""), ("", 0.02), (0.1, 0.01), (ends.get(cell.method.name, 1) * cell.seed, 0.03)]
        if cell.method.name == "drift":
            values = [(kl, "") for kl, _ in values]
        rows = [dict(zip(figures, pair, strict=True)) for pair in values]
        for row, epoch, phase in zip(rows, (0, 1, 1, 2, 3), phases, strict=True):
            row |= {"epoch": epoch, "phase": phase}
        make_run(cell, rows)
    drawn = []
    monkeypatch.setattr(report.plt, "close", drawn.append)
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    means = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "out" / "shares_means.csv")}
    for method, end in ends.items():
        of_seeds = [1 - end / 0.4, 1 - 2 * end / 0.4]
        row = means[method, "closed_kl_forward"]
        assert [float(row[name]) for name in ("mean", "low", "high")] == pytest.approx(list(interval(of_seeds)[:3]))
    assert float(means["many", "known"]["mean"]) == pytest.approx(0.02 / 0.4) and ("drift", "known") not in means
    found = [float(means["many", name]["mean"]) for name in ("before_d_gain", "d_gain", "before_kl_forward")]
    assert found == [0.02, 0.03, 0.4] and ("drift", "before_d_gain") not in means
    assert "| d_gain, before | d_gain | KL(oracle‖G), before |" in (tmp_path / "out" / "README.md").read_text()
    # What was before is no result: it is not tested, nor shown where the table does not name it.
    assert not any("before" in row["metric"] for row in rows_of(tmp_path / "out" / "shares_differences.csv"))
    axes, (legend,) = drawn[-1].axes[0], drawn[-1].legends
    assert [text.get_text() for text in legend.get_texts()] == ["--reward log_odds", "--reward constant"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["10", "100"]
    assert "shares_closed.png" in (tmp_path / "out" / "README.md").read_text()
    path.write_text(CLOSED.replace('metrics = ["closed_kl_forward"', '# ["closed_kl_forward"'))
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "all")]) == 0
    (columns, *_) = (tmp_path / "all" / "shares_runs.csv").read_text().splitlines()
    assert columns == "method,seed,kl_forward,d_gain,closed_kl_forward,known,seconds,date"
    path.write_text(CLOSED.replace('metrics = ["kl_forward"]', 'metrics = ["kl"]'))
    with pytest.raises(SystemExit) as stop:
        main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2 and "no run has kl before and after" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ('along = "vocabulary"', "'vocabulary' is no flag"),
        ("", "has metrics, along, by"),
        ("along = [3]", "[3] is no flag"),
        ('along = "seq_len"', "few and many have the same place"),
    ],
)
def test_shares_that_cannot_be_drawn_are_one_line(tmp_path, capsys, asked, why):
    path = tmp_path / "shares.toml"
    path.write_text(CLOSED.replace('along = "vocab_size"', asked))
    with pytest.raises(SystemExit) as stop:
        main([str(path), "--logs", str(tmp_path), "-o", str(tmp_path / "out")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and re.search(r"error: .*shares.toml, line \d+: report.closed", error) and why in error


def test_axes_end_where_the_table_says(made, tmp_path, monkeypatch):
    path, *_ = made
    path.write_text(TABLE + "limits = { nll = [2.5, 3.5], epoch = [1, 3] }\n")
    drawn = []
    monkeypatch.setattr(report.plt, "close", drawn.append)
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    nll, entropy = drawn[0].axes
    assert nll.get_ylim() == (2.5, 3.5) and nll.get_xlim() == entropy.get_xlim() == (1, 3)
    assert entropy.get_ylim() not in ((0, 1), (2.5, 3.5))


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ("3", "two numbers for each axis"),
        ("{ nll = 3 }", "two numbers for each axis"),
        ('{ nll = [1, "2"] }', "two numbers for each axis"),
        ("{ nll = [1, 2, 3] }", "two numbers for each axis"),
        ("{ mse = [1, 2] }", "has mse, which is not drawn"),
        ("{ nll = [2, 1] }", "the lower end of an axis first"),
        ("{ nll = [1, inf] }", "the lower end of an axis first"),
    ],
)
def test_axes_that_cannot_be_are_one_line(made, tmp_path, capsys, limits, why):
    path, *_ = made
    path.write_text(TABLE + f"limits = {limits}\n")
    with pytest.raises(SystemExit) as stop:
        main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")])
    (error,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and f"error: {path}, line 15: report.limits" in error and why in error
    assert not (tmp_path / "out").exists()  # nothing is overwritten


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_band_needs_three_seeds(made, tmp_path, monkeypatch, seeds):
    """Of fewer the figure shows each; it has the methods that the table wants, the same with the bands alone."""
    path, cells, _ = made
    for cell in cells:
        if cell.seed > seeds:
            shutil.rmtree(cell.log_dir)
    drawn = []
    monkeypatch.setattr(report.plt, "close", drawn.append)
    command = [str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    panel, banded = drawn[0].axes[0], seeds == 3
    lines = 2 * (1 + (0 if banded else seeds)) + 1  # of two methods; and the floor
    assert (len(panel.collections), len(panel.lines)) == (2 if banded else 0, lines)
    path.write_text(TABLE + 'draw = ["long"]\n')
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "out" / "hand_evaluations.csv").unlink()  # the oldest reports have none
    before = (tmp_path / "out" / "hand_curves.csv").read_text()
    assert main([*command, "--earlier", str(tmp_path / "out")]) == 0
    curve, _ = drawn[1].axes[0].lines
    assert (
        curve.get_label() == "MLE | longer"
        and curve.get_ydata().tolist() == panel.lines[1 if banded else 1 + seeds].get_ydata().tolist()
    )
    assert (tmp_path / "out" / "hand_curves.csv").read_text() == before


def test_curves_over_seconds(made, tmp_path, monkeypatch):
    path, cells, _ = made
    for cell in cells:
        rows = [{"nll": 3.0 - i, "seconds": (i + 1) * cell.seed, "nll_guided": 0.5 * i} for i in range(cell.epochs)]
        later = dict(rows[-1], epoch=cell.epochs - 1, phase="pretrain_d", seconds=9 * cell.seed)  # D's training
        shutil.rmtree(cell.directory)
        make_run(cell, [*rows, later])
    path.write_text(TABLE + 'curves = ["nll"]\nx = ["epoch", "seconds"]\nlimits = { seconds = [0, 9] }\n')
    drawn = []
    monkeypatch.setattr(report.plt, "close", drawn.append)
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    (epochs,), (panel,) = (figure.axes for figure in drawn)
    guided = 1.0  # where the line ends
    assert epochs.lines[0].get_xydata().tolist() == [[0, 3], [1, 2], [2, 1], [2, 1], [2, guided]]
    assert panel.lines[0].get_xydata().tolist() == [[2.5, 3], [5, 2], [7.5, 1], [22.5, 1], [22.5, guided]]
    assert (epochs.get_xlabel(), panel.get_xlabel(), panel.get_xlim()) == ("epoch", "seconds", (0, 9))
    page = (tmp_path / "out" / "README.md").read_text()
    assert "(hand.png)\n" in page and "(hand_seconds.png)\n" in page
    assert (tmp_path / "out" / "hand_seconds.png").exists()


def test_the_page_keeps_what_is_by_hand(made, tmp_path, capsys):
    path, cells, _ = made
    for cell in cells[:2]:
        described = json.loads((cell.log_dir / CONFIG).read_text())
        described |= {"versions": {"python": "3.12.1", "numpy": "2.0"}, "cpu": "Processor", "cores": 2}
        (cell.log_dir / CONFIG).write_text(json.dumps(described | {"git_commit": "0123456789"}))
        os.utime(cell.eval_log_dir / METRICS, (0, 86400 * 365))
    command, page = (
        [str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")],
        tmp_path / "out/README.md",
    )
    assert main(command) == 0
    first = page.read_text()
    assert "2 runs of 1971-01-01: 2 cores of an Processor, Python 3.12.1, NumPy 2.0; commit 0123456." in first
    assert "python tools/report.py experiments/hand.toml -o results/hand" in first and "6 runs" in first
    written = first.replace("(The question.", "Mine.").replace("## What is not known\n", "## Open\n\nAll.\n")
    page.write_text(written.replace("3.150", "9.999"))
    assert main(command) == 0 and page.read_text() == written
    page.write_text("# Mine\n")
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2 and "README.md: no lines <!-- report -->" in capsys.readouterr().err
    assert page.read_text() == "# Mine\n"


def test_a_primary_figure_medians_of_what_collapses_and_one_test_a_quantity(made, tmp_path):
    """NLL_test less the oracle's entropy is KL(oracle‖G): the same test."""
    path, cells, _ = made
    ends = {"mle": (3.0, 3.2, 3.1, 3.3), "long": (2.0, 30.0, 2.3, 2.1)}
    for cell in cells:
        nll = ends[cell.method.name][cell.seed - 1]
        row = {"nll": nll + cell.seed % 2, "kl_forward": nll - 1.5, "nll_test": nll}
        shutil.rmtree(cell.directory)
        make_run(cell, [row] * cell.epochs)
    command = [str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]
    path.write_text(TABLE + 'primary = "nll_test"\n')
    assert main(command) == 0
    found = rows_of(tmp_path / "out" / "hand_differences.csv")
    assert [row["metric"] for row in found] == ["nll_test", "nll"]
    assert float(found[0]["p_holm"]) == pytest.approx(2 * float(found[0]["p"]))  # of two tests, not three
    assert "|  | NLL_test | NLL_oracle | KL(oracle‖G) |" in (tmp_path / "out" / "README.md").read_text()
    path.write_text(TABLE + 'primary = "nll_test"\ncollapsed = ["long"]\n')
    assert main(command) == 0
    means = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "out" / "hand_means.csv")}
    row = means["long", "nll_test"]
    assert [float(row[name]) for name in ("mean", "low", "high")] == pytest.approx([2.2, 2.0, 30.0])
    assert (row["kind"], means["mle", "nll_test"]["kind"]) == ("median", "mean")
    assert "| 2.2 (2.0 to 30.0) |" in (tmp_path / "out" / "README.md").read_text()
    assert all(row["p"] == "nan" for row in rows_of(tmp_path / "out" / "hand_differences.csv"))


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_earlier_report_stands_for_the_runs_that_are_gone(made, tmp_path, capsys):
    """All of them, or some; a run that is here goes first, whatever the report says of it."""
    path, cells, _ = made
    logs, out = tmp_path / "logs", tmp_path / "out"
    assert main([str(path), "--logs", str(logs), "-o", str(out)]) == 0
    whole = contents(out)
    for gone in (cells[1:3], cells):
        for cell in gone:
            shutil.rmtree(cell.directory, ignore_errors=True)
        assert main([str(path), "--logs", str(logs), "-o", str(out), "--earlier", str(out)]) == 0
        assert capsys.readouterr().err == ""
        now = contents(out)
        rows = now.pop("hand_runs.csv").splitlines()
        assert sorted(rows) == sorted(whole["hand_runs.csv"].splitlines())
        assert now == {name: content for name, content in whole.items() if name in now} and len(now) == len(whole) - 1
    # What is here may have other flags than the report has for it.
    path.write_text(TABLE.replace("--pretrain_g_epochs 4", "--pretrain_g_epochs 5"))
    for cell in read(path).cells(logs):
        if cell.method.name == "long":
            make_run(cell, [{"nll": 3.0}] * 5)
    make_run(cells[0], [{"nll": 7.5}] * 3)
    assert main([str(path), "--logs", str(logs), "-o", str(out), "--earlier", str(out)]) == 0
    assert [row["nll"] for row in rows_of(out / "hand_runs.csv") if row["method"] == "mle"][:2] == ["7.5", "3.2"]


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("hand.toml", "epochs 4", "epochs 5", "long had --pretrain_g_epochs 4, not 5"),
        ("hand.toml", "--vocab_size 10 ", "", "mle had --vocab_size 10, not 5000"),
        ("out/hand_runs.csv", "mle,2,", "mle,two,", "out: not a report of hand"),
        ("out/hand_runs.csv", "mle,2,3.2,", "mle,2,", "out: not a report of hand"),
        ("out/hand_runs.csv", "mle,2", "none,2", "a method has no flags"),
        ("out/hand_flags.csv", "--vocab_size", "--vocab", "out: not a report of hand"),
        ("out/hand_evaluations.csv", "epoch", "step", "out: not a report of hand"),
    ],
)
def test_an_earlier_report_that_cannot_be_used_is_one_line(made, tmp_path, monkeypatch, capsys, file, old, new, why):
    monkeypatch.chdir(tmp_path)
    assert main(["hand.toml", "-o", "out"]) == 0
    shutil.rmtree("logs")
    before = (tmp_path / file).read_text()
    assert old in before
    (tmp_path / file).write_text(before.replace(old, new, 1))
    with pytest.raises(SystemExit) as stop:
        main(["hand.toml", "-o", "out", "--earlier", "out"])
    (error,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and error.startswith("report.py: error: ") and why in error


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["hand.toml", "-o", "out", "--earlier", "nowhere"], "nowhere/hand_flags.csv: No such file"),
        (["absent.toml", "-o", "out"], "absent.toml"),
        (["hand.toml", "-o", "hand.toml"], "hand.toml"),
        (["hand.toml", "-o", "out", "--logs", "nowhere"], "no run has finished under nowhere"),
        (["hand.toml"], "-o"),
    ],
)
def test_bad_arguments_are_one_line(made, tmp_path, monkeypatch, capsys, arguments, why):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("report.py: error: ")]
    assert stop.value.code == 2 and len(lines) == 1 and why in lines[0], error


def test_a_reader_who_has_seen_enough(made, tmp_path):
    """Such as `head`: the report is whole, and that is no error."""
    path, *_ = made
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, ROOT / "tools" / "report.py", path, "--logs", tmp_path / "logs", "-o", tmp_path / "out"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "out" / "README.md").exists()


def cut(cell: Cell) -> None:
    lines = (cell.eval_log_dir / METRICS).read_bytes().splitlines(keepends=True)
    (cell.eval_log_dir / METRICS).write_bytes(b"".join(lines[:-1]))


def edit(cell: Cell, old: bytes, new: bytes) -> None:
    content = (cell.eval_log_dir / METRICS).read_bytes()
    assert old in content
    (cell.eval_log_dir / METRICS).write_bytes(content.replace(old, new))


def swap(cell: Cell) -> None:
    other, aside = cell.directory.parent / "2" / "eval", cell.directory.parent / "aside"
    cell.eval_log_dir.rename(aside)
    other.rename(cell.eval_log_dir)
    aside.rename(other)


@pytest.mark.parametrize(
    ("damage", "why", "seeds"),
    [
        (swap, "1/eval has the evaluations of another run", "2"),
        (cut, "metrics.csv: missing or cut short", "3"),
        (lambda cell: edit(cell, b",3.0,", b",3.,"), "metrics.csv: missing or cut short", "3"),
        (lambda cell: edit(cell, b",3.0,", b",4.0,"), "metrics.csv: rows or line ends changed", "3"),
        (lambda cell: (cell.eval_log_dir / METRICS).write_text("epoch,phase,nll\n"), "cut short", "3"),
        (lambda cell: (cell.eval_log_dir / METRICS).unlink(), "metrics.csv: missing", "3"),
        (lambda cell: (cell.log_dir / METRICS).unlink(), "train/metrics.csv: missing", "3"),
        (lambda cell: shutil.rmtree(cell.eval_log_dir), "eval/config.json: not a readable", "3"),
        (lambda cell: edit(cell, b"1.5\n", b"1.5\n2,x,9,,2,1.5\n"), "rows or line ends changed", "3"),
        (lambda cell: (cut(cell), save(cell)), "1/eval has no evaluation of the last epoch, 2", "3"),
        (lambda cell: next(cell.log_dir.rglob(MANIFEST)).write_text("x"), "manifest.txt differs", "3"),
        (lambda cell: next(cell.log_dir.rglob(MANIFEST)).unlink(), "manifest.txt: No such file", "3"),
    ],
)
def test_a_damaged_run_is_named_and_gives_no_figures(made, tmp_path, capsys, damage, why, seeds):
    path, cells, _ = made
    damage(cells[0])
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    text, errors = (tmp_path / "out" / "README.md").read_text(), capsys.readouterr().err.splitlines()
    assert errors[0].startswith("report.py: mle, seed 1: ") and why in errors[0], errors
    assert errors[0].removeprefix("report.py: ") in text
    means = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "out" / "hand_means.csv")}
    assert means["mle", "nll"]["seeds"] == seeds and means["long", "nll"]["seeds"] == "4"


def test_rows_that_came_after_the_end_are_no_result(made, tmp_path, capsys):
    path, cells, _ = made
    with open(cells[0].eval_log_dir / METRICS, "a") as file:
        file.write("2,pretrain_g,1,1,1,1\n")
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    assert "mle, seed 1: " in (error := capsys.readouterr().err) and "more than the run has written" in error


def test_a_run_without_evaluations_is_named(tmp_path, capsys):
    path = tmp_path / "hand.toml"
    path.write_text(TABLE.replace("--pretrain_g_epochs 3 ", "--pretrain_g_epochs 3 --no-evaluate "))
    for cell in read(path).cells(tmp_path / "logs"):
        make_run(cell, [{"nll": 3.0}] * cell.epochs)
    assert main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]) == 0
    assert "mle, seed 1: has no evaluations, as its flags have --no-evaluate" in capsys.readouterr().err


TEXTS = """
seeds = [1, 2, 3]
flags = "--dataset text --data_dir lines.txt --total_epochs 0 --pretrain_g_epochs 2"
[[methods]]
name = "one"
[[methods]]
name = "other"
flags = "--g_lr 0.5"
[[methods]]
name = "elsewhere"
flags = "--data_dir more.txt"
"""


def test_runs_of_other_data_are_not_averaged(tmp_path, capsys):
    """Here, in an earlier report, or between the two; another --data_dir is meant to be other data."""
    path, logs, out = tmp_path / "texts.toml", tmp_path / "logs", tmp_path / "out"
    path.write_text(TEXTS)
    cells = read(path).cells(logs)

    def make(**data: str) -> None:
        for cell in cells:
            shutil.rmtree(cell.directory, ignore_errors=True)
            known = data.get(f"{cell.method.name}{cell.seed}", data.get(cell.method.name, ""))
            if known:
                make_run(cell, [{"nll_test": 3.0}] * 2, "" if known == "unknown" else known)

    def refused(why: str, *flags: str) -> None:
        with pytest.raises(SystemExit) as stop:
            main([str(path), "--logs", str(logs), "-o", str(tmp_path / "new"), *flags])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and why in error and not (tmp_path / "new").exists()

    make(one="a", other="a", elsewhere="b", one2="unknown")
    assert main([str(path), "--logs", str(logs), "-o", str(out)]) == 0
    data = {(row["method"], row["seed"]): row["data"] for row in rows_of(out / "texts_runs.csv")}
    assert data["one", "1"] == data["other", "3"] != data["elsewhere", "1"] and data["one", "2"] == ""
    make(one="a", one3="c", other="a")
    refused("texts: one, seed 3: read other data than one, seed 1; one, seed 2; other, seed 1; other, seed 2")
    make(one1="c", other="c")
    refused("one, seed 3: read other data than one, seed 1; other, seed 1", "--earlier", str(out))
    make(one2="c")
    refused("one, seed 2: read other data than one, seed 1; one, seed 3", "--earlier", str(out))
    make(one2="a")
    assert main([str(path), "--logs", str(logs), "-o", str(out), "--earlier", str(out)]) == 0
    # An earlier report that does not say what its runs have read.
    lines = [line.rpartition(",")[0] for line in (out / "texts_runs.csv").read_text().splitlines()]
    (out / "texts_runs.csv").write_text("\n".join(lines) + "\n")
    make(one2="c")
    assert main([str(path), "--logs", str(logs), "-o", str(out), "--earlier", str(out)]) == 0


def test_the_front_pages_figure(tmp_path, monkeypatch):
    """All methods are equal until MLE ends; guidance goes from there to what it reaches in its own report."""
    drawn = []
    monkeypatch.setattr(report.plt, "close", drawn.append)
    assert front_page.main(["-o", str(tmp_path / "front.png")]) == 0
    rows = rows_of(ROOT / "results" / "guided" / "guided_means.csv")
    guided = {row["metric"]: float(row["mean"]) for row in rows if row["method"] == "bigram"}
    curves = rows_of(ROOT / "results" / "figure" / "figure_curves.csv")
    for panel, metric in zip(drawn[0].axes, ("nll", "nll_test"), strict=True):
        lines = {line.get_label(): line.get_xydata() for line in panel.lines}
        before = [lines[name][lines[name][:, 0] < 1000] for name in ("MLE", "SeqGAN as printed")]
        assert np.array_equal(*before) and len(before[0]) > 5
        fall = lines["MLE, then guided by an additive discriminator"]
        assert fall[:, 0].tolist() == [1000, 1000, 2000] and fall[0, 1] == before[0][-1, 1]
        assert set(fall[1:, 1]) == {guided[f"{metric}_guided"]}
        ends = {
            row["method"]: float(row["mean"]) for row in curves if (row["metric"], row["epoch"]) == (metric, "1999")
        }
        assert {name: lines[name][-1].tolist() for name in ("MLE", "SeqGAN as printed")} == {
            "MLE": [1999, ends["mle"]],
            "SeqGAN as printed": [1999, ends["seqgan"]],
        }


def test_a_band_is_of_the_epochs_that_all_seeds_have():
    seeds = [Curve(np.array(epochs), np.array(values), np.zeros(3)) for epochs, values in (([1, 2, 3], [4.0, 5, 6]),)]
    seeds.append(Curve(np.array([2, 3, 4]), np.array([7.0, 8, 9]), np.zeros(3)))
    epochs, found = band(seeds)
    assert epochs.tolist() == [2, 3] and [pair.mean for pair in found] == [6, 7] and found[0].seeds == 2
    assert found[0].high - 6 == pytest.approx(12.7062, rel=1e-4)  # t of one degree of freedom; the standard error is 1


GUIDED_AND_NOT = """
seeds = [1, 2]
[[methods]]
name = "mle"
[[methods]]
name = "guided"
flags = "--discriminator bigram"
[report]
against = "mle"
"""


def test_a_guided_generator_is_compared_with_the_one_that_is_not(tmp_path):
    """With that alone, also its own; nothing is said of figures that both have, as they share a generator."""
    (tmp_path / "two.toml").write_text(GUIDED_AND_NOT)
    results = Results(read(tmp_path / "two.toml"))
    for seed, nll in ((1, 8.0), (2, 9.0)):
        results.outcomes["mle", seed] = Outcome({"nll": nll}, {})
        results.outcomes["guided", seed] = Outcome({"nll": nll, "nll_guided": nll - seed / 4, "d_gain": 0.1}, {})
    for seed, lower in ((1, 0.125), (2, 0.25)):
        results.outcomes["mle", seed].final["nll_guided"] = results.outcomes["mle", seed].final["nll"] - lower
    found = [(each.method, each.metric, each.interval.mean) for each in results.differences()]
    assert found == [("mle", "nll_guided", -0.1875), ("guided", "nll_guided", -0.375)]


STUDIES = sorted(path.parent for path in (ROOT / "results").glob("*/*_runs.csv"))


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_pages_of_studies_have_the_numbers_of_their_files(folder, tmp_path):
    """So that a report can be made anew without the runs, and nothing in it was written by hand."""
    results = Results.of(read(ROOT / "experiments" / f"{folder.name}.toml"), tmp_path, folder)
    written = (folder / "README.md").read_text(encoding="utf-8").partition(report.BEGIN)[2].partition(report.END)[0]
    results.missing = []  # it says what was missing when there were logs
    written = re.sub(r"\*\*Not all runs are here:\*\*\n\n(- .*\n)+\n", "", written)
    points = report.measured(results.experiment, folder)
    figures = [picture.name for _, picture in report.curves_over(results.experiment, folder) if picture.exists()]
    assert written.strip() == report.page(results, figures, points).strip()


NUMBER = re.compile(r"(?<![\w,.])[-−]?[0-9]+(?:\.[0-9]+)?(?![\w,]|\.[0-9])")
TABLE_OF = re.compile(r"(?:<!--([^>]*)-->\n\n)?((?:^\|.*\n)+)", re.MULTILINE)


def numbers_of(spec: str, metric: str) -> list[float]:
    """What the page may say of `FILE METHOD[@EPOCH][:ENDING]`: mean, half an interval, its ends, seeds."""
    file, method = spec.split()
    method, _, ending = method.partition(":")
    method, _, epoch = method.partition("@")
    rows = [row for row in rows_of(ROOT / file) if row["method"] == method and row.get("epoch", "") == epoch]
    if metric == "seeds":
        return [float(row["seeds"]) for row in rows[:1]]
    (row,) = (row for row in rows if row["metric"] == metric + ending)
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    return [mean, low, high, high - mean]


@pytest.mark.parametrize("name", ["README.md", "RESULTS.md"])
def test_every_number_of_a_table_is_that_of_its_csv(name):
    """A comment before a table tells where each row, then each column comes from: `FILE METHOD, ... | METRIC ...`."""
    found = 0
    for said, text in TABLE_OF.findall((ROOT / name).read_text(encoding="utf-8")):
        lines = [line.strip("|").split("|") for line in text.splitlines()[2:]]
        if not any("." in number for cells in lines for cell in cells[1:] for number in NUMBER.findall(cell)):
            continue
        assert "|" in said, f"no comment with CSV files before the table\n{text}"
        rows, metrics = (part.strip() for part in said.rsplit("|", 1))
        specs = [" ".join(spec.split()) for spec in rows.split(",")]
        for spec, (_, *cells) in zip(specs, lines, strict=True):
            for metric, cell in zip(metrics.split(), cells, strict=True):
                for number in NUMBER.findall(cell):
                    digits = len(number.partition(".")[2])
                    known = [f"{value:.{digits}f}" for value in numbers_of(spec, metric)]
                    assert number.replace("−", "-") in known, (spec, metric, cell)
                    found += 1
    assert found > 10


def test_what_differs_by_a_constant_is_one_test_of_guided_generators_too(tmp_path):
    (tmp_path / "two.toml").write_text(GUIDED_AND_NOT)
    results = Results(read(tmp_path / "two.toml"))
    for seed, lower in ((1, 0.25), (2, 0.5)):
        alone = {"nll_test": 8.0, "kl_forward": 0.5, "d_gain": 0.2}
        of_guided = {"nll_test_guided": 8 - lower, "kl_forward_guided": 0.5 - lower, "d_gain_resampled": 0.1 * seed}
        results.outcomes["mle", seed] = Outcome(alone, {})
        results.outcomes["guided", seed] = Outcome(alone | of_guided, {})
    assert [each.metric for each in results.differences()] == ["nll_test_guided"]


def test_a_report_that_lacks_what_was_measured_writes_nothing(made, tmp_path, capsys):
    path, _, _ = made
    path.write_text(TABLE + 'measured = ["absent.csv"]\n')
    with pytest.raises(SystemExit) as ended:
        main([str(path), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path / "out")])
    assert ended.value.code == 2 and "absent.csv" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_has_no_real_data_beside_it_is_not_compared_with_it():
    experiment = read(ROOT / "experiments" / "molecules.toml")
    points = [Point("molecules/mle/1", 1.0, {"valid": (0.9, float("nan"))})]
    page = report.page(Results(experiment), [], points)
    assert "| valid | 0.900 |" in page and "less that of real data" not in page
    assert "less that of real data" in report.page(Results(experiment), [], [*points, Point("real data", 0, {})])


def test_one_seed_has_no_interval_and_a_table_is_written_whole(tmp_path):
    assert str(interval([53.305], collapsed=True)) == str(interval([53.305])) == "53.305"
    path = tmp_path / "table.csv"
    outcomes.write_csv(path, [["a"], [1]])

    def broken():
        yield ["a"]
        raise OSError

    with pytest.raises(OSError):
        outcomes.write_csv(path, broken())
    assert path.read_text() == "a\n1\n"


def test_what_a_table_names_and_no_run_has_is_missing(made, tmp_path):
    path, cells, _ = made
    path.write_text(TABLE + 'table = ["nll_tset"]\n')
    missing = Results.of(read(path), tmp_path / "logs").missing
    assert "nll_tset, which report.table names: no run has it" in missing


def test_many_methods_have_a_colour_each():
    assert len(colours(f"method {i}" for i in range(45))) == 45


def test_what_is_measured_of_several_seeds():
    """Means with intervals; none of averages, which share generators; of one run no count beyond an error."""
    points = [Point("real data", 0.0, {"bleu2": (0.95, 0.01)})]
    for seed, ends in enumerate(((0.90, 0.94, 0.93, 0.80), (0.90, 0.93, 0.94, 0.81), (0.91, 0.94, 0.94, 0.80)), 1):
        for name, value in zip(("generator", "one of 4", "average of 2", "worse"), ends, strict=True):
            points.append(Point(f"{name}/{seed}", 1.0, {"bleu2": (value, 0.001), "nll_valid": (1.0, 0.1)}))
    points.append(Point("alone/1", 1.0, {"bleu2": (0.5, 0.001)}))
    head, *rows = measured.table(points)
    assert head[1:] == ["generator", "one of 4", "average of 2", "worse", "alone", "real data"]
    bleu = next(row for row in rows if row[0] == "BLEU-2")
    assert "±" in bleu[2] and bleu[3] == "0.937" and bleu[5] == "0.5000 ± 0.0010"
    _, *rows = measured.table(points, {}, ["worse"])
    assert next(row for row in rows if row[0] == "BLEU-2")[1:5] == [*bleu[1:4], "0.8000 (0.8000 to 0.8100)"]
    head, *rows = measured.apart(points, {}, ["worse"])
    bleu = next(row for row in rows if row[0] == "BLEU-2")
    assert bleu[head.index("worse")] == "-0.1500 (-0.1500 to -0.1400)"
    more = [Point("worse/1", 1.0, {"self_bleu2": (0.9, 0.1)}), Point("worse/1", 1.0, {"bleu2": (0.7, 0.1)})]
    assert "0.90 ± 0.10" in measured.table([*points, more[0]])[-1]  # of another file
    with pytest.raises(UsageError, match="worse/1: was measured twice, with another bleu2"):
        measured.table([*points, *more])
    _, *rows = measured.apart(points)
    assert rows[-2] == ["nearer to real data", "", "1", "1", "0", "0"]
    assert rows[-1] == ["further, beyond the error", "", "0", "", "1", ""]
