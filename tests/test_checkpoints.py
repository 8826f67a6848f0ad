import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from runs import manifest
from runs.checkpoints import MANIFEST, MARKS, WITHOUT, Checkpoints
from runs.directories import METRICS
from runs.logs import RunLog
from support.config import UsageError


class Counter:
    """A state of one number, and its checkpoints."""

    def __init__(self, folder: Path, keep: int = 2):
        self.number = tf.Variable(0)
        self.checkpoints = Checkpoints(folder, tf.train.Checkpoint(number=self.number), keep)

    def save(self, step: int, **marks: int) -> Path:
        self.number.assign(step)
        return self.checkpoints.save(step, {"step": step} | ({MARKS: marks} if marks else {}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(checkpoint: Path) -> None:
    (checkpoint / "weights.index").write_bytes(b"")


def test_what_is_saved_is_restored(tmp_path):
    assert Counter(tmp_path / "none").checkpoints.restore() is None
    Counter(tmp_path).save(7)
    again = Counter(tmp_path)
    assert again.checkpoints.restore() == (7, {"step": 7})
    assert again.number.numpy() == 7 and again.checkpoints.newest == tmp_path / "step-000000007"


def test_the_newest_are_kept(tmp_path):
    counter = Counter(tmp_path, keep=2)
    for step in (1, 20, 3000):
        counter.save(step)
    assert names(tmp_path) == ["step-000000020", "step-000003000"]


def test_the_best_is_kept_besides_the_newest(tmp_path):
    counter = Counter(tmp_path, keep=2)
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 1)):
        counter.save(step, best=best)
    assert names(tmp_path) == [f"step-{step:09d}" for step in (1, 3, 4)]
    counter.save(5, best=5)
    assert names(tmp_path) == [f"step-{step:09d}" for step in (4, 5)]
    counter.save(6, best=5)
    counter.save(7, best=5)
    counter.save(8, best=5)
    assert names(tmp_path) == [f"step-{step:09d}" for step in (5, 7, 8)]


def test_a_checkpoint_is_looked_up(tmp_path):
    counter = Counter(tmp_path, keep=2)
    assert not counter.checkpoints.look("newest") and not counter.checkpoints.look("best")
    for step in (10, 20, 30):
        counter.save(step, best=10)
    for which, step in (("best", 10), (20, 20), ("newest", 30), (30, 30), (10, 10)):
        again = Counter(tmp_path)
        assert again.checkpoints.look(which) and again.number.numpy() == step
    with pytest.raises(UsageError, match="none of step 40; there are 10, 20, 30"):
        counter.checkpoints.look(40)
    damage(tmp_path / "step-000000010")
    for which in ("best", 10):
        with pytest.raises(UsageError, match="step-000000010: damaged"):
            counter.checkpoints.look(which)
    assert names(tmp_path) == [f"step-{step:09d}" for step in (10, 20, 30)]  # nothing was touched
    counter.save(40)
    with pytest.raises(UsageError, match="none is marked best"):
        counter.checkpoints.look("best")


def test_the_best_is_replaced_while_it_is_looked_up(tmp_path, monkeypatch):
    counter, reader = Counter(tmp_path, keep=1), Counter(tmp_path)
    counter.save(1, best=1)
    counter.save(2, best=1)
    load = Checkpoints._load

    def late(self, path):
        if self is reader.checkpoints and path.name == "step-000000001" and path.exists():
            counter.save(3, best=3)
        return load(self, path)

    monkeypatch.setattr(Checkpoints, "_load", late)
    assert reader.checkpoints.look("best") and reader.number.numpy() == 3


def test_marked_ones_are_kept_besides(tmp_path):
    counter = Counter(tmp_path, keep=2)
    for step in (1, 2):
        counter.save(step)
    for step in (3, 4, 5, 6):
        counter.save(step, pretrained=2, best=min(step, 4))
    assert names(tmp_path) == [f"step-00000000{step}" for step in (2, 4, 5, 6)]
    for mark, step in (("pretrained", 2), ("best", 4)):
        again = Counter(tmp_path)
        assert again.checkpoints.look(mark) and again.number.numpy() == step
    counter.save(7, pretrained=2, best=6)  # what is no longer marked goes
    assert names(tmp_path) == [f"step-00000000{step}" for step in (2, 6, 7)]
    counter.checkpoints.remove_all()
    assert names(tmp_path) == []


