"""tools/report.py and tools/study.py: what they take from runs, their statistics, tables, figures and refusals."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, cases, refusal
from matplotlib.figure import Figure
from scipy import stats

from runs.directories import CHECKPOINTS, CHECKSUM, MANIFEST, METRICS
from runs.schedule import Schedule
from support.config import UsageError
from support.config_file import CONFIG, FORMAT
from support.parser import read_flags
from tools import study as studies
from tools.experiment import Cell, read
from tools.report import draw_samples, main, samples
from tools.study import FILES, Study, compare, points_text, read_points, read_runs, settings, summary

TABLE = """
title = "Hand-made"
seeds = [1, 2, 3, 4]
flags = "--vocab_size 10 --seq_len 5"
methods = [
    { name = "mle", label = "MLE", flags = "--pretrain_g_epochs 3 --total_epochs 0" },
    { name = "long", label = "MLE | longer", flags = "--pretrain_g_epochs 4 --total_epochs 0" },
]
[report]
against = "mle"
"""
ENDS = {"mle": [3.0, 3.2, 3.1, 3.3], "long": [2.9, 3.05, 3.05, 3.1]}
toml_of, runs_of = functools.cache(read), functools.cache(read_runs)
NUMBER = re.compile(r"(?<![\w,.])[-−]?[0-9]+(?:\.[0-9]+)?(?!\w|[,.][0-9])")
TABLE_OF = re.compile(r"(?:<!--([^>]*)-->\n\n)?((?:^\|.*\n)+)", re.MULTILINE)


def make_run(cell: Cell, rows: list[dict], data: str = "") -> None:
    """Leaves what a run of main.py leaves, its evaluations being `rows`, and `data` the checksum of what it read."""
    shutil.rmtree(cell.directory, ignore_errors=True)
    flags, read_data = dataclasses.asdict(read_flags(cell.argv)), {"lines": data} if data else {}
    described = {"format": FORMAT, "flags": flags, "run": str(cell.directory), "data": read_data}
    for directory in (cell.log_dir, cell.eval_log_dir):
        directory.mkdir(parents=True)
        (directory / CONFIG).write_text(json.dumps(described))
    rows = [{"epoch": epoch, "phase": "pretrain_g", **row} for epoch, row in enumerate(rows)]
    pd.DataFrame(rows).to_csv(cell.eval_log_dir / METRICS, index=False)
    (cell.log_dir / METRICS).write_text("epoch,phase,compile_seconds\n0,pretrain_g,2\n1,pretrain_g,1\n")
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
def cells(here, monkeypatch, request):
    """Runs of a table of two methods and four seeds, which end with `ENDS`, in the working directory."""
    if "drawn" not in request.fixturenames:  # most tests need no picture, which takes its time
        monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    (here / "hand.toml").write_text(TABLE)
    for cell in (found := read(here / "hand.toml").cells(here / "logs")):
        end = ENDS[cell.method.name][cell.seed - 1]
        row = {"nll": end, "nll_se": 0.1, "g_entropy": 2, "oracle_entropy": 1.5}
        make_run(cell, [*[row | {"nll": end - 1}] * (cell.epochs - 1), row])
    return found


def made(more: str = "") -> tuple[str, pd.DataFrame]:
    """The page and runs.csv of the report, `more` having been added to the table."""
    with open("hand.toml", "a") as file:
        file.write(more)
    assert main(["hand.toml", "-o", "out"]) == 0
    return Path("out/README.md").read_text(), pd.read_csv("out/runs.csv")


def refused(capsys, *arguments: str) -> str:
    return refusal(capsys, main, list(arguments or ("hand.toml", "-o", "out")), alone=False)


def test_intervals_are_students():
    assert math.isnan(summary([5.0]).low) and summary([5.0]).middle == 5


def numbers_of(found: studies.Summary) -> list[float]:
    """What pages may say of it: the middle, half of the interval and its ends, or the values of few seeds."""
    spread = found.collapsed or len(found.values) >= studies.FEW
    return [found.middle, *((found.low, found.high, found.high - found.middle) if spread else found.values)]


@cases(
    "values, collapsed, text, numbers",
    *(([5.0], False, "5.000", [5]), ([123.4], True, "123", [123.4])),
    ([7.61, 7.59], False, "7.610, 7.590", [7.6, 7.61, 7.59]),
    ([2129.0, 671.0], False, "2129, 671", [1400, 2129, 671]),
    ([0.00012, 0.00014, 0.00011], False, "0.00012, 0.00014, 0.00011", [0.000123333333, 0.00012, 0.00014, 0.00011]),
    *(([8.0, 8.0, 8.0], False, "8.000, 8.000, 8.000", [8]), ([0.0] * 4, False, "0.000 ± 0.000", [0])),
    ([2.0, 30.0, 2.3, 2.1], True, "2.2 (2.0 to 30.0)", [2.2, 2, 30, 27.8]),
)
def test_as_many_digits_as_the_seeds_are_worth(values, collapsed, text, numbers):
    """Two or three seeds have their values; runs that collapse have medians and ranges."""
    found = summary(values, collapsed)
    assert str(found) == text and sorted(set(numbers_of(found))) == pytest.approx(sorted(numbers))


def study(table: str, tmp_path, rows: list[dict]) -> Study:
    (tmp_path / "two.toml").write_text(table)
    experiment = read(tmp_path / "two.toml")
    return Study(experiment, settings(experiment), pd.DataFrame(rows), pd.DataFrame())


GUIDED = """
seeds = [1, 2]
methods = [{ name = "mle" }, { name = "guided", flags = "--discriminator bigram" }]
[report]
against = ["mle", "guided"]
"""


def test_a_guided_generator_is_compared_with_the_one_that_is_not(tmp_path):
    """With that alone, also its own; nothing is said of what both have, as they share a generator, nor twice."""
    rows: list[dict] = []
    for seed, nll, lower in ((1, 8.0, 0.125), (2, 9.0, 0.25)):
        rows.append({"method": "mle", "seed": seed, "nll": nll, "nll_guided": nll - lower})
        guided = {"method": "guided", "seed": seed, "nll": nll, "nll_guided": nll - seed / 4, "d_gain": 0.1}
        rows.insert(0, guided)  # its seeds in another order
    found = compare(study(GUIDED, tmp_path, rows))
    told = [(each.against, each.method, each.column, each.summary.values) for each in found]
    assert told[:2] == [("mle", "mle", "nll_guided", (-0.125, -0.25)), ("mle", "guided", "nll_guided", (-0.25, -0.5))]
    assert [each[:3] for each in told[2:]] == [("guided", "guided", "nll_guided")]
    found = compare(study(GUIDED, tmp_path, [row | {"nll": row["nll"] - (row["method"] == "mle")} for row in rows]))
    told = [(each.against, each.method) for each in found if each.column == "nll_guided"]
    assert sorted(told) == sorted((against, name) for against in ("mle", "guided") for name in ("mle", "guided"))


def test_what_differs_by_a_constant_is_one_test(tmp_path):
    """NLL_test less the oracle's entropy is KL(oracle‖G), and d_gain_resampled has no counterpart."""
    rows = []
    for seed, lower in ((1, 0.25), (2, 0.5)):
        alone = {"seed": seed, "nll_test": 8.0, "kl_forward": 0.5, "d_gain": 0.2, "d_gain_resampled": 0.1}
        rows += [{"method": "mle", **alone}, {"method": "guided", **alone, "nll_test_guided": 8 - lower}]
        rows[-1] |= {"kl_forward_guided": 0.5 - lower}
    assert {each.column for each in compare(study(GUIDED, tmp_path, rows))} == {"nll_test_guided"}


