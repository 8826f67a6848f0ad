"""Checkpoints that are whole or absent: a directory each, renamed into place, with a manifest of checksums."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from support.directories import fsync

MANIFEST, WEIGHTS = "manifest.txt", "weights"  # the manifest: its own checksum, then a line of JSON
NAME = re.compile(r"step-\d{9}")  # the number of steps taken


class Checkpoints:
    """The newest checkpoints of a run, under `directory`.

    A checkpoint is written to a directory of another name, flushed to disk and renamed, so that a kill or a power cut
    at any moment leaves either all of it or none. `tf.train.CheckpointManager` writes in place and can't promise that.
    """

    def __init__(self, directory: str | Path, state: tf.train.Checkpoint, keep: int):
        """Keeps the newest `keep` checkpoints of `state`."""
        self.directory, self.state, self.keep = Path(directory), state, keep

    def save(self, step: int, details: dict[str, Any]) -> Path:
        """Writes the state after `step` steps, and `details` (what JSON can hold) with it; returns its directory.

        Raises:
            OSError, tf.errors.OpError: it could not be written; earlier checkpoints are as they were.
        """
        final = self.directory / f"step-{step:09d}"
        partial = self.directory / "partial"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        self.state.write(str(partial / WEIGHTS))
        sums = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        content = json.dumps({"step": step, "sha256": sums, "details": details})
        checksum = hashlib.sha256(content.encode()).hexdigest()
        (partial / MANIFEST).write_text(f"{checksum}\n{content}\n", encoding="utf-8")
        for path in partial.iterdir():
            fsync(path)
        fsync(partial)
        if final.exists():  # a damaged one of the same step, or a second save at it
            shutil.rmtree(final)
        os.rename(partial, final)
        fsync(self.directory)
        for old in self.all()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def all(self) -> list[Path]:
        """The checkpoints' directories, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.iterdir() if NAME.fullmatch(path.name))

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Loads the newest good checkpoint; each bad one that is passed over is named in a warning on stderr.

        Returns:
            (steps taken, details), or None where there is no checkpoint at all.

        Raises:
            ValueError: there are checkpoints and none is good; one line.
        """
        checkpoints = self.all()
        for path in reversed(checkpoints):
            try:
                step, details = self._load(path)
            except (OSError, ValueError, KeyError, TypeError, AssertionError, tf.errors.OpError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                print(f"warning: {path}: damaged checkpoint passed over ({reason})", file=sys.stderr)
            else:
                return step, details
        if checkpoints:
            raise ValueError(f"{self.directory}: all {len(checkpoints)} checkpoints are damaged")
        return None

    def _load(self, path: Path) -> tuple[int, dict[str, Any]]:
        checksum, _, content = (path / MANIFEST).read_text(encoding="utf-8").rstrip("\n").partition("\n")
        if hashlib.sha256(content.encode()).hexdigest() != checksum:
            raise ValueError(f"{MANIFEST} differs from its checksum")
        manifest = json.loads(content)
        for name, recorded in manifest["sha256"].items():
            if sha256(path / Path(name).name) != recorded:
                raise ValueError(f"{name} differs from its checksum")
        if path.name != f"step-{manifest['step']:09d}":
            raise ValueError("the manifest is another checkpoint's")
        self.state.read(str(path / WEIGHTS)).assert_consumed()
        return manifest["step"], manifest["details"]


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
