"""Melodies as token sequences: a folder of MIDI files in, int32 arrays out, and back to MIDI files.

Tokens: 0 is a rest and `pitch - 20` stands for MIDI pitch 21..108 (a piano's 88 keys), one token every
`frame_seconds`. That is the music setting of SeqGAN (Yu et al., AAAI 2017, section 5.3): the solo track, 88 pitches,
0.4 s a token. The start token has an id of its own, 89; it is fed to the generator and never produced by it.

Which notes are the melody. Notes are grouped by voice, a (track, channel) pair, without the drum channel. The melody is
the voice whose notes are most often the highest sounding one at the moment they begin. Where notes overlap within that
voice, the highest wins. On the 1,037 files of the Nottingham set this picks the tune (abc2midi writes it to channel 0)
every time. The highest mean pitch, the highest mean velocity and the longest time on top each miss it once: two files
have a chord track that is louder, or partly higher, than the tune.

How time becomes frames. Frame i is [i f, (i + 1) f). It becomes the pitch that sounds longest in it, and a rest only if
more than half of it is silent. Sampling on the grid, as pretty_midi's `get_piano_roll(fs=1 / f)` does, looks simpler.
But MIDI writers leave a gap of a tick before each onset, and where the grid meets the beat (in Nottingham: every fifth
frame of 0.4 s, at 120 beats a minute) it falls into those gaps: 17.3 % rests on Nottingham, where 0.1 % are real.
A vote over the frame cannot see a gap that short. And of all ways to choose one pitch a frame it describes the most of
the sounding time: 75 % on Nottingham, against 61 % for the pitch at the frame's first instant. Time is counted in whole
microseconds, so ties do not depend on rounding; the higher pitch wins them.

File format: Standard MIDI Files 1.0 (MIDI Manufacturers Association), read with mido. Notes and tempi are taken from
mido's messages here, not by `pretty_midi.PrettyMIDI(path)`: that allocates an array with one entry a tick, ignores
tempo changes outside the first track and splits a voice in two where its instrument changes.
"""

import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import pretty_midi

from data import DataError

REST = 0
START = 89  # fed at the first step, never generated
VOCAB_SIZE = 89  # tokens 0..88; an embedding that is also fed START needs VOCAB_SIZE + 1 rows
LOWEST_PITCH = 21
HIGHEST_PITCH = 108
SPLITS = ("train", "valid", "test")

# What a file may cost. The largest Nottingham file has 19 kB and lasts 7.5 minutes.
MAX_FILE_BYTES = 1 << 20  # mido makes an object of some 300 bytes out of 2 bytes of file
MAX_SECONDS = 3600.0
MAX_TICKS = 1 << 40  # keeps products with a 24-bit tempo well inside float64
MIN_FRAME_SECONDS, MAX_FRAME_SECONDS = 0.01, 10.0

_PITCH_OFFSET = LOWEST_PITCH - 1
_DRUM_CHANNEL = 9
_ALL_NOTES_OFF = 123  # MIDI control number
_DEFAULT_TEMPO = 500_000  # microseconds a quarter note, MIDI's default: 120 a minute
_CACHE_VERSION = 1  # raise it whenever the same files would give other tokens
_MAX_CACHE_BYTES = 1 << 28
# mido reads a number as long as the high bit is set, at a quadratic cost: a file of 0xff bytes takes it minutes.
_ENDLESS_NUMBER = re.compile(rb"[\x80-\xff]{4096}")

_log = logging.getLogger(__name__)


class Tunes(NamedTuple):
    """A folder of tunes as tokens.

    Attributes:
        train: one int32 array [length] a tune, values 0..88.
        valid: the same.
        test: the same.
        skipped: (path relative to the folder, reason) of each file that was left out.
    """

    train: list[np.ndarray]
    valid: list[np.ndarray]
    test: list[np.ndarray]
    skipped: list[tuple[str, str]]


class Notes(NamedTuple):
    """The pitched notes of a file: four int64 arrays [notes], and the file's length.

    Attributes:
        start: onset, microseconds.
        end: release, microseconds, never before `start`.
        pitch: MIDI pitch 0..127.
        voice: `16 * track + channel`.
        duration: time of the last event of any kind, microseconds.
    """

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    voice: np.ndarray
    duration: int


# ---------------------------------------------------------------------------------------------------------------------
# MIDI to tokens