def test_p_values_are_of_the_paired_test_with_holms_correction(cells):
    for cell in cells:
        end = ENDS[cell.method.name][cell.seed - 1]
        row = {"nll": end, "nll_test": 2 * end + cell.seed % 2 * (cell.method.name == "long"), "g_entropy": cell.seed}
        row["kl_reverse"] = end - cell.seed // 4 * (cell.method.name == "long") / 100  # its p is a little larger
        row["bleu2"] = (cell.seed + (cell.method.name == "long")) / 8  # by as much with each seed
        make_run(cell, [row] * cell.epochs)
    _, runs = made()
    experiment = read(Path("hand.toml"))
    found = {each.column: each for each in compare(Study(experiment, settings(experiment), runs, runs))}
    assert found.keys() == {"nll", "nll_test", "kl_reverse", "bleu2"} and math.isnan(found["bleu2"].p)  # no equal ones
    wanted = stats.ttest_rel(ENDS["long"], ENDS["mle"]).pvalue
    assert found["nll"].p == pytest.approx(wanted)
    assert found["nll"].p_holm == pytest.approx(3 * wanted)  # the smallest of three
    assert found["kl_reverse"].p_holm == pytest.approx(3 * wanted) and wanted < found["kl_reverse"].p < 1.5 * wanted
    assert found["nll_test"].summary.values == pytest.approx((0.8, -0.3, 0.9, -0.4))  # of each seed
    assert found["nll_test"].p_holm == pytest.approx(max(3 * wanted, found["nll_test"].p))


def test_final_values_means_and_differences(cells, drawn, capsys):
    page, runs = made()
    printed = capsys.readouterr()
    assert printed.err == "" and "out/README.md" in printed.out
    for method, ends in ENDS.items():
        assert runs.nll[runs.method == method].tolist() == ends  # the last, not the best
    assert runs["flags"][0] == " ".join(cells[0].method.flags) and set(runs.compile_seconds) == {3}
    curves = pd.read_csv("out/curves.csv")
    assert curves[(curves.method == "long") & (curves.seed == 2)].nll.tolist() == [2.05, 2.05, 2.05, 3.05]
    low, high = stats.t.interval(0.95, 3, loc=3.15, scale=stats.sem(ENDS["mle"]))
    assert f"3.15 ± {(high - low) / 2:.2f}" in page and "MLE \\| longer" in page and "1.500 nats" in page
    difference = summary(np.subtract(ENDS["long"], ENDS["mle"]))
    assert f"{difference}" in page and "Holm's correction for 1)" in page
    assert "# Hand-made" in page and "(hand.png)" in page and "Not all runs" not in page
    assert os.path.getsize("out/hand.png") > 10_000


