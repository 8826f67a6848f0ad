"""--pretrained: a run that starts from another's pretraining is the run that pretrained by itself."""

import csv
import shutil
from pathlib import Path

import pytest
from conftest import TINY, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model import SeqGAN
from runs.checkpoints import Checkpoints

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


def test_as_if_it_had_pretrained_by_itself(tmp_path):
    assert run(tmp_path / "source", "--total_epochs", "0") == 0
    assert run(tmp_path / "alone", "--g_lr", "0.02") == 0
    started = ("--g_lr", "0.02", "--pretrained", str(tmp_path / "source" / "train"))
    assert run(tmp_path / "started", *started) == 0
    for kind in ("train", "eval"):
        assert rows(tmp_path / "started" / kind) == rows(tmp_path / "alone" / kind)
        assert curves(tmp_path / "started" / kind) == curves(tmp_path / "alone" / kind)
    assert weights(tmp_path / "started" / "train") == weights(tmp_path / "alone" / "train")
    shutil.rmtree(tmp_path / "source")  # it is needed no more
    assert run(tmp_path / "started", *started, "--total_epochs", "4") == 0
    assert len(rows(tmp_path / "started" / "train")) == 4 + 2 + 4


def test_of_a_run_that_went_on_was_moved_and_is_on_text(tmp_path):
    """With a discriminator of another size, an average, and the best checkpoint of pretraining."""
    (tmp_path / "lines.txt").write_text(LINES)
    flags = ("--data_dir", str(tmp_path / "lines.txt"), "--average", "0.5", "--g_pretrain_lr", "0.5")
    assert run(tmp_path / "source", *flags, "--d_emb_dim", "2", "--keep_checkpoints", "1", tiny=TEXT) == 0
    shutil.move(tmp_path / "source", tmp_path / "moved")
    pretrained = ("--pretrained", str(tmp_path / "moved" / "train"))
    best = Checkpoints(
        tmp_path / "moved" / "train" / "checkpoints", SeqGAN.restored(tmp_path / "moved" / "train").checkpoint(), 1
    )
    _, details = best.look("pretrained")
    missing = not (tmp_path / "moved" / "train" / "checkpoints" / f"step-{details['best']['step']:09d}").exists()
    assert run(tmp_path / "started", *flags, *pretrained, tiny=TEXT) == (2 if missing else 0)
    if missing:  # a better one has replaced it since
        assert not (tmp_path / "started").exists()
        return
    assert run(tmp_path / "alone", *flags, tiny=TEXT) == 0
    assert rows(tmp_path / "started" / "eval") == rows(tmp_path / "alone" / "eval")
    for which in ("newest", "best", "pretrained"):
        assert weights(tmp_path / "started" / "train", which) == weights(tmp_path / "alone" / "train", which)


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
