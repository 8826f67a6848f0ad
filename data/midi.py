"""Melodies as token sequences: a folder of MIDI files in, int32 arrays out, and back to MIDI files.

Tokens: 0 is a rest and `pitch - 20` stands for MIDI pitch 21..108 (a piano's 88 keys), one token every
`frame_seconds`. That is the music setting of SeqGAN (Yu et al., AAAI 2017, section 5.3): the solo track, 88 pitches,
0.4 s a token. The start token has an id of its own, 89; it is fed to the generator and never produced by it.
With `frame_beats` other than 0 a token is that many beats (quarter notes) of its file instead, whatever their tempo.

Which notes are the melody. Notes are grouped by voice, a (track, channel) pair, without the drum channel. The melody is
the voice whose notes are most often the highest sounding one at the moment they begin. Where notes overlap within that
voice, the highest wins. On the 1,037 files of the Nottingham set this picks the tune (abc2midi writes it to channel 0)
every time. The highest mean pitch, the highest mean velocity and the longest time on top each miss it once: two files
have a chord track that is louder, or partly higher, than the tune.

How time becomes frames. Frame i is [i f, (i + 1) f), with f in seconds or in beats. It becomes the pitch that sounds
longest in it, and a rest only if more than half of it is silent. Sampling on the grid, as pretty_midi's
`get_piano_roll(fs=1 / f)` does, looks simpler. But MIDI writers leave a gap of a tick before each onset, and where the
grid meets the beat (in Nottingham: every fifth frame of 0.4 s, at 120 beats a minute) it falls into those gaps: 17.3 %
rests on Nottingham, where 0.1 % are real. A vote over the frame cannot see a gap that short. And of all ways to choose
one pitch a frame it describes the most of the sounding time: 75 % on Nottingham, against 61 % for the pitch at the
frame's first instant. Time is counted in whole millionths of a second or of a beat, so ties do not depend on rounding;
the higher pitch wins them.

What is written has a tempo mark that makes a token a note value, so that notation programs find every note on their
grid: an eighth at 75 beats a minute for 0.4 s, `frame_beats` of a quarter note where that is given.

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
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import pretty_midi

from data import DataError
from runs.directories import METRICS
from support.config_file import CONFIG

REST = 0
START = 89  # fed at the first step, never generated
VOCAB_SIZE = 89  # tokens 0..88; an embedding that is also fed START needs VOCAB_SIZE + 1 rows
LOWEST_PITCH = 21
HIGHEST_PITCH = 108
SPLITS = ("train", "valid", "test")

# What a file may cost. The largest Nottingham file has 19 kB and lasts 7.5 minutes.
MAX_FILE_BYTES = 1 << 20  # mido makes an object of some 300 bytes out of 2 bytes of file
MAX_SECONDS = 3600.0
MAX_BEATS = 36_000.0  # ten a second
MAX_TICKS = 1 << 40  # keeps products with a 24-bit tempo well inside float64
MIN_FRAME_SECONDS, MAX_FRAME_SECONDS = 0.01, 10.0
MIN_FRAME_BEATS, MAX_FRAME_BEATS = 0.0625, 4.0
MIN_TEMPO, MAX_TEMPO = 30.0, 300.0  # beats a minute of what is written; a frame in beats then lasts 0.0125 to 8 s
SLOWEST = 60  # beats a minute; where a file has no beat of its own, it is written at a tempo in (SLOWEST, 2 SLOWEST]

_PITCH_OFFSET = LOWEST_PITCH - 1
_DRUM_CHANNEL = 9
_ALL_NOTES_OFF = 123  # MIDI control number
_DEFAULT_TEMPO = 500_000  # microseconds a quarter note, MIDI's default: 120 a minute
_RESOLUTION = 960  # ticks a beat of what is written: a whole number of them for a 64th of a beat
_CACHE_VERSION = 3  # raise it whenever the same files would give other tokens or reasons
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
        tempo: median over the train tunes of a tune's mean tempo, beats a minute.
    """

    train: list[np.ndarray]
    valid: list[np.ndarray]
    test: list[np.ndarray]
    skipped: list[tuple[str, str]]
    tempo: float


class Notes(NamedTuple):
    """The pitched notes of a file: four int64 arrays [notes], and the file's length.

    Times are in millionths of a second or of a beat (a quarter note).

    Attributes:
        start: onset.
        end: release, never before `start`.
        pitch: MIDI pitch 0..127.
        voice: `16 * track + channel`.
        duration: time of the last event of any kind.
        tempo: mean tempo from the beginning to `duration`, beats a minute; of an empty file, the first.
    """

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    voice: np.ndarray
    duration: int
    tempo: float


class _Frame(NamedTuple):
    """What a token lasts: so many `beats` where they are not 0, else `seconds`."""

    seconds: float
    beats: float

    def __str__(self) -> str:
        return f"{self.beats:g} beats" if self.beats else f"{self.seconds:g} s"