def test_methods_in_rows_and_columns(cells):
    """Of labels `ROW; COLUMN` a table of a difference, paired by seed; these have no row among the final values."""
    text = Path("hand.toml").read_text().replace('"MLE"', '"MLE; short"').replace('"MLE | longer"', '"MLE; long"')
    Path("hand.toml").write_text(text)
    page, _ = made('pivot = ["nll - g_entropy"]\n')
    short, long = (summary(np.subtract(ENDS[name], 2)) for name in ENDS)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    assert ["MLE", str(short), str(long)] in rows and "NLL_oracle less entropy" in page and "Holm" not in page
    assert not any(cells[0] == "MLE; short" for cells in rows[: rows.index(["MLE", str(short), str(long)])])


def test_what_was_before_the_adversarial_phase(here):
    """It is no result: neither tested nor shown where the table does not name it; what D knew counts when it ended."""
    flags = "--pretrain_g_epochs 2 --total_epochs 2 --seq_len 5 --d_filter_sizes 2 --d_num_filters 3"
    table = f'seeds = [1]\nflags = "{flags}"\n[[methods]]\nname = "few"\n[report]\n'
    phases = ("pretrain_g", "pretrain_g", "pretrain_d", "adversarial", "adversarial")
    values = [(0.9, "", 1), (0.4, "", 2), ("", 0.02, 9), (0.1, 0.01, 10), (0.3, 0.03, 11)]
    for named in ("", 'metrics = ["before_kl_forward", "kl_forward", "before_d_gain", "d_gain"]\n'):
        (here / "hand.toml").write_text(table + named)
        (cell,) = read(here / "hand.toml").cells(here / "logs")
        pairs = [dict(zip(("kl_forward", "d_gain", "seconds"), each, strict=True)) for each in values]
        marks = zip(pairs, (0, 1, 1, 2, 3), phases, strict=True)
        make_run(cell, [row | {"epoch": epoch, "phase": phase} for row, epoch, phase in marks])
        page, runs = made()
        assert ("KL(oracle‖G), before" in page) == ("before_d_gain" in runs) == bool(named)
    row = runs.iloc[0]
    assert (row.before_kl_forward, row.kl_forward, row.before_d_gain, row.d_gain) == (0.4, 0.3, 0.02, 0.03)
    assert pd.read_csv("out/curves.csv").seconds.tolist() == [1, 2, 10, 11]  # not with D's pretraining
    labelled = table.replace('"few"', '"few"\nlabel = "Few; rounds"')
    (here / "hand.toml").write_text(f'{labelled}pivot = ["kl_forward - before_kl_forward"]\n')
    page, runs = made()
    assert "| Few" in page and "| -0.100" in page and "before_d_gain" not in runs
    figure = '[[report.figures]]\nname = "ends"\nx = "method"\ncurves = ["before_d_gain"]\n'
    (here / "hand.toml").write_text(table + figure)
    assert "ends.png" in made()[0]


def test_what_is_missing_is_named(cells, capsys):
    shutil.rmtree(cells[0].directory)
    shutil.rmtree(next((cells[-1].log_dir / CHECKPOINTS).iterdir()))
    page, _ = made('metrics = ["nll", "nll_test"]\n')
    assert capsys.readouterr().err == "report.py: long, seed 4: unfinished, after 2 of 4 epochs\n"
    assert "- mle, seed 1\n- long, seed 4\n- nll_test, which the table names\n" in page
    assert [line.split("|")[-2].strip() for line in page.splitlines() if line.startswith("| MLE")][:2] == ["3", "3"]
    assert str(summary([-0.15, -0.05])) in page  # of the seeds that both have


def test_runs_that_are_gone_stay_as_the_files_have_them(cells, capsys):
    """A run that is here goes first, whatever the files say of it."""
    made()
    whole = {file: open(f"out/{file}").read() for file in os.listdir("out") if not file.endswith("png")}
    for cell in cells[1:]:
        shutil.rmtree(cell.directory)
    made()
    assert {file: open(f"out/{file}").read() for file in whole} == whole and capsys.readouterr().err == ""
    make_run(cells[0], [{"nll": 7.5}] * 3)
    _, runs = made()
    assert runs.nll[runs.method == "mle"].tolist() == [7.5, 3.2, 3.1, 3.3]
    (cells[0].eval_log_dir / METRICS).unlink()  # a damaged run is named, and its row stays
    _, runs = made()
    assert runs.nll[0] == 7.5 and "mle, seed 1: " in capsys.readouterr().err