def test_a_marked_one_that_cannot_be_had(tmp_path):
    counter = Counter(tmp_path, keep=1)
    counter.save(1)
    for mark in WITHOUT:
        with pytest.raises(UsageError, match=f"none is marked {mark}: that takes"):
            counter.checkpoints.look(mark)
    counter.save(2, pretrained=1)
    shutil.rmtree(tmp_path / "step-000000001")
    with pytest.raises(UsageError, match="step-000000001: damaged"):
        counter.checkpoints.look("pretrained")


def test_the_marks_of_a_damaged_checkpoint_are_not_asked(tmp_path, capsys):
    counter = Counter(tmp_path, keep=3)
    for step in (1, 2, 3):
        counter.save(step, pretrained=1)
    (tmp_path / "step-000000003" / MANIFEST).write_text("nonsense")
    assert counter.checkpoints.look("pretrained") and counter.number.numpy() == 1
    assert names(tmp_path) == [f"step-00000000{step}" for step in (1, 2, 3)]  # nothing is written


def test_a_second_save_of_a_step_touches_nothing(tmp_path):
    """To write it anew would mean a moment without it, and with keep=1 without any."""
    counter = Counter(tmp_path, keep=1)
    inode = counter.save(5).stat().st_ino
    assert counter.save(5).stat().st_ino == inode
    again = Counter(tmp_path, keep=1)
    again.checkpoints.restore()
    assert again.save(5).stat().st_ino == inode


def test_a_damaged_checkpoint_does_not_outlive_good_ones(tmp_path, capsys):
    counter = Counter(tmp_path, keep=2)
    for step in (100, 200):
        counter.save(step)
    damage(tmp_path / "step-000000200")
    again = Counter(tmp_path, keep=1)
    assert again.checkpoints.restore()[0] == 100
    assert str(tmp_path / "step-000000200") in capsys.readouterr().err
    again.save(150)
    assert names(tmp_path) == ["damaged-step-000000200", "step-000000150"]
    last = Counter(tmp_path, keep=1)
    assert last.checkpoints.restore()[0] == 150 and capsys.readouterr().err == ""
    last.save(200)
    damage(tmp_path / "step-000000200")
    Counter(tmp_path).save(170)
    assert Counter(tmp_path).checkpoints.restore()[0] == 170  # where one is set aside already
    assert names(tmp_path) == ["damaged-step-000000200", "step-000000170"]


def test_a_link_to_nowhere_is_a_damaged_checkpoint(tmp_path, capsys):
    counter = Counter(tmp_path)
    counter.save(5)
    (tmp_path / "step-000000007").symlink_to("nowhere")
    for tidy in (False, True):
        assert Counter(tmp_path).checkpoints.restore(tidy)[0] == 5
        assert "step-000000007: damaged checkpoint passed over" in capsys.readouterr().err


def test_a_manifest_that_agrees_with_itself_but_not_with_its_place(tmp_path, capsys):
    Counter(tmp_path).save(1)
    shutil.copytree(tmp_path / "step-000000001", tmp_path / "step-000000002")
    content = json.dumps({"step": 3, "sha256": {"../../etc/passwd": "0"}, "details": {}})
    forged = tmp_path / "step-000000003"
    forged.mkdir()
    (forged / MANIFEST).write_text(f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}")
    assert Counter(tmp_path).checkpoints.restore()[0] == 1
    warnings = capsys.readouterr().err
    assert "another checkpoint's" in warnings and str(forged / "passwd") in warnings  # no way out of the folder


def test_a_manifest_is_read_up_to_a_bound(tmp_path, capsys, monkeypatch):
    Counter(tmp_path).save(1)
    monkeypatch.setattr(manifest, "MAX_MANIFEST", 100)
    with pytest.raises(UsageError, match="all 1 checkpoints are damaged"):
        Counter(tmp_path).checkpoints.restore()


def test_a_checkpoint_of_other_variables(tmp_path, capsys):
    Counter(tmp_path).save(1)
    other = tf.train.Checkpoint(number=tf.Variable([0.0, 1.0]), more=tf.Variable(1))
    with pytest.raises(UsageError, match="damaged"):
        Checkpoints(tmp_path, other, 1).restore()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind", [tf.errors.ResourceExhaustedError, tf.errors.UnknownError])
