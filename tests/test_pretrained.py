"""--pretrained: a run that starts from another's pretraining is the run that pretrained by itself."""

import json
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from conftest import SIZES, TINY, train
from fault_injection import differing, flags, outcome, timeless_rows

from runs.checkpoints import Checkpoints
from runs.directories import evaluations_of
from tools.restored import restore

TEXT = [*SIZES, "--dataset", "text", "--vocab_size", "9"]
LINES = "ab\nba\nabc\ncab\nbca\nbb\naab\n" * 3 + "".join(f"{a}{b}{c}\n" for a in "abc" for b in "abc" for c in "abc")
PURE = ("--total_epochs", "0", "--pretrain_d_epochs", "0")


def run(folder: Path, *more: str, tiny=TINY) -> int:
    logs = ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]
    return train([*tiny, *logs, "--eval_every", "1", *more])


def weights(directory: Path, which: str = "newest") -> list[bytes]:
    seqgan = restore(directory, which).seqgan
    return [w.tobytes() for net in (seqgan.generator, seqgan.discriminator) for w in net.get_weights()]


def test_as_if_it_had_pretrained_by_itself(tmp_path, capsys):
    assert run(tmp_path / "source", *PURE) == 0
    assert run(tmp_path / "alone", "--g_lr", "0.02") == 0
    own = ("--g_lr", "0.02", "--pretrained", str(tmp_path / "source" / "train"))
    started, alone = tmp_path / "started", outcome(tmp_path / "alone")
    assert run(started, *own) == 0 and not differing(outcome(started), alone)
    for directory, why in (
        (tmp_path / "none", "not a readable configuration"),
        (started / "train", "is the --log_dir that --overwrite empties"),
    ):
        assert run(started, "--g_lr", "0.02", "--overwrite", "--pretrained", str(directory)) == 2
        assert why in capsys.readouterr().err and not differing(outcome(started), alone)  # it has cost nothing
    assert run(started, *own, "--overwrite") == 0 and not differing(outcome(started), alone)
    shutil.rmtree(tmp_path / "source")  # it is needed no more
    assert run(started, *own, "--total_epochs", "4") == 0
    assert len(timeless_rows(started / "train")) == 4 + 2 + 4


def test_of_a_run_that_was_moved_and_is_on_text(tmp_path, capsys):
    """With an average, and the best checkpoint of pretraining: still there, or replaced by a better one since."""
    (tmp_path / "lines.txt").write_text(LINES)
    on_lines = ("--data_dir", str(tmp_path / "lines.txt"), "--average", "0.5", "--g_pretrain_lr", "0.3")
    assert run(tmp_path / "alone", *on_lines, tiny=TEXT) == 0
    ended = restore(tmp_path / "alone" / "train", "pretrained").seqgan  # the generator is its average then
    for mine, average in zip(ended.generator.get_weights(), ended.average.get_weights(), strict=True):
        assert (mine == average).all()
    better = shlex.split("--mle_steps 8 --g_lr 0.03 --total_epochs 8 --d_emb_dim 2")
    for name, more in (("whole", PURE), ("replaced", better)):
        assert run(tmp_path / "source", *on_lines, *more, tiny=TEXT) == 0
        donor, started = tmp_path / f"moved-{name}" / "train", tmp_path / name
        shutil.move(tmp_path / "source", donor.parent)
        end, best = at_mark(donor, "pretrained")
        assert best["step"] < end  # else it is kept anyway
        assert (donor / "checkpoints" / f"step-{best['step']:09d}").exists() == (name == "whole")
        capsys.readouterr()
        pretrained = (*on_lines, "--pretrained", str(donor))
        assert run(started, *pretrained, *PURE, tiny=TEXT) == 0
        assert (f"step {best['step']}, was replaced" in capsys.readouterr().err) == (name == "replaced")
        assert at_mark(started / "train", "best")[0] == (best["step"] if name == "whole" else end)
        assert run(tmp_path / f"on-{name}", *pretrained, tiny=TEXT) == 0
        assert timeless_rows(tmp_path / f"on-{name}" / "eval") == timeless_rows(tmp_path / "alone" / "eval")
        for which in ("newest", "pretrained"):
            assert weights(tmp_path / f"on-{name}" / "train", which) == weights(tmp_path / "alone" / "train", which)


def at_mark(directory: Path, which: str) -> tuple[int, dict[str, float]]:
    """The step of a checkpoint, and what it knows of the best one."""
    state = restore(directory).seqgan.checkpoint()
    step, details = Checkpoints(directory / "checkpoints", state, 1).look(which)
    return step, details["best"]