@cases(
    "file, old, new, why",
    ("hand.toml", "epochs 4", "epochs 5", "out/runs.csv: long had --pretrain_g_epochs 4, not 5"),
    ("hand.toml", "--vocab_size 10 ", "", "mle had --vocab_size 10, not 5000"),
    ("hand.toml", "--vocab_size 10 ", "--vocab_size 10 --eval_samples 9 ", "mle had --eval_samples 256, not 9"),
    ("hand.toml", "--vocab_size 10 ", "--vocab_size 10 --eval_every 9 ", "mle had --eval_every 50, not 9"),
    ("out/runs.csv", "mle,2,", "mle,2.5,", "out/runs.csv: seed is not a whole number in every row"),
    ("out/runs.csv", "mle,2,", "mle,two,", "out/runs.csv: "),
    ("out/runs.csv", "mle,2,", "mle,1,", "out/runs.csv: mle, 1 is there twice, with other figures"),
    ("out/curves.csv", "nll,", "nnl,", "out/curves.csv: nnl: no such metric"),
    ("out/curves.csv", "mle,1,0,", "mle,1,x,", "out/curves.csv: "),
    ("out/curves.csv", "mle,1,0,", "mle,1,,0,", "out/curves.csv: its rows have different numbers of values"),
    ("out/curves.csv", "mle,1,0,", '"' + "," * 200_000, "out/curves.csv: field larger than field limit"),
)
def test_files_that_cannot_be_used_are_one_line(cells, capsys, file, old, new, why):
    made()
    shutil.rmtree("logs")
    before = open(file).read()
    assert old in before
    Path(file).write_text(before.replace(old, new, 1))
    assert why in refused(capsys)


def cut(cell: Cell) -> None:
    lines = (cell.eval_log_dir / METRICS).read_bytes().splitlines(keepends=True)
    (cell.eval_log_dir / METRICS).write_bytes(b"".join(lines[:-1]))


def edit(cell: Cell, old: bytes, new: bytes) -> None:
    content = (cell.eval_log_dir / METRICS).read_bytes()
    assert old in content
    (cell.eval_log_dir / METRICS).write_bytes(content.replace(old, new))


def swap(cell: Cell) -> None:
    other, between = cell.directory.parent / "2" / "eval", cell.directory.parent / "between"
    cell.eval_log_dir.rename(between)
    other.rename(cell.eval_log_dir)
    between.rename(other)


@cases(
    "damage, why, seeds",
    (swap, "1/eval has the evaluations of another run", 2),
    (lambda cell: edit(cell, b",3.0,", b",4.0,"), "eval/metrics.csv is not as the last", 3),
    (lambda cell: (cell.log_dir / METRICS).unlink(), "train/metrics.csv: No such file", 3),
    (lambda cell: shutil.rmtree(cell.eval_log_dir), "eval/config.json: not a readable", 3),
    (lambda cell: (cut(cell), save(cell)), "1/eval has no evaluation of the last epoch, 2", 3),
    (lambda cell: next(cell.log_dir.rglob(MANIFEST)).write_text("x"), "manifest.txt differs", 3),
    (lambda cell: open(cell.eval_log_dir / METRICS, "a").write("2,x,1,1,1,1\n"), "is not as the last", 3),
)
def test_a_damaged_run_is_named_and_gives_no_figures(cells, capsys, damage, why, seeds):
    damage(cells[0])
    page, runs = made()
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("report.py: mle, seed 1: ") and why in errors[0], errors
    assert "- mle, seed 1\n" in page and (runs.method == "mle").sum() == seeds


def test_a_run_without_evaluations_is_named(cells, capsys):
    Path("hand.toml").write_text(TABLE.replace("--pretrain_g_epochs 3 ", "--pretrain_g_epochs 3 --no-evaluate "))
    for cell in read(Path("hand.toml")).cells(Path("logs")):
        make_run(cell, [{"nll": 3.0}] * cell.epochs)
    made()
    assert "mle, seed 1: has no evaluations, as its flags have --no-evaluate" in capsys.readouterr().err


TEXTS = """
seeds = [1, 2, 3]
flags = "--dataset text --data_dir lines.txt --total_epochs 0 --pretrain_g_epochs 2"
methods = [
    { name = "one" },
    { name = "other", flags = "--g_emb_dim 7" },
    { name = "elsewhere", flags = "--data_dir more.txt" },
]
"""


def test_runs_of_other_data_are_not_averaged(here, capsys):
    """Here, in the files, or between the two; another --data_dir is meant to be other data."""
    (here / "hand.toml").write_text(TEXTS)
    cells = read(here / "hand.toml").cells(here / "logs")

    def make(**data: str) -> None:
        shutil.rmtree("logs", ignore_errors=True)
        for cell in cells:
            if known := data.get(f"{cell.method.name}{cell.seed}", data.get(cell.method.name, "")):
                make_run(cell, [{"nll_test": 3.0}] * 2, "" if known == "unknown" else known)

    make(one="a", other="a", elsewhere="b", one2="unknown")
    _, runs = made()
    data = runs.set_index(["method", "seed"])["data"]
    assert data["one", 1] == data["other", 3] != data["elsewhere", 1] and pd.isna(data["one", 2])
    make(one2="c")
    assert "hand: one, seed 2: read other data than one, seed 1; one, seed 3" in refused(capsys)
    make(one="a", one3="c", other="a")
    assert "one, seed 3: read other data than" in refused(capsys, "hand.toml", "-o", "new")
    assert not os.path.exists("new")


