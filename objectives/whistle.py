"""Objectives for tunes: can a tin whistle in D play them?

A tune is an array of MIDI pitches, one a token; 0 is a rest. A tin whistle has the notes of D major from D4 to B5, as
they are written. A whole tune may have no token; it scores 0.
"""

import numpy as np

D_MAJOR = (2, 4, 6, 7, 9, 11, 1)  # D E F# G A B C#, in semitones above C
NOTES = [0, *(pitch for pitch in range(62, 84) if pitch % 12 in D_MAJOR)]  # and rests


def playable(tunes: list[np.ndarray]) -> list[float]:
    """1 for a tune whose notes are all on the whistle, 0 for any other."""
    return [float(len(tune) > 0 and np.isin(tune, NOTES).all()) for tune in tunes]


def framed(tunes: list[np.ndarray]) -> list[float]:
    """1 for a playable tune that begins on a D, ends on the lowest, D4, and spans an octave; few do."""
    return [float(all(frame(tune))) for tune in tunes]


def framed_share(tunes: list[np.ndarray]) -> list[float]:
    """The share of these four rules that a tune keeps: easier to improve, as each counts."""
    return [float(np.mean(frame(tune))) for tune in tunes]


def frame(tune: np.ndarray) -> list[bool]:
    """Which of the four rules a tune keeps."""
    if not len(tune):
        return [False] * 4
    return [bool(np.isin(tune, NOTES).all()), tune[0] in (62, 74), tune[-1] == 62, max(tune) >= 74]
