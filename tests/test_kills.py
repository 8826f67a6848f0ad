"""Runs that are killed, or starved, at many moments. SEQGAN_KILLS=n: kills of real runs at random (default: 6)."""

import os
import signal
from pathlib import Path

import pytest
from fault_injection import differing, fault_at_each_call, flags, kill_at_random, outcome

THOROUGH = "SEQGAN_KILLS" in os.environ
KILLS = int(os.environ.get("SEQGAN_KILLS", "6"))


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "train" / "checkpoints").glob("step-*"))


def test_killed_at_random_moments(trainer, tmp_path):
    assert kill_at_random(trainer, tmp_path, KILLS, seed=1) >= 1


@pytest.mark.parametrize(("action", "stride"), [("SIGKILL", 5), ("ENOSPC", 13), ("EROFS", 13)])
def test_killed_or_refused_at_each_call_that_changes_a_file(trainer, tmp_path, action, stride):
    assert fault_at_each_call(trainer, tmp_path, action, stride=1 if THOROUGH else stride) > 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signalled_at_random_moments(trainer, tmp_path, number):
    kill_at_random(trainer, tmp_path / "toy", 15, seed=2, number=number, toy=True)
    kill_at_random(trainer, tmp_path / "real", 2, seed=3, number=number)


def test_compiled_by_xla(trainer, tmp_path):
    """The other tests don't compile, which is faster."""
    few = ["--jit", "--d_eval_samples", "0"]
    whole = trainer.run(flags(tmp_path / "whole", *few))
    killed = trainer.run(flags(tmp_path / "killed", *few), at=whole.calls * 3 // 4, action="SIGKILL")
    assert [whole.status, killed.status] == [0, -signal.SIGKILL]
    assert trainer.run(flags(tmp_path / "killed", *few)).status == 0
    assert not differing(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


def test_the_best_checkpoint_survives_kills(trainer, tmp_path):
    """It is that of a run left alone, kept besides the newest three and the pretrained; --overwrite removes it."""
    whole, often = tmp_path / "whole", ("--checkpoint_every", "1")
    ended = trainer.run(flags(whole, *often), toy=True, valid=True)
    assert ended.status == 0
    kept, expected = checkpoints(whole), outcome(whole)
    assert kept == [f"step-{step:09d}" for step in (5, 14, 17, 20, 23)]
    assert expected["steps of best"] == kept[1] and expected["steps of weights"] == kept[4]
    assert expected["best weights/.ATTRIBUTES/VARIABLE_VALUE"] != expected["weights weights/.ATTRIBUTES/VARIABLE_VALUE"]
    for at in range(2, ended.calls, 1 if THOROUGH else 23):
        run = tmp_path / str(at)
        assert trainer.run(flags(run, *often), toy=True, valid=True, at=at).status == -signal.SIGKILL
        assert trainer.run(flags(run, *often), toy=True, valid=True).status == 0
        assert not differing(outcome(run), expected), at
        assert checkpoints(run) == kept
    assert trainer.run(flags(whole, *often, "--overwrite"), toy=True).status == 0
    assert len(checkpoints(whole)) == 4 and "steps of best" not in outcome(whole)