def test_the_page_keeps_what_is_by_hand(cells, capsys):
    for cell in cells[:2]:
        described = json.loads((cell.log_dir / CONFIG).read_text())
        described |= {"versions": {"python": "3.12.1", "numpy": "2.0"}, "cpu": "Processor", "cores": 2}
        (cell.log_dir / CONFIG).write_text(json.dumps(described | {"git_commit": "0123456789+"}))
        os.utime(cell.eval_log_dir / METRICS, (0, 86400 * 365))
    first, _ = made()
    assert "2 runs of 1971-01-01: commit 0123456+; Processor; " in first and " NumPy 2.0." in first
    assert "python tools/sweep.py experiments/hand.toml" in first and "6 runs without" in first
    written = first.replace("(The question.", "Mine.").replace("## What is not known\n", "## Open\n\nAll.\n")
    Path("out/README.md").write_text(written.replace("3.15", "9.99"))
    assert made()[0] == written
    Path("out/README.md").write_text("# Mine\n")
    assert "README.md: no lines <!-- report -->" in refused(capsys) and open("out/README.md").read() == "# Mine\n"


SEVERAL = """collapsed = ["long"]
best = ["nll", "nll_guided", "kl_reverse"]
[[report.figures]]
curves = ["nll"]
seeds = [1, 2, 3]
limits = { nll = [2.5, 3.5], epoch = [1, 3] }
caption = "Said."
[[report.figures]]
name = "over_time"
curves = ["nll"]
draw = ["mle"]
x = "seconds sequences nll_test"
"""


@pytest.mark.parametrize("seeds", [3, 4])
def test_curves_over_epochs_and_seconds(cells, drawn, seeds):
    """Of fewer than four seeds a thin line each and no band; a line ends at what the guided generator reached."""
    for cell in cells:
        figures = {"nll_guided": 1.0, "nll_test": 7.0}
        rows = [figures | {"nll": 3.0 - i, "seconds": (i + 1) * cell.seed} for i in range(cell.epochs)]
        later = dict(rows[-1], epoch=cell.epochs - 1, phase="pretrain_d", seconds=9 * cell.seed)  # D's training
        make_run(cell, [*rows, later])
        if cell.seed > seeds:
            shutil.rmtree(cell.log_dir)
    page, _ = made(SEVERAL)
    best = ("| best: NLL_oracle ", "| best: NLL_oracle, guided ", "- kl_reverse of evaluations, for best\n")
    assert all(text in page for text in best) and "(hand.png)\n\n*Said.*" in page
    assert "(over_time.png)\n" in page and os.path.exists("out/over_time.png")
    (epochs,), (panel, read, other) = (figure.axes for figure in drawn)
    mean, thin = (2.5, 0) if seeds == 4 else (2.0, 3)
    assert len(panel.lines) == 1 + thin and len(panel.collections) == (seeds == 4)
    line = epochs.lines[3].get_xydata().tolist()
    assert line == [[0, 3], [1, 2], [2, 1], [2, 1], [2, 1]] and epochs.get_ylim() == (2.5, 3.5)
    line = panel.lines[thin].get_xydata().tolist()
    assert line == [[mean, 3], [2 * mean, 2], [3 * mean, 1], [9 * mean, 1], [9 * mean, 1]]
    assert read.lines[thin].get_xydata().tolist() == [[32, 3], [64, 2], [96, 1], [96, 1], [96, 1]]
    flags = ["--pretrain_g_epochs", "3", "--pretrain_d_epochs", "7", "--d_steps", "2", "--mle_steps", "1"]
    assert [studies.sequences_read(read_flags(flags), epoch) for epoch in (0, 2, 3, 4)] == [32, 96, 416, 512]
    student = read_flags(["--pretrain_g_epochs", "3", "--g_update", "distil", "--teacher", "a"])
    assert [studies.sequences_read(student, epoch) for epoch in (2, 3, 4)] == [96, 112, 128]  # half of each batch
    assert [line.get_xydata().tolist() for line in other.lines] == [[[7, 3], [7, 2], [7, 1]]] * (seeds + 1)
    assert (epochs.get_xlabel(), panel.get_xlabel(), epochs.get_xlim()) == ("epoch", "seconds", (1, 3))
    assert (read.get_xlabel(), other.get_xlabel()) == ("real sequences read", "NLL_test (↓ better), nats per token")


