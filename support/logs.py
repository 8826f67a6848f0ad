"""A run's records in one directory: TensorBoard events, the same rows as metrics.csv, and config.json."""

import csv
import dataclasses
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from support.config import Config, UsageError
from support.directories import METRICS, fsync, record_files


def description(config: Config) -> dict[str, Any]:
    """The whole configuration of a run: flags, versions, device and git commit."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return {
        "flags": dataclasses.asdict(config),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "device": [device.device_type for device in devices],
        "git_commit": git_commit(),
    }


def git_commit() -> str:
    """The commit of the code that runs, with a + where tracked files differ from it; "" outside a repository."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


class RunLog:
    """Writes one directory of a run.

    A `position` is how long each file was at some moment: {file name: bytes}. Reopening at a position drops what was
    written after it, so that a resumed run leaves the records of one that was never interrupted.
    """

    def __init__(self, directory: str | Path, columns: tuple[str, ...], position: dict[str, int]):
        """Opens `directory` at `position` ({}: from the start); `columns` are a row's scalars, after epoch and phase.

        Raises:
            UsageError: a file is shorter than `position` says.
        """
        self.directory = Path(directory)
        self.columns = ("epoch", "phase", *columns)
        for path in record_files(self.directory):
            if path.name not in position:
                path.unlink()
        for name, size in position.items():
            path = self.directory / Path(name).name
            if not path.is_file() or path.stat().st_size < size:
                raise UsageError(f"{path}: missing or cut short since the last checkpoint; --overwrite starts afresh")
            os.truncate(path, size)
        self._events = tf.summary.create_file_writer(str(self.directory))
        self._file = open(self.directory / METRICS, "a", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, self.columns, lineterminator="\n")
        if METRICS not in position:
            self._csv.writeheader()

    def position(self) -> dict[str, int]:
        """The present position, once all that was written is on disk."""
        self._events.flush()
        self._file.flush()
        for path in record_files(self.directory):
            fsync(path)
        return {path.name: path.stat().st_size for path in record_files(self.directory)}

    def write_hyperparameters(self, described: dict[str, Any]) -> None:
        """Hands a run's `description` to TensorBoard's hyper-parameter page."""
        plain = (bool, int, float, str)  # hparams raises TypeError on anything else
        flags = {name: v if isinstance(v, plain) else " ".join(map(str, v)) for name, v in described["flags"].items()}
        with self._events.as_default():
            hparams.hparams({**flags, "git_commit": described["git_commit"]}, trial_id=self.directory.name)

    def row(self, epoch: int, phase: str, values: dict[str, float]) -> None:
        """Writes scalars of one epoch to the events and to metrics.csv; those that are missing stay empty there."""
        self._csv.writerow({"epoch": epoch, "phase": phase, **{name: repr(float(v)) for name, v in values.items()}})
        self.scalars(epoch, values)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes scalars to the events alone."""
        with self._events.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """Writes the distribution of `values`, of any shape, to the events."""
        with self._events.as_default(step):
            tf.summary.histogram(name, values)

    def token_image(self, step: int, name: str, tokens: np.ndarray, vocab_size: int) -> None:
        """Writes a batch of sequences as a grey picture, int32 [B, T]: a row a sequence, black token 0, white V - 1."""
        grey = np.asarray(tokens, np.float32)[None, :, :, None] / max(vocab_size - 1, 1)
        enlarged = grey.repeat(8, axis=1).repeat(8, axis=2)
        with self._events.as_default(step):
            tf.summary.image(name, enlarged)

    def close(self) -> None:
        """Flushes and closes."""
        self._events.close()
        self._file.close()
