"""Runs outlive versions of the program: one of version 1.0 goes on; what rounds otherwise is warned of."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MAKERS, ROOT, TINY, cases, interrupted_at, refusal, train
from fault_injection import change, differing, flags, outcome
from test_resume import left_alone

from runs import directories
from runs.identity import changed_since, description
from support.config import FIELDS, RATES, Config, UsageError
from support.config_file import FORMAT, GONE, VERSION_1, WITHOUT_EFFECT, from_flags, lost_flag
from support.parser import read_flags

# What version 1.0 wrote as the flags of a run of --preset music, shortened.
OF_1_0 = json.loads(
    """{"preset": "music", "seed": 1, "is_train": true, "evaluate": true, "jit": true, "compile_cache": true,
    "deterministic": true, "tf32": false, "threads": 0, "log_dir": "train", "eval_log_dir": "eval", "pretrained": "",
    "log_generation": false, "eval_every": 250, "eval_samples": 256, "d_eval_samples": 1024, "candidates": 16,
    "checkpoint_every": 200, "keep_checkpoints": 3, "overwrite": false, "debug": false, "dataset": "Nottingham",
    "seq_len": 64, "vocab_size": 5000, "train_size": 0, "data_dir": "data/Nottingham", "tokens": "char",
    "min_count": 1, "long_lines": "truncate", "split_seed": 0, "frame_seconds": 0.4, "frame_beats": 0.5,
    "onsets": true, "window_stride": 64, "sample_every": 100, "songs_dir": "", "save_media": false, "batch_size": 64,
    "pretrain_g_epochs": 2000, "pretrain_d_epochs": 5, "pretrain_d": false, "total_epochs": 50, "g_steps": 1,
    "mle_steps": 2, "d_steps": 0, "d_epochs": 1, "d_draws": 12800, "g_emb_dim": 64, "g_hidden_dim": 128,
    "g_dropout_keep_prob": 0.5, "g_pretrain_lr": 0.005, "g_pretrain_schedule": "constant", "scheduled_sampling": 0.0,
    "g_lr": 0.0005, "mle_lr": 0.0005, "g_schedule": "cosine", "average": 0.995, "grad_clip": 5.0,
    "reward": "log_odds", "kl_weight": 1.0, "objective": "", "objective_weight": 1.0, "reference_every": 0,
    "g_update": "sampled", "rollout_num": 4, "rollout_lag": 0.0, "baseline": "prefix", "discriminator": "pooled",
    "guide_eta": 0.0, "d_emb_dim": 32, "d_hidden_dim": 128, "d_filter_sizes": [2, 4, 8, 16],
    "d_num_filters": [60, 60, 60, 60], "dropout_keep_prob": 0.6, "d_l2": 0.0, "d_lr": 0.002, "d_schedule": "cosine",
    "d_batch_size": 256, "oracle_seed": 32, "oracle_emb_dim": 20, "oracle_hidden_dim": 50, "oracle_init": "glorot",
    "oracle_params": ""}"""
)


def as_version_1(folder: Path) -> None:
    """Rewrites what a run has on record as version 1.0 had written it."""
    for kind in ("train", "eval"):
        path = folder / kind / "config.json"
        content = json.loads(path.read_text())
        own, tokens = content["flags"], content["tokens"]
        decays = own.pop("cosine_decay")
        new = "token_length transpose best_pretraining d_loss d_lags d_init distil_real g_echo g_echo_twice teacher"
        for name in shlex.split(new):
            del own[name]
        del tokens["seq_len"]
        own |= {f"{rate}_schedule": "cosine" if rate in decays else "constant" for rate in RATES}
        own |= {name: OF_1_0[name] for name in (*GONE, *WITHOUT_EFFECT, "frame_seconds")}
        own |= {"frame_beats": 0.0, "mle_lr": own["g_lr"]}
        assert own.keys() == OF_1_0.keys()
        path.write_text(json.dumps(content | {"format": VERSION_1}))


def test_the_music_of_version_1_is_that_of_today():
    """By other flags: the preset has longer tunes now, and a generator that hears echoes."""
    here = "--preset music --log_dir train --eval_log_dir eval --seq_len 64 --batch_size 64 --discriminator pooled"
    here += " --d_filter_sizes 2 4 8 16 --d_draws 12800 --pretrain_d_epochs 5 --d_lr 0.002 --total_epochs 50"
    here += " --cosine_decay g d --d_num_filters 60 60 60 60 --eval_every 250 --g_echo False"
    assert from_flags(OF_1_0) == replace(read_flags(here.split()), g_echo_twice=False)


@cases(
    "changed, expected",
    ({"frame_beats": 0.0, "frame_seconds": 0.125}, {"token_length": "0.125s"}),
    *(({"frame_beats": 1.0}, {"token_length": "1beats"}), ({"mle_steps": 0, "mle_lr": 3.0}, {"mle_steps": 0})),
    ({"g_pretrain_schedule": "cosine", "d_schedule": "constant"}, {"cosine_decay": ("g_pretrain", "g")}),
    *(({"save_media": True}, {"log_generation": True}), ({"tf32": True}, {"deterministic": False})),
    ({"total_epochs": 0}, {"total_epochs": 0, "pretrain_d_epochs": 0}),
    ({"total_epochs": 0, "pretrain_d": True}, {"total_epochs": 0}),
    ({"total_epochs": 0, "discriminator": "bigram"}, {"total_epochs": 0, "discriminator": "bigram"}),
    ({"keep_checkpoints": 9, "debug": True, "compile_cache": False}, {}),
    ({"g_lr": 1, "mle_lr": 1}, {"g_lr": 1}),  # JSON of another hand may write 1.0 so
)
def test_what_a_flag_of_version_1_means(changed, expected):
    usual, found = (vars(from_flags(words)) for words in (OF_1_0, OF_1_0 | changed))
    assert {name: value for name, value in found.items() if value != usual[name]} == expected


@cases(
    "changed, why",
    *(({"seed": "x"}, "--seed: 'x' is no value of it"), ({"d_filter_sizes": 3}, "--d_filter_sizes: ")),
    *(({"seed": value}, "--seed: ") for value in (1.5, None, True)),
    *(({"jit": 1}, "--jit: "), ({"g_lr": "1", "mle_lr": "1"}, "--g_lr: "), ({"dataset": 3}, "--dataset: ")),
)
def test_what_is_no_configuration(changed, why):
    with pytest.raises(UsageError, match=why):
        from_flags(OF_1_0 | changed)


def run_in(folder: Path, *more: str, makers=MAKERS) -> int:
    words = "--mle_steps 1 --cosine_decay d g --average 0.5 --kl_weight 0.5 --log_dir {0}/train --eval_log_dir {0}/eval"
    return train([*TINY, *words.format(folder).split(), *more], makers)


@pytest.fixture(scope="module")
def of_version_1(tmp_path_factory) -> Path:
    """A run of version 1.0, interrupted in its adversarial phase."""
    folder = tmp_path_factory.mktemp("of_version_1")
    assert run_in(folder, makers=interrupted_at(12)) == 128 + signal.SIGTERM
    as_version_1(folder)
    return folder


def test_a_flag_that_is_gone_ends_training_alone(of_version_1, tmp_path, capsys):
    shutil.copytree(of_version_1, tmp_path / "run")
    path = tmp_path / "run" / "train" / "config.json"
    usual = json.loads(path.read_text())["flags"]
    new = ["--no-evaluate", "--pretrained", str(path.parent)]
    for name in (*GONE, "mle_lr"):
        change(path, flags={**usual, name: 7})
        for folder, more in (("run", []), ("new", new)):
            assert f"--{name} 7" in refusal(capsys, run_in, tmp_path / folder, *more)
    assert train(["--no-is_train", "--log_dir", str(path.parent)]) == 0
    assert not lost_flag(usual) and not lost_flag(usual | {"mle_lr": 7, "total_epochs": 0})


def test_a_run_of_version_1_goes_on(of_version_1, tmp_path, capsys):
    shutil.copytree(of_version_1, tmp_path / "cut")
    assert run_in(tmp_path / "whole") == 0
    capsys.readouterr()
    assert train(["--no-is_train", "--log_dir", str(tmp_path / "cut" / "train")]) == 0
    assert re.search(r"nll +\d", capsys.readouterr().out) and run_in(tmp_path / "cut") == 0
    out, err = capsys.readouterr()
    assert re.search(r"after 12 of \d+ steps", out) and not err, (out, err)
    assert not differing(outcome(tmp_path / "cut"), outcome(tmp_path / "whole"))
    for kind in ("train", "eval"):
        content = json.loads((tmp_path / "cut" / kind / "config.json").read_text())
        assert content["format"] == FORMAT and content["flags"].keys() == FIELDS.keys()


@cases(
    "changed, why",
    ({"flags": {"temperature": 2}}, "config.json: a run of another version, with unknown flags: --temperature"),
    ({"format": VERSION_1 - 1}, "of format 2, of a version before 1.0, whose runs are no longer read"),
    ({"format": FORMAT + 1}, f"of format {FORMAT + 1}, which a newer version"),
    ({"format": "x"}, "of format x, which a newer version"),
)
def test_runs_of_other_versions_are_refused_and_left_as_they_are(trainer, tmp_path, changed, why):
    assert trainer.run(flags(tmp_path), toy=True, at=150, action="SIGTERM").status == 143
    change(tmp_path / "train" / "config.json", **changed)
    for argv in (flags(tmp_path), ["--no-is_train", "--log_dir", str(tmp_path / "train")]):
        left_alone(trainer, tmp_path, argv, why)


def test_what_rounds_otherwise_is_warned_of(trainer, tmp_path):
    older = {"versions": {"tensorflow": "2.20.0", "keras": "3.15.1"}}
    for total, changed in (("1", older), ("2", {"cpu": "Z80", "cores": 999})):
        assert trainer.run(flags(tmp_path, "--total_epochs", total), toy=True).err.count("\n") < 2
        for kind in ("train", "eval"):
            change(tmp_path / kind / "config.json", **changed)
    (warning,) = trainer.run(flags(tmp_path), toy=True).err.splitlines()
    assert warning.startswith("warning: cpu Z80 is now ") and ", cores 999 is now " in warning and "bitwise" in warning
    assert trainer.run(flags(tmp_path, "--total_epochs", "6"), toy=True).err == ""  # on what is now the run's
    now = description(Config(threads=2))
    assert "cores" not in changed_since(now | {"cores": 999}, now)  # which --threads stands for
    assert changed_since(now | {"device": ["GPU", "GPU"]}, now) == "device GPU GPU is now CPU"
    assert changed_since(now | older, now).startswith("tensorflow 2.20.0 is now ") and changed_since(now, now) == ""


@cases("more", ["--total_epochs", "6"], ["--overwrite"])
def test_the_hyperparameters_that_a_former_version_wrote_are_removed(trainer, tmp_path, more):
    """Flags that a run no longer has would be shown beside its curves; config.json has the newest."""
    assert trainer.run(flags(tmp_path), toy=True).status == 0
    former = [tmp_path / kind / "events.out.tfevents.0.hparams" for kind in ("train", "eval")]
    for path in former:
        path.write_bytes(b"x")
    assert trainer.run(flags(tmp_path, *more), toy=True).status == 0 and not any(path.exists() for path in former)


def test_a_system_without_locks(tmp_path):
    program = (
        "import sys; sys.modules['fcntl'] = None; from runs.directories import RunDirectory\n"
        "try: RunDirectory(sys.argv[1], '--log_dir').__enter__()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("UsageError training needs Linux, macOS or WSL") and not done.stderr
    assert not list(tmp_path.iterdir())


def test_overwrite_removes_what_a_run_on_music_leaves(tmp_path):
    train_dir = tmp_path / "train"
    (train_dir / "media").mkdir(parents=True)
    for name in shlex.split("sample0.mid media/epoch00003_real.png media/epoch00003_real_0.wav media/mine.wav my.mid"):
        (train_dir / name).write_bytes(b"x")
    directory = directories.RunDirectory(str(train_dir), "--log_dir")
    of = lambda dataset: {"flags": {"dataset": dataset, "total_epochs": 1}, "run": "r", "format": FORMAT}  # noqa: E731
    there = {path.name for path in train_dir.rglob("*")}
    for dataset in (None, "LSTM", "text"):  # a run that is not known, or on other data, has left none of them
        if dataset:
            directory.describe(of(dataset))
        directory.wipe()
        assert {path.name for path in train_dir.rglob("*")} == there
        with pytest.raises(UsageError, match="sample0.mid there is no run's"):  # which a new one would write over
            directory.check({}, "--data_dir d", {}, {}, directories.SONGS)
    directory.describe(of("Nottingham"))
    (train_dir / ".samples.sha256").write_text(f"{directories.sha256_of(b'y')}  sample0.mid\n")
    with pytest.raises(UsageError, match="sample0.mid there is no run's"):  # somebody has changed it
        directory.check({}, "--data_dir d", {}, {}, directories.SONGS)
    (train_dir / ".samples.sha256").write_text(f"{directories.sha256_of(b'x')}  sample0.mid\n")
    directory.check({}, "--data_dir d", {}, {}, directories.SONGS)
    directory.wipe()
    assert sorted(path.name for path in train_dir.rglob("*")) == ["lock", "media", "mine.wav", "my.mid"]
    (train_dir / "media" / "mine.wav").rename(train_dir / "media" / "epoch00003_real.png")
    directory.describe(of("Nottingham"))
    directory.wipe()
    directory.__exit__()
    assert sorted(path.name for path in train_dir.rglob("*")) == ["lock", "my.mid"]