@cases(
    "settings, why",
    ('metrics = ["nll_tset"]', "nll_tset: no such metric"),
    ('[[report.figures]]\ndraw = ["short"]', "draw has 'short', which is no method"),
    ("[[report.figures]]\nseeds = [1, 9]", "seeds has 9, which no method has"),
    *(("[[report.figures]]\nhue = 3", "hue is not among name, curves"), ("planes = [3]", "3 is no table")),
    *(('[[report.planes]]\npairs = ["nll"]', "'nll' is no pair of columns"), ('pivot = ["a - b - c"]', "nor a diff")),
    ("[[report.figures]]\n[[report.figures]]", "'hand' names two figures"),
    ('[[report.figures]]\nname = "../evil"', "'../evil' names two figures, or a file elsewhere"),
    ('[[report.planes]]\nname = "empty"', "a plane has no files"),
    ('[[report.figures]]\nx = "hours"', "hours: no such metric"),
    ("[[report.figures]]\nlimits = [1, 2]", "limits is [1, 2], no dict"),
    ('[[report.figures]]\nlimits = { nll = ["a", "b"] }', "limits of nll"),
    ("[[report.figures]]\nlimits = { nl = [1, 2] }", "nl: no such metric"),
    ('[[report.planes]]\nfiles = ["absent.csv"]', "absent.csv: No such file"),
    ('measured = ["absent.csv"]', "absent.csv: No such file"),
)
def test_a_report_that_cannot_be_made_is_one_line_and_writes_nothing(cells, capsys, settings, why):
    with open("hand.toml", "a") as file:
        file.write(settings + "\n")
    assert why in refused(capsys) and not os.path.exists("out")


def test_bad_arguments_are_one_line(cells, capsys):
    assert "absent.toml" in refused(capsys, "absent.toml", "-o", "out")
    assert "no run has finished under nowhere" in refused(capsys, "hand.toml", "-o", "out", "--logs", "nowhere")
    assert "hand.toml" in refused(capsys, "hand.toml", "-o", "hand.toml") and "-o" in refused(capsys, "hand.toml")


def test_names_are_no_missing_values_and_a_file_without_rows_is_one_line(tmp_path):
    assert points(tmp_path, {"run": "null/1", "nll_test": 1.0}).run.tolist() == ["null/1"]
    (tmp_path / "runs.csv").write_text("method,seed,nll\nnull,1,2.5\nNA,1,\n")
    runs, _ = read_runs(tmp_path)
    assert runs.method.tolist() == ["null", "NA"] and runs.nll.isna().tolist() == [False, True]
    (tmp_path / "runs.csv").write_text("method,seed,nll_se\na,1,2.5\n")
    with pytest.raises(UsageError, match="runs.csv: nll_se: no such metric"):
        read_runs(tmp_path)
    for content, why in ((b"run,bleu2\n", "no rows"), (b"\xff", "not UTF-8"), (b"bleu2\n1", "a row has no run")):
        (tmp_path / "points.csv").write_bytes(content)
        with pytest.raises(UsageError, match=f"points.csv: {why}"):
            read_points(tmp_path / "points.csv")
    assert "real data" in samples(points(tmp_path, {"run": "real data", "temperature": math.nan, "bleu2": 0.9}))


def points(tmp_path, *rows: dict) -> pd.DataFrame:
    (tmp_path / "points.csv").write_text(points_text([{"temperature": 1.0, **row} for row in rows]))
    return read_points(tmp_path / "points.csv")


def cells_of(text: str) -> dict[str, dict[str, str]]:
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|")
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_what_is_measured_of_several_seeds(tmp_path):
    """Means with intervals; none of averages, which share generators; of one run no count beyond an error."""
    rows = [{"run": "real data", "temperature": math.nan, "bleu2": 0.95, "bleu2_se": 0.01}]
    ends = [(0.90, 0.94, 0.93, 0.80), (0.90, 0.93, 0.94, 0.81), (0.91, 0.94, 0.94, 0.80), (0.90, 0.95, 0.94, 0.80)]
    for seed, end in enumerate(ends, 1):
        for name, value in zip(("generator", "one of 4", "average of 2", "worse"), end, strict=True):
            rows.append({"run": f"{name}/{seed}", "bleu2": value, "nll_valid": 1.0})
    rows.append({"run": "alone/1", "bleu2": 0.5, "bleu2_se": 0.001})
    frame = points(tmp_path, *rows)
    table = cells_of(samples(frame, {"generator": "G"}, collapsed=["worse"]))
    assert list(table) == ["G", "one of 4", "average of 2", "worse", "alone", "real data"]
    bleu = {name: row["BLEU-2"] for name, row in table.items()}
    assert "±" in bleu["one of 4"] and bleu["average of 2"] == "0.9375" and bleu["alone"] == "0.5000 ± 0.0010"
    assert bleu["worse"] == "0.8000 (0.8000 to 0.8100)" and bleu["real data"] == "0.950 ± 0.010"
    counts = {name: (row["nearer"], row["further"]) for name, row in table.items()}
    judged = {"one of 4": ("1 of 1", "0"), "average of 2": ("1 of 1", ""), "worse": ("0 of 1", "1")}
    assert counts == {**judged, "alone": ("0 of 1", ""), "G": ("", ""), "real data": ("", "")}
    twice = pd.concat([frame, points(tmp_path, {"run": "worse/1", "bleu2": 0.8, "self_bleu2": 0.9})])
    assert cells_of(samples(twice.reset_index(drop=True)))["worse"]["self-BLEU-2"] == "0.900"
    other = pd.concat([frame, points(tmp_path, {"run": "logs/worse/1", "bleu2": 0.7})]).reset_index(drop=True)
    assert {"worse", "logs/worse"} <= cells_of(samples(other)).keys()  # of another experiment
    odd = pd.concat([frame, points(tmp_path, {"run": "worse/1", "bleu2": 0.7})]).reset_index(drop=True)
    with pytest.raises(UsageError, match="^worse, 1 is there twice, with other figures"):
        samples(odd)