def test_copying_that_is_killed_begins_again(trainer, tmp_path):
    """The best checkpoint is saved before that of the end, when the logs are whole already."""

    def toy(folder: str, *words: str, **job):
        more = shlex.split("--pretrain_g_epochs 9 --eval_every 1")
        return trainer.run(flags(tmp_path / folder, *more, *words), toy=True, valid=True, **job)

    assert toy("source", *PURE).status == toy("alone").status == 0
    own, expected = ("--pretrained", str(tmp_path / "source" / "train")), outcome(tmp_path / "alone")
    whole = toy("whole", *own)
    assert whole.status == 0 and not differing(outcome(tmp_path / "whole"), expected)
    halves = 0
    for at in range(8, whole.calls // 2, 4):
        assert toy(str(at), *own, at=at).status == -signal.SIGKILL
        if [path.name for path in (tmp_path / str(at)).glob("train/checkpoints/step-*")] == ["step-000000007"]:
            halves += 1
            ended = toy(str(at))
            assert ended.status == 2 and "copying --pretrained was interrupted; give it once more" in ended.err
        assert toy(str(at), *own).status == 0
        assert not differing(outcome(tmp_path / str(at)), expected), at
        shutil.rmtree(tmp_path / str(at))
    assert halves > 1


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    assert run(folder, *PURE) == 0
    return folder


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--g_pretrain_lr", "0.5"], "--g_pretrain_lr 0.01, not 0.5"),
        (["--seed", "2"], "--seed 1, not 2"),
        (["--pretrain_g_epochs", "5"], "--pretrain_g_epochs 4, not 5"),
        (["--eval_samples", "18"], "--eval_samples 16, not 18"),
    ],
)
def test_another_pretraining_is_refused(source, tmp_path, capsys, more, why):
    assert run(tmp_path / "run", "--pretrained", str(source / "train"), *more) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("main.py: error: --pretrained") and why in error, error
    assert not (tmp_path / "run").exists()


def test_evaluations_at_other_epochs_are_no_other_pretraining(source, tmp_path):
    """The curve of pretraining has its points where the other run has evaluated."""
    folder = tmp_path / "run"
    assert run(folder, "--pretrained", str(source / "train"), "--eval_every", "3", "--total_epochs", "4") == 0
    points = [(row["phase"], row["epoch"]) for row in timeless_rows(folder / "eval")]
    assert points == [("pretrain_g", n) for n in "0123"] + [("adversarial", n) for n in "467"]


def test_evaluations_are_this_runs_own(source, tmp_path, capsys):
    """Not those of a run that has taken their place, nor what the run has in --log_dir, whose name may be the same."""
    train_dir, eval_dir = tmp_path / "train" / "x", tmp_path / "eval" / "x"
    shutil.copytree(source / "train", train_dir)
    content = json.loads((train_dir / "config.json").read_text())
    content["flags"] |= {"log_dir": str(train_dir), "eval_log_dir": str(eval_dir)}
    (train_dir / "config.json").write_text(json.dumps(content))
    shutil.copytree(source / "eval", eval_dir)
    assert evaluations_of(train_dir) == eval_dir
    shutil.move(tmp_path / "train", tmp_path / "moved" / "train")
    assert evaluations_of(tmp_path / "moved" / "train" / "x") == eval_dir  # where they stayed
    shutil.move(tmp_path / "eval", tmp_path / "moved" / "eval")
    assert evaluations_of(tmp_path / "moved" / "train" / "x") == tmp_path / "moved" / "eval" / "x"
    other = tmp_path / "moved" / "eval" / "x" / "config.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"run": "another"}))
    assert run(tmp_path / "run", "--pretrained", str(tmp_path / "moved" / "train" / "x")) == 2
    assert "no evaluations of this run, neither in" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_is_missing_is_named(source, tmp_path, capsys):
    def refused(directory: Path, why: str) -> None:
        assert run(tmp_path / "run", "--pretrained", str(directory)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--pretrained" in error and why in error, error
        assert not (tmp_path / "run").exists()

    refused(tmp_path / "nowhere", "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    path = copy / "train" / "metrics.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    refused(copy / "train", f"{path}: rows or line ends changed")
    path.unlink()
    refused(copy / "train", "no metrics.csv")
    shutil.rmtree(copy / "train" / "checkpoints")
    refused(copy / "train", "no checkpoint")