# ---------------------------------------------------------------------------------------------------------------------
# MIDI to tokens


def read_notes(content: bytes, by_beat: bool = False) -> Notes:
    """Read the notes of a Standard MIDI File, drums left out.

    A note ends at the first note-off of its channel and pitch; one that is never ended is dropped. Tempo changes count
    whichever track they stand in.

    Args:
        content: the whole file, at most `MAX_FILE_BYTES`.
        by_beat: whether times are in millionths of a beat; otherwise in microseconds.

    Raises:
        DataError: the file is too large or too long, of a kind that is not read (type 2, SMPTE time), or none of its
            notes ends.
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
    last_tick, unended = 0, False
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
        last_tick, unended = max(last_tick, tick), unended or bool(sounding)
    if unended and not rows:
        raise DataError("no melody: none of its notes has an end")

    start, end, pitch, voice = np.array(rows, np.int64).reshape(-1, 4).T
    micros = round(_ticks_to_microseconds(np.array([last_tick]), tempi, midi.ticks_per_beat)[0])
    beats = last_tick / midi.ticks_per_beat
    if micros > MAX_SECONDS * 1e6:  # before anything with an entry a frame is made
        raise DataError(f"lasts {micros / 1e6:.0f} s; the limit is {MAX_SECONDS:.0f} s")
    if by_beat and beats > MAX_BEATS:
        raise DataError(f"has {beats:.0f} beats; the limit is {MAX_BEATS:.0f}")

    def time(ticks: np.ndarray) -> np.ndarray:
        if by_beat:
            return np.rint(ticks * (1e6 / midi.ticks_per_beat)).astype(np.int64)
        return np.rint(_ticks_to_microseconds(ticks, tempi, midi.ticks_per_beat)).astype(np.int64)

    tempo = 6e7 * beats / micros if micros else 6e7 / _DEFAULT_TEMPO
    return Notes(time(start), time(end), pitch, voice, int(time(np.array([last_tick]))[0]), tempo)


def melody(notes: Notes) -> Notes:
    """Keep the voice whose notes are most often the highest at the moment they begin (the first voice at a tie)."""
    edges, top = _highest(notes, np.empty(0, np.int64))
    top, begins = top[top >= 0], edges[:-1][top >= 0]
    voices, count = np.unique(notes.voice[top[notes.start[top] == begins]], return_counts=True)
    if not voices.size:
        return notes
    mine = notes.voice == voices[np.argmax(count)]
    return notes._replace(**{name: getattr(notes, name)[mine] for name in ("start", "end", "pitch", "voice")})


def to_tokens(notes: Notes, frame: float = 0.4) -> np.ndarray:
    """Turn the notes of one voice into a token a frame, rests at both ends included.

    Pitches outside 21..108 are moved by octaves into that range: the tune keeps its rhythm and its note names. The
    number of frames is the duration rounded to the nearest: a last piece shorter than half a frame is mostly silence.

    Args:
        notes: their times in millionths of the unit that `frame` is in.
        frame: duration of a token, seconds or beats.

    Returns:
        int32 [frames], values 0..88.
    """
    frames = math.floor(notes.duration / (frame * 1e6) + 0.5)
    frame_edges = np.rint(np.arange(frames + 1) * (frame * 1e6)).astype(np.int64)
    edges, top = _highest(notes, frame_edges)
    place = np.searchsorted(frame_edges, edges[:-1], side="right") - 1
    heard = (top >= 0) & (place < frames)
    length, place, token = np.diff(edges)[heard], place[heard], _fold(notes.pitch[top[heard]]) - _PITCH_OFFSET

    # One vote for each (frame, token) that occurs; a table of all of them could be 30 million entries.
    candidates, index = np.unique(place * VOCAB_SIZE + token, return_inverse=True)
    votes = np.bincount(index, weights=length)
    # The last of several values for a frame stays: the most votes and, as candidates are sorted, the higher pitch.
    winners = candidates[np.argsort(votes, kind="stable")]
    tokens = np.full(frames, REST, np.int32)
    tokens[winners // VOCAB_SIZE] = winners % VOCAB_SIZE
    tokens[2 * np.bincount(place, weights=length, minlength=frames) < np.diff(frame_edges)] = REST
    return tokens


def read_tokens(path: str | os.PathLike, frame_seconds: float = 0.4, frame_beats: float = 0.0) -> np.ndarray:
    """Read the melody of one MIDI file, rests at both ends included: the inverse of `write_midi`.

    Args:
        path: of the file.
        frame_seconds: duration of a token, seconds, 0.01..10.
        frame_beats: 0, or the duration of a token in beats of the file, 1/16..4; `frame_seconds` then does nothing.

    Returns:
        int32 [frames], values 0..88.

    Raises:
        DataError: the file cannot be used; the message names it and says why.
    """
    _check_frame(frame_seconds, frame_beats)
    return _read(path, _Frame(frame_seconds, frame_beats))[0]


def _read(path: str | os.PathLike, frame: _Frame) -> tuple[np.ndarray, float]:
    """`read_tokens`, and the file's mean tempo."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        notes = melody(read_notes(content, by_beat=frame.beats > 0))
        return to_tokens(notes, frame.beats or frame.seconds), notes.tempo
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
        edges int64 [pieces + 1] in the notes' unit, and the index of the highest note int64 [pieces], -1 in silence.
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


