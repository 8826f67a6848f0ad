"""A run's directories: locked while it runs, claimed by its configuration, and written so as to survive a crash."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.config import Config, UsageError

CHECKPOINTS, CONFIG, METRICS = "checkpoints", "config.json", "metrics.csv"
FREE_TO_CHANGE = {"preset", "is_train", "checkpoint_every", "keep_checkpoints", "overwrite", "debug"}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an OSError that names no file, as those of writing to an open one, the name `path`."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def fsync(path: Path) -> None:
    """Waits until a file's content, or a directory's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all: beside it, to disk, then renamed."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    fsync(partial)
    os.replace(partial, path)
    fsync(path.parent)


def record_files(directory: Path) -> list[Path]:
    """metrics.csv and the event files of a directory."""
    return sorted(path for path in directory.iterdir() if path.name == METRICS or ".tfevents." in path.name)


class RunDirectory:
    """A directory that one run, and one process at a time, may write to."""

    def __init__(self, path: str, flag: str):
        """Makes the directory where it is missing and locks it until this process ends, however it ends.

        Args:
            path: the directory.
            flag: the flag that named it, for messages.

        Raises:
            UsageError: it can't be written, or another process holds it.
        """
        self.path, self.flag = Path(path), flag
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "lock", "a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{flag} {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError(f"{flag} {path}: another process is training there") from None

    def claim(self, config: Config, described: dict[str, Any]) -> bool:
        """Makes sure that the directory is this configuration's.

        Args:
            config: the run's flags; --overwrite removes an earlier run's files first.
            described: what becomes config.json.

        Returns:
            whether it already was, so that there may be something to resume.

        Raises:
            UsageError: it holds another configuration's run, or files of an unknown one.
        """
        written = self.path / CONFIG
        if config.overwrite:
            self._wipe()
        if not written.exists():
            if record_files(self.path) or (self.path / CHECKPOINTS).exists():
                raise UsageError(f"{self.flag} {self.path}: holds records of an unknown run; --overwrite removes them")
            write_whole(written, json.dumps(described, indent=2) + "\n")
            return False
        differing = differences(written, config)
        if differing:
            raise UsageError(
                f"{self.flag} {self.path}: holds a run with other values of {', '.join(differing)}; "
                "choose another directory, or --overwrite"
            )
        write_whole(written, json.dumps(described, indent=2) + "\n")  # total_epochs may have grown
        return True

    def _wipe(self) -> None:
        # config.json goes last: a run killed in between is still known by it.
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
        for path in [*record_files(self.path), self.path / CONFIG]:
            path.unlink(missing_ok=True)

    def release(self) -> None:
        """Lets the next process in."""
        self._lock.close()


def differences(written: Path, config: Config) -> list[str]:
    """The flags whose values in a config.json differ from `config`; more --total_epochs than before are no difference.

    Raises:
        UsageError: the file can't be read.
    """
    try:
        before = json.loads(written.read_text(encoding="utf-8"))["flags"]
        now = json.loads(json.dumps(dataclasses.asdict(config)))
        changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        grown = before["total_epochs"] <= now["total_epochs"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{written}: not a readable configuration; --overwrite starts afresh") from None
    return [f"--{name}" for name in changed if name not in FREE_TO_CHANGE and not (name == "total_epochs" and grown)]
