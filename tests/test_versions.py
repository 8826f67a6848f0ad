"""Runs outlive versions of the program: one that an older program left is sampled, evaluated and continued."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import main as program
from runs import directories, logs
from runs.identity import changed_since, description
from support import config_file
from support.config import Config, UsageError
from support.config_file import FORMAT, differences, from_flags
from tools import sample

# tests/fixtures/old_run: what the program of commit 1f560d8 left when it was started so, and the evaluations that it
# went on to with --total_epochs 5. Each later change has to keep this test as it is, or say in `support/config_file.py`
# what an older run means.
OLD_RUN = ROOT / "tests" / "fixtures" / "old_run"
FLAGS = shlex.split(
    "--vocab_size 20 --seq_len 6 --batch_size 8 --g_emb_dim 4 --g_hidden_dim 6 --rollout_num 3 --d_emb_dim 4 "
    "--d_filter_sizes 1 3 --d_num_filters 4 3 --d_batch_size 8 --oracle_emb_dim 4 --oracle_hidden_dim 5 "
    "--pretrain_g_epochs 6 --pretrain_d_epochs 2 --d_steps 2 --d_epochs 2 --eval_samples 32 --eval_every 1 "
    "--checkpoint_every 100 --keep_checkpoints 1 --rollout_lag 0.5 --seed 5 --log_dir train --eval_log_dir eval "
    "--oracle_init normal"  # the only one there was, and the default then
)


@pytest.fixture
def old_run(tmp_path, monkeypatch) -> Path:
    """A copy of the older program's run, in the working directory."""
    shutil.copytree(OLD_RUN, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def change(path: Path, **changed) -> dict:
    """Changes entries of a config.json, those of `flags` one by one; returns what it then holds."""
    content = json.loads(path.read_text())
    for name, value in changed.items():
        content[name] = content[name] | value if name == "flags" else value
    path.write_text(json.dumps(content))
    return content


def test_an_older_run_goes_on_as_it_would_have(old_run, capsys):
    """Numbers may differ by rounding, as compiled code changes; other draws would be far off."""
    assert program.main([*FLAGS, "--total_epochs", "5"]) == 0
    assert "Traceback" not in capsys.readouterr().err
    expected, found = rows(OLD_RUN / "expected.csv"), rows(old_run / "eval" / "metrics.csv")
    assert [row["epoch"] for row in found] == [row["epoch"] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["phase"] == theirs["phase"]
        for name in ("nll", "nll_test", "g_entropy", "oracle_entropy"):
            np.testing.assert_allclose(float(ours[name]), float(theirs[name]), rtol=2e-3, err_msg=name)
    assert found[:9] == rows(OLD_RUN / "eval" / "metrics.csv")  # the older program's own, untouched
    assert len(rows(old_run / "train" / "metrics.csv")) == 6 + 2 + 5
    described = json.loads((old_run / "train" / "config.json").read_text())
    assert described["format"] == FORMAT and described["flags"]["total_epochs"] == 5
    assert described["run"] == json.loads((OLD_RUN / "train" / "config.json").read_text())["run"]


def test_an_older_run_is_finished_and_is_evaluated(old_run, capsys):
    assert train([*FLAGS, "--total_epochs", "3"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert train([*FLAGS, "--total_epochs", "3", "--no-is_train"]) == 0
    out = capsys.readouterr().out
    measured = float(out[out.index("nll_test ") :].split()[1])
    assert measured == pytest.approx(float(rows(old_run / "eval" / "metrics.csv")[-1]["nll_test"]), abs=0.01)


def test_an_older_run_is_sampled(old_run, capsysbinary):
    assert sample.main(["train", "-n", "300"]) == 0
    tokens = np.array([line.split() for line in capsysbinary.readouterr().out.decode().splitlines()], int)
    assert tokens.shape == (300, 6) and tokens.min() >= 0 and tokens.max() < 20


def test_a_flag_added_later_means_what_the_older_program_did(monkeypatch):
    flags = json.loads((OLD_RUN / "train" / "config.json").read_text())["flags"]
    assert from_flags(flags).seq_len == 6
    del flags["baseline"], flags["d_filter_sizes"]
    assert from_flags(flags).baseline == "none" and from_flags(flags).d_filter_sizes == (3, 5, 5, 5)
    monkeypatch.setitem(config_file.BEFORE_ADDED, "baseline", "batch")
    assert from_flags(flags).baseline == "batch"
    other = from_flags(flags | {"baseline": "none"})
    assert differences(from_flags(flags), other, set()) == ["--baseline batch, not none"]


def test_a_flag_that_is_gone(monkeypatch):
    flags = json.loads((OLD_RUN / "train" / "config.json").read_text())["flags"]
    with pytest.raises(UsageError, match="another version, with unknown flags: --gone$"):
        from_flags(flags | {"gone": False})
    monkeypatch.setitem(config_file.REMOVED, "gone", False)
    assert from_flags(flags | {"gone": False}) == from_flags(flags)
    with pytest.raises(UsageError, match="an older version: --gone True is no longer possible"):
        from_flags(flags | {"gone": True})


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "x"), ("seed", 1.5), ("seed", None), ("jit", 1), ("g_lr", "1"), ("dataset", 3), ("d_filter_sizes", 3)],
)
def test_a_value_that_is_none(name, value):
    with pytest.raises(UsageError, match=f"--{name}: "):
        from_flags({name: value})
    assert from_flags({"g_lr": 1}).g_lr == 1  # JSON of another hand may write 1.0 so


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"flags": {"temperature": 2}}, "config.json: a run of another version, with unknown flags: --temperature"),
        ({"flags": {"seed": 6}}, "--log_dir train: holds a run with --seed 6, not 5; choose"),
        ({"format": FORMAT + 1}, f"of format {FORMAT + 1}, which a newer version"),
        ({"format": "x"}, "of format x, which a newer version"),
    ],
)
def test_what_is_no_older_run(old_run, capsys, changed, why):
    change(old_run / "train" / "config.json", **changed)
    before = {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}
    assert train([*FLAGS, "--total_epochs", "5"]) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1
    assert before.items() <= {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}.items()