def _check_frame(frame_seconds: float, frame_beats: float) -> None:
    if not MIN_FRAME_SECONDS <= frame_seconds <= MAX_FRAME_SECONDS:  # also refuses nan
        raise DataError(f"frame_seconds must be in {MIN_FRAME_SECONDS}..{MAX_FRAME_SECONDS}, not {frame_seconds}")
    if frame_beats != 0 and not MIN_FRAME_BEATS <= frame_beats <= MAX_FRAME_BEATS:
        raise DataError(f"frame_beats must be 0 or in {MIN_FRAME_BEATS}..{MAX_FRAME_BEATS}, not {frame_beats}")


def _one_line(error: Exception) -> str:
    """The message of an exception, or its type if there is none, as one line of bounded length."""
    if isinstance(error, EOFError):
        return "ends too early"  # mido says nothing
    return " ".join(str(error).split())[:200] or type(error).__name__


# ---------------------------------------------------------------------------------------------------------------------
# Tokens to MIDI


def note_value(frame_seconds: float) -> float:
    """The power of two of a beat that lasts `frame_seconds` at a tempo above 60 and up to 120 beats a minute."""
    return 2.0 ** math.floor(math.log2(2 * SLOWEST / 60 * frame_seconds))


def to_pitches(tokens: np.ndarray) -> np.ndarray:
    """The MIDI pitches of tokens, integers of any shape; 0 stays a rest."""
    return np.where(tokens == REST, 0, tokens + _PITCH_OFFSET)


def to_pretty_midi(
    tokens: Sequence[int] | np.ndarray, frame_seconds: float = 0.4, frame_beats: float = 0.0
) -> pretty_midi.PrettyMIDI:
    """Turn tokens into a song of one instrument; equal neighbours become one held note.

    Args:
        tokens: integers [length], values 0..88.
        frame_seconds: duration of a token, seconds, 0.01..10.
        frame_beats: its note value, beats (quarter notes), 1/16..4; 0: `note_value`. With the duration it makes the
            tempo mark.

    Raises:
        DataError: `tokens` are not one sequence of integers in 0..88, or a duration is out of range.
    """
    _check_frame(frame_seconds, frame_beats)
    tokens = np.asarray(tokens)
    if tokens.size == 0:
        tokens = tokens.astype(np.int32)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or np.any((tokens < 0) | (tokens >= VOCAB_SIZE)):
        raise DataError(f"tokens must be one sequence of integers in 0..{VOCAB_SIZE - 1}")
    beats = frame_beats or note_value(frame_seconds)
    micros = round(frame_seconds / beats * 1e6)  # a beat: a tempo mark holds whole microseconds
    seconds = beats * micros / 1e6  # of a token, on the grid of the ticks
    song = pretty_midi.PrettyMIDI(None, _RESOLUTION, 6e7 / micros / (1 + 1e-12))  # its `write` rounds micros down
    instrument = pretty_midi.Instrument(program=0, name="melody")
    cuts = [0, *(np.flatnonzero(np.diff(tokens)) + 1).tolist(), len(tokens)]
    for first, last in itertools.pairwise(cuts):
        if first < last and tokens[first] != REST:
            pitch = int(tokens[first]) + _PITCH_OFFSET
            instrument.notes.append(pretty_midi.Note(100, pitch, first * seconds, last * seconds))
    # An event at the very end, so that rests after the last note are not lost.
    instrument.control_changes.append(pretty_midi.ControlChange(_ALL_NOTES_OFF, 0, len(tokens) * seconds))
    song.instruments.append(instrument)
    return song


