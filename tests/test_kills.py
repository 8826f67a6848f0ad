"""Runs that are killed, or starved, at many moments. SEQGAN_KILLS=n: kills of real runs at random (default: 2)."""

import os
import shutil
import signal

import pytest
from fault_injection import checkpoints, differing, fault_at_each_call, flags, kill_at_random, outcome

THOROUGH = "SEQGAN_KILLS" in os.environ


def test_killed_or_signalled_at_random_moments(trainer, tmp_path):
    assert kill_at_random(trainer, tmp_path, int(os.environ.get("SEQGAN_KILLS", "2")), seed=1) >= 1
    for number in (signal.SIGTERM, signal.SIGINT):
        kill_at_random(trainer, tmp_path / str(number), 6, seed=2, number=number, toy=True)


@pytest.mark.parametrize(("actions", "first", "stride"), [(["SIGKILL"], 2, 23), (["ENOSPC", "EROFS"], 3, 29)])
def test_killed_or_refused_at_each_call_that_changes_a_file(trainer, tmp_path, actions, first, stride):
    strides = {"first": 1, "stride": 1} if THOROUGH else {"first": first, "stride": stride}
    assert fault_at_each_call(trainer, tmp_path, *actions, **strides) >= 20


def test_compiled_by_xla(trainer, tmp_path):
    """Without its newest checkpoints a run is as one that was killed before them. The other tests don't compile."""
    few = ["--jit", "--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "2"]
    argv = flags(tmp_path, *few, "--checkpoint_every", "1", "--d_eval_samples", "0")
    assert trainer.run(argv).status == 0
    whole, (*kept, lost, newest) = outcome(tmp_path), checkpoints(tmp_path)
    for path in (lost, newest):
        shutil.rmtree(path)
    ended = trainer.run(argv)
    assert ended.status == 0 and str(kept[-1]) in ended.out, ended
    assert not differing(outcome(tmp_path), whole)


def test_the_best_checkpoint_survives_kills(trainer, tmp_path):
    """It is that of a run left alone, kept besides the newest three and the pretrained; --overwrite removes it."""
    whole, often = tmp_path / "whole", ("--checkpoint_every", "1")
    ended = trainer.run(flags(whole, *often), toy=True, valid=True)
    assert ended.status == 0
    kept, expected = [path.name for path in checkpoints(whole)], outcome(whole)
    assert kept == [f"step-{step:09d}" for step in (5, 14, 17, 20, 23)]
    assert expected["steps of best"] == kept[1] and expected["steps of weights"] == kept[4]
    assert expected["best weights/.ATTRIBUTES/VARIABLE_VALUE"] != expected["weights weights/.ATTRIBUTES/VARIABLE_VALUE"]
    for at in range(2, ended.calls, 1 if THOROUGH else 53):
        run = tmp_path / str(at)
        assert trainer.run(flags(run, *often), toy=True, valid=True, at=at).status == -signal.SIGKILL
        assert trainer.run(flags(run, *often), toy=True, valid=True).status == 0
        assert not differing(outcome(run), expected), at
        assert [path.name for path in checkpoints(run)] == kept
    assert trainer.run(flags(whole, *often, "--overwrite"), toy=True).status == 0
    assert len(checkpoints(whole)) == 4 and "steps of best" not in outcome(whole)
