"""Tunes as real data: the music experiment of SeqGAN (Yu et al., AAAI 2017, section 5.3) on a folder of MIDI files."""

import json
import math
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from data import DataError, Due, checksum
from data.held_out import D_FIGURES, HeldOut, warn_of_held_out
from data.music.analysis import Tune, analysed
from data.music.folder import MAX_TEMPO, MIN_TEMPO, SPLITS, Tunes, load_tunes, windows
from data.music.measures import (
    divergence,
    intervals,
    longest_copies,
    musical,
    nearest_squared_difference,
    pitch_range,
    rhythms,
)
from data.music.media import SAMPLE_RATE, audio, piano_roll, save_media
from data.music.midi import midi_file
from data.music.songs import check_songs, write_songs
from data.music.tokens import REST, Grid, to_pitches
from data.training_set import draw, spread, training_data
from runs.directories import MEDIA, SONGS, TEMPO, write_whole
from runs.logs import RunLog
from support.config import Config, UsageError
from support.metrics import bleu, mean_and_error, self_bleu
from support.seeds import Purpose

SAMPLES = len(SONGS)  # tunes shown, played and written to files at a time
TRAIN_TUNES = "tunes of train"  # what `digests` calls their checksum
MAX_HELD_OUT = 1024  # validation windows, and test windows, that are used; Nottingham has 813 and 794
COPY_LENGTH = 16  # tokens; the shortest stretch of a training tune that counts as copied, in shorter sequences all


