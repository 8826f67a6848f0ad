"""Folders of MIDI and ABC files as tunes in three splits, read once and kept as tokens."""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from data.music.abc import check_music21, read_abc, tunes_of
from data.music.analysis import analysed
from data.music.midi import melody_of, one_line, read_notes
from data.music.tokens import KEYS, REST, Grid, transposed, trim
from runs.directories import METRICS, write_whole, written_songs
from support.config_file import CONFIG
from support.errors import DataError

SPLITS = ("train", "valid", "test")
MIN_TEMPO, MAX_TEMPO = 30.0, 300.0  # beats a minute of what is written; a frame in beats then lasts 0.0125 to 8 s

_CACHE_VERSION = 11  # raise it whenever the same files would give other tokens or reasons
_MAX_CACHE_BYTES = 1 << 28
_MOVES = (*range(1, 6), *range(-6, 0))  # semitones to the eleven other keys
MAX_BOOK_BYTES = 1 << 24  # of a file of many ABC tunes; each is held to MAX_FILE_BYTES of midi.py

_log = logging.getLogger(__name__)


class Tunes(NamedTuple):
    """A folder of tunes as tokens."""

    train: list[np.ndarray]  # one int32 array [length] a tune
    valid: list[np.ndarray]  # the same
    test: list[np.ndarray]  # the same
    names: list[str]  # of the train tunes, their paths relative to the folder, and what else tells them apart
    skipped: list[tuple[str, str]]  # (path relative to the folder, reason) of each file or tune that was left out
    tempo: float  # median over the train tunes of a tune's mean tempo, beats a minute


class Parsed(NamedTuple):
    """What a file, or a tune of it, gave."""

    tokens: list[int]  # without the rests at both ends, unless parsed whole
    reason: str  # why the file cannot be used, or ""
    tempo: float = 0.0  # its mean tempo, beats a minute
    sharps: int | None = None  # of its key signature, as in `Notes`; None: its key is estimated
    number: str = ""  # in a file of several

    def moved(self, grid: Grid, transpose: str) -> np.ndarray:
        """Its tokens, int32 [length], with "key" at most six semitones away, without sharps or flats."""
        tokens = np.array(self.tokens, np.int32)
        if transpose != "key":
            return tokens
        sharps = analysed(tokens, grid).key.sharps if self.sharps is None else self.sharps
        return transposed(tokens, (6 - 7 * sharps) % 12 - 6)