def read_notes(content: bytes) -> Notes:
    """Read the notes of a Standard MIDI File, drums left out.

    A note ends at the first note-off of its channel and pitch; one that is never ended is dropped. Tempo changes count
    whichever track they stand in.

    Args:
        content: the whole file, at most `MAX_FILE_BYTES`.

    Raises:
        DataError: the file is too large or too long, or of a kind that is not read (type 2, SMPTE time).
        Exception: whatever mido raises on a file that is damaged.
    """
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"larger than {MAX_FILE_BYTES} bytes")
    if _ENDLESS_NUMBER.search(content):
        raise DataError("a number in it never ends")
    midi = mido.MidiFile(file=io.BytesIO(content))
    if midi.type not in (0, 1):
        raise DataError(f"MIDI files of type {midi.type} are not read, only types 0 and 1")
    if midi.ticks_per_beat <= 0:
        raise DataError("time in SMPTE frames is not read, only in ticks a beat")

    rows = []  # start tick, end tick, pitch, voice
    tempi = [(0, _DEFAULT_TEMPO)]  # tick, microseconds a quarter note
    last_tick = 0
    for number, track in enumerate(midi.tracks):
        tick = 0
        sounding: dict[tuple[int, int], list[int]] = {}  # channel, pitch -> onset ticks
        for message in track:
            tick += message.time
            if tick > MAX_TICKS:
                raise DataError(f"longer than {MAX_TICKS} ticks")
            if message.type == "set_tempo":
                tempi.append((tick, message.tempo))
            elif message.type in ("note_on", "note_off") and message.channel != _DRUM_CHANNEL:
                key = message.channel, message.note
                if message.type == "note_on" and message.velocity > 0:
                    sounding.setdefault(key, []).append(tick)
                    continue
                onsets = sounding.pop(key, [])
                ended = [onset for onset in onsets if onset < tick]
                if ended:
                    rows.append((ended[0], tick, message.note, 16 * number + message.channel))
                    if len(ended) < len(onsets):  # struck again at the very tick of this release
                        sounding[key] = [tick]
        last_tick = max(last_tick, tick)

    start, end, pitch, voice = np.array(rows, np.int64).reshape(-1, 4).T
    start, end, (duration,) = (
        np.rint(_ticks_to_microseconds(ticks, tempi, midi.ticks_per_beat))
        for ticks in (start, end, np.array([last_tick]))
    )
    if duration > MAX_SECONDS * 1e6:  # before anything with an entry a frame is made
        raise DataError(f"lasts {duration / 1e6:.0f} s; the limit is {MAX_SECONDS:.0f} s")
    return Notes(start.astype(np.int64), end.astype(np.int64), pitch, voice, int(duration))


def melody(notes: Notes) -> Notes:
    """Keep the voice whose notes are most often the highest at the moment they begin (the first voice at a tie)."""
    edges, top = _highest(notes, np.empty(0, np.int64))
    top, begins = top[top >= 0], edges[:-1][top >= 0]
    voices, count = np.unique(notes.voice[top[notes.start[top] == begins]], return_counts=True)
    if not voices.size:
        return notes
    mine = notes.voice == voices[np.argmax(count)]
    return Notes(notes.start[mine], notes.end[mine], notes.pitch[mine], notes.voice[mine], notes.duration)


