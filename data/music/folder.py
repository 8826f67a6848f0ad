"""Folders of MIDI files as tunes in three splits, read once and kept as tokens."""

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.music.midi import MAX_FILE_BYTES, one_line, read_melody
from data.music.songs import written_songs
from data.music.tokens import Grid, trim
from runs.directories import METRICS, write_whole
from support.config_file import CONFIG
from support.errors import DataError

SPLITS = ("train", "valid", "test")
MIN_TEMPO, MAX_TEMPO = 30.0, 300.0  # beats a minute of what is written; a frame in beats then lasts 0.0125 to 8 s

_CACHE_VERSION = 3  # raise it whenever the same files would give other tokens or reasons
_MAX_CACHE_BYTES = 1 << 28

_log = logging.getLogger(__name__)


class Tunes(NamedTuple):
    """A folder of tunes as tokens."""

    train: list[np.ndarray]  # one int32 array [length] a tune
    valid: list[np.ndarray]  # the same
    test: list[np.ndarray]  # the same
    names: list[str]  # of the train tunes, their paths relative to the folder
    skipped: list[tuple[str, str]]  # (path relative to the folder, reason) of each file that was left out
    tempo: float  # median over the train tunes of a tune's mean tempo, beats a minute


class Parsed(NamedTuple):
    """What a file gave."""

    tokens: np.ndarray  # int32 [length], without the rests at both ends
    reason: str  # why the file cannot be used, or ""
    tempo: float  # its mean tempo, beats a minute