class NottinghamData(HeldOut):
    """A folder of tunes: what training reads, and how far what is generated is from tunes that training never saw.

    Training draws its windows of --seq_len tokens at random from all those of the train split. As with the oracle, an
    epoch of pretraining is one such batch, and with --train_size it is a pass over a fixed set of windows. One batch is
    enough: on Nottingham the likelihood of held-out tunes is best after some 1,000 batches of 32 and falls afterwards.
    """

    oracle = None
    end_token: int | None = None
    compared = (
        *("bleu2", "bleu3", "bleu4", "self_bleu4", "mse", "rest_share", "pitch_range", "copied_share", "longest_copy"),
        *("scale_consistency", "pitch_class_entropy", "stepwise", "ends_on_tonic", "repeated_bars"),
        *("alike_after_2", "alike_after_4", "alike_after_8", "interval_divergence", "rhythm_divergence"),
    )
    evaluated = ("nll_test", "nll_valid", "g_entropy", *compared, *(f"real_{name}" for name in compared), *D_FIGURES)

    def __init__(self, config: Config):
        """Reads the tunes of --data_dir.

        Raises DataError: there is none to train on, or --train_size is more than there is. Raises UsageError:
        --songs_dir has songs of such names that are not this program's.
        """
        self.config, seq_len = config, config.seq_len
        self.origin = f"--data_dir {config.data_dir}"
        self.grid = Grid(config.frame_seconds, config.frame_beats, config.onsets)
        self.vocab_size = self.start_token = self.grid.vocab_size
        if config.songs_dir and config.is_train:
            check_songs(Path(config.songs_dir), SONGS)
        self.tunes = load(config)
        self.windows = windows(self.tunes.train, seq_len, config.window_stride)
        self.valid = spread(windows(self.tunes.valid, seq_len, seq_len), MAX_HELD_OUT)
        self.test = spread(windows(self.tunes.test, seq_len, seq_len), MAX_HELD_OUT)
        training = training_data(self.windows, config, "windows")
        self.mle_batches, self.real, self.references = training.mle_batches, training.real, training.references
        self.frame_seconds = frame_seconds(config, self.tunes.tempo)
        in_training = {tune.tobytes() for tune in self.tunes.train}
        known = {split: [tune.tobytes() in in_training for tune in getattr(self.tunes, split)] for split in SPLITS}
        warn_of_held_out(self.origin, {split: np.array(tunes, bool) for split, tunes in known.items()})

    def digests(self) -> dict[str, str]:
        """A checksum of the tokens of each split."""
        return {f"tunes of {split}": checksum(getattr(self.tunes, split)) for split in SPLITS}

    def files(self) -> dict[str, str]:
        """What is kept with the run: with --frame_beats the tempo of what is written."""
        if not self.config.frame_beats:
            return {}
        return {TEMPO: json.dumps({"beats_per_minute": self.tunes.tempo}) + "\n"}

    def decode(self, rows: np.ndarray) -> list[np.ndarray]:
        """The pitches of sequences, int32 [n, T], for an objective: int32 [T] each."""
        return list(to_pitches(rows))

    def introduction(self) -> str:
        """The line a run begins with."""
        config, tunes = self.config, self.tunes
        counts = ", ".join(f"{len(getattr(tunes, split))} {split}" for split in SPLITS)
        skipped = f", {len(tunes.skipped)} skipped" if tunes.skipped else ""
        length = f"{config.seq_len * self.frame_seconds:g} s"
        if config.frame_beats:
            length = f"{config.seq_len * config.frame_beats:g} beats, {length} at the tunes' median of {tunes.tempo:g}"
        return (
            f"{config.data_dir}: tunes: {counts}{skipped}; {len(self.windows)} training windows of {config.seq_len} "
            f"tokens ({length}); samples go to {Path(config.log_dir)}/sample*.mid"
        )

    def evaluate(self, model, epoch: int, due: Due) -> dict[str, tuple[float, float]]:
        """Measures a `model.SeqGAN` on held-out tunes; `epoch` picks the random numbers of its samples.

        Where valid or test is empty, the figures that need it are left out.

        Returns:
            (mean, standard error of the mean) of `nll_test` and `nll_valid`, -log G(Y) / T of windows that lie side by
            side in the split's tunes (at most 1,024 of them, always the same; their errors take no account of windows
            sharing a tune); and `g_entropy`, the same of --eval_samples generated sequences. Nats per token.
            At the end of a phase also the figures of `compare` for the generated sequences and, named `real_...`, for
            as many validation windows: what real tunes reach, which are no copies either.
        """
        generated = model.sample(self.config.eval_samples, Purpose.EVALUATE, tf.constant(epoch)).numpy()
        measured = {"g_entropy": generated, "nll_valid": self.valid, "nll_test": self.test}
        # All in one call, as each shape would be compiled on its own.
        nll = model.nll(tf.constant(np.concatenate(list(measured.values())))).numpy() / self.config.seq_len
        parts = np.split(nll, np.cumsum([len(tokens) for tokens in measured.values()])[:-1])
        figures = {name: mean_and_error(part) for name, part in zip(measured, parts, strict=True) if len(part)}
        return figures | self.beside_real(generated) if due.last else figures

    def compare(self, samples: np.ndarray) -> dict[str, tuple[float, float]]:
        """Compares sequences, int32 [n, T], with real tunes.

        The paper reports BLEU-4 and MSE for music and says neither what the references are nor between what pairs it
        takes the MSE, so its figures can't be compared with these.

        Returns:
            (mean over the sequences, standard error of the mean) of
            - `bleu2`, `bleu3`, `bleu4`: `metrics.bleu` with all test windows as references;
            - `self_bleu4`: `metrics.self_bleu` among the sequences, whose errors it takes for independent;
            - `mse`: `nearest_squared_difference` to the test windows, semitones²;
            - `rest_share`: share of tokens that are rests;
            - `pitch_range`: highest less lowest pitch of a sequence, semitones;
            - `copied_share`: share of sequences with 16 or more consecutive tokens of a training tune in them or, where
              --seq_len is less, that are such a stretch whole;
            - `longest_copy`: tokens of the longest stretch that a training tune has too;
            - what `musical` tells of each, and of all `interval_divergence` and `rhythm_divergence`, the `divergence`
              of their `intervals` and `rhythms` from those of the test windows.
            What needs test is left out where it is empty; self-BLEU needs two sequences, and all figures one. A
            sequence of rests alone counts in neither `mse` nor `pitch_range`.
        """
        if not len(samples):
            return {}
        values: dict[str, np.ndarray] = {}
        pitches = to_pitches(samples)
        if len(self.test):
            values |= dict(zip(("bleu2", "bleu3", "bleu4"), bleu(samples, self.test).T, strict=True))
            values["mse"] = nearest_squared_difference(pitches, to_pitches(self.test))
        if len(samples) > 1:
            values["self_bleu4"] = self_bleu(samples, orders=(4,))[:, 0]
        values["rest_share"] = (samples == REST).mean(axis=1)
        values["pitch_range"] = pitch_range(pitches)
        values["longest_copy"] = np.array([stretch.length for stretch in longest_copies(samples, self.tunes.train)])
        values["copied_share"] = values["longest_copy"] >= min(COPY_LENGTH, samples.shape[1])
        tunes = [analysed(tokens, self.grid) for tokens in samples]
        each = [musical(tune) for tune in tunes]
        values |= {name: np.array([figures[name] for figures in each]) for name in each[0]}
        defined = {name: values[name][~np.isnan(values[name])] for name in self.compared if name in values}
        figures = {name: mean_and_error(numbers) for name, numbers in defined.items() if len(numbers)}
        for name, counted in (("interval_divergence", intervals), ("rhythm_divergence", rhythms)):
            pair = divergence([counted(tune) for tune in tunes], [counted(tune) for tune in self._test_tunes])
            figures |= {} if math.isnan(pair[0]) else {name: pair}
        return figures

    @cached_property
    def _test_tunes(self) -> list[Tune]:
        return [analysed(tokens, self.grid) for tokens in self.test]

    def log_samples(self, model, epoch: int, due: Due, log: RunLog) -> None:
        """Every --sample_every epochs and at a phase's end: tunes to see and hear, and sample*.mid written anew.

        These are in --log_dir and, as a copy, in --songs_dir, if there is one.
        """
        if not due.samples:
            return
        generated = model.sample(SAMPLES, Purpose.IMAGES, tf.constant(epoch)).numpy()
        real = draw(self.windows, SAMPLES, self.config.seed, Purpose.IMAGES, epoch)
        folder, onsets = Path(self.config.log_dir), self.config.onsets
        songs = [midi_file(tokens, self.frame_seconds, self.config.frame_beats, onsets) for tokens in generated]
        for name, content in zip(SONGS, songs, strict=True):
            write_whole(folder / name, content)
        if self.config.songs_dir:
            write_songs(Path(self.config.songs_dir), SONGS, songs)
        for name, tunes in (("generated", generated), ("real", real)):
            picture = piano_roll(tunes, self.frame_seconds, f"{name}, epoch {epoch}", onsets)
            clips = np.stack([audio(tokens, self.frame_seconds, onsets) for tokens in tunes])
            log.image(epoch, f"piano_roll/{name}", picture)
            log.audio(epoch, f"audio/{name}", clips, SAMPLE_RATE)
            if self.config.save_media:
                save_media(folder / MEDIA, f"epoch{epoch:05d}_{name}", picture, clips)