def to_tokens(notes: Notes, frame_seconds: float = 0.4) -> np.ndarray:
    """Turn the notes of one voice into a token a frame, rests at both ends included.

    Pitches outside 21..108 are moved by octaves into that range: the tune keeps its rhythm and its note names. The
    number of frames is the duration rounded to the nearest: a last piece shorter than half a frame is mostly silence.

    Returns:
        int32 [frames], values 0..88.

    Raises:
        DataError: `frame_seconds` is not in 0.01..10.
    """
    _check_frame_seconds(frame_seconds)
    frames = math.floor(notes.duration / (frame_seconds * 1e6) + 0.5)
    frame_edges = np.rint(np.arange(frames + 1) * (frame_seconds * 1e6)).astype(np.int64)
    edges, top = _highest(notes, frame_edges)
    frame = np.searchsorted(frame_edges, edges[:-1], side="right") - 1
    heard = (top >= 0) & (frame < frames)
    length, frame, token = np.diff(edges)[heard], frame[heard], _fold(notes.pitch[top[heard]]) - _PITCH_OFFSET

    # One vote for each (frame, token) that occurs; a table of all of them could be 30 million entries.
    candidates, index = np.unique(frame * VOCAB_SIZE + token, return_inverse=True)
    votes = np.bincount(index, weights=length)
    # The last of several values for a frame stays: the most votes and, as candidates are sorted, the higher pitch.
    winners = candidates[np.argsort(votes, kind="stable")]
    tokens = np.full(frames, REST, np.int32)
    tokens[winners // VOCAB_SIZE] = winners % VOCAB_SIZE
    tokens[2 * np.bincount(frame, weights=length, minlength=frames) < np.diff(frame_edges)] = REST
    return tokens


def read_tokens(path: str | os.PathLike, frame_seconds: float = 0.4) -> np.ndarray:
    """Read the melody of one MIDI file, rests at both ends included: the inverse of `write_midi`.

    Returns:
        int32 [frames], values 0..88.

    Raises:
        DataError: the file cannot be used; the message names it and says why.
    """
    _check_frame_seconds(frame_seconds)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        return to_tokens(melody(read_notes(content)), frame_seconds)
    except Exception as error:  # a damaged file makes mido raise almost anything
        raise DataError(f"{path}: {_one_line(error)}") from error


def trim(tokens: np.ndarray) -> np.ndarray:
    """Drop the rests before the first note and after the last: int32 [length] to int32 [at most length]."""
    notes = np.flatnonzero(tokens != REST)
    return tokens[notes[0] : notes[-1] + 1] if notes.size else tokens[:0]


def _ticks_to_microseconds(ticks: np.ndarray, tempi: list[tuple[int, int]], ticks_per_beat: int) -> np.ndarray:
    """Convert times [n] from ticks to microseconds (float64), given (tick, microseconds a beat) pairs in any order."""
    change, tempo = np.array(sorted(tempi, key=lambda pair: pair[0]), np.int64).T
    scale = tempo / ticks_per_beat
    change_time = np.concatenate([[0.0], np.cumsum(np.diff(change) * scale[:-1])])
    part = np.searchsorted(change, ticks, side="right") - 1
    return change_time[part] + (ticks - change[part]) * scale[part]


def _highest(notes: Notes, more_edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut time at every onset, release and further edge, and find the highest note of each piece.

    Returns:
        edges int64 [pieces + 1] in microseconds, and the index of the highest note int64 [pieces], -1 in silence.
    """
    edges = np.unique(np.concatenate([notes.start, notes.end, more_edges]))
    top = np.full(max(len(edges) - 1, 0), -1)
    first, last = np.searchsorted(edges, notes.start), np.searchsorted(edges, notes.end)
    for note in np.lexsort((-notes.voice, notes.pitch)):  # paint upwards: what is higher covers what is lower
        top[first[note] : last[note]] = note
    return edges, top


def _fold(pitch: np.ndarray) -> np.ndarray:
    """Move pitches by octaves into 21..108."""
    pitch = pitch + 12 * np.maximum(0, -(-(LOWEST_PITCH - pitch) // 12))
    return pitch - 12 * np.maximum(0, -(-(pitch - HIGHEST_PITCH) // 12))


def _check_frame_seconds(frame_seconds: float) -> None:
    if not MIN_FRAME_SECONDS <= frame_seconds <= MAX_FRAME_SECONDS:  # also refuses nan
        raise DataError(f"frame_seconds must be in {MIN_FRAME_SECONDS}..{MAX_FRAME_SECONDS}, not {frame_seconds}")


def _one_line(error: Exception) -> str:
    """The message of an exception, or its type if there is none, as one line of bounded length."""
    if isinstance(error, EOFError):
        return "ends too early"  # mido says nothing
    return " ".join(str(error).split())[:200] or type(error).__name__


# ---------------------------------------------------------------------------------------------------------------------
# Tokens to MIDI


def to_pretty_midi(tokens: Sequence[int] | np.ndarray, frame_seconds: float = 0.4) -> pretty_midi.PrettyMIDI:
    """Turn tokens into a song of one instrument; equal neighbours become one held note.

    The tempo mark is 120 a minute, as in the Nottingham files; note times follow from `frame_seconds` alone.

    Args:
        tokens: integers [length], values 0..88.
        frame_seconds: duration of a token, seconds.

    Raises:
        DataError: `tokens` are not one sequence of integers in 0..88, or `frame_seconds` is not in 0.01..10.
    """
    _check_frame_seconds(frame_seconds)
    tokens = np.asarray(tokens)
    if tokens.size == 0:
        tokens = tokens.astype(np.int32)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or np.any((tokens < 0) | (tokens >= VOCAB_SIZE)):
        raise DataError(f"tokens must be one sequence of integers in 0..{VOCAB_SIZE - 1}")
    instrument = pretty_midi.Instrument(program=0, name="melody")
    cuts = [0, *(np.flatnonzero(np.diff(tokens)) + 1).tolist(), len(tokens)]
    for first, last in itertools.pairwise(cuts):
        if first < last and tokens[first] != REST:
            pitch = int(tokens[first]) + _PITCH_OFFSET
            instrument.notes.append(pretty_midi.Note(100, pitch, first * frame_seconds, last * frame_seconds))
    # An event at the very end, so that rests after the last note are not lost.
    instrument.control_changes.append(pretty_midi.ControlChange(_ALL_NOTES_OFF, 0, len(tokens) * frame_seconds))
    song = pretty_midi.PrettyMIDI(resolution=480, initial_tempo=120)
    song.instruments.append(instrument)
    return song


def write_midi(tokens: Sequence[int] | np.ndarray, path: str | os.PathLike, frame_seconds: float = 0.4) -> None:
    """Write tokens as a MIDI file (type 1, one song, one instrument); a file at `path` is replaced as a whole.

    `read_tokens(path, frame_seconds)` returns the same tokens, as long as they last at most `MAX_SECONDS`.

    Raises:
        DataError: as `to_pretty_midi`.
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    to_pretty_midi(tokens, frame_seconds).write(content)
    _write_atomically(Path(path), content.getvalue())


def _write_atomically(path: Path, content: bytes) -> None:
    """Write beside and rename, so that whoever reads `path` sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# Folders of tunes


def load_tunes(data_dir: str | os.PathLike, frame_seconds: float = 0.4, min_len: int = 32, cache: bool = True) -> Tunes:
    """Read every `.mid` and `.midi` file under a folder, sub-folders included, hidden files not.

    A folder with `train`, `valid` and `test` in it is used as it is split. Otherwise the usable tunes, sorted by
    path, are dealt out in tens: the second of each ten goes to valid, the third to test, the others to train. So three
    tunes fill all three splits; with one or two of them, valid or test stay empty. Rests before the first note and
    after the last are dropped. A file that cannot be used is left out with one logged warning.

    The parsed tokens are kept in `.tokens-<frame_seconds>s.npz` in the folder or, if that cannot be written, in
    `$XDG_CACHE_HOME/seqgan` (`~/.cache/seqgan`), else nowhere. They are parsed again when a file's name, size or
    content, `frame_seconds` or this code's format changes, or the cache is damaged.

    Args:
        data_dir: the folder.
        frame_seconds: duration of a token, seconds, 0.01..10.
        min_len: the fewest tokens a tune may have, after trimming.
        cache: whether to read and write the cache.

    Raises:
        DataError: there is no such folder, it has some but not all of the three sub-folders, no tune is left to train
            on, or an argument is out of range.
    """
    root = Path(data_dir)
    _check_frame_seconds(frame_seconds)
    if min_len < 1:
        raise DataError(f"min_len must be at least 1, not {min_len}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    present = [split for split in SPLITS if (root / split).is_dir()]
    if present and len(present) < len(SPLITS):
        raise DataError(f"{root}: has {' and '.join(present)} but not all of train, valid and test")
    paths = _midi_files(root / split for split in present) if present else _midi_files([root])
    names = [path.relative_to(root).as_posix() for path in paths]
    if not paths:
        raise DataError(f"{root}: no .mid or .midi file in it")

    tunes = Tunes([], [], [], [])
    used = 0
    parsed = _parse_cached(root, paths, names, frame_seconds, cache)
    for name, (tokens, reason) in zip(names, parsed, strict=True):
        if not reason and len(tokens) < min_len:
            reason = f"too short: {len(tokens)} tokens of {frame_seconds:g} s, {min_len} needed"
        if reason:
            tunes.skipped.append((name, reason))
            continue
        split = name.split("/")[0] if present else {1: "valid", 2: "test"}.get(used % 10, "train")
        getattr(tunes, split).append(tokens)
        used += 1
    _tell_skipped(root, tunes.skipped)
    if not tunes.train:
        what = f"{root / 'train'}: no usable tune" if present else f"{root}: no usable tune"
        first = "; {}: {}".format(*tunes.skipped[0]) if tunes.skipped else ""
        raise DataError(f"{what} ({len(tunes.skipped)} of {len(paths)} files skipped{first})")
    return tunes


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

    Args:
        tunes: int32 arrays [length].
        seq_len: tokens a window.
        stride: tokens from one window's start to the next's.

    Returns:
        int32 [windows, seq_len], tune after tune.

    Raises:
        DataError: `seq_len` or `stride` is less than 1.
    """
    if seq_len < 1 or stride < 1:
        raise DataError(f"seq_len and stride must be at least 1, not {seq_len} and {stride}")
    cut = [np.lib.stride_tricks.sliding_window_view(t, seq_len)[::stride] for t in tunes if len(t) >= seq_len]
    return np.concatenate([np.empty((0, seq_len), np.int32), *cut]).astype(np.int32)


def _midi_files(folders: Iterable[Path]) -> list[Path]:
    """The MIDI files below the folders, sorted by path within each."""
    found = []
    for folder in folders:
        inside = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in (".mid", ".midi"))
        visible = (path for path in inside if not any(part.startswith(".") for part in path.parts))
        found += [folder / path for path in sorted(visible, key=lambda path: path.parts) if (folder / path).is_file()]
    return found


def _parse(path: Path, frame_seconds: float) -> tuple[np.ndarray, str]:
    """Read one file: its trimmed tokens, and why it cannot be used or the empty string."""
    nothing = np.empty(0, np.int32)
    try:
        if path.stat().st_size == 0:
            return nothing, "empty file"
        tokens = trim(read_tokens(path, frame_seconds))
    except DataError as error:
        return nothing, str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return nothing, _one_line(error)
    return (tokens, "") if tokens.size else (nothing, "no melody: it has no notes, or only drums")


def _parse_cached(
    root: Path, paths: list[Path], names: list[str], frame_seconds: float, cache: bool
) -> list[tuple[np.ndarray, str]]:
    """Parse the files, or take what an earlier call parsed from exactly these files."""
    if not cache:
        return [_parse(path, frame_seconds) for path in paths]
    key = _cache_key(paths, names, frame_seconds)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    places = [root / f".tokens-{frame_seconds:g}s.npz", home / "seqgan" / f"tokens-{key[:32]}.npz"]
    for place in places:
        parsed = _read_cache(place, key, len(paths))
        if parsed is not None:
            return parsed
    parsed = [_parse(path, frame_seconds) for path in paths]
    for place in places:
        if _write_cache(place, key, parsed):
            break
    return parsed


def _cache_key(paths: list[Path], names: list[str], frame_seconds: float) -> str:
    """A digest of everything the parsed tokens depend on."""
    files = []
    for path, name in zip(paths, names, strict=True):
        try:
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read(MAX_FILE_BYTES + 1)).hexdigest()
            files.append((name, path.stat().st_size, digest))
        except OSError:
            files.append((name, -1, "unreadable"))
    return hashlib.sha256(json.dumps([_CACHE_VERSION, float(frame_seconds), files]).encode()).hexdigest()


