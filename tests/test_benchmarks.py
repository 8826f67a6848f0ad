"""benchmarks/ at tiny sizes: that they run, and that what they count is what there is."""

import json
import shlex

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY

from benchmarks import scaling, steps, tables
from benchmarks.machine import Peaks, Work, policy_step, verdict, work_of_steps
from model import SeqGAN
from oracle import Oracle
from support.parser import parse


def test_steps(tmp_path, capsys):
    tiny = shlex.split(" ".join(TINY).replace("--pretrain_g_epochs 4", ""))
    assert steps.main(["--repeats", "1", "--json", str(tmp_path / "steps.json"), *tiny]) == 0
    lines = capsys.readouterr().out.splitlines()
    content = json.loads((tmp_path / "steps.json").read_text())
    names = {"mle_step", "sample_batch", "reward_pass", "policy_gradient_step", "d_step", "evaluation"}
    assert set(content["steps"]) == names | {"adversarial_epoch"} == {line.split()[0] for line in lines[3:]}
    for step in content["steps"].values():
        assert step["first"] > step["low"] > 0 and step["floor"] > 0 and step["flops"] > 0
    assert content["machine"] == lines[0] and "processor" in lines[0]


def test_operations_are_counted_as_the_shapes_have_them():
    """By hand, at the paper's sizes; the reward pass is the one of some 590 GFLOP."""
    config = parse(["--preset", "paper"])
    assert policy_step(32, 32, 5000) == 2 * 64 * 128 + 2 * 32 * 5000
    convolutions = sum(
        2 * w * 64 * n * (21 - w) for w, n in zip(config.d_filter_sizes, config.d_num_filters, strict=True)
    )
    assert verdict(config) == convolutions + 2 * 2 * 1720**2 + 2 * 1720 * 2
    works = work_of_steps(config, SeqGAN(config, 5000), Oracle(5000, 20, 32, 32, seed=1))
    assert 585e9 < works["reward_pass"].flops < 600e9
    assert works["mle_step"].flops == 3 * works["sample_batch"].flops == 3 * 64 * 20 * policy_step(32, 32, 5000)
    assert Work(3e9, 2e9).floor(Peaks(1e9, 1e9)) == 5.0


def test_scaling(tmp_path):
    sizes = {"batch_size": 4, "rollout_num": 2, "vocab_size": 50, "seq_len": 6}
    measured = scaling.measure(sizes, repeats=1)
    assert measured["seconds"] > 0 and measured["peak_mib"] > 100
    assert scaling.exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2.0)
    rising = {name: [{"seconds": float(size)} for size in counts] for name, counts in scaling.GROWTH.items()}
    scaling.draw(rising, tmp_path / "growth.png")
    pixels = tf.io.decode_png((tmp_path / "growth.png").read_bytes()).numpy()
    assert np.unique(pixels).size > 10


def test_the_tables_are_those_of_the_results():
    text = tables.PAGE.read_text(encoding="utf-8")
    assert tables.page(text) == text, "python benchmarks/tables.py"
    with pytest.raises(ValueError, match="0 tables between <!-- peers -->"):
        tables.page(text.replace("<!-- peers -->", ""))


def test_the_tables_by_hand():
    step = {"median": 0.02, "floor": 0.01}
    paper = {"machine": "M", "peaks": {"flops": 100e9, "bandwidth": 20e9}, "steps": dict.fromkeys(tables.STEPS, step)}
    default = paper | {"steps": dict.fromkeys(tables.STEPS, {"median": 1.5, "floor": 1.0})}
    lines = tables.steps_table({"default": default, "paper": paper}).splitlines()
    assert lines[2] == "| MLE step | 1.50 s | 1.50 | 20.0 ms | 2.00 |" and len(lines) == 2 + 7
    assert tables.peers_table(paper).splitlines()[3] == "| D step | 112 | 15.5 | 11.1 | 2.00 |"
    assert [tables.shown(t) for t in (1.234, 0.1234, 0.01234, 0.00123)] == ["1.23 s", "123 ms", "12.3 ms", "1.23 ms"]
