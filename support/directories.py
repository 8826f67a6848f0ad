"""A run's directories: locked while it runs, claimed by its configuration, and written so as to survive a crash."""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.config import Config, UsageError

CHECKPOINTS, CONFIG, METRICS, VOCABULARY = "checkpoints", "config.json", "metrics.csv", "vocabulary.json"
MAX_CONFIG = 2**20  # characters; one has a few thousand
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
    with naming(partial):
        partial.write_text(text, encoding="utf-8")
    fsync(partial)
    os.replace(partial, path)
    fsync(path.parent)


def record_files(directory: Path) -> list[Path]:
    """metrics.csv and the event files of a directory."""
    return sorted(path for path in directory.iterdir() if path.name == METRICS or ".tfevents." in path.name)


class RunDirectory:
    """A directory that one run, and one process at a time, may write to."""

    def __init__(self, path: str, flag: str, make: bool = True):
        """Locks the directory until `release`, or until this process ends, however it ends.

        Args:
            path: the directory.
            flag: the flag that named it, for messages.
            make: make it where it is missing.

        Raises:
            UsageError: it can't be written, or another process holds it.
        """
        self.path, self.flag = Path(path), flag
        try:
            if make:
                self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "lock", "a", encoding="utf-8")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UsageError(f"{flag} {path}: another process is training there") from None
        except OSError as error:
            raise UsageError(f"{flag} {path}: {error.strerror}") from None

    def recorded_run(self, config: Config) -> str | None:
        """The identifier of the run whose records the directory holds, or None where it holds none.

        Raises:
            UsageError: that run has another configuration, or an unknown one.
        """
        path = self.path / CONFIG
        if not path.exists():
            if record_files(self.path) or any((self.path / CHECKPOINTS).glob("step-*")):
                raise UsageError(f"{self.flag} {self.path}: holds records of an unknown run; --overwrite removes them")
            return None
        content = read_config(path)
        differing = differences(content["flags"], config)
        if differing:
            raise UsageError(
                f"{self.flag} {self.path}: holds a run with other values of {', '.join(differing)}; "
                "choose another directory, or --overwrite"
            )
        return content["run"]

    def describe(self, described: dict[str, Any]) -> None:
        """Writes config.json, where it does not hold just this; from then on the directory is this run's.

        Raises:
            OSError: it can't be written.
        """
        path, text = self.path / CONFIG, json.dumps(described, indent=2) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)

    def check(self, files: dict[str, str]) -> None:
        """Makes sure that the run of this directory, if there is one, keeps just these files, {name: content}.

        Raises:
            UsageError: one differs, or is missing though the run has checkpoints.
            OSError: one can't be read.
        """
        if not (self.path / CONFIG).exists():
            return
        for name, content in files.items():
            path = self.path / name
            if not path.exists():
                if any((self.path / CHECKPOINTS).glob("step-*")):
                    raise UsageError(f"{path}: missing; --overwrite starts afresh")
            elif path.read_bytes() != content.encode():
                raise UsageError(f"{path}: of other data than --data_dir has now; --overwrite starts afresh")

    def keep(self, files: dict[str, str]) -> None:
        """Writes files, {name: content}, that belong to the run; before `describe`, so that it finds them complete.

        Raises:
            OSError: one can't be written.
        """
        for name, content in files.items():
            path = self.path / name
            if not path.exists() or path.read_bytes() != content.encode():
                write_whole(path, content)

    def wipe(self) -> None:
        """Removes the records of an earlier run, and nothing else.

        Raises:
            OSError: one can't be removed.
        """
        kept = [self.path / VOCABULARY] if self.flag == "--log_dir" else []
        # The configuration last: it tells whose the others are.
        for path in [*record_files(self.path), *kept, self.path / CONFIG]:
            path.unlink(missing_ok=True)

    def release(self) -> None:
        """Lets the next process in."""
        self._lock.close()


def claim(directories: list[RunDirectory], config: Config) -> str:
    """Makes sure that directories hold one run, this configuration's, or nothing; writes nothing.

    Returns:
        the run's identifier, for config.json: it tells two runs of one configuration apart.

    Raises:
        UsageError: they hold something else.
    """
    first, *others = directories
    run = first.recorded_run(config)
    for other in others:
        if other.recorded_run(config) not in (run, None):
            raise UsageError(
                f"{other.flag} {other.path}: holds records of another run than {first.flag} {first.path}; "
                "choose another directory, or --overwrite"
            )
    return run or secrets.token_hex(8)


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json, among it `flags`, and `run`, the run's identifier.

    Raises:
        UsageError: the file can't be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.loads(file.read(MAX_CONFIG))
        if not isinstance(content["flags"]["total_epochs"], int) or not isinstance(content["run"], str):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path}: not a readable configuration; --overwrite starts afresh") from None
    return content


def differences(before: dict[str, Any], config: Config) -> list[str]:
    """The flags whose values differ between a config.json's and `config`.

    More --total_epochs than before are no difference; two spellings of one path are none either.
    """
    now = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists

    def differs(name: str) -> bool:
        old, new = before.get(name), now.get(name)
        if name.endswith("_dir") and isinstance(old, str) and isinstance(new, str):
            return os.path.normpath(old) != os.path.normpath(new)
        return new < old if name == "total_epochs" else new != old

    return [f"--{name}" for name in sorted(before.keys() | now.keys()) if name not in FREE_TO_CHANGE and differs(name)]
