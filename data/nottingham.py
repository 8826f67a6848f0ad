"""Tunes as real data: the music experiment of SeqGAN (Yu et al., AAAI 2017, section 5.3) on a folder of MIDI files."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pretty_midi
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data import DataError, Due, checksum
from data.held_out import D_FIGURES, resampled_on_test, warn_of_held_out, what_d_knows
from data.midi import (
    HIGHEST_PITCH,
    LOWEST_PITCH,
    MAX_TEMPO,
    MIN_TEMPO,
    REST,
    SPLITS,
    START,
    VOCAB_SIZE,
    Tunes,
    load_tunes,
    to_pitches,
    to_pretty_midi,
    windows,
    write_midi,
)
from data.training_set import draw, spread, training_data
from runs.directories import MEDIA, TEMPO
from runs.logs import RunLog
from support.config import Config, UsageError
from support.metrics import bleu, copies, mean_and_error, self_bleu
from support.seeds import Purpose

SAMPLES = 5  # tunes shown, played and written to files at a time
SAMPLE_RATE = 16_000  # Hz; the highest of the 88 keys has 4,186 Hz
MAX_HELD_OUT = 1024  # windows of valid, and of test, that are used; Nottingham has 813 and 794
COPY_LENGTH = 16  # tokens; the shortest stretch of a training tune that counts as copied, in shorter sequences all


class NottinghamData:
    """A folder of tunes: what training reads, and how far what is generated is from tunes that training never saw.

    Training draws its windows of --seq_len tokens at random from all those of the train split. As with the oracle, an
    epoch of pretraining is one such batch, and with --train_size it is a pass over a fixed set of windows. One batch is
    enough: on Nottingham the likelihood of held-out tunes is best after some 1,000 batches of 32 and falls afterwards.
    """

    vocab_size, start_token, oracle = VOCAB_SIZE, START, None
    end_token: int | None = None
    compared = ("bleu2", "bleu3", "bleu4", "self_bleu4", "mse", "rest_share", "pitch_range", "copied_share")
    evaluated = ("nll_test", "nll_valid", "g_entropy", *compared, *(f"real_{name}" for name in compared), *D_FIGURES)

    def __init__(self, config: Config):
        """Reads the tunes of --data_dir.

        Raises:
            DataError: there is none to train on, or --train_size is more than there is.
        """
        self.config, seq_len = config, config.seq_len
        self.origin = f"--data_dir {config.data_dir}"
        self.tunes = load(config)
        self.windows = windows(self.tunes.train, seq_len, config.window_stride)
        self.valid = spread(windows(self.tunes.valid, seq_len, seq_len), MAX_HELD_OUT)
        self.test = spread(windows(self.tunes.test, seq_len, seq_len), MAX_HELD_OUT)
        training = training_data(self.windows, config, "windows")
        self.mle_batches, self.real, self.references = training.mle_batches, training.real, training.references
        self.frame_seconds = frame_seconds(config, self.tunes.tempo)
        self._real_figures: dict[str, tuple[float, float]] | None = None
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

    def validation(self) -> np.ndarray:
        """What is used of the validation set, int32 [n, T]."""
        return self.valid

    def evaluate(self, model, epoch: int, due: Due) -> dict[str, tuple[float, float]]:
        """Measures a `model.SeqGAN` on held-out tunes; `epoch` picks the random numbers of its samples.

        Where valid or test is empty, the figures that need it are left out.

        Returns:
            (mean, standard error of the mean) of `nll_test` and `nll_valid`, -log G(Y) / T of windows that lie side by
            side in the split's tunes (at most 1,024 of them, always the same; their errors take no account of windows
            sharing a tune); and `g_entropy`, the same of --eval_samples generated sequences. Nats a token.
            At the end of a phase also the figures of `compare` for the generated sequences and, named `real_...`, for
            as many windows of valid: what real tunes reach, which are no copies either.
        """
        generated = model.sample(self.config.eval_samples, Purpose.EVALUATE, tf.constant(epoch)).numpy()
        measured = {"g_entropy": generated, "nll_valid": self.valid, "nll_test": self.test}
        # All in one call, as each shape would be compiled on its own.
        nll = model.nll(tf.constant(np.concatenate(list(measured.values())))).numpy() / self.config.seq_len
        parts = np.split(nll, np.cumsum([len(tokens) for tokens in measured.values()])[:-1])
        figures = {name: mean_and_error(part) for name, part in zip(measured, parts, strict=True) if len(part)}
        if due.last:
            figures |= self.compare(generated)
            if self._real_figures is None:
                real = spread(self.valid, len(generated))
                self._real_figures = {f"real_{name}": pair for name, pair in self.compare(real).items()}
            figures |= self._real_figures
        return figures

    def evaluate_discriminator(self, model, epoch: int, beside=None) -> dict[str, tuple[float, float]]:
        """What the discriminator knows of held-out windows: the figures of `what_d_knows`.

        At most --d_eval_samples of valid choose η, and as many of test are measured. What there are too few of them
        for is left out. With `beside`, what `evaluate` has returned, also what comes of --candidates.
        """
        choosing, measuring = (spread(rows, self.config.d_eval_samples) for rows in (self.valid, self.test))
        candidates = self.config.candidates if beside else 0
        known = what_d_knows(model, choosing, measuring, epoch, self.vocab_size, candidates)
        return resampled_on_test(known, beside or {})

    def compare(self, samples: np.ndarray) -> dict[str, tuple[float, float]]:
        """Compares sequences, int32 [n, T], with real tunes.

        The paper reports BLEU-4 and MSE for music and says neither what the references are nor between what pairs it
        takes the MSE, so its figures can't be compared with these.

        Returns:
            (mean over the sequences, standard error of the mean) of
            - `bleu2`, `bleu3`, `bleu4`: `metrics.bleu` with all windows of test as references;
            - `self_bleu4`: `metrics.self_bleu` among the sequences, whose errors it takes for independent;
            - `mse`: `nearest_squared_difference` to the windows of test, semitones²;
            - `rest_share`: share of tokens that are rests;
            - `pitch_range`: highest less lowest pitch of a sequence, semitones;
            - `copied_share`: share of sequences with 16 or more consecutive tokens of a training tune in them or, where
              --seq_len is less, that are such a stretch whole.
            What needs test is left out where it is empty; self-BLEU needs two sequences, and all figures one. A
            sequence of rests alone counts in neither `mse` nor `pitch_range`.
        """
        if not len(samples):
            return {}
        values: dict[str, np.ndarray] = {}
        if len(self.test):
            values |= dict(zip(("bleu2", "bleu3", "bleu4"), bleu(samples, self.test).T, strict=True))
            values["mse"] = nearest_squared_difference(samples, self.test)
        if len(samples) > 1:
            values["self_bleu4"] = self_bleu(samples, orders=(4,))[:, 0]
        values["rest_share"] = (samples == REST).mean(axis=1)
        values["pitch_range"] = pitch_range(samples)
        values["copied_share"] = copies(samples, self.tunes.train, min(COPY_LENGTH, samples.shape[1]))
        defined = {name: values[name][~np.isnan(values[name])] for name in self.compared if name in values}
        return {name: mean_and_error(numbers) for name, numbers in defined.items() if len(numbers)}

    def log_samples(self, model, epoch: int, due: Due, log: RunLog) -> None:
        """Every --sample_every epochs and at a phase's end: tunes to see and hear, and sample*.mid written anew."""
        if not due.samples:
            return
        generated = model.sample(SAMPLES, Purpose.IMAGES, tf.constant(epoch)).numpy()
        real = draw(self.windows, SAMPLES, self.config.seed, Purpose.IMAGES, epoch)
        folder = Path(self.config.log_dir)
        for i, tokens in enumerate(generated):
            write_midi(tokens, folder / f"sample{i}.mid", self.frame_seconds, self.config.frame_beats)
        for name, tunes in (("generated", generated), ("real", real)):
            picture = piano_roll(tunes, self.frame_seconds, f"{name}, epoch {epoch}")
            clips = np.stack([audio(tokens, self.frame_seconds) for tokens in tunes])
            log.image(epoch, f"piano_roll/{name}", picture)
            log.audio(epoch, f"audio/{name}", clips, SAMPLE_RATE)
            if self.config.save_media:
                save_media(folder / MEDIA, f"epoch{epoch:05d}_{name}", picture, clips)


