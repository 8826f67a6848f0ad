"""--pretrained: a run that starts from another's pretraining is the run that pretrained by itself."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import TINY, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model import SeqGAN
from runs.checkpoints import Checkpoints
from runs.directories import evaluations_of

TEXT = ["--dataset", "text", "--vocab_size", "9", *TINY[: TINY.index("--vocab_size")]]
LINES = "ab\nba\nabc\ncab\nbca\nbb\naab\n" * 3 + "".join(f"{a}{b}{c}\n" for a in "abc" for b in "abc" for c in "abc")


def run(folder: Path, *flags: str, tiny=TINY) -> int:
    logs = ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]
    return train([*tiny, *logs, "--no-jit", "--eval_every", "1", *flags])


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return [{name: v for name, v in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def curves(directory: Path) -> dict[str, list]:
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if "hparams" not in tag and "seconds" not in tag]
    return {
        tag: [(e.step, e.tensor_proto.SerializeToString(deterministic=True)) for e in events.Tensors(tag)]
        for tag in tags
    }


def weights(directory: Path, which: str = "newest") -> list[bytes]:
    model = SeqGAN.restored(directory, which)
    return [w.tobytes() for net in (model.generator, model.discriminator) for w in net.get_weights()]


def test_as_if_it_had_pretrained_by_itself(tmp_path, capsys):
    assert run(tmp_path / "source", "--total_epochs", "0") == 0
    assert run(tmp_path / "alone", "--g_lr", "0.02") == 0
    started = ("--g_lr", "0.02", "--pretrained", str(tmp_path / "source" / "train"))
    assert run(tmp_path / "started", *started) == 0
    for kind in ("train", "eval"):
        assert rows(tmp_path / "started" / kind) == rows(tmp_path / "alone" / kind)
        assert curves(tmp_path / "started" / kind) == curves(tmp_path / "alone" / kind)
    assert weights(tmp_path / "started" / "train") == weights(tmp_path / "alone" / "train")
    before = weights(tmp_path / "started" / "train")  # what can't be used costs nothing
    for directory, why in (
        (tmp_path / "none", "not a readable configuration"),
        (tmp_path / "started" / "train", "is the --log_dir that --overwrite empties"),
    ):
        assert run(tmp_path / "started", "--g_lr", "0.02", "--overwrite", "--pretrained", str(directory)) == 2
        assert why in capsys.readouterr().err and weights(tmp_path / "started" / "train") == before
    assert run(tmp_path / "started", *started, "--overwrite") == 0
    assert weights(tmp_path / "started" / "train") == before
    shutil.rmtree(tmp_path / "source")  # it is needed no more
    assert run(tmp_path / "started", *started, "--total_epochs", "4") == 0
    assert len(rows(tmp_path / "started" / "train")) == 4 + 2 + 4


def test_of_a_run_that_was_moved_and_is_on_text(tmp_path, capsys):
    """With an average, and the best checkpoint of pretraining: still there, or replaced by a better one since."""
    (tmp_path / "lines.txt").write_text(LINES)
    flags = ("--data_dir", str(tmp_path / "lines.txt"), "--average", "0.5", "--g_pretrain_lr", "0.3")
    assert run(tmp_path / "alone", *flags, tiny=TEXT) == 0
    ended = SeqGAN.restored(tmp_path / "alone" / "train", "pretrained")  # the generator takes on its average
    for mine, average in zip(ended.generator.get_weights(), ended.average.get_weights(), strict=True):
        assert (mine == average).all()
    better = shlex.split("--mle_steps 8 --mle_lr 0.03 --total_epochs 8 --keep_checkpoints 1 --d_emb_dim 2")
    for name, more in (("whole", ("--total_epochs", "0")), ("replaced", better)):
        assert run(tmp_path / "source", *flags, *more, tiny=TEXT) == 0
        donor, started = tmp_path / f"moved-{name}" / "train", tmp_path / name
        shutil.move(tmp_path / "source", donor.parent)
        end, best = at_mark(donor, "pretrained")
        assert best["step"] < end  # else it is kept anyway
        assert (donor / "checkpoints" / f"step-{best['step']:09d}").exists() == (name == "whole")
        capsys.readouterr()
        pretrained = (*flags, "--pretrained", str(donor))
        assert run(started, *pretrained, "--total_epochs", "0", tiny=TEXT) == 0
        assert (f"step {best['step']}, was replaced" in capsys.readouterr().err) == (name == "replaced")
        assert at_mark(started / "train", "best")[0] == (best["step"] if name == "whole" else end)
        assert run(started, *pretrained, tiny=TEXT) == 0
        assert rows(started / "eval") == rows(tmp_path / "alone" / "eval")
        for which in ("newest", "pretrained"):
            assert weights(started / "train", which) == weights(tmp_path / "alone" / "train", which)


def test_copying_that_was_interrupted_begins_again(tmp_path, monkeypatch, capsys):
    """The best checkpoint is saved before that of the end, when the logs are whole already."""
    (tmp_path / "lines.txt").write_text(LINES)
    flags = ("--data_dir", str(tmp_path / "lines.txt"), "--g_pretrain_lr", "0.5", "--total_epochs", "0")
    flags += ("--pretrain_g_epochs", "8")
    assert run(tmp_path / "source", *flags, tiny=TEXT) == 0
    end, best = at_mark(tmp_path / "source" / "train", "pretrained")
    assert best["step"] < end
    started = (*flags, "--pretrained", str(tmp_path / "source" / "train"))
    plain = Checkpoints.save

    def full(self, step, details):
        if step == end:
            raise OSError(28, "No space left on device", str(self.directory))
        return plain(self, step, details)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full)
        assert run(tmp_path / "started", *started, tiny=TEXT) == 2
    capsys.readouterr()
    assert run(tmp_path / "started", *flags, tiny=TEXT) == 2
    assert "copying --pretrained was interrupted; give it once more" in capsys.readouterr().err
    assert run(tmp_path / "started", *started, tiny=TEXT) == 0
    for kind in ("train", "eval"):
        assert rows(tmp_path / "started" / kind) == rows(tmp_path / "source" / kind)
        assert curves(tmp_path / "started" / kind) == curves(tmp_path / "source" / kind)
    for which in ("newest", "best"):
        found, theirs = (weights(tmp_path / name / "train", which) for name in ("started", "source"))
        assert found == theirs


def at_mark(directory: Path, which: str) -> tuple[int, dict[str, float]]:
    """The step of a checkpoint, and what it knows of the best one."""
    state = SeqGAN.restored(directory).checkpoint()
    step, details = Checkpoints(directory / "checkpoints", state, 1).look(which)
    return step, details["best"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    assert run(folder, "--total_epochs", "0") == 0
    return folder


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--g_pretrain_lr", "0.5"], "--g_pretrain_lr 0.01, not 0.5"),
        (["--seed", "2"], "--seed 1, not 2"),
        (["--pretrain_g_epochs", "5"], "--pretrain_g_epochs 4, not 5"),
        (["--eval_samples", "18"], "--eval_samples 16, not 18"),
    ],
)
def test_another_pretraining_is_refused(source, tmp_path, capsys, flags, why):
    assert run(tmp_path / "run", "--pretrained", str(source / "train"), *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("main.py: error: --pretrained") and why in error, error
    assert not (tmp_path / "run").exists()


def test_evaluations_at_other_epochs_are_no_other_pretraining(source, tmp_path):
    """The curve of pretraining has its points where the other run has evaluated."""
    folder = tmp_path / "run"
    assert run(folder, "--pretrained", str(source / "train"), "--eval_every", "3", "--total_epochs", "4") == 0
    points = [(row["phase"], row["epoch"]) for row in rows(folder / "eval")]
    assert points == [("pretrain_g", n) for n in "0123"] + [("adversarial", n) for n in "467"]


def test_evaluations_are_this_runs_own(source, tmp_path, capsys):
    """Not those of a run that has taken their place, nor what the run has in --log_dir, whose name may be the same."""
    train_dir, eval_dir = tmp_path / "train" / "x", tmp_path / "eval" / "x"
    shutil.copytree(source / "train", train_dir)
    flags = json.loads((train_dir / "config.json").read_text())
    flags["flags"] |= {"log_dir": str(train_dir), "eval_log_dir": str(eval_dir)}
    (train_dir / "config.json").write_text(json.dumps(flags))
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
