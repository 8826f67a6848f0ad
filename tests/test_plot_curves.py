"""tools/plot_curves.py: what it reads of a run, what it calls the runs, what it draws and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import cases, refusal

from tools import plot_curves
from tools.plot_curves import read_run, short_names

HEADER = "epoch,phase,nll,nll_se,nll_test,nll_test_se,g_entropy,g_entropy_se,oracle_entropy,oracle_entropy_se\n"
ROWS = "0,pretrain_g,9.5,0.1,9.25,0.2,8,0.1,5.5,\n3,pretrain_g,9,0.1,,,7.5,,5.5,\n4,adversarial,8,,8,,7,,5.5,\n"
ORACLE = HEADER + ROWS
TEXT = "epoch,phase,nll_test,nll_test_se,nll_valid,nll_valid_se,g_entropy,bleu2\n0,pretrain_g,3,.1,2.5,.1,2,\n"


def make(directory: Path, content: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.csv").write_text(content)
    return directory


@pytest.mark.parametrize("half", ["", "5,adv", "5,adversarial,7.", "5"])
def test_a_run_is_read_which_may_be_under_way(tmp_path, half):
    run = read_run(make(tmp_path, ORACLE + half))
    assert run.epoch.tolist() == [0, 3, 4] and run.phase.tolist() == ["pretrain_g", "pretrain_g", "adversarial"]
    assert run.nll.tolist() == [9.5, 9, 8]
    np.testing.assert_array_equal(run.nll_se, [0.1, 0.1, np.nan])
    np.testing.assert_array_equal(run.nll_test, [9.25, np.nan, 8])


@cases(
    "paths, names",
    *((["exp1/eval", "exp2/eval"], ["exp1", "exp2"]), (["logs/eval/a", "logs/eval/b/"], ["a", "b"])),
    *((["x/1/eval", "y/1/eval", "y/2/eval"], ["x/1", "y/1", "y/2"]), (["m/1/eval", "m/2/eval/../eval"], ["1", "2"])),
    *((["eval"], ["eval"]), (["eval", "other/eval"], [os.path.basename(os.getcwd()), "other"])),
    *((["/eval", "/a/eval"], ["/", "a"]), (["a/eval", "a/eval/b"], ["eval", "b"])),
)
def test_runs_are_told_apart_by_what_differs(paths, names):
    assert short_names(paths) == names


def test_only_panels_with_data(tmp_path, drawn):
    """An oracle run has no nll_valid, and a run on text no NLL_oracle and no floor."""
    oracle, text = make(tmp_path / "a" / "eval", ORACLE), make(tmp_path / "b" / "eval", TEXT)
    for runs, labels in (
        *(([oracle], ["NLL_oracle", "NLL_test", "entropy of G"]), ([text], ["NLL_test", "NLL_valid", "entropy of G"])),
        ([oracle, text, oracle], ["NLL_oracle", "NLL_test", "NLL_valid", "entropy of G"]),
    ):
        assert plot_curves.main([*map(str, runs), "-o", str(tmp_path / "x.png")]) == 0
        panels = drawn.pop().axes
        assert [panel.get_ylabel().partition(" (")[0] for panel in panels] == labels
        assert all(panel.lines and panel.get_ylabel().endswith("\nnats per token") for panel in panels)
    legend = {text.get_text() for text in panels[0].figure.legends[0].get_texts()}
    assert legend == {"a", "b", "entropy of the oracle", "adversarial training begins"}
    curve, floor, boundary = panels[0].lines
    assert curve.get_xydata().tolist() == [[0, 9.5], [3, 9], [4, 8]] and curve.get_label() == "a"
    (band,) = panels[0].collections  # two standard errors
    assert band.get_datalim(panels[0].transData).intervaly.tolist() == pytest.approx([8, 9.7])
    assert (floor.get_ydata()[0], boundary.get_xdata()[0]) == (5.5, 4)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_guided_generators_and_objectives_are_drawn(tmp_path, drawn):
    rows = "0,pretrain_g,3,,0.5,,\n1,adversarial,2.5,2,0.75,0.1,0.2\n"
    names = "epoch,phase,nll_valid,nll_valid_guided,objective,kl_to_pretrained,kl_to_pretrained_guided\n"
    run = make(tmp_path / "a", names + rows)
    assert plot_curves.main([str(run), "-o", str(tmp_path / "x.png")]) == 0
    found = [[(line.get_label(), *line.get_ydata()) for line in panel.lines[:-1]] for panel in drawn.pop().axes]
    nlls, divergences = [("a", 3, 2.5), ("a, guided", 2)], [("a", 0.1), ("a, guided", 0.2)]
    assert found == [nlls, [("a", 0.5, 0.75)], divergences]


def test_an_entropy_is_drawn_for_the_runs_of_its_oracle(tmp_path, drawn):
    """In black for seeds of one oracle; beside a text run, or of two oracles, each in its run's colour."""
    runs = {"a": ORACLE, "other": ORACLE.replace("5.5", "4.5"), "text": TEXT, "_$_$": ORACLE}
    paths = {name: str(make(tmp_path / name, content)) for name, content in runs.items()}

    def floors(*names: str) -> set[tuple[str, float]]:
        """Colours and values of the dashed lines in the panel of NLL_test."""
        assert plot_curves.main([*(paths[name] for name in names), "-o", str(tmp_path / "x.png")]) == 0
        figure = drawn.pop()
        assert {*names} <= {text.get_text().strip("\u200b") for text in figure.legends[0].get_texts()}
        panel = next(p for p in figure.axes if p.get_ylabel().startswith("NLL_test"))
        dashed = [line for line in panel.lines if line.get_linestyle() == "--"]
        return {(line.get_color(), line.get_ydata()[0]) for line in dashed}

    one, other = plot_curves.REST[:2]
    assert floors("a", "_$_$") == {("black", 5.5)} and floors("a", "other") == {(one, 5.5), (other, 4.5)}
    assert floors("a", "text") == {(one, 5.5)}