def _read_cache(place: Path, key: str, count: int) -> list[tuple[np.ndarray, str]] | None:
    """The parsed files of a cache, or None if it is absent, for other files, or damaged."""
    try:
        with zipfile.ZipFile(place) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_CACHE_BYTES:
                return None
        with np.load(place, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            tokens, lengths, reasons = arrays["tokens"], arrays["lengths"], arrays["reasons"].tolist()
        if not len(lengths) == len(reasons) == count or lengths.min() < 0 or lengths.sum() != len(tokens):
            return None
        if tokens.dtype != np.int32 or tokens.ndim != 1 or np.any((tokens < 0) | (tokens >= VOCAB_SIZE)):
            return None
        return list(zip(np.split(tokens, np.cumsum(lengths)[:-1]), reasons, strict=True))
    except Exception:  # whatever is wrong with it, it can be made again
        return None


def _write_cache(place: Path, key: str, parsed: list[tuple[np.ndarray, str]]) -> bool:
    """Write a cache; say whether that worked."""
    content = io.BytesIO()
    tokens = [tokens for tokens, _ in parsed]
    reasons = np.array([reason for _, reason in parsed])
    np.savez(content, key=key, tokens=np.concatenate(tokens), lengths=[len(t) for t in tokens], reasons=reasons)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(place, content.getvalue())
    except OSError:
        return False
    return True
