"""runs/checkpoints.py and runs/logs.py by themselves; tests/test_resume.py has whole runs."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from runs.checkpoints import MANIFEST, MARKS, WITHOUT, Checkpoints
from runs.directories import METRICS, spare, write_whole
from runs.logs import RunLog, means
from support.config_file import CONFIG
from support.errors import UsageError


class Counter:
    """A state of one number, and its checkpoints."""

    def __init__(self, folder: Path, keep: int = 2, kind: type[Checkpoints] = Checkpoints):
        self.number = tf.Variable(0)
        self.checkpoints = kind(folder, tf.train.Checkpoint(number=self.number), keep)

    def save(self, *steps: int, **marks: int) -> Path:
        for step in steps:
            self.number.assign(step)
            path = self.checkpoints.save(step, {"step": step} | ({MARKS: marks} if marks else {}))
        return path


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in sorted(folder.iterdir())]


def found(folder: Path, which: str | int) -> int:
    """The number that a new process finds in a checkpoint."""
    again = Counter(folder)
    assert again.checkpoints.look(which)
    return int(again.number.numpy())


def damage(checkpoint: Path) -> None:
    (checkpoint / "weights.index").write_bytes(b"")


@pytest.mark.parametrize("name", ["plain", "a[b]c", "a\\d"])
def test_what_is_saved_is_restored(tmp_path, monkeypatch, name):
    if name == "plain":  # needs no temporary folder, which a full disk refuses
        monkeypatch.setattr(tempfile, "TemporaryDirectory", None)
    folder = tmp_path / name
    assert Counter(tmp_path / "none").checkpoints.restore() is None
    Counter(folder).save(7)
    again = Counter(folder)
    assert again.checkpoints.restore() == (7, {"step": 7})
    assert again.number.numpy() == 7 and again.checkpoints.newest == folder / "step-000000007"


def test_the_newest_and_the_marked_ones_are_kept(tmp_path):
    counter = Counter(tmp_path, keep=2)
    counter.save(1, 20, 3000)
    assert steps(tmp_path) == [20, 3000]
    counter.save(3001, 3002, 3003, 3004, pretrained=20, best=3001)
    assert steps(tmp_path) == [20, 3001, 3003, 3004]
    assert [found(tmp_path, mark) for mark in ("pretrained", "best")] == [20, 3001]
    counter.save(3005, pretrained=20, best=3005)  # what is no longer marked goes
    assert steps(tmp_path) == [20, 3004, 3005]


def test_a_checkpoint_is_looked_up(tmp_path):
    counter = Counter(tmp_path, keep=2)
    assert not counter.checkpoints.look("newest") and not counter.checkpoints.look("best")
    counter.save(1)
    for mark in WITHOUT:
        with pytest.raises(UsageError, match=f"none is marked {mark}: that takes"):
            counter.checkpoints.look(mark)
    counter.save(10, 20, 30, best=10)
    assert [found(tmp_path, which) for which in ("best", 20, "newest", 30, 10)] == [10, 20, 30, 30, 10]
    with pytest.raises(UsageError, match="none of step 40; there are 10, 20, 30"):
        counter.checkpoints.look(40)
    damage(tmp_path / "step-000000010")
    for which in ("best", 10):
        with pytest.raises(UsageError, match="step-000000010: damaged"):
            counter.checkpoints.look(which)
    assert steps(tmp_path) == [10, 20, 30]  # nothing was touched
    shutil.rmtree(tmp_path / "step-000000010")
    with pytest.raises(UsageError, match="step-000000010: damaged"):
        counter.checkpoints.look("best")


def test_the_best_is_replaced_while_it_is_looked_up(tmp_path):
    counter = Counter(tmp_path, keep=1)

    class Late(Checkpoints):
        def _load(self, path):
            if path.name == "step-000000001" and path.exists():
                counter.save(3, best=3)
            return super()._load(path)

    reader = Counter(tmp_path, kind=Late)
    counter.save(1, 2, best=1)
    assert reader.checkpoints.look("best") and reader.number.numpy() == 3


def test_the_marks_of_a_damaged_checkpoint_are_not_asked(tmp_path, capsys):
    counter = Counter(tmp_path, keep=3)
    counter.save(1, 2, 3, pretrained=1)
    (tmp_path / "step-000000003" / MANIFEST).write_text("nonsense")
    assert counter.checkpoints.look("pretrained") and counter.number.numpy() == 1
    assert steps(tmp_path) == [1, 2, 3]  # nothing is written


def test_a_second_save_of_a_step_touches_nothing(tmp_path):
    """To write it anew would mean a moment without it, and with keep=1 without any."""
    counter = Counter(tmp_path, keep=1)
    inode = counter.save(5).stat().st_ino
    assert counter.save(5).stat().st_ino == inode
    again = Counter(tmp_path, keep=1)
    again.checkpoints.restore()
    assert again.save(5).stat().st_ino == inode


def test_a_damaged_checkpoint_does_not_outlive_good_ones(tmp_path, capsys):
    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    Counter(tmp_path, keep=2).save(100, 200)
    damage(tmp_path / "step-000000200")
    again = Counter(tmp_path, keep=1)
    assert again.checkpoints.restore()[0] == 100 and str(tmp_path / "step-000000200") in capsys.readouterr().err
    again.save(150)
    assert names() == ["damaged-step-000000200", "step-000000150"]
    last = Counter(tmp_path, keep=1)
    assert last.checkpoints.restore()[0] == 150 and capsys.readouterr().err == ""
    last.save(200)
    damage(tmp_path / "step-000000200")
    Counter(tmp_path).save(170)
    assert Counter(tmp_path).checkpoints.restore()[0] == 170  # where one is set aside already
    assert names() == ["damaged-step-000000200", "step-000000170"]


def test_links_to_nowhere_and_manifests_that_agree_with_themselves_but_not_with_their_place(tmp_path, capsys):
    Counter(tmp_path).save(1)
    (tmp_path / "step-000000007").symlink_to("nowhere")
    for tidy in (False, True):
        assert Counter(tmp_path).checkpoints.restore(tidy)[0] == 1
        assert "step-000000007: damaged checkpoint passed over" in capsys.readouterr().err
    shutil.copytree(tmp_path / "step-000000001", tmp_path / "step-000000002")
    content = json.dumps({"step": 3, "sha256": {"../../etc/passwd": "0"}, "details": {}})
    forged = tmp_path / "step-000000003"
    forged.mkdir()
    (forged / MANIFEST).write_text(f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}")
    assert Counter(tmp_path).checkpoints.restore()[0] == 1
    warnings = capsys.readouterr().err
    assert "another checkpoint's" in warnings and str(forged / "passwd") in warnings  # no way out of the folder


@pytest.mark.parametrize("what", ["a manifest beyond its bound", "other variables"])
def test_what_cannot_be_read_is_damaged(tmp_path, capsys, what):
    counter = Counter(tmp_path)
    if what == "other variables":
        counter.save(1)
        other = tf.train.Checkpoint(number=tf.Variable([0.0, 1.0]), more=tf.Variable(1))
        counter.checkpoints = Checkpoints(tmp_path, other, 1)
    else:
        counter.checkpoints.save(1, {"long": "x" * 2**24})
    with pytest.raises(UsageError, match="all 1 checkpoints are damaged"):
        counter.checkpoints.restore()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind", [tf.errors.ResourceExhaustedError, tf.errors.UnknownError])
def test_a_writer_that_fails_leaves_the_earlier_ones_and_frees_its_space(tmp_path, kind):
    class Failing:
        def write(self, path: str) -> None:
            Path(path + ".data").write_bytes(bytes(1000))
            raise kind(None, None, "{{node}} a; No space left on device [Op:SaveV2]\nmore")

    counter = Counter(tmp_path)
    counter.save(1)
    counter.checkpoints.state = Failing()
    with pytest.raises(OSError, match="No space left on device") as failed:
        counter.save(2)
    assert failed.value.strerror == "No space left on device" and "\n" not in str(failed.value)
    assert steps(tmp_path) == [1] and counter.checkpoints.newest.name == "step-000000001"


def test_all_are_removed_and_nothing_else(tmp_path):
    counter = Counter(tmp_path)
    counter.save(1)
    for name in ("partial", "damaged-step-000000009"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-by-step.txt").write_text("mine")
    counter.checkpoints.remove_all()
    assert [path.name for path in tmp_path.iterdir()] == ["step-by-step.txt"] and not counter.checkpoints.restore()


def log_of(folder: Path, position: dict | None = None, columns: tuple[str, ...] = ("a",)) -> RunLog:
    return RunLog(folder, columns, position or {}, "g", lambda name: "")


def events(folder: Path) -> list[tuple[str, int]]:
    """(tag, step) of each record in the only event file."""
    (path,) = folder.glob("*.tfevents.*.seqgan")
    return [(value.tag, event.step) for event in EventFileLoader(str(path)).Load() for value in event.summary.value]


def test_a_log_reopened_at_a_position_forgets_what_followed(tmp_path, capsys):
    """Rows can be read while the run goes on; figures that they have no column for are named."""
    log = log_of(tmp_path)
    log.row(0, "p", means([{"a": 1.75}, {"a": 0.25}, {}]))
    assert "0,p,1.0" in (tmp_path / METRICS).read_text() and events(tmp_path) == [("g/a", 0)]
    position = log.position()
    for epoch in (1, 2):
        log.row(epoch, "p", {"a": 0.5})
        log.histogram(epoch, "h", np.arange(3))
    log.close()
    log = log_of(tmp_path, position, ("a", "b", "b_se"))
    assert f"{tmp_path / METRICS}: has no column for b, which" in capsys.readouterr().err
    log.row(1, "p", {"a": 0.1})
    log.close()
    assert (tmp_path / METRICS).read_text() == "epoch,phase,a\n0,p,1.0\n1,p,0.1\n"
    assert events(tmp_path) == [("g/a", 0), ("g/a", 1)]
    other = tmp_path / "events.out.tfevents.0.other"
    other.write_bytes(b"x")
    log = log_of(tmp_path)  # without a position it begins anew
    assert other.name not in log.position()
    log.close()
    assert (tmp_path / METRICS).read_text() == "epoch,phase,a\n" and events(tmp_path) == []
    assert other.read_bytes() == b"x"  # another program's


def test_a_copied_log_still_describes_what_it_leaves_out(tmp_path):
    described: list[str] = []
    (other := tmp_path / "other").mkdir()
    log = log_of(tmp_path, columns=("a", "b"))
    log.row(0, "p", {"a": 1.0, "b": 2.0})
    copy = RunLog(other, ("a", "b"), {}, "g", lambda name: described.append(name) or "")
    copy.copy(tmp_path, log.position(), ["b"])
    copy.row(1, "p", {"a": 1.0, "b": 2.0})
    for each in (log, copy):
        each.close()
    assert described == ["b"] and events(other) == [("g/a", 0), ("g/a", 1), ("g/b", 1)]


def test_a_full_disk_is_an_error_that_names_the_directory(tmp_path):
    log = log_of(tmp_path)
    log.close()
    log._event_file = open("/dev/full", "ab")
    log._events = type(log._events)(log._event_file)
    with pytest.raises(OSError, match="No space left on device") as failed:
        log.histogram(0, "h", np.arange(10))
        log.flush()
    assert failed.value.filename == str(tmp_path)
    log.close()  # without another error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_is_written_to_and_so_is_what_a_link_names(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for content in ("of the link", "another"):
        write_whole(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == content
    (tmp_path / CONFIG).touch()
    (tmp_path / "other").symlink_to(tmp_path / METRICS)
    with pytest.raises(UsageError, match="other: a run's own file"):
        spare(tmp_path / "other")
    with pytest.raises(OSError, match="No such file") as failed:
        write_whole(tmp_path / "none" / "x", "content")
    assert failed.value.filename == str(tmp_path / "none" / "x")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "content")
    assert os.read(reader, 99) == b"content" and (tmp_path / "pipe").is_fifo()
    os.close(reader)