def load_tunes(
    root: Path, grid: Grid, min_len: int = 32, besides: Path | None = None, transpose: str = "none"
) -> Tunes:
    """Reads every `.mid`, `.midi` and `.abc` file under a folder, sub-folders included, hidden files not.

    Folders in it that hold a run (`config.json` and `metrics.csv`), or the folder `besides`, which is to hold one, are
    left out with all that is below them: files there are what a model wrote. So are songs that `songs` knows.

    A folder with `train`, `valid` and `test` in it is used as it is split. Otherwise the usable tunes, sorted by
    path, are dealt out in tens: the second of each ten goes to valid, the third to test, the others to train. So three
    tunes fill all three splits; with one or two of them, valid or test stay empty. Tunes of equal tokens count as one
    and go together. Rests before the first note and after the last are dropped. Tunes of fewer tokens than `min_len`
    and files that can't be used are left out, with one logged warning a reason.

    With `transpose` "key" each tune is moved to no sharps or flats, by its key signature or else the key that it is
    estimated to have. With "all" train has each tune in twelve keys, first as it is. With both, tunes that differ in
    their key alone go together, too.

    The parsed tokens are kept in `.tokens-<duration>.json` in the folder or, if that can't be written, in
    `$XDG_CACHE_HOME/seqgan` (`~/.cache/seqgan`), else nowhere. They are parsed again when a file's name, size or
    content, the grid or this code's format changes, or the cache is damaged. Raises DataError: there is no such folder,
    it has some but not all of the three sub-folders, no tune is left to train on, or there is ABC but no music21.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    present = [split for split in SPLITS if (root / split).is_dir()]
    if present and len(present) < len(SPLITS):
        raise DataError(f"{root}: has {' and '.join(present)} but not all of train, valid and test")
    paths = tune_files([root / split for split in present] if present else [root], besides)
    names = [path.relative_to(root).as_posix() for path in paths]
    if not paths:
        raise DataError(f"{root}: no .mid, .midi or .abc file in it")
    if any(map(_is_abc, paths)):
        check_music21(root)

    tunes = Tunes([], [], [], [], [], 0.0)
    dealt: dict[bytes, str] = {}  # the split of each tune, by its tokens
    tempi = []
    files = zip(names, _parse_cached(root, paths, names, grid), strict=True)
    read = [(f"{name} X:{one.number}" if len(parsed) > 1 else name, one) for name, parsed in files for one in parsed]
    for name, one in read:
        reason = one.reason
        if not reason and len(one.tokens) < min_len:
            reason = f"too short: {len(one.tokens)} tokens of {grid}, {min_len} needed"
        if reason:
            tunes.skipped.append((name, reason))
            continue
        tokens = one.moved(grid, transpose)
        lowest = 0 if transpose == "none" else int(((tokens[tokens != REST] - 1) % KEYS).min())
        turn = {1: "valid", 2: "test"}.get(len(dealt) % 10, "train")
        split = name.split("/")[0] if present else dealt.setdefault(transposed(tokens, -lowest).tobytes(), turn)
        getattr(tunes, split).append(tokens)
        if split == "train":
            tunes.names.append(name)
            tempi.append(one.tempo)
    _tell_skipped(root, tunes.skipped)
    if not tunes.train:
        short = [pair for pair in tunes.skipped if "too short" in pair[1]]  # which another --seq_len may mend
        first = "; {}: {}".format(*(short or tunes.skipped)[0]) if tunes.skipped else ""
        where = root / "train" if present else root
        raise DataError(f"{where}: no usable tune ({len(tunes.skipped)} of {len(read)} tunes skipped{first})")
    tunes = tunes._replace(tempo=float(np.clip(np.median(tempi), MIN_TEMPO, MAX_TEMPO)))
    if transpose != "all":
        return tunes
    moved = [f"{name}, {by:+d} semitones" for by in _MOVES for name in tunes.names]
    train = [transposed(tokens, by) for by in (0, *_MOVES) for tokens in tunes.train]
    return tunes._replace(train=train, names=tunes.names + moved)


def _tell_skipped(root: Path, skipped: list[tuple[str, str]]) -> None:
    """A line a reason, with an example; reasons that differ in a number alone are one."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, reason in skipped:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "#", reason), []).append((name, reason))
    for (name, reason), *others in kinds.values():
        _log.warning("skipped %s%s: %s", root / name, f" and {len(others):,} more" if others else "", reason)


def windows(tunes: Sequence[np.ndarray], seq_len: int, stride: int) -> np.ndarray:
    """Cuts tunes, int32 [length] each, into windows, int32 [windows, seq_len], tune after tune.

    Each lies within one tune and begins at a multiple of `stride` tokens from its beginning; the rest is not used.
    """
    cut = [np.lib.stride_tricks.sliding_window_view(t, seq_len)[::stride] for t in tunes if len(t) >= seq_len]
    return np.concatenate([np.empty((0, seq_len), np.int32), *cut]).astype(np.int32)


def whole(tunes: Sequence[np.ndarray], seq_len: int, end: int) -> np.ndarray:
    """The first tokens of tunes, int32 [length] each, then the id `end` and padding, `end` + 1: int32 [n, seq_len]."""
    rows = np.full((len(tunes), seq_len), end + 1, np.int32)
    for row, tune in zip(rows, tunes, strict=True):
        row[: len(tune) + 1] = np.append(tune, end)[:seq_len]
    return rows


def _raise(error: OSError) -> NoReturn:
    raise error