def test_a_writer_that_fails_leaves_the_earlier_ones_and_frees_its_space(tmp_path, monkeypatch, kind):
    counter = Counter(tmp_path)
    counter.save(1)

    def write(self, path):
        Path(path + ".data").write_bytes(bytes(1000))
        raise kind(None, None, "No space left on device\nmore")

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)
    with pytest.raises(OSError, match="No space left on device") as failed:
        counter.save(2)
    assert failed.value.strerror == "No space left on device" and "\n" not in str(failed.value)
    assert names(tmp_path) == ["step-000000001"] and counter.checkpoints.newest.name == "step-000000001"


def test_all_are_removed_and_nothing_else(tmp_path):
    counter = Counter(tmp_path)
    counter.save(1)
    for name in ("partial", "damaged-step-000000009"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-by-step.txt").write_text("mine")
    counter.checkpoints.remove_all()
    assert names(tmp_path) == ["step-by-step.txt"] and counter.checkpoints.restore() is None


# ---- logs


def events(folder: Path) -> list[tuple[str, int]]:
    """(tag, step) of each record in the only event file."""
    (path,) = folder.glob("*.tfevents.*.seqgan")
    return [(value.tag, event.step) for event in EventFileLoader(str(path)).Load() for value in event.summary.value]


def test_a_log_reopened_at_a_position_forgets_what_followed(tmp_path):
    log = RunLog(tmp_path, ("a",), {}, "g")
    log.row(0, "p", {"a": 1.0})
    position = log.position()
    for epoch in (1, 2):
        log.row(epoch, "p", {"a": 0.5})
        log.histogram(epoch, "h", np.arange(3))
    log.close()
    log = RunLog(tmp_path, ("a",), position, "g")
    log.row(1, "p", {"a": 0.1})
    log.close()
    assert (tmp_path / METRICS).read_text() == "epoch,phase,a\n0,p,1.0\n1,p,0.1\n"
    assert events(tmp_path) == [("g/a", 0), ("g/a", 1)]


def test_a_log_opened_without_a_position_begins_anew(tmp_path):
    RunLog(tmp_path, ("a",), {}, "g").row(0, "p", {"a": 1.0})
    other = tmp_path / "events.out.tfevents.0.other"
    other.write_bytes(b"x")
    log = RunLog(tmp_path, ("a",), {}, "g")
    assert other.name not in log.position()
    log.close()
    assert (tmp_path / METRICS).read_text() == "epoch,phase,a\n" and events(tmp_path) == []
    assert other.read_bytes() == b"x"  # another program's


def test_a_log_says_which_figures_it_has_no_column_for(tmp_path, capsys):
    log = RunLog(tmp_path, ("a",), {}, "g")
    log.row(0, "p", {"a": 1.0})
    position = log.position()
    log.close()
    RunLog(tmp_path, ("a", "b", "b_se"), position, "g").close()
    assert f"{tmp_path / METRICS}: has no column for b, which" in capsys.readouterr().err


def test_a_log_cut_short_is_left_as_it_is(tmp_path):
    log = RunLog(tmp_path, ("a",), {}, "g")
    log.row(0, "p", {"a": 1.0})
    position = log.position()
    log.row(1, "p", {"a": 1.0})
    log.close()
    (tmp_path / METRICS).write_text("epoch")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="metrics.csv: missing or cut short"):
        RunLog(tmp_path, ("a",), position, "g")
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_rows_can_be_read_while_the_run_goes_on(tmp_path):
    log = RunLog(tmp_path, ("a",), {}, "g")
    log.row(3, "p", {"a": 1.0})
    assert "3,p,1.0" in (tmp_path / METRICS).read_text() and events(tmp_path) == [("g/a", 3)]
    log.close()


def test_a_full_disk_is_an_error_that_names_the_directory(tmp_path):
    """/dev/full takes nothing."""
    log = RunLog(tmp_path, ("a",), {}, "g")
    log.close()
    log._event_file = open("/dev/full", "ab")
    log._events = type(log._events)(log._event_file)
    with pytest.raises(OSError, match="No space left on device") as failed:
        log.histogram(0, "h", np.arange(10))
        log.flush()
    assert failed.value.filename == str(tmp_path)
    log.close()  # without another error
