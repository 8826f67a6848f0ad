"""What is measured of tunes beside real ones: how near their pitches are, and what a musician hears in them."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.spatial.distance import jensenshannon
from scipy.special import entr

from data.music.analysis import Tune, analysed, bars_of, longest_copies, repeated_bars
from data.music.media import SAMPLE_RATE, audio, piano_roll, wav
from data.music.midi import midi_file
from data.music.songs import make_folder, write_songs
from data.music.tokens import REST, Grid, before_end, to_pitches
from data.training_set import draw
from evaluation.evaluator import Due, Evaluator
from evaluation.ngrams import bleu, self_bleu
from evaluation.policy import MeasuredPolicy
from runs.directories import MEDIA, SONGS, WRITTEN_SONGS
from runs.logs import RunLog
from support.config import Config
from support.seeds import Purpose
from support.statistics import Figures, mean_and_error

SAMPLES = len(SONGS)  # tunes shown, played and written to files at a time
COPY_LENGTH = 16  # tokens; the shortest stretch of a training tune that counts as copied, in shorter sequences all
MUSICAL = (  # what `musical` tells
    *("scale_consistency", "pitch_class_entropy", "stepwise", "ends_on_tonic", "repeated_bars"),
    *("looped_bars", "alike_after_2", "alike_after_4", "alike_after_8"),
)


class TuneEvaluator(Evaluator):
    """Measures on windows of tunes that training never saw."""

    compared: tuple[str, ...] = (
        *("bleu2", "bleu3", "bleu4", "self_bleu4", "mse", "rest_share", "pitch_range", "copied_share", "longest_copy"),
        *(*MUSICAL, "interval_divergence", "rhythm_divergence"),
    )
    compares_at = "last"  # at the end of a phase alone, as it takes seconds

    def __init__(self, data: Any, config: Config):
        super().__init__(data, config)
        if data.spec.end_token is not None:  # the shorter a tune, the nearer a reference
            self.compared = (*(name for name in self.compared if name != "mse"), "length")

    def compare(self, samples: np.ndarray) -> Figures:
        """Compares sequences, int32 [n, T], with real tunes: (mean, standard error) of what is `compared`.

        The paper reports BLEU-4 and MSE for music and says neither what the references are nor between what pairs it
        takes the MSE, so its figures can't be compared with these. BLEU has all test sequences as references, `mse` is
        `nearest_squared_difference`, `copied_share` counts stretches of 16 tokens or, of a shorter one, all, and the
        divergences are of `intervals` and `rhythms` from those of the test sequences. What needs test is left out where
        it is empty; self-BLEU needs two sequences. One of rests alone counts in neither `mse` nor `pitch_range`.
        """
        if not len(samples):
            return {}
        values: dict[str, np.ndarray] = {}
        grid, test = self.data.grid, self.data.test
        heard, pitches = before_end(samples, grid), to_pitches(with_rests(samples, grid))
        if len(test):
            values |= dict(zip(("bleu2", "bleu3", "bleu4"), bleu(heard, before_end(test, grid)).T, strict=True))
            values["mse"] = nearest_squared_difference(pitches, to_pitches(with_rests(test, grid)))
        if len(heard) > 1:
            values["self_bleu4"] = self_bleu(heard, orders=(4,))[:, 0]
        values["length"] = np.array([len(tokens) for tokens in heard])
        values["rest_share"] = (samples == REST).sum(axis=1) / np.maximum(values["length"], 1)
        values["pitch_range"] = pitch_range(pitches)
        values["longest_copy"] = np.array([copy.length for copy in longest_copies(heard, self.data.tunes.train)])
        values["copied_share"] = values["longest_copy"] >= values["length"].clip(1, COPY_LENGTH)
        tunes = [analysed(tokens, grid) for tokens in heard]
        each = [musical(tune) for tune in tunes]
        values |= {name: np.array([figures[name] for figures in each]) for name in each[0]}
        defined = {name: values[name][~np.isnan(values[name])] for name in self.compared if name in values}
        figures = {name: mean_and_error(numbers) for name, numbers in defined.items() if len(numbers)}
        for name, counted in (("interval_divergence", intervals), ("rhythm_divergence", rhythms)):
            pair = divergence([counted(tune) for tune in tunes], [counted(tune) for tune in self._test_tunes])
            figures |= {} if math.isnan(pair[0]) else {name: pair}
        return figures | super().compare(samples)

    @cached_property
    def _test_tunes(self) -> list[Tune]:
        return [analysed(tokens, self.data.grid) for tokens in before_end(self.data.test, self.data.grid)]

    def show(self, policy: MeasuredPolicy, epoch: int, due: Due, log: RunLog) -> None:
        """Where samples are due: tunes to see and hear, and sample*.mid written anew to --log_dir and --songs_dir."""
        if not due.samples:
            return
        data, config, grid, log_dir = self.data, self.config, self.data.grid, Path(self.config.log_dir)
        generated = policy.sample(SAMPLES, Purpose.IMAGES, tf.constant(epoch)).numpy()
        real = draw(data.sequences, SAMPLES, config.seed, Purpose.IMAGES, epoch)
        songs = [midi_file(tokens, grid, config.transpose == "key") for tokens in before_end(generated, grid)]
        if not (log_dir / WRITTEN_SONGS).exists():  # what is there is of version 1.0
            for name in SONGS:
                (log_dir / name).unlink(missing_ok=True)
        write_songs(log_dir, SONGS, songs, spare=True)
        if config.songs_dir:
            make_folder(folder := Path(config.songs_dir))
            write_songs(folder, SONGS, songs, spare=True)
        for name, tunes in (("generated", with_rests(generated, grid)), ("real", with_rests(real, grid))):
            picture = piano_roll(tunes, grid, f"{name}, epoch {epoch}")
            clips = np.stack([audio(tokens, grid) for tokens in tunes])
            log.image(epoch, f"piano_roll/{name}", picture)
            log.audio(epoch, f"audio/{name}", clips, SAMPLE_RATE)
            if config.log_generation:
                (media := log_dir / MEDIA).mkdir(parents=True, exist_ok=True)
                (media / f"epoch{epoch:05d}_{name}.png").write_bytes(tf.io.encode_png(picture).numpy())
                for i, clip in enumerate(clips):
                    (media / f"epoch{epoch:05d}_{name}_{i}.wav").write_bytes(wav(clip))


_SCALE = np.array([0, 2, 4, 5, 7, 9, 11])  # a major scale, and the minor one of its sixth note


def nearest_squared_difference(samples: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean squared difference of pitch between each sample and the reference it is nearest to, semitones².

    The mean is over the frames in which both sound; a rest has no pitch. It is the nearest reference, as a held note is
    closer to all tunes on average than another real tune is.
    `samples`: MIDI pitches, 0 a rest, int [n, T]. `references`: the same, int [m, T], m >= 1. Returns float64 [n]; NaN
    where a sample sounds at no time together with any reference.
    """
    ours, theirs = samples.astype(np.float64), references.astype(np.float64)  # rests, 0, add nothing
    we_sound, they_sound = np.sign(ours), np.sign(theirs)
    total = ours**2 @ they_sound.T + we_sound @ (theirs**2).T - 2 * ours @ theirs.T  # [n, m]
    frames = we_sound @ they_sound.T  # [n, m]
    return np.fmin.reduce(np.divide(total, frames, out=np.full_like(total, np.nan), where=frames > 0), axis=1)