def tune_files(folders: Sequence[Path], besides: Path | None) -> list[Path]:
    """The MIDI and ABC files below the folders, sorted by path within each; none of a run, nor below `besides`."""
    found = []
    for folder in folders:
        below = []
        passed = set() if besides is None else {os.path.realpath(besides)}
        for place, inside, names in os.walk(folder, onerror=_raise, followlinks=True):
            runs, real = {CONFIG, METRICS} <= set(names) and Path(place) != folder, os.path.realpath(place)
            if runs or real in passed:
                inside.clear()
                continue
            passed.add(real)  # a link may lead back to it
            inside[:] = [name for name in inside if not name.startswith(".")]
            shown = {name for name in names if not name.startswith(".")} - written_songs(Path(place)).keys()
            below += [Path(place, name) for name in shown if name.lower().endswith((".mid", ".midi", ".abc"))]
        found += sorted(filter(Path.is_file, below), key=lambda path: path.relative_to(folder).parts)
    return found


def _is_abc(path: Path) -> bool:
    return path.suffix.lower() == ".abc"


def song_files(folder: Path, pattern: str = "**/*") -> list[Path]:
    """The MIDI files of a folder or, if it has none, the ABC files, but for tunes.abc beside others; none is hidden."""
    files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
    shown = [path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts)]
    texts = [path for path in shown if _is_abc(path)]
    midi = [path for path in shown if path.suffix.lower() in (".mid", ".midi")]
    return midi or [path for path in texts if path.name != "tunes.abc"] or texts


def parse(path: Path, grid: Grid, whole: bool = False) -> Iterator[Parsed]:
    """Reads the tunes of one file, `whole` or without the rests at both ends."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BOOK_BYTES + 1)
    except OSError as error:
        yield Parsed([], one_line(error))
        return
    abc = _is_abc(path)
    for number, tune in (abc and len(content) <= MAX_BOOK_BYTES and tunes_of(content)) or [("", content)]:
        try:
            tokens, tempo, sharps = melody_of(tune, grid, read_abc if abc else read_notes)
        except DataError as error:
            yield Parsed([], str(error) if tune else "empty file", number=number)
            continue
        heard = trim(tokens).tolist()
        reason = "" if heard else "no melody: it has no notes, or only drums"
        yield Parsed(tokens.tolist() if whole else heard, reason, tempo, sharps, number)


def _parse_cached(root: Path, paths: list[Path], names: list[str], grid: Grid) -> list[list[Parsed]]:
    """Parses the files, or takes what an earlier call parsed from exactly these files."""
    # A cache is a line with the SHA-256 of everything that its content depends on and of the content, then that.
    files = []
    for path, name in zip(paths, names, strict=True):
        try:
            with open(path, "rb") as file:
                files.append((name, path.stat().st_size, hashlib.sha256(file.read(MAX_BOOK_BYTES + 1)).hexdigest()))
        except OSError:
            files.append((name, -1, "unreadable"))
    key = hashlib.sha256(json.dumps([_CACHE_VERSION, grid, files]).encode()).digest()
    places = [root / f".tokens-{str(grid).replace(' ', '')}{'-onsets' * grid.onsets}.json"]
    with contextlib.suppress(RuntimeError):  # the user has no home
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        places.append(home / "seqgan" / f"tokens-{key.hex()[:32]}.json")
    for place in places:
        with contextlib.suppress(OSError), open(place, "rb") as file:
            digest, content = file.readline(_MAX_CACHE_BYTES), file.read(_MAX_CACHE_BYTES)
            if digest.decode("latin-1").strip() == hashlib.sha256(key + content).hexdigest():
                return [[Parsed(*one) for one in each] for each in json.loads(content)]
    parsed = [list(parse(path, grid)) for path in paths]
    content = json.dumps(parsed).encode()
    for place in places:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, f"{hashlib.sha256(key + content).hexdigest()}\n".encode() + content)
            break
    return parsed
