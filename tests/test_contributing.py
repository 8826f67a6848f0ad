"""The five additions of CONTRIBUTING.md, taken out of the page: each is put into a folder, and a run trains with it."""

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
from conftest import ROOT, cases

import guidance
import main as program
from evaluation.metrics import METRICS, Metric
from support.parser import read_flags
from support.registries import DATASETS, DISCRIMINATORS, REWARDS, DiscriminatorEntry, Entry, RewardEntry

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
TINY = shlex.split("--seq_len 6 --batch_size 16 --g_emb_dim 4 --g_hidden_dim 8 --pretrain_g_epochs 4 --no-jit")
MEASURED = ("--eval_every", "1000", "--eval_samples", "64")
ORACLE = shlex.split("--rollout_num 2 --vocab_size 8 --oracle_emb_dim 4 --oracle_hidden_dim 4")


def blocks(section: str) -> list[str]:
    """The code of a section: what stands indented, block by block."""
    return [dedent(block).strip() + "\n" for block in re.findall(r"(?:^    .*\n|^\n(?=    |\n    ))+", section, re.M)]


def train(section: str, folder: Path, *flags: str) -> dict[str, list[dict[str, str]]]:
    """Saves the section's file, runs its command with `flags` after its own; returns the rows of both metrics.csv."""
    (name,) = re.findall(r"Save this as `([\w/]+\.py)`", SECTIONS[section])
    code, command, *_ = blocks(SECTIONS[section])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(code, encoding="utf-8")
    words = shlex.split(command)
    assert words[:2] == ["python", "main.py"]
    assert program.main([*words[2:], *TINY, *flags, "--log_dir", "train", "--eval_log_dir", "eval"]) == 0
    return {file.parent.name: list(csv.DictReader(open(file))) for file in folder.glob("*/metrics.csv")}


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row[name]]


def test_a_discriminator(here):
    """It learns to tell the oracle's sequences from the generator's, and its code is on record."""
    sizes = "--d_emb_dim 4 --d_hidden_dim 8 --d_batch_size 128 --d_lr 0.02 --no-evaluate --pretrain_d_epochs 40"
    rows = train("A discriminator", here, *ORACLE, *shlex.split(f"{sizes} --total_epochs 2"))["train"]
    losses = column(rows, "d_pretrain_loss")
    assert losses[-1] < losses[0] - 0.05 and column(rows, "d_pretrain_acc")[-1] > 0.6
    assert 0 < column(rows, "g_reward")[-1] < 1
    assert "class Pairs" in json.loads((here / "train/config.json").read_text())["discriminator"]["text"]
    assert read_flags(shlex.split("--discriminator pairs.py:Pairs")).d_lr == 0.001


@cases(
    "section, kind, name, flags",
    *(("A reward", "train", "g_reward", ["--no-evaluate"]), ("An objective", "eval", "objective", MEASURED)),
)
def test_a_score(section, kind, name, flags, here):
    """The policy gradient raises it, without a discriminator."""
    found = train(section, here, *ORACLE, *flags, *["--total_epochs", "80", "--g_lr", "0.03", "--batch_size", "64"])
    values = column(found[kind], name)
    assert values[-1] > values[0] + 0.1 and not any(row.get("d_loss") for row in found["train"])


def test_a_data_set_and_a_metric(here, monkeypatch, capsys):
    """Rows that repeat one token are learnt; the metric tells so of generated and of real rows."""
    code, line, *_ = blocks(SECTIONS["A metric"])
    names: dict = {"Metric": Metric}
    exec(code, names)
    (metric,) = eval(line, names)
    spoiling = replace(metric, name="spoiling", of=lambda rows, data: rows.fill(0) or rows[:, 0])
    for each in (spoiling, metric):
        monkeypatch.setitem(METRICS, each.name, each)
    np.save("rows.npy", np.repeat(np.arange(400) % 5, 6).reshape(400, 6))
    sizes = "--pretrain_g_epochs 150 --g_pretrain_lr 0.05 --total_epochs 0 --eval_every 50 --eval_samples 64"
    rows = train("A data set", here, *shlex.split(sizes))["eval"]
    assert column(rows, "nll_test")[0] > 1.2 and column(rows, "nll_test")[-1] < 0.7
    assert 0.9 < column(rows, "repeats")[-1] < 1 == column(rows, "real_repeats")[-1]
    assert "sequences of train" in json.loads((here / "train/config.json").read_text())["data"]
    words = ["--no-is_train", "--log_dir", "train", "--data_dir", "rows.npy"]
    for values, wrong in ((np.zeros([64, 6]), "shape (64, 6) for 64"), (["1"] * 64, "type <U1, not real numbers")):
        monkeypatch.setitem(METRICS, metric.name, replace(metric, of=lambda rows, data, found=values: found))
        assert program.main(words) == 2 and f"metric repeats: values of {wrong}" in capsys.readouterr().err
    undefined = replace(metric, of=lambda rows, data: np.where(rows[:, 0] == rows[0, 0], 0.5, np.nan))
    monkeypatch.setitem(METRICS, metric.name, undefined)
    assert program.main(words) == 0 and re.search(r"repeats +0.500", capsys.readouterr().out)


def test_one_line_makes_it_permanent(here, monkeypatch):
    """The entries of the page are entries, with their defaults; their names are values of the flags."""
    code, *_ = blocks(SECTIONS["A discriminator"])
    (here / "pairs.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(guidance, "__path__", [*guidance.__path__, str(here)])
    registries = {DiscriminatorEntry: DISCRIMINATORS, RewardEntry: REWARDS, Entry: DATASETS}
    lines = blocks(SECTIONS["To stay"])[0]
    entries = eval(f"{{{lines}}}", {kind.__name__: kind for kind in registries})
    assert [type(entry) for entry in entries.values()] == list(registries)
    for name, entry in entries.items():
        monkeypatch.setitem(registries[type(entry)], name, entry)
    assert entries["pairs"].load().__name__ == "Pairs"
    config = read_flags(["--discriminator", "pairs"])
    assert config.d_lr == entries["pairs"].defaults["d_lr"] == entries["pairs"].load().defaults["d_lr"]
    assert read_flags(["--reward", "rising"]).reward_entry is entries["rising"]
    assert read_flags(["--dataset", "rows"]).dataset == "rows"
