"""What a run is: the flags that change its weights, and what it reads; not where it lies."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SIZES, cases, refusal, train
from test_bad_input import npz
from test_nottingham import write_song

from data import checksum
from runs.directories import changeable
from support.config import Config
from support.config_file import differences
from support.parser import read_flags

FEW = shlex.split("--pretrain_g_epochs 1 --pretrain_d_epochs 0 --total_epochs 0 --no-evaluate --log_dir train")
SCALE = [60, 62, 64, 65, 67, 69, 71, 72]
OTHER = npz(b_out=np.zeros(4, np.float32))
KINDS = {
    "oracle": (["--oracle_params", "oracle.npz"], "oracle.npz"),
    "text": (["--dataset", "text", "--data_dir", "lines"], "lines"),
    "music": (["--dataset", "Nottingham", "--data_dir", "tunes"], "tunes"),
}


@pytest.fixture
def here(here) -> Path:
    """The working directory, with an oracle's weights, lines and tunes to read."""
    (here / "oracle.npz").write_bytes(npz())
    (here / "lines").mkdir()
    for split, line in (("train", "abb"), ("valid", "bab"), ("test", "bba")):
        (here / "lines" / f"{split}.txt").write_text("\n".join(["ab", "ba", line] * 5))
        (here / "tunes" / split).mkdir(parents=True)
        write_song(here / "tunes" / split / "a.mid", SCALE if split == "train" else SCALE[::-1])
    return here


def start(*flags: str) -> int:
    return train([*SIZES, *FEW, *flags])


def change_vocabulary(here: Path) -> None:
    """Another letter for one, so that the tokens are the same numbers."""
    for path in (here / "lines").iterdir():
        path.write_text(path.read_text().replace("a", "c"))


def change_tunes(here: Path) -> None:
    write_song(here / "tunes" / "valid" / "b.mid", SCALE)
    shutil.move(here / "tunes" / "train" / "a.mid", here / "tunes" / "train" / "c.mid")  # a name is no tune


