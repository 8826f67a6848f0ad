"""Tunes as real data: the music of SeqGAN (Yu et al., AAAI 2017) on a folder of MIDI or ABC files."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import checksum
from data.music.folder import MAX_TEMPO, MIN_TEMPO, SPLITS, Tunes, load_tunes, tune_files, whole, windows
from data.music.tokens import Grid, before_end, to_pitches
from data.real import Dataset, warn_of_held_out
from data.training_set import spread, training_data
from generator import TokenSpec
from runs.directories import CONFIG, TEMPO
from support.config import Config
from support.errors import DataError, UsageError

TRAIN_TUNES = "tunes of train"  # what `digests` calls their checksum
MAX_HELD_OUT = 1024  # validation sequences, and test sequences, that are used; Nottingham has 813 and 794


class NottinghamData(Dataset):
    """A folder of tunes.

    Training draws its windows of --seq_len tokens at random from all those of the train split. With --window_stride 0
    it draws tunes, which have an end token, V - 1, and are cut after --seq_len tokens. One batch an epoch is enough: on
    Nottingham the likelihood of held-out tunes is best after some 1,000 batches of 32 and falls afterwards.
    """

    kind = "music"

    def __init__(self, config: Config):
        """Reads the tunes of --data_dir; raises DataError: there is none to train on, or fewer than --train_size."""
        self.config = config
        self.origin = f"--data_dir {config.data_dir}"
        self.grid = grid_of(config)
        self.spec = spec_of(config)
        self.tunes = load(config)
        self.sequences = cut(self.tunes.train, config, config.window_stride)
        self.valid = spread(cut(self.tunes.valid, config), MAX_HELD_OUT)
        self.test = spread(cut(self.tunes.test, config), MAX_HELD_OUT)
        self.training = training_data(self.sequences, config, "windows" if config.window_stride else "tunes")
        self.grid = played(self.grid, self.tunes.tempo)
        in_training = {tune.tobytes() for tune in self.tunes.train}
        known = {split: [tune.tobytes() in in_training for tune in getattr(self.tunes, split)] for split in SPLITS}
        warn_of_held_out(self.origin, known)

    def digests(self) -> dict[str, str]:
        """A checksum of the tokens of each split."""
        return {f"tunes of {split}": checksum(getattr(self.tunes, split)) for split in SPLITS}

    def files(self) -> dict[str, str]:
        """What is kept with the run: where tokens last beats, the tempo of what is written."""
        return {TEMPO: json.dumps({"beats_per_minute": self.tunes.tempo}) + "\n"} if self.grid.beats else {}

    def decode(self, rows: np.ndarray) -> list[np.ndarray]:
        """The pitches of sequences, int32 [n, T], for an objective: int32 [at most T] each."""
        return [to_pitches(tokens) for tokens in before_end(rows, self.grid)]

    def introduction(self) -> str:
        """The line a run begins with."""
        config, tunes, beats = self.config, self.tunes, self.grid.beats
        counts = ", ".join(f"{len(getattr(tunes, split))} {split}" for split in SPLITS)
        skipped = f", {len(tunes.skipped)} skipped" if tunes.skipped else ""
        skipped += {"key": ", all in one key", "all": ", training tunes in twelve keys"}.get(config.transpose, "")
        length = f"{config.seq_len * self.grid.seconds:g} s"
        if beats:
            length = f"{config.seq_len * beats:g} beats, {length} at the tunes' median of {tunes.tempo:g}"
        longer = sum(len(tune) > config.seq_len for tune in tunes.train)
        what = (
            f"{len(self.sequences)} training windows of" if config.window_stride else f"{longer} training tunes cut to"
        )
        learnt = f"{what} {config.seq_len} tokens ({length}); samples go to {Path(config.log_dir)}/sample*.mid"
        return f"{config.data_dir}: tunes: {counts}{skipped}; {learnt}"


def grid_of(config: Config) -> Grid:
    """How time is cut into tokens, by --token_length and --onsets."""
    return Grid(*config.frame, config.onsets)


def spec_of(config: Config) -> TokenSpec:
    """What sequences are made of; of whole tunes the end token follows those of the grid."""
    size = grid_of(config).vocab_size
    if not config.window_stride:
        return TokenSpec(size + 1, config.seq_len, start_token=size + 2, end_token=size)
    return TokenSpec(size, config.seq_len, start_token=size)


def cut(tunes: Sequence[np.ndarray], config: Config, stride: int = 0) -> np.ndarray:
    """Tunes, int32 [length] each, as sequences, int32 [n, T]: whole or windows, `stride` tokens apart or else T."""
    if config.window_stride:
        return windows(tunes, config.seq_len, stride or config.seq_len)
    return whole(tunes, config.seq_len, grid_of(config).vocab_size)


def played(grid: Grid, tempo: float) -> Grid:
    """The grid with how long a token lasts when it is played; `tempo` of the tunes is in beats a minute."""
    return grid._replace(seconds=grid.beats * 60 / tempo) if grid.beats else grid


def recorded_tempo(path: Path) -> float:
    """The tempo that a run has kept, beats a minute; raises UsageError: the file is no such one; raises OSError."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        tempo = float(json.loads(path.read_text(encoding="utf-8"))["beats_per_minute"])
        if MIN_TEMPO <= tempo <= MAX_TEMPO:
            return tempo
    raise UsageError(f"{path}: not a run's tempo")


def load(config: Config) -> Tunes:
    """The tunes of --data_dir, of windows none shorter than one; raises DataError: there is none to train on."""
    root, logs = Path(config.data_dir), Path(config.log_dir)
    read = [root / split for split in SPLITS] if (root / "train").is_dir() else [root]
    if os.path.realpath(logs) in map(os.path.realpath, read):
        raise DataError(f"--log_dir {logs}: the tunes of --data_dir are there, and samples would be among them")
    for flag, folder in (("--log_dir", logs), ("--eval_log_dir", Path(config.eval_log_dir)))[: 1 + config.evaluate]:
        inside = any(Path(os.path.realpath(place)) in Path(os.path.realpath(folder)).parents for place in read)
        if inside and folder.is_dir() and not (folder / CONFIG).exists() and tune_files([folder], None):
            raise DataError(f"{flag} {folder}: has tunes of --data_dir, which are not read beside a run")
    try:
        return load_tunes(root, grid_of(config), config.seq_len if config.window_stride else 1, logs, config.transpose)
    except DataError as error:
        if "pip install" in str(error):
            advice = "or another folder, without .abc files, will do"
        elif "too short" in str(error):
            advice = f"a smaller --seq_len than {config.seq_len} may do"
        else:
            advice = "`bash train_nottingham.sh` gets the Nottingham tunes; any folder of .mid or .abc files will do"
        raise DataError(f"--data_dir {error}; {advice}") from None
