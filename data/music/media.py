"""Tunes to see and to hear. Their tokens last `Grid.seconds` each."""

from collections.abc import Sequence

import numpy as np
import pretty_midi
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data.music.midi import to_pretty_midi
from data.music.tokens import HIGHEST_PITCH, LOWEST_PITCH, Grid

SAMPLE_RATE = 16_000  # Hz; the highest of the 88 keys has 4,186 Hz


def piano_roll(tunes: np.ndarray | Sequence[np.ndarray], grid: Grid, title: str) -> np.ndarray:
    """Draws tunes below each other, time to the right and pitch upwards: int [n, T] → RGB, uint8 [height, width, 3]."""
    figure = Figure(figsize=(8, 1 + 1.2 * len(tunes)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    songs = [to_pretty_midi(tokens, grid).instruments[0].notes for tokens in tunes]
    pitches = [note.pitch for notes in songs for note in notes] or [LOWEST_PITCH, HIGHEST_PITCH]
    octaves = range(24, HIGHEST_PITCH + 1, 12)  # C1 to C8
    for axes, notes in zip(figure.subplots(len(tunes), sharex=True, squeeze=False)[:, 0], songs, strict=True):
        lengths, starts = [note.end - note.start for note in notes], [note.start for note in notes]
        axes.barh([note.pitch for note in notes], lengths, left=starts, height=1, edgecolor="white", linewidth=0.5)
        axes.set_yticks(octaves, [pretty_midi.note_number_to_name(pitch) for pitch in octaves])
        axes.set(xlim=(0, len(tunes[0]) * grid.seconds), ylim=(min(pitches) - 1, max(pitches) + 1))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    axes.set_xlabel("seconds")
    figure.suptitle(title)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def audio(tokens: np.ndarray, grid: Grid, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Plays a tune as sine tones: int [T] → float32 [T · seconds · rate] in -1..1, `rate` in Hz."""
    clip = np.zeros(round(len(tokens) * grid.seconds * rate), np.float32)
    song = to_pretty_midi(tokens, grid)
    if song.instruments[0].notes:  # silence can't be normalised
        wave = song.synthesize(fs=rate)
        clip[: len(wave)] = wave[: len(clip)]
    return clip


def wav(clip: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    """A WAV file of float32 [samples] in -1..1."""
    return tf.audio.encode_wav(clip[:, None], rate).numpy()