def frame_seconds(config: Config, tempo: float) -> float:
    """How long a token lasts where it is played or written, in seconds; `tempo` of the tunes is in beats a minute."""
    return config.frame_beats * 60 / tempo if config.frame_beats else config.frame_seconds


def recorded_tempo(path: Path) -> float:
    """The tempo that a run has kept, beats a minute.

    Raises UsageError: the file is not what `NottinghamData.files` made. Raises OSError: it can't be read.
    """
    try:
        tempo = float(json.loads(path.read_text(encoding="utf-8"))["beats_per_minute"])
    except (ValueError, KeyError, TypeError, RecursionError):
        tempo = math.nan
    if not MIN_TEMPO <= tempo <= MAX_TEMPO:
        raise UsageError(f"{path}: not a run's tempo")
    return tempo


def load(config: Config) -> Tunes:
    """The tunes of --data_dir, none of them shorter than --seq_len.

    Raises DataError: there is none to train on; the message says what to do.
    """
    folder, logs = Path(config.data_dir), config.log_dir
    read = [folder / split for split in SPLITS] if (folder / "train").is_dir() else [folder]
    if os.path.realpath(logs) in map(os.path.realpath, read):
        raise DataError(f"--log_dir {logs}: the tunes of --data_dir are there, and samples would be among them")
    try:
        grid = config.frame_seconds, config.frame_beats
        return load_tunes(folder, *grid, min_len=config.seq_len, besides=logs, onsets=config.onsets)
    except DataError as error:
        if "too short" in str(error):
            advice = f"a smaller --seq_len than {config.seq_len} may do"
        else:
            advice = "`bash train_nottingham.sh` gets the Nottingham tunes; any folder of .mid files will do"
        raise DataError(f"--data_dir {error}; {advice}") from None
