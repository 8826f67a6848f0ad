"""benchmarks/ at tiny sizes: that they run, and that what they count is what there is."""

import json

import pytest
from conftest import ROOT, TINY

from benchmarks import steps
from benchmarks.steps import Work, policy_step, verdict, work_of_steps
from generator import TokenSpec
from model import build
from oracle import Oracle
from support.parser import parse


def test_steps(tmp_path, capsys, monkeypatch):
    real = steps.time_calls
    monkeypatch.setattr(steps, "time_calls", lambda step, repeats: real(step, 1))
    assert steps.main(["--repeats", "1", "--json", str(tmp_path / "steps.json"), *TINY]) == 0
    lines, content = capsys.readouterr().out.splitlines(), json.loads((tmp_path / "steps.json").read_text())
    names = {"mle_step", "sample_batch", "reward_pass", "policy_gradient_step", "d_step", "evaluation"}
    assert set(content["steps"]) == names | {"adversarial_epoch"} == {line.split()[0] for line in lines[3:]}
    for step in content["steps"].values():
        assert step["first"] > step["low"] > 0 and step["floor"] > 0 and step["flops"] > 0


def test_operations_are_counted_as_the_shapes_have_them():
    """By hand, at the paper's sizes; the reward pass is the one of some 590 GFLOP."""
    config = parse(["--preset", "paper"])
    assert policy_step(32, 32, 5000) == 2 * 64 * 128 + 2 * 32 * 5000
    sizes = zip(config.d_filter_sizes, config.d_num_filters, strict=True)
    convolutions = sum(2 * w * 64 * n * (21 - w) for w, n in sizes)
    assert verdict(config) == convolutions + 2 * 2 * 1720**2 + 2 * 1720 * 2
    works = work_of_steps(config, build(config, TokenSpec(5000, 20)), Oracle(5000, 20, 32, 32, seed=1))
    assert 585e9 < works["reward_pass"].flops < 600e9
    assert works["mle_step"].flops == 3 * works["sample_batch"].flops == 3 * 64 * 20 * policy_step(32, 32, 5000)
    assert Work(3e9, 2e9).floor({"flops": 1e9, "bandwidth": 1e9}) == 5.0


def rows(text, first):
    """The cells of a Markdown table's rows, {first cell: the others}, from the header that begins with `first`."""
    table = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    return {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in table)}


def test_the_tables_are_those_of_the_results():
    """Medians to three digits, how many times their floor they are, and GFLOP of the machine meanwhile."""
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    folder, sizes = ROOT / "benchmarks" / "results", ("default", "paper")
    results = {size: json.loads((folder / f"{size}.json").read_text()) for size in sizes}
    titles = dict(zip(results["paper"]["steps"], rows(page, "step"), strict=True))
    assert list(titles.values())[::4] == ["MLE step", "D minibatch"]
    for name, title in titles.items():
        cells = rows(page, "step")[title]
        for (time, times_floor), result in zip((cells[:2], cells[2:]), results.values(), strict=True):
            seconds, step = float(time.split()[0]) * {"s": 1, "ms": 1e-3}[time.split()[1]], result["steps"][name]
            assert float(f"{step['median']:.3g}") == pytest.approx(seconds)
            assert f"{step['median'] / step['floor']:.2f}" == times_floor
    paper = results["paper"]
    for title, cells in rows(page, "step, paper's size").items():
        name = next(name for name in titles if titles[name] == title)
        gflop = paper["steps"][name]["median"] * paper["peaks"]["flops"] / 1e9
        assert float(f"{gflop:.3g}") == pytest.approx(float(cells[-1].replace(",", "")))