def frame_seconds(config: Config, tempo: float) -> float:
    """How long a token lasts where it is played or written, in seconds; `tempo` of the tunes is in beats a minute."""
    return config.frame_beats * 60 / tempo if config.frame_beats else config.frame_seconds


def recorded_tempo(path: Path) -> float:
    """The tempo that a run has kept, beats a minute.

    Raises:
        UsageError: the file is not what `NottinghamData.files` made.
        OSError: it can't be read.
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

    Raises:
        DataError: there is none to train on; the message says what to do.
    """
    folder, logs = Path(config.data_dir), config.log_dir
    read = [folder / split for split in SPLITS] if (folder / "train").is_dir() else [folder]
    if os.path.realpath(logs) in map(os.path.realpath, read):
        raise DataError(f"--log_dir {logs}: the tunes of --data_dir are there, and samples would be among them")
    try:
        return load_tunes(folder, config.frame_seconds, config.frame_beats, min_len=config.seq_len, besides=logs)
    except DataError as error:
        if "too short" in str(error):
            advice = f"a smaller --seq_len than {config.seq_len} may do"
        else:
            advice = "`bash train_nottingham.sh` gets the Nottingham tunes; any folder of .mid files will do"
        raise DataError(f"--data_dir {error}; {advice}") from None


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def nearest_squared_difference(samples: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean squared difference of pitch between each sample and the reference it is nearest to, semitones².

    The mean is over the frames in which both sound; a rest has no pitch. The nearest reference, and not the mean over
    all, because a single held note is closer to all tunes on average than another real tune is (on Nottingham 23
    against 48).

    Args:
        samples: int [n, T], tokens 0..88.
        references: int [m, T], m >= 1.

    Returns:
        float64 [n]; NaN where a sample sounds at no time together with any reference.
    """
    ours, theirs = samples.astype(np.float64), references.astype(np.float64)  # REST is 0: rests add nothing
    we_sound, they_sound = np.sign(ours), np.sign(theirs)
    total = ours**2 @ they_sound.T + we_sound @ (theirs**2).T - 2 * ours @ theirs.T  # [n, m]
    frames = we_sound @ they_sound.T  # [n, m]
    differences = np.divide(total, frames, out=np.full_like(total, np.nan), where=frames > 0)
    return np.fmin.reduce(differences, axis=1)


def pitch_range(samples: np.ndarray) -> np.ndarray:
    """Highest less lowest pitch of each sample, semitones: int [n, T] → float64 [n], NaN where all is silent."""
    pitches = np.where(samples == REST, np.nan, samples)
    return np.fmax.reduce(pitches, axis=1) - np.fmin.reduce(pitches, axis=1)


# ---------------------------------------------------------------------------------------------------------------------
# Tunes to see and to hear


def piano_roll(tunes: np.ndarray | Sequence[np.ndarray], frame_seconds: float, title: str) -> np.ndarray:
    """Draws tunes below each other, time to the right and pitch upwards.

    Args:
        tunes: int [n, T], tokens 0..88.
        frame_seconds: duration of a token, seconds.
        title: of the picture.

    Returns:
        uint8 [height, width, 3], red, green and blue.
    """
    figure = Figure(figsize=(8, 1 + 1.2 * len(tunes)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    songs = [to_pretty_midi(tokens, frame_seconds).instruments[0].notes for tokens in tunes]
    pitches = [note.pitch for notes in songs for note in notes] or [LOWEST_PITCH, HIGHEST_PITCH]
    octaves = range(24, HIGHEST_PITCH + 1, 12)  # C1 to C8
    for axes, notes in zip(figure.subplots(len(tunes), sharex=True, squeeze=False)[:, 0], songs, strict=True):
        lengths, starts = [note.end - note.start for note in notes], [note.start for note in notes]
        axes.barh([note.pitch for note in notes], lengths, left=starts, height=1, edgecolor="white", linewidth=0.5)
        axes.set_yticks(octaves, [pretty_midi.note_number_to_name(pitch) for pitch in octaves])
        axes.set(xlim=(0, len(tunes[0]) * frame_seconds), ylim=(min(pitches) - 1, max(pitches) + 1))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    axes.set_xlabel("seconds")
    figure.suptitle(title)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def audio(tokens: np.ndarray, frame_seconds: float) -> np.ndarray:
    """Plays a tune: with FluidSynth and pretty_midi's SoundFont if pyfluidsynth is installed, else as sine tones.

    Args:
        tokens: int [T], tokens 0..88.
        frame_seconds: duration of a token, seconds.

    Returns:
        float32 [T · frame_seconds · SAMPLE_RATE] in -1..1.
    """
    clip = np.zeros(round(len(tokens) * frame_seconds * SAMPLE_RATE), np.float32)
    song = to_pretty_midi(tokens, frame_seconds)
    if song.instruments[0].notes:  # silence can't be normalised
        try:
            wave = song.fluidsynth(fs=SAMPLE_RATE)
        except ImportError:
            wave = song.synthesize(fs=SAMPLE_RATE)
        clip[: len(wave)] = wave[: len(clip)]
    return clip


def save_media(folder: Path, name: str, picture: np.ndarray, clips: np.ndarray) -> None:
    """Writes `<name>.png` from uint8 [height, width, 3], and `<name>_<i>.wav` from float32 [n, samples] in -1..1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(tf.io.encode_png(picture).numpy())
    for i, clip in enumerate(clips):
        (folder / f"{name}_{i}.wav").write_bytes(tf.audio.encode_wav(clip[:, None], SAMPLE_RATE).numpy())
