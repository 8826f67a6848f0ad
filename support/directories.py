"""A run's directories: locked while it runs, claimed by its configuration, and written so as to survive a crash."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.config import Config, UsageError, from_flags

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHECKPOINTS, CONFIG, METRICS, VOCABULARY = "checkpoints", "config.json", "metrics.csv", "vocabulary.json"
MEDIA = "media"
SONG, MEDIUM = re.compile(r"sample\d+\.mid"), re.compile(r"epoch\d+_.*\.(png|wav)")  # what runs on music leave
FORMAT = 2  # of config.json; the first had no number
MAX_CONFIG = 2**20  # characters; one has a few thousand
# The schedules of rates that can fall over the epochs that a flag counts.
FALLING = {
    "pretrain_g_epochs": ("g_pretrain_schedule",),
    "pretrain_d_epochs": ("d_schedule",),
    "total_epochs": ("g_schedule", "d_schedule"),
}
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


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8, whole or not at all: beside it, to disk, then renamed."""
    partial = path.with_name(path.name + ".partial")
    with naming(partial), open(partial, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
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
        if not fcntl:
            raise UsageError("training needs Linux, macOS or WSL: this system's Python has no fcntl")
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

    def recorded(self, config: Config) -> dict[str, Any]:
        """The config.json of the run whose records the directory holds, {} where it holds none.

        Raises:
            UsageError: that run has another configuration, or an unknown one.
        """
        path = self.path / CONFIG
        if not path.exists():
            if record_files(self.path) or any((self.path / CHECKPOINTS).glob("step-*")):
                raise UsageError(f"{self.flag} {self.path}: holds records of an unknown run; --overwrite removes them")
            return {}
        content = read_config(path)
        try:
            differing = differences(from_flags(content["flags"]), config)
        except UsageError as error:
            raise UsageError(f"{path}: {error}; --overwrite starts afresh") from None
        if differing:
            falling = any(falls(flag.removeprefix("--"), config) for flag in differing)
            why = " (a rate that falls does so over all epochs: another number is another run)" if falling else ""
            raise UsageError(
                f"{self.flag} {self.path}: holds a run with other values of {', '.join(differing)}{why}; "
                "choose another directory, or --overwrite"
            )
        return content

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
        kept, media = [], self.path / MEDIA
        if self.flag == "--log_dir":
            kept = [self.path / VOCABULARY, *(path for path in self.path.iterdir() if SONG.fullmatch(path.name))]
            kept += [path for path in media.glob("*") if MEDIUM.fullmatch(path.name)]
        # The configuration last: it tells whose the others are.
        for path in [*record_files(self.path), *kept, self.path / CONFIG]:
            path.unlink(missing_ok=True)
        if any(path.parent == media for path in kept) and not any(media.iterdir()):
            media.rmdir()

    def release(self) -> None:
        """Lets the next process in."""
        self._lock.close()


def claim(directories: list[RunDirectory], config: Config) -> dict[str, Any]:
    """Makes sure that directories hold one run, this configuration's, or nothing; writes nothing.

    Returns:
        the run's config.json, {} where there is none yet. Its `run` tells two runs of one configuration apart.

    Raises:
        UsageError: they hold something else.
    """
    first, *others = directories
    content = first.recorded(config)
    for other in others:
        if other.recorded(config).get("run", content.get("run")) != content.get("run"):
            raise UsageError(
                f"{other.flag} {other.path}: holds records of another run than {first.flag} {first.path}; "
                "choose another directory, or --overwrite"
            )
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json, among it `flags`, and `run`, the run's identifier.

    Raises:
        UsageError: the file can't be read, or a newer version of the program wrote it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.loads(file.read(MAX_CONFIG))
        if not isinstance(content["flags"]["total_epochs"], int) or not isinstance(content["run"], str):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path}: not a readable configuration; --overwrite starts afresh") from None
    if content.get("format", 1) not in range(1, FORMAT + 1):
        raise UsageError(f"{path}: of format {content['format']}, which a newer version of the program wrote")
    return content


def falls(name: str, config: Config) -> bool:
    """Whether a learning rate falls over the epochs of this flag."""
    return any(getattr(config, schedule) == "cosine" for schedule in FALLING.get(name, ()))


def differences(before: Config, now: Config) -> list[str]:
    """The flags whose values differ between a run's configuration and another.

    More --total_epochs than before are no difference, unless a rate falls over them: then there must have been none.
    Two spellings of one path are no difference either.
    """

    def differs(name: str) -> bool:
        old, new = getattr(before, name), getattr(now, name)
        if name.endswith("_dir"):
            return os.path.normpath(old) != os.path.normpath(new)
        if name == "total_epochs":
            return new < old or (new > old > 0 and falls(name, now))
        return new != old

    names = sorted(field.name for field in dataclasses.fields(Config))
    return [f"--{name}" for name in names if name not in FREE_TO_CHANGE and differs(name)]