def test_where_the_picture_goes(here, capsys):
    run = str(make(here / "run", ORACLE))
    (here / "folder").mkdir()
    for flags, path in (([], "logs/curves.png"), (["-o", "folder"], "folder/curves.png"), (["-o", "a.svg"], "a.svg")):
        assert plot_curves.main([run, *flags]) == 0
        assert capsys.readouterr().out == f"{path}\n" and (here / path).stat().st_size > 1000
    assert sorted(path.name for path in here.iterdir()) == ["a.svg", "folder", "logs", "run"]


@cases(
    "content, flags, why",
    (None, [], "run/metrics.csv: No such file"),
    ("epoch,phase,g_loss\n0,adversarial,1\n", [], "run: nothing to draw; the curves are in a run's --eval_log_dir"),
    *(("", [], "run: nothing to draw"), (ORACLE + "x,adversarial,,,,,,,,\n", [], "run/metrics.csv: not a table")),
    (ORACLE + "9" * 21 + ",adversarial,,,,,,,,\n", [], "run/metrics.csv: not a table"),
    *((bad, [], "run/metrics.csv: not a table") for bad in ("\xff\n", ORACLE + "7,adversarial,x,,,,,,,\n")),
    (ORACLE, ["-o", "none/x.png"], "-o/--output: none/x.png: there is no such folder"),
    (ORACLE, ["-o", "x.docx"], "-o/--output: x.docx: a picture's name ends in ."),
    (ORACLE, ["-o", "picture"], "-o/--output: picture: a picture's name ends in ."),
)
def test_what_cannot_be_drawn(here, capsys, content, flags, why):
    make(here / "good", ORACLE)
    if content is not None:
        make(here / "run", "")
        (here / "run" / "metrics.csv").write_bytes(content.encode("latin-1"))
    assert why in refusal(capsys, plot_curves.main, ["good", "run", *flags])
    assert not list(here.glob("*.*")) and not list((here / "logs").glob("*"))
