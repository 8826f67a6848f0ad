"""Measures of melodies: how near their pitches are to those of others, and what a musician hears in them."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import entr, rel_entr

from data.music.analysis import Tune
from support.metrics import mean_and_error

_SCALE = np.array([0, 2, 4, 5, 7, 9, 11])  # a major scale, and the minor one of its sixth note


def nearest_squared_difference(samples: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean squared difference of pitch between each sample and the reference it is nearest to, semitones².

    The mean is over the frames in which both sound; a rest has no pitch. The nearest reference, and not the mean over
    all, because a single held note is closer to all tunes on average than another real tune is (on Nottingham 23
    against 48).

    `samples`: MIDI pitches, 0 a rest, int [n, T]. `references`: the same, int [m, T], m >= 1. Returns float64 [n]; NaN
    where a sample sounds at no time together with any reference.
    """
    ours, theirs = samples.astype(np.float64), references.astype(np.float64)  # rests, 0, add nothing
    we_sound, they_sound = np.sign(ours), np.sign(theirs)
    total = ours**2 @ they_sound.T + we_sound @ (theirs**2).T - 2 * ours @ theirs.T  # [n, m]
    frames = we_sound @ they_sound.T  # [n, m]
    differences = np.divide(total, frames, out=np.full_like(total, np.nan), where=frames > 0)
    return np.fmin.reduce(differences, axis=1)


def pitch_range(samples: np.ndarray) -> np.ndarray:
    """Highest less lowest of MIDI pitches, 0 a rest, semitones: int [n, T] → float64 [n], NaN where all is silent."""
    pitches = np.where(samples == 0, np.nan, samples)
    return np.fmax.reduce(pitches, axis=1) - np.fmin.reduce(pitches, axis=1)


# What a musician hears


def musical(tune: Tune) -> dict[str, float]:
    """Figures of one tune, NaN where it has too few notes or bars for them.

    Returns:
        - `scale_consistency`: share of its notes in the major or minor scale that has most of them, as in muspy;
        - `pitch_class_entropy`: of its notes, bits, as in muspy;
        - `stepwise`: share of the moves to another pitch that are of one or two semitones;
        - `ends_on_tonic`: whether its last note is the tonic of its key;
        - `repeated_bars`: share of the whole bars after the first that occur before;
        - `alike_after_2`, `_4`, `_8`: share of its tokens that are what they were so many bars before.
    """
    tokens, pitches = tune.tokens, tune.notes[:, 0]
    bars = tokens[: len(tokens) // tune.bar * tune.bar].reshape(-1, tune.bar)
    again = [bool((bars[:i] == bars[i]).all(axis=1).any()) for i in range(1, len(bars))]
    figures = {"repeated_bars": float(np.mean(again)) if again else math.nan}
    for count in (2, 4, 8):
        lag = count * tune.bar
        alike = float(np.mean(tokens[lag:] == tokens[:-lag])) if lag < len(tokens) else math.nan
        figures[f"alike_after_{count}"] = alike
    share = np.bincount(pitches % 12, minlength=12) / max(len(pitches), 1)
    moves = np.abs(np.diff(pitches))
    moves = moves[moves > 0]
    some = len(pitches) > 0
    return figures | {
        "scale_consistency": max(float(share[(tonic + _SCALE) % 12].sum()) for tonic in range(12))
        if some
        else math.nan,
        "pitch_class_entropy": float(entr(share).sum() / math.log(2)) if some else math.nan,
        "stepwise": float(np.mean(moves <= 2)) if len(moves) else math.nan,
        "ends_on_tonic": float(pitches[-1] % 12 == tune.key.tonic) if some else math.nan,
    }


def intervals(tune: Tune) -> Counter:
    """How often each interval from a note to the next occurs, semitones, those beyond an octave as an octave."""
    return Counter(np.clip(np.diff(tune.notes[:, 0]), -12, 12).tolist())


def rhythms(tune: Tune) -> Counter:
    """How often each pattern of onsets fills a bar."""
    begins = np.zeros(len(tune.tokens), bool)
    begins[tune.notes[:, 1]] = True
    return Counter(bar.tobytes() for bar in begins[: len(begins) // tune.bar * tune.bar].reshape(-1, tune.bar))


def divergence(samples: Sequence[Counter], references: Sequence[Counter]) -> tuple[float, float]:
    """Jensen-Shannon divergence of what is counted in samples from what is counted in references, bits, 0..1.

    Few counts keep it above 0 even for samples of the same kind: compare only equal numbers of equal lengths.

    `samples`: a Counter each. `references`: the same, taken as they are. Returns (divergence, standard error): the
    jackknife's, a sample left out at a time. NaN where nothing is counted.
    """
    kinds = sorted(set().union(*samples, *references))
    counts, others = (
        np.array([[each[kind] for kind in kinds] for each in part], float) for part in (samples, references)
    )
    if not kinds or not counts.sum() or not others.sum():
        return math.nan, math.nan
    other = others.sum(axis=0) / others.sum()

    def of(totals: np.ndarray) -> np.ndarray:
        share = totals / totals.sum(axis=-1, keepdims=True)
        middle = (share + other) / 2
        return (rel_entr(share, middle) + rel_entr(other, middle)).sum(axis=-1) / (2 * math.log(2))

    with np.errstate(invalid="ignore"):  # where one sample has all
        without = of(counts.sum(axis=0) - counts)
    return float(of(counts.sum(axis=0))), (len(counts) - 1) * mean_and_error(without)[1]


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
