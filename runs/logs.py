"""A run's records in one directory: TensorBoard events, and the same rows as metrics.csv."""

import contextlib
import csv
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.audio import metadata as audio_plugin
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.image import metadata as image_plugin
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from runs.directories import CHECKSUM, EVENTS, METRICS, fsync, naming, record_files, sha256_of, sizes_at

Meaning = Callable[[str], str]  # of a figure, by its name


def tag_of(name: str, group: str) -> str:
    """The tag of a scalar in TensorBoard, which sorts groups, the part before a stroke: NLLs first, errors apart."""
    if name.endswith("_se"):
        return f"se/{name.removesuffix('_se')}"
    if name.startswith(("nll", "kl_")) or "entropy" in name:
        return name if name == "nll" else f"nll/{name}"
    return f"{group}/{name}"


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The arithmetic mean of each name over the rows that have it."""
    values = {name: [row[name] for row in rows if name in row] for names in rows for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def with_errors(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """{name: (mean, standard error)} → {name: mean, name_se: standard error}; an unknown error, NaN, is left out."""
    errors = {f"{name}_se": error for name, (_, error) in figures.items() if not math.isnan(error)}
    return {name: value for name, (value, _) in figures.items()} | errors


class RunLog:
    """Writes one directory of a run: metrics.csv and one event file.

    A `position` is how long each file was at some moment, {file name: bytes}, and under CHECKSUM what metrics.csv held.
    Reopening at a position drops what was written after it, so that a resumed run leaves those of an uninterrupted one.

    The event file is written from here and not by `tf.summary`'s writer, which loses records without an error where
    the disk is full, and which starts another file in each process.
    """

    def __init__(
        self, directory: Path, columns: tuple[str, ...], position: dict[str, Any], group: str, meaning: Meaning
    ):
        """Opens `directory` at `position` ({}: from the start).

        `columns` are a row's scalars, after epoch and phase; TensorBoard shows them under `group`, see `tag_of`, with
        the `meaning` of each. Raises UsageError: the files are not what they were then, see `sizes_at`. Raises OSError:
        a file can't be written; so do all the methods that write.
        """
        self._meaning, self._described = meaning, set[str]()  # names whose first value the events have
        self.directory, self.group, self.columns = directory, group, ("epoch", "phase", *columns)
        sizes = sizes_at(self.directory, position)
        for path in record_files(self.directory):
            if path.name in sizes:
                os.truncate(path, sizes[path.name])
            else:
                path.unlink()
        begun = (name for name in sizes if EVENTS.fullmatch(name))
        self._event_file = open(self.directory / next(begun, f"events.out.tfevents.{int(time.time())}.seqgan"), "ab")
        self._events = RecordWriter(self._event_file)
        self._csv_file = open(self.directory / METRICS, "a", newline="", encoding="utf-8")
        if position:  # a run keeps the columns that it began with
            with open(self.directory / METRICS, newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                known = tuple(rows.fieldnames or self.columns)
                self._described |= {name for row in rows for name, value in row.items() if value}
            if lacking := [name for name in self.columns if name not in known and not name.endswith("_se")]:
                names = lacking[0] + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
                what = f"has no column for {names}, which TensorBoard alone will show"
                print(f"warning: {self.directory / METRICS}: {what}", file=sys.stderr)
            self.columns = known
        self._csv = csv.DictWriter(self._csv_file, self.columns, extrasaction="ignore", lineterminator="\n")
        if not position:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            with naming(self.directory):
                self._csv.writeheader()

    def copy(self, directory: Path, position: dict[str, Any], left_out: Sequence[str] = ()) -> None:
        """Writes what another run's logs have up to a position, but for some scalars.

        Raises UsageError: they are not what they were then, see `sizes_at`. Raises OSError: one can't be read.
        """
        unwanted = {tag_of(f"{name}{end}", self.group) for name in left_out for end in ("", "_se")}
        for name, size in sizes_at(directory, position, advice="").items():
            path = directory / Path(name).name
            if name == METRICS:
                with open(path, "rb") as file, naming(self.directory):
                    rows = list(csv.DictReader(file.read(size).decode().splitlines()))
                    kept = [column for column in self.columns if column.removesuffix("_se") not in left_out]
                    self._described |= {column for row in rows for column in kept if row.get(column)}
                    self._csv.writerows({column: row.get(column, "") for column in kept} for row in rows)
                continue
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                size -= len(record) + 16  # two checksums and the length
                if size < 0:
                    break
                event = Event.FromString(record)
                if not event.file_version and unwanted.isdisjoint(value.tag for value in event.summary.value):
                    self._write(event)
        self.flush()

    def position(self) -> dict[str, Any]:
        """The present position, once all that was written is on disk."""
        self.flush()
        files = [self.directory / METRICS, Path(self._event_file.name)]
        for path in files:
            fsync(path)
        fsync(self.directory)
        checksum = sha256_of((self.directory / METRICS).read_bytes())
        return {path.name: path.stat().st_size for path in files} | {CHECKSUM: checksum}

    def flush(self) -> None:
        """Hands all that was written to the operating system."""
        with naming(self.directory):
            self._event_file.flush()
            self._csv_file.flush()

    def _write(self, event: Event) -> None:
        with naming(self.directory):
            self._events.write(event.SerializeToString())

    def _summary(self, step: int, summary: Summary) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _strings(self, step: int, name: str, values: np.ndarray, metadata: SummaryMetadata) -> None:
        """Writes byte strings, of the shape that the TensorBoard plugin of `metadata` reads."""
        tensor = make_tensor_proto(values)
        self._summary(step, Summary(value=[Summary.Value(tag=name, tensor=tensor, metadata=metadata)]))

    def row(self, epoch: int, phase: str, values: dict[str, float]) -> None:
        """Writes scalars of one epoch to the events and to metrics.csv; those that are missing stay empty there."""
        with naming(self.directory):
            self._csv.writerow({"epoch": epoch, "phase": phase, **{name: repr(float(v)) for name, v in values.items()}})
        for name, value in values.items():
            meaning = "" if name in self._described else self._meaning(name)  # TensorBoard reads the first one
            self._summary(epoch, scalar_pb(tag_of(name, self.group), value, meaning))
        self._described |= values.keys()
        self.flush()  # the curves can be watched

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """Writes the distribution of `values`, of any shape, to the events."""
        self._summary(step, histogram_pb(f"{self.group}/{name}", values))

    def text(self, step: int, name: str, lines: list[str]) -> None:
        """Writes lines of text to the events, shown as they are and not as Markdown."""
        block = "\n".join(f"    {line}" for line in lines)  # four spaces: a block of code
        self._summary(step, text_pb(name, np.array([block.encode()], object)))

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Writes a picture to the events: uint8 [height, width, 1] (grey) or [height, width, 3] (red, green, blue)."""
        height, width, _ = pixels.shape
        values = np.array([str(width).encode(), str(height).encode(), tf.io.encode_png(pixels).numpy()], object)
        self._strings(step, name, values, image_plugin.create_summary_metadata(None, None))

    def audio(self, step: int, name: str, clips: np.ndarray, sample_rate: int) -> None:
        """Writes clips that TensorBoard can play to the events: float32 [n, frames] in -1..1, `sample_rate` in Hz."""
        wavs = [tf.audio.encode_wav(clip[:, None], sample_rate).numpy() for clip in clips]
        values = np.array([(wav, b"") for wav in wavs], object)  # a label each
        wav = audio_plugin.Encoding.Value("WAV")
        self._strings(step, name, values, audio_plugin.create_summary_metadata(None, None, wav))

    def close(self) -> None:
        """Closes; after a write that failed, what is still in memory is given up (a resumed run writes it again)."""
        for file in (self._event_file, self._csv_file):
            with contextlib.suppress(OSError):
                file.close()