def load_tunes(
    data_dir: str | os.PathLike,
    frame_seconds: float = 0.4,
    frame_beats: float = 0.0,
    min_len: int = 32,
    cache: bool = True,
    besides: str | os.PathLike | None = None,
    onsets: bool = False,
) -> Tunes:
    """Read every `.mid` and `.midi` file under a folder, sub-folders included, hidden files not.

    Folders in it that hold a run (`config.json` and `metrics.csv`), or the folder `besides`, which is to hold one, are
    left out with all that is below them: MIDI files there are what a model wrote. So are songs that `songs` knows.

    A folder with `train`, `valid` and `test` in it is used as it is split. Otherwise the usable tunes, sorted by
    path, are dealt out in tens: the second of each ten goes to valid, the third to test, the others to train. So three
    tunes fill all three splits; with one or two of them, valid or test stay empty. Tunes of equal tokens count as one
    and go together. Rests before the first note and after the last are dropped. A file that cannot be used is left out
    with one logged warning.

    The parsed tokens are kept in `.tokens-<duration>.npz` in the folder or, if that cannot be written, in
    `$XDG_CACHE_HOME/seqgan` (`~/.cache/seqgan`), else nowhere. They are parsed again when a file's name, size or
    content, the duration of a token or this code's format changes, or the cache is damaged.

    A token lasts `frame_seconds` (0.01..10) or, if not 0, `frame_beats` of its file (1/16..4). Tunes have `min_len`
    tokens or more, after trimming; with `onsets` these tell a note that begins from one that goes on. Raises DataError:
    there is no such folder, it has some but not all of the three sub-folders, no tune is left to train on, or an
    argument is out of range.
    """
    root = Path(data_dir)
    frame = Grid(frame_seconds, frame_beats, onsets).check()
    if min_len < 1:
        raise DataError(f"min_len must be at least 1, not {min_len}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    present = [split for split in SPLITS if (root / split).is_dir()]
    if present and len(present) < len(SPLITS):
        raise DataError(f"{root}: has {' and '.join(present)} but not all of train, valid and test")
    paths = _midi_files([root / split for split in present] if present else [root], besides)
    names = [path.relative_to(root).as_posix() for path in paths]
    if not paths:
        raise DataError(f"{root}: no .mid or .midi file in it")

    tunes = Tunes([], [], [], [], [], 0.0)
    dealt: dict[bytes, str] = {}  # the split of each tune, by its tokens
    tempi = []
    for name, (tokens, reason, tempo) in zip(names, _parse_cached(root, paths, names, frame, cache), strict=True):
        if not reason and len(tokens) < min_len:
            reason = f"too short: {len(tokens)} tokens of {frame}, {min_len} needed"
        if reason:
            tunes.skipped.append((name, reason))
            continue
        turn = {1: "valid", 2: "test"}.get(len(dealt) % 10, "train")
        split = name.split("/")[0] if present else dealt.setdefault(tokens.tobytes(), turn)
        getattr(tunes, split).append(tokens)
        if split == "train":
            tunes.names.append(name)
            tempi.append(tempo)
    _tell_skipped(root, tunes.skipped)
    if not tunes.train:
        what = f"{root / 'train'}: no usable tune" if present else f"{root}: no usable tune"
        first = "; {}: {}".format(*tunes.skipped[0]) if tunes.skipped else ""
        raise DataError(f"{what} ({len(tunes.skipped)} of {len(paths)} files skipped{first})")
    return tunes._replace(tempo=float(np.clip(np.median(tempi), MIN_TEMPO, MAX_TEMPO)))


def _tell_skipped(root: Path, skipped: list[tuple[str, str]]) -> None:
    """A line a reason, with an example; reasons that differ in a number alone are one."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, reason in skipped:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "#", reason), []).append((name, reason))
    for found in kinds.values():
        name, reason = found[0]
        others = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
        _log.warning("skipped %s%s: %s", root / name, others, reason)


def windows(tunes: Sequence[np.ndarray], seq_len: int, stride: int) -> np.ndarray:
    """Cut tunes into windows; each lies within one tune, and starts at a multiple of `stride` from its beginning.

    A tune gives `(length - seq_len) // stride + 1` windows, none if it is shorter than `seq_len`; what is left of its
    end is not used.

    `tunes`: int32 arrays [length]. `seq_len`: tokens a window. `stride`: tokens from one window's start to the next's.
    Returns int32 [windows, seq_len], tune after tune. Raises DataError: `seq_len` or `stride` is less than 1.
    """
    if seq_len < 1 or stride < 1:
        raise DataError(f"seq_len and stride must be at least 1, not {seq_len} and {stride}")
    cut = [np.lib.stride_tricks.sliding_window_view(t, seq_len)[::stride] for t in tunes if len(t) >= seq_len]
    return np.concatenate([np.empty((0, seq_len), np.int32), *cut]).astype(np.int32)


def _midi_files(folders: Sequence[Path], besides: str | os.PathLike | None) -> list[Path]:
    """The MIDI files below the folders, sorted by path within each; none of a run, nor below the folder `besides`."""
    found = []
    for folder in folders:
        below = []
        for place, inside, names in os.walk(folder):
            runs = {CONFIG, METRICS} <= set(names) and Path(place) != folder
            if runs or (besides is not None and os.path.realpath(place) == os.path.realpath(besides)):
                inside.clear()
                continue
            inside[:] = [name for name in inside if not name.startswith(".")]
            songs = written_songs(Path(place))
            below += [Path(place, n) for n in names if n.lower().endswith((".mid", ".midi")) and n not in songs]
        visible = [path for path in below if not path.name.startswith(".") and path.is_file()]
        found += sorted(visible, key=lambda path: path.relative_to(folder).parts)
    return found


def _parse(path: Path, frame: Grid) -> Parsed:
    """Read one file."""
    reason, tokens, tempo = "", np.empty(0, np.int32), 0.0
    try:
        if path.stat().st_size == 0:
            reason = "empty file"
        else:
            tokens, tempo = read_melody(path, frame)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ")
    except OSError as error:
        reason = one_line(error)
    tokens = trim(tokens)
    return Parsed(tokens, reason or ("" if tokens.size else "no melody: it has no notes, or only drums"), tempo)


def _parse_cached(root: Path, paths: list[Path], names: list[str], frame: Grid, cache: bool) -> list[Parsed]:
    """Parse the files, or take what an earlier call parsed from exactly these files."""
    if not cache:
        return [_parse(path, frame) for path in paths]
    key = _cache_key(paths, names, frame)
    places = [root / f".tokens-{str(frame).replace(' ', '')}{'-onsets' * frame.onsets}.npz"]
    with contextlib.suppress(RuntimeError):  # the user has no home
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        places.append(home / "seqgan" / f"tokens-{key[:32]}.npz")
    for place in places:
        parsed = _read_cache(place, key, len(paths), frame.vocab_size)
        if parsed is not None:
            return parsed
    parsed = [_parse(path, frame) for path in paths]
    for place in places:
        if _write_cache(place, key, parsed):
            break
    return parsed


def _cache_key(paths: list[Path], names: list[str], frame: Grid) -> str:
    """A digest of everything the parsed tokens depend on."""
    files = []
    for path, name in zip(paths, names, strict=True):
        try:
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read(MAX_FILE_BYTES + 1)).hexdigest()
            files.append((name, path.stat().st_size, digest))
        except OSError:
            files.append((name, -1, "unreadable"))
    return hashlib.sha256(json.dumps([_CACHE_VERSION, frame, files]).encode()).hexdigest()


def _read_cache(place: Path, key: str, count: int, vocab_size: int) -> list[Parsed] | None:
    """The parsed files of a cache, or None if it is absent, for other files, or damaged."""
    try:
        with zipfile.ZipFile(place) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_CACHE_BYTES:
                return None
        with np.load(place, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            tokens, lengths, reasons = arrays["tokens"], arrays["lengths"], arrays["reasons"].tolist()
            tempi = arrays["tempi"].tolist()
        if not len(lengths) == len(reasons) == len(tempi) == count or lengths.min() < 0 or lengths.sum() != len(tokens):
            return None
        if tokens.dtype != np.int32 or tokens.ndim != 1 or np.any((tokens < 0) | (tokens >= vocab_size)):
            return None
        return [Parsed(*one) for one in zip(np.split(tokens, np.cumsum(lengths)[:-1]), reasons, tempi, strict=True)]
    except Exception:  # whatever is wrong with it, it can be made again
        return None


def _write_cache(place: Path, key: str, parsed: list[Parsed]) -> bool:
    """Write a cache; say whether that worked."""
    content = io.BytesIO()
    tokens, reasons, tempi = zip(*parsed, strict=True)
    lengths = [len(t) for t in tokens]
    np.savez(content, key=key, tokens=np.concatenate(tokens), lengths=lengths, reasons=np.array(reasons), tempi=tempi)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, content.getvalue())
    except OSError:
        return False
    return True