def write_midi(
    tokens: Sequence[int] | np.ndarray,
    path: str | os.PathLike,
    frame_seconds: float = 0.4,
    frame_beats: float = 0.0,
) -> None:
    """Write tokens as a MIDI file (type 1, one song, one instrument); a file at `path` is replaced as a whole.

    `read_tokens(path, frame_seconds, frame_beats)` returns the same tokens, as long as they last at most `MAX_SECONDS`.

    Raises:
        DataError: as `to_pretty_midi`.
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    to_pretty_midi(tokens, frame_seconds, frame_beats).write(content)
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


class Parsed(NamedTuple):
    """What a file gave.

    Attributes:
        tokens: int32 [length], without the rests at both ends.
        reason: why the file cannot be used, or "".
        tempo: its mean tempo, beats a minute.
    """

    tokens: np.ndarray
    reason: str
    tempo: float


def load_tunes(
    data_dir: str | os.PathLike,
    frame_seconds: float = 0.4,
    frame_beats: float = 0.0,
    min_len: int = 32,
    cache: bool = True,
    besides: str | os.PathLike | None = None,
) -> Tunes:
    """Read every `.mid` and `.midi` file under a folder, sub-folders included, hidden files not.

    Folders in it that hold a run (`config.json` and `metrics.csv`), or the folder `besides`, which is to hold one, are
    left out with all that is below them: MIDI files there are what a model wrote.

    A folder with `train`, `valid` and `test` in it is used as it is split. Otherwise the usable tunes, sorted by
    path, are dealt out in tens: the second of each ten goes to valid, the third to test, the others to train. So three
    tunes fill all three splits; with one or two of them, valid or test stay empty. Tunes of equal tokens count as one
    and go together. Rests before the first note and after the last are dropped. A file that cannot be used is left out
    with one logged warning.

    The parsed tokens are kept in `.tokens-<duration>.npz` in the folder or, if that cannot be written, in
    `$XDG_CACHE_HOME/seqgan` (`~/.cache/seqgan`), else nowhere. They are parsed again when a file's name, size or
    content, the duration of a token or this code's format changes, or the cache is damaged.

    Args:
        data_dir: the folder.
        frame_seconds: duration of a token, seconds, 0.01..10.
        frame_beats: 0, or the duration of a token in beats of its file, 1/16..4; `frame_seconds` then does nothing.
        min_len: the fewest tokens a tune may have, after trimming.
        cache: whether to read and write the cache.
        besides: a folder that is not read.

    Raises:
        DataError: there is no such folder, it has some but not all of the three sub-folders, no tune is left to train
            on, or an argument is out of range.
    """
    root = Path(data_dir)
    _check_frame(frame_seconds, frame_beats)
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

    tunes = Tunes([], [], [], [], 0.0)
    dealt: dict[bytes, str] = {}  # the split of each tune, by its tokens
    tempi = []
    frame = _Frame(frame_seconds, frame_beats)
    for name, (tokens, reason, tempo) in zip(names, _parse_cached(root, paths, names, frame, cache), strict=True):
        if not reason and len(tokens) < min_len:
            reason = f"too short: {len(tokens)} tokens of {frame}, {min_len} needed"
        if reason:
            tunes.skipped.append((name, reason))
            continue
        turn = {1: "valid", 2: "test"}.get(len(dealt) % 10, "train")
        split = name.split("/")[0] if present else dealt.setdefault(tokens.tobytes(), turn)
        getattr(tunes, split).append(tokens)
        tempi += [tempo] if split == "train" else []
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
            below += [Path(place, name) for name in names if name.lower().endswith((".mid", ".midi"))]
        visible = [path for path in below if not path.name.startswith(".") and path.is_file()]
        found += sorted(visible, key=lambda path: path.relative_to(folder).parts)
    return found


def _parse(path: Path, frame: _Frame) -> Parsed:
    """Read one file."""
    reason, tokens, tempo = "", np.empty(0, np.int32), 0.0
    try:
        if path.stat().st_size == 0:
            reason = "empty file"
        else:
            tokens, tempo = _read(path, frame)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ")
    except OSError as error:
        reason = _one_line(error)
    tokens = trim(tokens)
    return Parsed(tokens, reason or ("" if tokens.size else "no melody: it has no notes, or only drums"), tempo)


def _parse_cached(root: Path, paths: list[Path], names: list[str], frame: _Frame, cache: bool) -> list[Parsed]:
    """Parse the files, or take what an earlier call parsed from exactly these files."""
    if not cache:
        return [_parse(path, frame) for path in paths]
    key = _cache_key(paths, names, frame)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    places = [root / f".tokens-{str(frame).replace(' ', '')}.npz", home / "seqgan" / f"tokens-{key[:32]}.npz"]
    for place in places:
        parsed = _read_cache(place, key, len(paths))
        if parsed is not None:
            return parsed
    parsed = [_parse(path, frame) for path in paths]
    for place in places:
        if _write_cache(place, key, parsed):
            break
    return parsed


def _cache_key(paths: list[Path], names: list[str], frame: _Frame) -> str:
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


def _read_cache(place: Path, key: str, count: int) -> list[Parsed] | None:
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
        if tokens.dtype != np.int32 or tokens.ndim != 1 or np.any((tokens < 0) | (tokens >= VOCAB_SIZE)):
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
        _write_atomically(place, content.getvalue())
    except OSError:
        return False
    return True
