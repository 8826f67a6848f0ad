"""What can be told of a melody on a grid: its notes, key and metre, and how it is written down."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.music.tokens import Grid, note_value, spans

LETTERS = "CDEFGAB"
# How well a pitch class fits a key, from its tonic upwards, as listeners rated it (Krumhansl and Kessler, Psychological
# Review 89, 1982).
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_PROFILES = np.array([np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)])
_DUPLE, _TRIPLE = (2, 4, 8), (1.5, 3, 6)  # beats after which a tune of such a metre has alike note lengths
_LONGEST = 3  # beats; a longer note counts as one of these
_LENGTHS = sorted(n << k for n in (1, 3) for k in range(7))  # of one note or rest, in tokens; 7 needs two


class Key(NamedTuple):
    """A major or minor key: the pitch class of its tonic, 0 for C to 11 for B."""

    tonic: int
    minor: bool

    @property
    def sharps(self) -> int:
        """Sharps of its signature, -5..6; below 0 flats."""
        return (7 * (self.tonic + 3 * self.minor) + 5) % 12 - 5

    def __str__(self) -> str:
        """As ABC has it, such as `F#m` or `Bb`."""
        letter, sharp = _name_of(self.sharps + 3 * self.minor)
        return LETTERS[letter] + ("b", "", "#")[sharp + 1] + "m" * self.minor


class Tune(NamedTuple):
    """A melody and what is estimated of it."""

    tokens: np.ndarray  # int [T]
    notes: np.ndarray  # int [n, 3]: pitch, start and length in tokens
    value: float  # beats (quarter notes) that a token is written as, a power of two
    key: Key  # whose profile correlates most with how long each pitch class sounds; C major where none stands out
    metre: str  # 4/4, 3/4 or 6/8
    bar: int  # its tokens; the first begins with the tune
    beam: float  # tokens that one may join


class Sign(NamedTuple):
    """A note or rest of a bar, and how it is written."""

    start: int  # in tokens
    length: int  # in tokens
    step: int | None = None  # counts the letters from C0, None for a rest
    sharp: int | None = None  # its accidental, -1, 0 or 1, None without
    tied: bool = False  # whether the next sign is the same note


def analysed(tokens: np.ndarray, grid: Grid, plain: bool = False) -> Tune:
    """What can be told of a melody, int [T]; its tokens are written as the nearest power of two of a beat, 1/16..4.

    With `plain` its key has no sharps or flats, as tunes of a run with --transpose key.
    """
    notes = np.array([(pitch, a, b - a) for pitch, a, b in spans(tokens, grid.onsets)], int).reshape(-1, 3)
    value = 2.0 ** min(max(round(math.log2(grid.beats or note_value(grid.seconds))), -4), 2)
    metre = _metre_of(notes, len(tokens), value)
    bar, beam = {"4/4": (4, 2), "3/4": (3, 1), "6/8": (3, 1.5)}[metre]  # beats
    return Tune(tokens, notes, value, _key_of(notes, plain), metre, int(bar / value), beam / value)


def _key_of(notes: np.ndarray, plain: bool) -> Key:
    sounding = np.bincount(notes[:, 0] % 12, notes[:, 2], minlength=12)
    if np.ptp(sounding) == 0:
        return Key(0, False)
    alike, keys = np.corrcoef(sounding, _PROFILES)[0, 1:], [Key(i % 12, i >= 12) for i in range(24)]
    return max((key for key in keys if not (plain and key.sharps)), key=lambda key: alike[key.tonic + 12 * key.minor])


def _metre_of(notes: np.ndarray, frames: int, value: float) -> str:
    """After how many beats the lengths of the notes, each at its onset, come again: by their autocorrelation."""
    lengths = np.zeros(frames)
    lengths[notes[:, 1]] = np.minimum(notes[:, 2], _LONGEST / value)
    lengths -= lengths.mean() if frames else 0

    def alike(*many: float) -> float:
        lags = [int(beats / value) for beats in many if beats / value % 1 == 0 and beats / value < frames]
        return float(np.mean([(lengths[lag:] * lengths[:-lag]).mean() for lag in lags])) if lags else 0.0

    if value > 1 or alike(*_TRIPLE) <= alike(*_DUPLE):
        return "4/4"
    return "6/8" if 1.5 / value % 1 == 0 and alike(1.5) > alike(1) else "3/4"


def _name_of(fifths: int) -> tuple[int, int]:
    """The note so many fifths above C: its letter, and its sharps, below 0 flats."""
    return 4 * fifths % 7, (fifths + 1) // 7


def written(tune: Tune) -> list[list[Sign]]:
    """The signs of each bar.

    A note of no single length, or over a bar line, is tied. An accidental holds until the bar line, for some programs
    in its octave alone and for others in all: so it is left out only where both agree.
    """
    notes, frames, sharps = tune.notes, len(tune.tokens), tune.key.sharps
    # Of twelve fifths in a row: from the minor third to the leading tone of the minor key, without double sharps.
    lowest = min(sharps - 3, 1)
    in_key = dict(map(_name_of, range(sharps - 1, sharps + 6)))
    bars: list[list[Sign]] = []
    altered: dict[tuple[int, int | None], int] = {}  # by letter and octave, and by letter and None
    signed: set[int] = set()  # letters with an accidental in this bar
    rows, end = [], 0
    for pitch, start, length in [*notes.tolist(), (0, frames, 0)]:
        rows += [(0, end, start - end), (pitch, start, length)]  # what is between notes is a rest
        end = start + length
    for pitch, start, left in rows:
        letter, sharp = _name_of(lowest + (7 * pitch - lowest) % 12)
        octave, accidental = (pitch - sharp) // 12 - 1, None
        while left:
            if start % tune.bar == 0:
                bars.append([])
                altered, signed = {}, set()
            length = max(n for n in _LENGTHS if n <= min(left, tune.bar - start % tune.bar))
            left -= length
            if pitch:
                now = {altered.get((letter, place), in_key[letter]) for place in (octave, None)}
                # Programs compare what is tied with its signs, and give one that the bar has for another note, too.
                again = accidental is not None or (left > 0 and letter in signed)
                accidental = None if now == {sharp} and not again else sharp
                altered[letter, octave] = altered[letter, None] = sharp
                signed |= {letter} if accidental is not None else set()
                bars[-1].append(Sign(start, length, 7 * octave + letter, accidental, left > 0))
            else:
                bars[-1].append(Sign(start, length))
            start += length
    return bars


def bars_of(values: np.ndarray, tune: Tune) -> np.ndarray:
    """What a tune has for each token, [T], a row for each whole bar."""
    return values[: len(values) // tune.bar * tune.bar].reshape(-1, tune.bar)


def repeated_bars(tune: Tune) -> np.ndarray:
    """Whether each whole bar occurs before in the tune: bool [bars]."""
    bars = bars_of(tune.tokens, tune)
    return np.array([(bars[:i] == bar).all(axis=1).any() for i, bar in enumerate(bars)], bool)


class Stretch(NamedTuple):
    """What a sample shares with a tune: its `length` in tokens, and where it begins in both."""

    length: int
    first: int
    tune: int
    place: int


def longest_copies(samples: Sequence[np.ndarray] | np.ndarray, corpus: Sequence[np.ndarray]) -> list[Stretch]:
    """The longest stretch of each sample that a tune of the corpus has too, the first of equals.

    `samples`: tokens, int [any length] each. `corpus`: the same, one tune or more; `tune` counts them.
    """
    text = b"\xff".join(tune.astype(np.uint8).tobytes() for tune in corpus)  # tokens are below 255
    starts = np.cumsum([0, *(len(tune) + 1 for tune in corpus)])
    found = []
    for sample in samples:
        tokens, length, start = sample.astype(np.uint8).tobytes(), 0, 0
        for first in range(len(tokens)):
            while first + length < len(tokens) and tokens[first : first + length + 1] in text:
                length, start = length + 1, first
        at = text.find(tokens[start : start + length])
        tune = int(np.searchsorted(starts, at, side="right")) - 1
        found.append(Stretch(length, start, tune, at - int(starts[tune])))
    return found
