"""Checkpoints that are whole or absent: a directory each, renamed into place, with a manifest of checksums."""

import contextlib
import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from runs.directories import MANIFEST, PRETRAINED, STEP, checkpoints_in, fsync, naming, read_manifest, sha256_of
from support.errors import UsageError, first_line

WEIGHTS = "weights"
MARKS = "marks"  # in a checkpoint's details: {mark: step} of those that are kept besides the newest
BEST = "best"  # the mark of the least NLL on the validation set
WITHOUT = {  # the marks, and what a run lacks that has not got one
    BEST: "that takes evaluations on a valid split",
    PRETRAINED: "that takes a generator that was pretrained, to the end",
}
LOADING = (OSError, ValueError, KeyError, TypeError, AssertionError, tf.errors.OpError)  # what a damaged one raises
LEFT_BY_US = re.compile(rf"(damaged-)?{STEP.pattern}|partial")


@contextlib.contextmanager
def without_pattern(path: Path) -> Iterator[Path]:
    """A name of a directory that TensorFlow reads, UTF-8 and no pattern of names: its own, or that of a link."""
    if not re.search(r"[\[\\\udc80-\udcff]", str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "checkpoint")
        link.symlink_to(path.resolve())
        yield link


class Checkpoints:
    """The newest checkpoints of a run, under `directory`, and marked ones.

    A checkpoint is written to a directory of another name, flushed to disk and renamed, so that a kill or a power cut
    at any moment leaves either all of it or none. `tf.train.CheckpointManager` writes in place and can't promise that.
    """

    def __init__(self, directory: str | Path, state: tf.train.Checkpoint, keep: int = 3, whole: bool = True):
        """Keeps the newest `keep` checkpoints of `state`; `save` and `restore` are for one process at a time.

        Where not `whole`, `state` is a part of what was saved.
        """
        self.directory, self.state, self.keep, self.whole = Path(directory), state, keep, whole
        self.newest: Path | None = None  # the last one saved or restored

    def save(self, step: int, details: dict[str, Any]) -> Path:
        """Writes the state after `step` steps, and `details` (what JSON can hold) with it; returns its directory.

        The state is a function of the step: where that checkpoint is the newest already, nothing is written. Besides
        the newest ones those are kept whose steps `details` has under MARKS: {mark: step}. Raises OSError: it could not
        be written; earlier checkpoints are as they were.
        """
        final = self._path(step)
        if final == self.newest:
            return final
        if not self.directory.exists():
            self.directory.mkdir(parents=True)
            fsync(self.directory.parent)
        partial = self.directory / "partial"
        remove(partial)
        try:
            self._write(partial, step, details)
            os.rename(partial, final)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # the disk may be full
            raise
        fsync(self.directory)
        self.newest = final
        marked = {self._path(kept) for kept in details.get(MARKS, {}).values()}
        for old in checkpoints_in(self.directory)[: -self.keep]:
            if old not in marked:
                self._discard(old)
        return final

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:09d}"

    def _discard(self, path: Path) -> None:
        """Removes a checkpoint, which disappears at one stroke: half of one would pass for damaged."""
        partial = self.directory / "partial"
        remove(partial)
        if path != partial:
            remove(path.rename(partial))

    def _write(self, directory: Path, step: int, details: dict[str, Any]) -> None:
        directory.mkdir()
        try:
            self.state.write(str(directory / WEIGHTS))
        except tf.errors.OpError as error:
            words = first_line(error).rpartition("; ")[2].partition(" [Op:")[0]  # without TensorFlow's own names
            raise OSError(errno.EIO, words, str(directory)) from None
        sums = {path.name: sha256_of(path.read_bytes()) for path in sorted(directory.iterdir())}
        content = json.dumps({"step": step, "sha256": sums, "details": details})
        with naming(directory):
            (directory / MANIFEST).write_text(f"{sha256_of(content.encode())}\n{content}", encoding="utf-8")
        for path in directory.iterdir():
            fsync(path)
        fsync(directory)

    def restore(self, tidy: bool = True) -> tuple[int, dict[str, Any]] | None:
        """Loads the newest good checkpoint; each bad one that is passed over is named in a warning on stderr.

        Those are renamed, to damaged-..., so that nothing later takes them for the newest. Without `tidy` nothing
        is written, and another process may be saving meanwhile. Returns (steps taken, details), or None where there is
        no checkpoint at all. Raises UsageError: there are checkpoints and none is good. Raises OSError: renaming fails.
        """
        damaged = []
        for path in reversed(checkpoints_in(self.directory)):
            try:
                step, details = self._load(path)
            except LOADING as error:
                if not tidy and not os.path.lexists(path):  # the run under way has removed it, having saved a newer one
                    return self.restore(tidy)
                print(f"warning: {path}: damaged checkpoint passed over ({first_line(error)})", file=sys.stderr)
                damaged.append(path)
                continue
            for bad in damaged if tidy else ():
                aside = bad.with_name(f"damaged-{bad.name}")
                remove(aside)
                bad.rename(aside)
                fsync(self.directory)
            self.newest = path
            return step, details
        if damaged:
            raise UsageError(f"{self.directory}: all {len(damaged)} checkpoints are damaged; --overwrite starts afresh")
        return None

    def look(self, which: str | int) -> tuple[int, dict[str, Any]] | None:
        """Loads the `newest` good checkpoint, a marked one, or that of a step; another process may be saving meanwhile.

        Returns (steps taken, details), or None where there is no checkpoint at all. Raises UsageError: there are some,
        and not that one, or it is damaged.
        """
        while found := self.restore(tidy=False):
            if which == "newest" or found[0] == which:
                return found
            step = which if isinstance(which, int) else found[1].get(MARKS, {}).get(which)
            if step is None:
                raise UsageError(f"{self.directory}: none is marked {which}: {WITHOUT[str(which)]}")
            path = self._path(step)
            try:
                return self._load(path)
            except LOADING as error:
                if which == step and not path.exists():
                    steps = ", ".join(str(int(other.name[5:])) for other in checkpoints_in(self.directory))
                    raise UsageError(f"{self.directory}: none of step {which}; there are {steps}") from None
                if path.exists() or self.restore(tidy=False) == found:  # else a better one has replaced it meanwhile
                    raise UsageError(f"{path}: damaged ({first_line(error)})") from None
        return None

    def _load(self, path: Path) -> tuple[int, dict[str, Any]]:
        manifest = read_manifest(path)
        for name, recorded in manifest["sha256"].items():
            if sha256_of((path / Path(name).name).read_bytes()) != recorded:
                raise ValueError(f"{name} differs from its checksum")
        if path != self._path(manifest["step"]):
            raise ValueError("the manifest is another checkpoint's")
        with without_pattern(path) as readable:
            read = self.state.read(str(readable / WEIGHTS))
            if self.whole:
                read.assert_consumed()
            else:
                read.expect_partial().assert_existing_objects_matched()
        return manifest["step"], manifest["details"]

    def remove_all(self) -> None:
        """Removes the checkpoints, oldest first, and nothing else. Raises OSError: one can't be removed."""
        if self.directory.is_dir():
            for path in sorted(self.directory.iterdir()):
                if LEFT_BY_US.fullmatch(path.name):
                    self._discard(path)
        self.newest = None


def remove(path: Path) -> None:
    """Removes a directory with its content, or a file; one that is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