def test_another_version_of_tensorflow_is_warned_of(old_run, capsys):
    versions = {"tensorflow": "2.20.0", "keras": "3.15.1"}
    for kind in ("train", "eval"):
        change(old_run / kind / "config.json", versions=versions)
    assert train([*FLAGS, "--total_epochs", "4"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    first, *others = warnings
    assert "tensorflow 2.20.0 is now " in first and "bitwise" in first
    assert len(others) == 2 and all("has no column for " in other for other in others)  # figures of newer versions
    assert train([*FLAGS, "--total_epochs", "5"]) == 0  # by the version that is now the run's
    assert "tensorflow" not in capsys.readouterr().err


def test_another_machine_is_warned_of(old_run, capsys):
    assert train([*FLAGS, "--total_epochs", "3", "--overwrite"]) == 0
    for kind in ("train", "eval"):
        described = change(old_run / kind / "config.json", cpu="Z80", cores=999)
    assert train([*FLAGS, "--total_epochs", "4"]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: cpu Z80 is now ") and ", cores 999 is now " in warning and "bitwise" in warning
    assert train([*FLAGS, "--total_epochs", "5"]) == 0  # on the machine that is now the run's
    assert capsys.readouterr().err == ""
    now = description(Config(threads=2))
    assert "cores" not in changed_since(described, now)  # which --threads stands for
    assert changed_since(now | {"device": ["GPU", "GPU"]}, now) == "device GPU GPU is now CPU"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({}, []),
        ({"jit": False}, ["--jit"]),
        ({"train_size": 64}, ["--train_size"]),
        ({"average": 0.9}, ["--average"]),
        ({"average": 0.9, "d_steps": 0}, []),  # while the discriminator was pretrained there was no difference
        ({"average": 0.9, "train_size": 64}, ["--train_size", "--average"]),
    ],
)
def test_what_an_older_version_drew_otherwise_is_warned_of(flags, told):
    now = description(Config(**flags))
    for older in (now | {"format": 2}, {name: value for name, value in now.items() if name != "format"}):
        assert re.findall("--[a-z_]+", changed_since(older, now)) == told
    assert changed_since(now, now) == ""


def test_the_page_of_hyperparameters_shows_the_newest_flags(old_run):
    assert train([*FLAGS, "--total_epochs", "5"]) == 0
    for kind in ("train", "eval"):
        events = EventAccumulator(str(old_run / kind))
        events.Reload()
        (content,) = events.PluginTagToContent("hparams").values()
        told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        assert told["total_epochs"].number_value == 5 and told["d_filter_sizes"].string_value == "1 3"
        assert (old_run / kind / logs.HPARAMS).is_file()


def test_every_flag_has_a_value_that_the_older_program_could_have(monkeypatch):
    """What the tables name are flags, or were; the fixture's program had neither."""
    fields = set(Config.__dataclass_fields__)
    assert config_file.BEFORE_ADDED.keys() <= fields and not config_file.REMOVED.keys() & fields


def test_a_system_without_locks(old_run, capsys, monkeypatch):
    monkeypatch.setattr(directories, "fcntl", None)
    assert train([*FLAGS, "--total_epochs", "5"]) == 2
    error = capsys.readouterr().err
    assert "needs Linux, macOS or WSL" in error and error.count("\n") == 1


def test_overwrite_removes_what_a_run_on_music_leaves(tmp_path):
    train = tmp_path / "train"
    (train / "media").mkdir(parents=True)
    for name in ("sample0.mid", "media/epoch00003_real.png", "media/epoch00003_real_0.wav", "media/mine.wav", "my.mid"):
        (train / name).write_bytes(b"x")
    directory = directories.RunDirectory(str(train), "--log_dir")
    there = {path.name for path in train.rglob("*")}
    for dataset in (None, "LSTM", "text"):  # a run that is not known, or on other data, has left none of them
        if dataset:
            directory.describe({"flags": {"dataset": dataset, "total_epochs": 1}, "run": "r"})
        directory.wipe()
        assert {path.name for path in train.rglob("*")} == there
        with pytest.raises(UsageError, match="sample0.mid: is there, and no run's"):  # which a new one would write over
            directory.check({}, "--data_dir d", {}, {}, directories.SONGS)
    music = {"flags": {"dataset": "Nottingham", "total_epochs": 1}, "run": "r"}
    directory.describe(music)
    directory.check({}, "--data_dir d", {}, {}, directories.SONGS)
    directory.wipe()
    assert sorted(path.name for path in train.rglob("*")) == ["lock", "media", "mine.wav", "my.mid"]
    (train / "media" / "mine.wav").rename(train / "media" / "epoch00003_real.png")
    directory.describe(music)
    directory.wipe()
    directory.release()
    assert sorted(path.name for path in train.rglob("*")) == ["lock", "my.mid"]