def test_the_best_temperature_is_what_others_are_compared_with(tmp_path):
    rows = [{"run": "mle/1", "temperature": t, "nll_valid": nll, "bleu4": t} for t, nll in ((0.5, 3), (1.1, 2))]
    rows += [{"run": "mle/1, candidates", "candidates": 4, "bleu4": 0.9}, {"run": "mle/1, training", "epoch": 7}]
    rows += [{"run": "real data", "temperature": math.nan, "bleu4": 1.0}]
    text = samples(points(tmp_path, *rows), {"mle": "Maximum"})
    assert "those of *Maximum, temperature 1.1*" in text
    heads = ["Maximum, temperature 0.5", "Maximum, temperature 1.1", "Maximum, chosen by D, one of 4", "real data"]
    assert list(cells_of(text)) == heads and "nearer" not in samples(points(tmp_path, *rows[:-1]))


def test_planes_are_joined_in_the_order_of_temperatures(tmp_path, drawn):
    ends = [(seed, t) for seed in (1, 3) for t in (1, 0.5, 0.9)]
    rows = [{"run": f"mle/{seed}", "temperature": t, "nll_test": 2 - t, "nll": t + seed} for seed, t in ends]
    rows += [{"run": "gan/1, training", "epoch": e, "nll_test": e, "nll": 1} for e in (9, 7)]
    rows += [{"run": "real data", "temperature": math.nan, "nll_test": 0.5, "nll": 0.25}]
    rows.append({"run": "mle_more/1", "temperature": 1, "nll_test": 3, "nll": 3})
    draw_samples(tmp_path / "plane.png", points(tmp_path, *rows), {"mle": "Maximum"}, draw=["mle", "gan"])
    (panel,) = drawn[0].axes
    assert len(panel.containers) == 1
    lines = {line.get_label(): line.get_xydata().tolist() for line in panel.lines}
    assert lines["gan, during training"] == [[7, 1], [9, 1]] and lines["real data"] == [[0.5, 0.25]]
    joined = panel.containers[0]
    assert joined.get_label() == "Maximum" and joined.lines[0].get_xdata().tolist() == [1.5, 1.1, 1.0]
    assert joined.lines[0].get_ydata().tolist() == pytest.approx([2.5, 2.9, 3.0])
    assert {text.get_text() for text in panel.texts} == {"0.5", "1"}
    with pytest.raises(UsageError, match="no figure: nothing has both nll_test and nll"):
        draw_samples(tmp_path / "none.png", points(tmp_path, {"run": "a/1", "mse": 3.0}))
    with pytest.raises(UsageError, match="draw has 'ml', of which there are no samples"):
        draw_samples(tmp_path / "none.png", points(tmp_path, *rows), draw=["ml"])


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "results").glob("*/runs.csv")))
def test_the_pages_of_studies_follow_from_their_files(name, tmp_path, monkeypatch):
    """So that a report can be made anew without the runs, and nothing in it was written by hand."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)  # what takes its time
    folder = tmp_path / name
    shutil.copytree(ROOT / "results" / name, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".png"}
    pictures, table = {file.name for file in folder.glob("*.png")}, ROOT / "experiments" / f"{name}.toml"
    assert main([str(table), "-o", str(folder), "--logs", str(tmp_path / "none")]) == 0
    assert {file: (folder / file).read_bytes() for file in before} == before
    assert {file.name for file in folder.glob("*.png")} == pictures


@pytest.mark.parametrize("seeds", [3, 4])
def test_final_values_by_method(cells, drawn, seeds):
    """A row a method: its mean with the interval, or each value of fewer than four seeds."""
    for cell in cells:
        make_run(cell, [{"nll": 1.0}] * (cell.epochs - 1) + [{"nll": float(cell.seed)}])
        if cell.seed > seeds:
            shutil.rmtree(cell.log_dir)
    made('[[report.figures]]\nx = "method"\ncurves = ["nll"]\ndraw = ["mle"]\n')
    ((panel,),) = (figure.axes for figure in drawn)
    middles = sorted(float(line.get_xdata()[0]) for line in panel.lines if line.get_marker() == "o")
    assert middles == ([2.5] if seeds == 4 else [1, 2, 3])
    assert [label.get_text() for label in panel.get_yticklabels()] == ["MLE"]


def reference(said, name):
    """The summary that a page means by FILE.csv METHOD[:_FORM] or METHOD@EPOCH, and a column.

    METHOD - METHOD is a difference paired by seed; COLUMN@best is of the evaluations of least NLL_oracle.
    """
    (file, methods), (name, _, best) = said.split(maxsplit=1), name.partition("@")
    frames = runs_of((path := ROOT / file).parent)
    experiment = toml_of(ROOT / "experiments" / f"{path.parent.name}.toml")
    frame = frames[list(FILES).index(path.name)] if path.name in FILES else pd.read_csv(path)
    frame = studies.best_rounds(Study(experiment, None, *frames), "nll") if best else frame
    if "run" in frame:  # METHOD/SEED, or words
        names = frame.run.str.replace(r"/\d+$", "", regex=True).str.replace(" ", "_")
        frame = frame.assign(seed=frame.index, method=names)
    found, parts = [], re.findall(r"(?:^| - )([^ :@]+)@?(\d*):?(\S*)", methods)
    for method, epoch, form in parts:
        rows = frame[frame.epoch == int(epoch)] if epoch else frame
        own = Study(None, None, rows, rows).values(method, name + form)
        found.append(pd.Series(sum(rows.method == method)) if name == "seeds" else own)
    collapsed = any(method in experiment.report["collapsed"] for method, *_ in parts)
    return summary((found[0] - found[1] if found[1:] else found[0]).dropna(), collapsed)


def test_the_front_pages_figure(tmp_path, drawn):
    """SeqGAN and guidance are equal until MLE ends; guidance reads 262,144 sequences more, and ends where it ended."""
    shutil.copytree(ROOT / "results" / "guided", tmp_path / "guided")
    main([str(ROOT / "experiments/guided.toml"), "-o", str(tmp_path / "guided"), "--logs", str(tmp_path / "none")])
    assert [line.get_xdata()[0] for line in drawn[0].axes[0].lines if line.get_linestyle() == ":"] == [1000]
    for panel, name in zip(drawn[1].axes[::2], ("nll", "nll_test"), strict=True):
        lines = {line.get_label(): line.get_xydata() for line in panel.lines}
        fall, other = lines["guided by the bigram D"], lines["SeqGAN, 200 epochs"]
        assert np.allclose(fall[:5], other[:5], rtol=1e-3) and len(fall) > 20
        assert fall[-3:, 0].tolist() == [32_000, 32_000 + 262_144, 32_000 + 262_144] and fall[-3, 1] == fall[-2, 1]
        assert fall[-1, 1] == reference("results/guided/runs.csv bigram:_guided", name).middle


@pytest.mark.parametrize("name", ["README.md", "RESULTS.md"])
def test_every_number_of_a_table_is_that_of_its_csv(name):
    """A comment before it tells where each row, then each column comes from; few seeds have a number each."""
    found = 0
    for said, text in TABLE_OF.findall((ROOT / name).read_text(encoding="utf-8")):
        lines = [line.strip("|").split("|") for line in text.splitlines()[2:]]
        if not any("." in number for cells in lines for cell in cells[1:] for number in NUMBER.findall(cell)):
            continue
        assert "|" in said, f"no comment with CSV files before the table\n{text}"
        of_cells = said.startswith(" cells: ")  # a reference and a column for each cell that is not empty
        rows, columns = said.rsplit("|", 1)
        refs = said[8:].split(",") if of_cells else [f"{a}|{b}" for a in rows.split(",") for b in columns.split()]
        full = [cell for _, *cells in lines for cell in cells if cell.strip() or not of_cells]
        for ref, cell in zip(refs, full, strict=True):
            if numbers := NUMBER.findall(cell):
                spec, column = " ".join(ref.split()).rsplit("|", 1)
                known = numbers_of(whole := reference(spec, column.strip()))
                assert whole.collapsed or len(whole.values) in (len(numbers), *range(studies.FEW, 9)), (spec, cell)
                for number in numbers:
                    digits = len(number.partition(".")[2])
                    assert number.replace("−", "-") in [f"{value:.{digits}f}" for value in known], (spec, column, cell)
                found += len(numbers)
    assert found > 10


@pytest.mark.parametrize("name", ["README.md", "RESULTS.md"])
def test_every_number_of_a_sentence_is_that_of_its_csv(name):
    """A comment after a paragraph with decimals has their references in order, with columns; see `reference`."""
    blocks, found = (ROOT / name).read_text(encoding="utf-8").split("\n\n"), 0
    for block, after in zip(blocks, [*blocks[1:], ""], strict=True):
        prose = re.sub(r"\]\([^)]*\)|`[^`]*`|Python [\d.]+ to [\d.]+", "", block)
        numbers = [number for number in NUMBER.findall(prose) if "." in number]
        assert not re.search(r"(?<!95)\s%", prose), f"a share is a decimal, which is compared\n{block}"
        if not numbers or block.startswith(("|", "<!--", "    ", "#")):
            continue
        assert after.startswith("<!-- sentences: "), f"no comment with CSV files after the paragraph\n{block}"
        said = [each.rsplit("|", 1) for each in after[16:].partition("-->")[0].split(",")]
        known = [numbers_of(reference(" ".join(spec.split()), column.strip())) for spec, column in said]
        for number in numbers:  # in the order of the references
            text, digits = number.replace("−", "-"), len(number.partition(".")[2])
            told = [any(text in (f"{v:.{digits}f}", f"{abs(v):.{digits}f}") for v in each) for each in known]
            assert any(told), (number, block)
            known = known[told.index(True) :]
        assert len(known) == 1, f"a reference that no number has after\n{block}"
        found += len(numbers)
    assert found
