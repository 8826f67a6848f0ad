"""Melodies as token sequences: the notes of a voice on a grid of time, and back.

Tokens: 0 is a rest and `pitch - 20` stands for MIDI pitch 21..108, a piano's 88 keys: the music setting of SeqGAN (Yu
et al., AAAI 2017). The start token, 89, is fed to the generator and never produced by it. With `onsets`
the pitches 1..88 begin a note, and `pitch + 68`, 89..176, says that it goes on; the start token is 177. So a note
struck again is two notes, where without onsets equal neighbours are one. A pitch that goes on after anything but
itself, as a model may say, begins a note.

Which notes are the melody. A voice is a (track, channel) pair, without the drum channel. The melody is the voice whose
notes are most often the highest at the moment they begin; where its own notes overlap, the highest wins. On Nottingham
this always picks the tune. The highest mean pitch, the highest mean velocity and the longest time on top do not: some
chord tracks are louder, or partly higher, than the tune.

How time becomes frames. A frame is the pitch that sounds longest in it, and a rest only if more than half of it is
silent. Sampling on the grid, as pretty_midi's `get_piano_roll` does, looks simpler. But MIDI writers leave a gap of a
tick before each onset, and a grid that meets the beat falls into these gaps. Time is counted in whole millionths of a
second or of a beat, so that ties do not depend on rounding; the higher pitch wins them.
"""

import itertools
import math
import re
from typing import NamedTuple

import numpy as np
from pretty_midi import note_name_to_number

REST = 0
LOWEST_PITCH, HIGHEST_PITCH = 21, 108
KEYS = HIGHEST_PITCH - LOWEST_PITCH + 1


class Notes(NamedTuple):
    """The pitched notes of a file, four int64 arrays [notes]; times in millionths of a second or a quarter note."""

    start: np.ndarray  # onset
    end: np.ndarray  # release, never before `start`
    pitch: np.ndarray  # MIDI pitch 0..127
    voice: np.ndarray  # `16 * track + channel`
    duration: int  # time of the last event of any kind
    tempo: float  # mean tempo from the beginning to `duration`, beats a minute; of an empty file, the first
    sharps: int | None = None  # of the first key signature, -7..7, below 0 flats; None: the file has none


class Grid(NamedTuple):
    """What a token is."""

    seconds: float = 0.4  # that it lasts; where there are `beats`, when it is played
    beats: float = 0.0  # that it lasts, quarter notes of its file, whatever their tempo; or 0
    onsets: bool = False  # whether tokens tell a note that begins from one that goes on

    def __str__(self) -> str:
        return f"{self.beats:g} beats" if self.beats else f"{self.seconds:g} s"

    @property
    def vocab_size(self) -> int:
        """V: tokens are 0..V-1; V itself is the start token, fed at the first step and never generated."""
        return 1 + KEYS * (2 if self.onsets else 1)


def melody(notes: Notes) -> Notes:
    """Keeps the voice whose notes are most often the highest at the moment they begin (the first voice at a tie)."""
    edges, top = _highest(notes, np.empty(0, np.int64))
    top, begins = top[top >= 0], edges[:-1][top >= 0]
    voices, count = np.unique(notes.voice[top[notes.start[top] == begins]], return_counts=True)
    if not voices.size:
        return notes
    mine = notes.voice == voices[np.argmax(count)]
    return notes._replace(**{name: getattr(notes, name)[mine] for name in ("start", "end", "pitch", "voice")})