@cases(
    "kind, change, why",
    ("oracle", lambda at: (at / "oracle.npz").write_bytes(OTHER), "--oracle_params oracle.npz: the oracle's weights"),
    ("text", lambda here: (here / "lines" / "test.txt").write_text("bb\n"), "--data_dir lines: lines of test"),
    ("text", change_vocabulary, "--data_dir lines: the vocabulary"),
    ("music", change_tunes, "--data_dir tunes: tunes of valid"),
)
def test_what_a_run_reads_is_part_of_it(here, capsys, kind, change, why):
    flags, _ = KINDS[kind]
    assert start(*flags) == 0
    before = {path: path.read_bytes() for path in (here / "train").rglob("*") if path.is_file()}
    change(here)
    for argv in ([*SIZES, *FEW, *flags, "--pretrain_g_epochs", "2"], ["--no-is_train", "--log_dir", "train"]):
        assert f"{why} changed since the run in --log_dir train" in refusal(capsys, train, argv)
    assert before == {path: path.read_bytes() for path in (here / "train").rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_reads_may_lie_elsewhere(here, capsys, kind):
    flags, name = KINDS[kind]
    assert start(*flags) == 0
    (here / name).rename(here / "moved")
    assert start(*flags[:-1], "moved", "--pretrain_g_epochs", "2") == 0
    recorded = json.loads((here / "train" / "config.json").read_text())
    assert recorded["flags"][flags[-2].removeprefix("--")] == "moved" and recorded["data"]
    assert capsys.readouterr().err == ""
    if kind == "oracle":
        assert "--oracle_params moved, not none" in refusal(capsys, start, "--pretrain_g_epochs", "2", alone=False)


def test_a_checksum_is_of_numbers():
    arrays = [np.arange(6), np.zeros(2)]
    assert checksum(arrays) == checksum([np.arange(6, dtype=np.int16), np.zeros(2, np.float32)])
    others = ([np.arange(6).reshape(2, 3), np.zeros(2)], [np.arange(3), np.arange(3, 6), np.zeros(2)], arrays[::-1])
    assert len({checksum(each) for each in (arrays, *others, arrays[:1])}) == 5


@cases(
    "before, now, differing",
    ("--reward log_odds", "--reward discriminator", ["--reward log_odds, not discriminator"]),
    ("--discriminator bigram", "--discriminator lstm", ["--discriminator bigram, not lstm"]),
    ("--reward a.py:f", "--reward b.py:f", []),  # what they hold is on record
    ("--reward a.py:f", "--reward constant", ["--reward a.py:f, not constant"]),
    *(("--dataset a.py:C", "--dataset x/a.py:C", []), ("--objective a.py:f", "--objective ./a.py:f", [])),
    *(("--objective a.py:f", "", ["--objective a.py:f, not none"]), ("--cosine_decay g d", "--cosine_decay d g", [])),
    ("--cosine_decay g", "--cosine_decay g_pretrain", ["--cosine_decay g, not g_pretrain"]),
    ("--dataset Nottingham --token_length 1beats", "--dataset Nottingham --token_length 1.0beat", []),
)
def test_what_is_another_run(before, now, differing):
    then, later = (read_flags(shlex.split(words)) for words in (before, now))
    assert differences(then, later) == differing


def test_a_discriminator_of_ones_own_may_lie_elsewhere(tmp_path):
    (tmp_path / "d.py").write_text("class D:\n    pass\n")
    before, now = (Config(discriminator=f"{tmp_path / name}:D") for name in ("gone.py", "d.py"))
    assert not differences(before, now, changeable(tmp_path, before, now))


def test_a_run_is_evaluated_with_its_own_flags_alone(here, capsys):
    assert start("--seed", "7", *KINDS["text"][0]) == 0
    capsys.readouterr()
    assert train(["--no-is_train", "--log_dir", "train"]) == 0
    first = capsys.readouterr().out
    assert re.search(r"nll_test +\d", first)
    assert train(["--is_train", "False", "--log_dir", "train", "--seed", "7", "--eval_samples", "40"]) == 0
    assert capsys.readouterr().out != first  # more samples may be drawn
    for flags, why in (
        ("--seed 8", "the run in --log_dir train has --seed 7, not 8"),
        ("--seed 7 --g_emb_dim 9 --seq_len 9", "has --g_emb_dim 3, not 9; --seq_len 3, not 9"),
        *(("--total_epochs 5", "has --total_epochs 0, not 5"), ("--dataset LSTM", "has --dataset text, not LSTM")),
        ("--log_generation", "--log_generation has no effect without --dataset LSTM or Nottingham"),
        ("--overwrite", "nothing would be left"),
        ("--log_dir elsewhere", "no run to evaluate in --log_dir elsewhere"),
    ):
        assert why in refusal(capsys, train, ["--no-is_train", "--log_dir", "train", *shlex.split(flags)])
    (here / "lines").rename(here / "moved")
    assert train(["--no-is_train", "--log_dir", "train", "--data_dir", "moved"]) == 0


@cases("words", "--cosine_decay d --d_steps 0", "--preset text --data_dir x --reward constant", "--cosine_decay d")
def test_more_epochs_are_refused_where_a_rate_falls_over_them(tmp_path, words):
    before, now = (read_flags([*words.split(), "--total_epochs", n]) for n in "12")
    assert ("total_epochs" in changeable(tmp_path, before, now)) == (words != "--cosine_decay d")
    (tmp_path / "checkpoints/step-000000005").mkdir(parents=True)  # when these have begun
    longer = [[read_flags([*more, "--pretrain_g_epochs", n]) for n in "57"] for more in ([], ["--average", "0.5"])]
    assert ["pretrain_g_epochs" in changeable(tmp_path, *pair) for pair in longer] == [True, False]
    assert "eval_every" not in changeable(tmp_path, best := Config(best_pretraining=True, pretrain_g_epochs=9), best)