def with_rests(rows: np.ndarray, grid: Grid) -> np.ndarray:
    """Sequences, int [n, T], with rests from their end on."""
    return np.where(rows < grid.vocab_size, rows, REST)


def pitch_range(samples: np.ndarray) -> np.ndarray:
    """Highest less lowest of MIDI pitches, 0 a rest, semitones: int [n, T] → float64 [n], NaN where all is silent."""
    pitches = np.where(samples == 0, np.nan, samples)
    return np.fmax.reduce(pitches, axis=1) - np.fmin.reduce(pitches, axis=1)


def musical(tune: Tune) -> dict[str, float]:
    """Figures of one tune, NaN where it has too few notes or bars for them; METRICS says what they are.

    `scale_consistency` and `pitch_class_entropy` are muspy's. `looped_bars` are those with which a bar, or a phrase of
    two, ends its third or a later time in a row.
    """
    tokens, pitches = tune.tokens, tune.notes[:, 0]
    lags = {f"alike_after_{count}": count * tune.bar for count in (2, 4, 8)}
    figures = {name: np.mean(tokens[lag:] == tokens[:-lag]) for name, lag in lags.items() if lag < len(tokens)}
    if len(bars := bars_of(tokens, tune)) > 1:
        figures["repeated_bars"] = np.mean(repeated_bars(tune)[1:])
        third = np.zeros(len(bars), bool)
        for lag in (1, 2):
            again = (bars[lag:] == bars[:-lag]).all(axis=1)
            if len(again) >= 2 * lag:  # as many in a row are a third time
                third[3 * lag - 1 :] |= np.lib.stride_tricks.sliding_window_view(again, 2 * lag).all(axis=1)
        figures["looped_bars"] = np.mean(third[1:])
    if len(pitches):
        share = np.bincount(pitches % 12, minlength=12) / len(pitches)
        figures["scale_consistency"] = max(share[(tonic + _SCALE) % 12].sum() for tonic in range(12))
        figures["pitch_class_entropy"] = entr(share).sum() / math.log(2)
        figures["ends_on_tonic"] = pitches[-1] % 12 == tune.key.tonic
    if (moves := np.abs(np.diff(pitches))).any():
        figures["stepwise"] = np.mean(moves[moves > 0] <= 2)
    return {name: float(figures.get(name, math.nan)) for name in MUSICAL}


def intervals(tune: Tune) -> Counter:
    """How often each interval from a note to the next occurs, semitones, those beyond an octave as an octave."""
    return Counter(np.clip(np.diff(tune.notes[:, 0]), -12, 12).tolist())


def rhythms(tune: Tune) -> Counter:
    """How often each pattern of onsets fills a bar."""
    begins = np.zeros(len(tune.tokens), bool)
    begins[tune.notes[:, 1]] = True
    return Counter(bar.tobytes() for bar in bars_of(begins, tune))


def divergence(samples: Sequence[Counter], references: Sequence[Counter]) -> tuple[float, float]:
    """Jensen-Shannon divergence of what is counted in samples from what is counted in references, bits, 0..1.

    Few counts keep it above 0 even for samples of the same kind: compare only equal numbers of equal lengths.
    `samples`: a Counter each. `references`: the same, taken as they are. Returns (divergence, standard error): the
    jackknife's, a sample left out at a time. NaN where nothing is counted.
    """
    kinds = sorted(set().union(*samples, *references))
    tables = ([[each[kind] for kind in kinds] for each in part] for part in (samples, references))
    counts, others = (np.array(table, float) for table in tables)
    if not kinds or not counts.sum() or not others.sum():
        return math.nan, math.nan
    total, other = counts.sum(axis=0), np.broadcast_to(others.sum(axis=0), counts.shape)
    with np.errstate(invalid="ignore"):  # where one sample has all
        without = jensenshannon(total - counts, other, base=2, axis=1) ** 2
    return float(jensenshannon(total, other[0], base=2) ** 2), (len(counts) - 1) * mean_and_error(without)[1]
