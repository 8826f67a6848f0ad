"""Measures of melodies, by their pitches."""

import numpy as np


def nearest_squared_difference(samples: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean squared difference of pitch between each sample and the reference it is nearest to, semitones².

    The mean is over the frames in which both sound; a rest has no pitch. The nearest reference, and not the mean over
    all, because a single held note is closer to all tunes on average than another real tune is (on Nottingham 23
    against 48).

    Args:
        samples: MIDI pitches, 0 a rest, int [n, T].
        references: the same, int [m, T], m >= 1.

    Returns:
        float64 [n]; NaN where a sample sounds at no time together with any reference.
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