def to_tokens(notes: Notes, grid: Grid) -> np.ndarray:
    """Turns the notes of one voice into a token a frame, rests at both ends included: int32 [frames].

    Pitches outside 21..108 are moved by octaves into that range. The number of frames is the duration rounded to the
    nearest. The notes' times are in millionths of a beat where the grid is in beats, else of a second. With onsets a
    frame says that its note goes on where it is, for the most part, the one of the frame before.
    """
    frame = (grid.beats or grid.seconds) * 1e6
    frames = math.floor(notes.duration / frame + 0.5)
    frame_edges = np.rint(np.arange(frames + 1) * frame).astype(np.int64)
    edges, top = _highest(notes, frame_edges)
    place = np.searchsorted(frame_edges, edges[:-1], side="right") - 1
    heard = (top >= 0) & (place < frames)
    pitch = notes.pitch[top[heard]]
    pitch = pitch + 12 * np.maximum(0, -(-(LOWEST_PITCH - pitch) // 12))
    pitch = pitch - 12 * np.maximum(0, -(-(pitch - HIGHEST_PITCH) // 12))
    length, place, token = np.diff(edges)[heard], place[heard], pitch - LOWEST_PITCH + 1

    tokens = _elect(place, token, length, frames)
    tokens[2 * np.bincount(place, weights=length, minlength=frames) < np.diff(frame_edges)] = REST
    if grid.onsets:
        mine = token == tokens[place]
        order = len(notes.start) - top[heard]  # the earlier of two that sound as long
        held = _elect(place[mine], order[mine], length[mine], frames)
        tokens[1:] += KEYS * ((held[1:] == held[:-1]) & (tokens[1:] != REST)).astype(np.int32)
    return tokens


def _elect(place: np.ndarray, choice: np.ndarray, length: np.ndarray, frames: int) -> np.ndarray:
    """The choice that lasts longest in each frame, the largest of equals: int32 [frames], 0 where there is none.

    `place`, `choice` > 0 and `length` are of pieces of time, [pieces].
    """
    size = int(choice.max(initial=0)) + 1
    # One vote for each (frame, choice) that occurs; a table of all of them could be 30 million entries.
    candidates, index = np.unique(place * size + choice, return_inverse=True)
    # The last of several values for a frame stays: the most votes and, as candidates are sorted, the largest.
    winners = candidates[np.argsort(np.bincount(index, weights=length, minlength=len(candidates)), kind="stable")]
    elected = np.zeros(frames, np.int32)
    elected[winners // size] = winners % size
    return elected


def _highest(notes: Notes, more_edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts time at every onset, release and further edge, and finds the highest note of each piece.

    Returns edges, int64 [pieces + 1] in the notes' unit, and the highest note's index, int64 [pieces], -1 in silence.
    """
    edges = np.unique(np.concatenate([notes.start, notes.end, more_edges]))
    top = np.full(max(len(edges) - 1, 0), -1)
    first, last = np.searchsorted(edges, notes.start), np.searchsorted(edges, notes.end)
    for note in np.lexsort((-notes.voice, notes.pitch)):  # paint upwards: what is higher covers what is lower
        top[first[note] : last[note]] = note
    return edges, top


def trim(tokens: np.ndarray) -> np.ndarray:
    """Drops the rests before the first note and after the last: int32 [length] to int32 [at most length]."""
    notes = np.flatnonzero(tokens != REST)
    return tokens[notes[0] : notes[-1] + 1] if notes.size else tokens[:0]


def transposed(tokens: np.ndarray, semitones: int) -> np.ndarray:
    """A tune so many semitones higher, int32 [length] to the same.

    A tune that would leave the 88 keys is an octave off; of one that is wider than that leaves, single notes are.
    """
    pitch = (tokens - 1) % KEYS + semitones
    heard = pitch[tokens != REST]
    pitch += 12 * int((heard < 0).any()) - 12 * int((heard >= KEYS).any())
    pitch += 12 * (pitch < 0) - 12 * (pitch >= KEYS)
    return np.where(tokens == REST, REST, 1 + pitch + (tokens - 1) // KEYS * KEYS).astype(np.int32)


def before_end(rows: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """The tokens of each sequence, int [n, T], that come before its end, the id V of the grid, if it has one."""
    return [row[row < grid.vocab_size] for row in rows]


def to_pitches(tokens: np.ndarray) -> np.ndarray:
    """The MIDI pitches of tokens, integers of any shape, with onsets or without; 0 stays a rest."""
    return np.where(tokens == REST, 0, (tokens - 1) % KEYS + LOWEST_PITCH)


def begins(tokens: np.ndarray, onsets: bool) -> np.ndarray:
    """Whether a note begins with each token: integers [..., T] to bool [..., T]."""
    return (tokens != REST) & ((np.diff(to_pitches(tokens), axis=-1, prepend=-1) != 0) | (onsets & (tokens <= KEYS)))


def spans(tokens: np.ndarray, onsets: bool) -> list[tuple[int, int, int]]:
    """The notes of a tune, [T]: the MIDI pitch of each, its first token, and the one after its last."""
    pitches = to_pitches(tokens)
    cuts = np.flatnonzero(begins(tokens, onsets) | (np.diff(pitches, prepend=-1) != 0)).tolist()
    return [(int(pitches[a]), a, b) for a, b in itertools.pairwise([*cuts, len(tokens)]) if pitches[a]]


def named(word: str, before: int | None, onsets: bool) -> int | None:
    """The token of a note's name, such as C#4, of R, a rest, or of -, what was `before` goes on; None: it has none."""
    if word == "-" and before is not None:
        return before + KEYS if onsets and 0 < before <= KEYS else before
    if word.upper() == "R":
        return REST
    pitch = note_name_to_number(word) if re.fullmatch("[A-Ga-g][#b]?[0-9]", word) else 0
    return pitch - LOWEST_PITCH + 1 if LOWEST_PITCH <= pitch <= HIGHEST_PITCH else None


def note_value(seconds: float) -> float:
    """The power of two of a beat that lasts so long at a tempo above 60 and up to 120 beats a minute."""
    return 2.0 ** math.floor(math.log2(2 * seconds))
