"""data/music/dataset.py, measures.py, media.py, train_nottingham.sh: what trains, is measured, seen and heard."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import wave
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pretty_midi
import pytest
import tensorflow as tf
from conftest import END, NOW, ROOT, read_tokens, shared_model, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main as program
from data import DataError, Due, held_out
from data.held_out import D_FIGURES
from data.music import dataset
from data.music.dataset import SAMPLES, NottinghamData, spread
from data.music.measures import nearest_squared_difference, pitch_range
from data.music.media import SAMPLE_RATE, audio, piano_roll, save_media
from data.music.tokens import HIGHEST_PITCH, LOWEST_PITCH, REST, Grid, to_pitches
from model import SeqGAN
from runs.console import table
from runs.logs import with_errors
from support.config import UsageError
from support.parser import parse

OF_BARS = {"repeated_bars", "alike_after_2", "alike_after_4", "alike_after_8"}  # there is but one in eight tokens
SET = ["--dataset", "Nottingham", "--seq_len", "8"]
SMALL = shlex.split(
    "--batch_size 4 --g_emb_dim 3 --g_hidden_dim 5 --rollout_num 2 --d_emb_dim 3 --d_filter_sizes 1 3 "
    "--d_num_filters 4 3 --d_batch_size 8 --pretrain_g_epochs 3 --pretrain_d_epochs 1 --total_epochs 2 --d_steps 1 "
    "--d_epochs 1 --eval_samples 6 --sample_every 2 --d_eval_samples 0"
)
D_MEASURED = ["--d_eval_samples", "16"]
TINY = [*SET, *SMALL]
FRAME = 0.4  # seconds
VOCAB_SIZE = START = Grid().vocab_size


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch) -> None:
    """Keep the user's own cache out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def write_song(path: Path, pitches: list[int]) -> None:
    """A melody of a note a frame, a millisecond of silence before each, and a chord below it."""
    song, melody, chords = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0), pretty_midi.Instrument(24)
    for i, pitch in enumerate(pitches):
        melody.notes.append(pretty_midi.Note(90, pitch, i * FRAME, (i + 1) * FRAME - 0.001))
    for pitch in (36, 40, 43):
        chords.notes.append(pretty_midi.Note(75, pitch, 0, len(pitches) * FRAME))
    song.instruments += [melody, chords]
    path.parent.mkdir(parents=True, exist_ok=True)
    song.write(str(path))


# Each split has pitches of its own, so that it shows where a token comes from.
PITCHES = {"train": range(60, 70), "valid": range(70, 80), "test": range(80, 90)}
COUNTS = {"train": 5, "valid": 3, "test": 2}
LENGTH = 20  # tokens a tune


@pytest.fixture
def split_folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for split, pitches in PITCHES.items():
        for number in range(COUNTS[split]):
            write_song(tmp_path / "tunes" / split / f"{number}.mid", rng.choice(pitches, LENGTH).tolist())
    return tmp_path / "tunes"


@pytest.fixture
def plain_folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(4):  # dealt out as 2 train, 1 valid, 1 test
        write_song(tmp_path / "mine" / f"{number}.mid", rng.choice(PITCHES["train"], LENGTH).tolist())
    return tmp_path / "mine"


def config_of(folder: Path, *flags: str):
    return parse([*TINY, "--data_dir", str(folder), "--log_dir", str(folder.parent / "log"), *flags])


def split_of(tokens) -> set[str]:
    """The splits whose pitches occur."""
    pitches = set((np.asarray(tokens).ravel() + 20).tolist())
    return {split for split, own in PITCHES.items() if pitches & set(own)}


# --- what trains


def test_only_the_train_split_trains(split_folder):
    data = NottinghamData(config_of(split_folder))
    for epoch in range(5):
        assert split_of(data.mle_batches(epoch)) == split_of(data.real(epoch)) == {"train"}
    assert (split_of(data.valid), split_of(data.test)) == ({"valid"}, {"test"})
    assert (data.vocab_size, data.start_token) == (VOCAB_SIZE, START)


def test_an_epoch_is_one_batch_and_held_out_windows_lie_side_by_side(split_folder):
    data = NottinghamData(config_of(split_folder))
    assert data.mle_batches(0).shape == (1, 4, 8) and data.mle_batches(0).dtype == tf.int32
    assert data.real(0).shape == (4, 8) and data.real(0).dtype == tf.int32
    assert (data.valid.shape, data.test.shape) == ((6, 8), (4, 8))  # two in each tune of 20 tokens


def test_training_windows_begin_anywhere_and_lie_in_one_tune(split_folder):
    data = NottinghamData(config_of(split_folder))
    every = {tune[i : i + 8].tobytes() for tune in data.tunes.train for i in range(LENGTH - 8 + 1)}
    drawn = {row.tobytes() for epoch in range(200) for row in data.mle_batches(epoch).numpy().reshape(-1, 8)}
    assert drawn == every  # 65 windows, 800 draws
    assert len(NottinghamData(config_of(split_folder, "--window_stride", "4")).windows) == 5 * 4


def test_draws_follow_from_seed_and_step_alone(split_folder):
    data, again = (NottinghamData(config_of(split_folder)) for _ in range(2))
    other = NottinghamData(config_of(split_folder, "--seed", "2"))
    for draw in (lambda d, i: d.mle_batches(i), lambda d, i: d.real(i)):
        again_5 = draw(again, 5).numpy()  # asked for first, and out of order
        np.testing.assert_array_equal([draw(data, i).numpy() for i in range(6)][5], again_5)
        assert np.any(draw(data, 4).numpy() != again_5)
        assert np.any(draw(other, 5).numpy() != again_5)


def test_one_window_is_enough(tmp_path):
    write_song(tmp_path / "mine" / "a.mid", list(range(60, 68)))
    data = NottinghamData(config_of(tmp_path / "mine"))
    assert np.all(data.mle_batches(0).numpy() == np.arange(40, 48))
    assert data.mle_batches(0).shape == (1, 4, 8)


def test_train_size_fixes_the_windows(split_folder):
    data = NottinghamData(config_of(split_folder, "--train_size", "9"))
    passes = [data.mle_batches(epoch).numpy().reshape(-1, 8) for epoch in range(30)]
    assert passes[0].shape == (8, 8)  # two batches of 4
    chosen = {row.tobytes() for row in data.real(0).numpy()}
    assert len(data.real(0)) == 9 and {row.tobytes() for rows in passes for row in rows} == chosen


def test_train_size_beyond_what_there_is(split_folder):
    with pytest.raises(DataError, match=r"^--train_size: 66 is more than the 65 windows of --data_dir "):
        NottinghamData(config_of(split_folder, "--train_size", "66"))


def test_the_introduction_counts(split_folder):
    (split_folder / "train" / "text.mid").write_text("not MIDI")
    line = NottinghamData(config_of(split_folder)).introduction()
    assert "5 train, 3 valid, 2 test, 1 skipped; 65 training windows of 8 tokens (3.2 s)" in line
    assert "\n" not in line


def test_spread():
    assert spread(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert spread(np.arange(3), 4).tolist() == [0, 1, 2]


# --- what the user can get wrong


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    """The default directories of runs are in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def error_line(capsys, *flags: str) -> str:
    assert program.main([*TINY, *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("main.py: error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0]
    return errors[0]


@pytest.mark.parametrize("present", [False, True])
def test_no_tunes(tmp_path, capsys, present):
    folder = tmp_path / "none"
    if present:
        folder.mkdir()
    line = error_line(capsys, "--data_dir", str(folder), "--log_dir", str(tmp_path / "log"))
    assert f"--data_dir {folder}" in line and "bash train_nottingham.sh" in line
    assert not (tmp_path / "log").exists()


def test_a_sequence_longer_than_the_tunes(plain_folder, capsys):
    line = error_line(capsys, "--data_dir", str(plain_folder), "--seq_len", "21")
    assert f"--data_dir {plain_folder}" in line and "a smaller --seq_len than 21" in line


def test_an_empty_folder_name_is_not_the_current_folder(capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main([*TINY, "--data_dir", ""])
    assert capsys.readouterr().err == "main.py: error: --data_dir is empty\n"


# --- what is measured


def test_nearest_squared_difference_by_hand():
    references = np.array([[40, 40, 40, 40], [50, 50, REST, 50]])
    samples = np.array([[41, 42, 40, 40], [47, 47, 47, 47], [REST, REST, 43, REST], [REST] * 4])
    # (1 + 4) / 4; 9 to the second, whose rest does not count; the second is silent where the third sample sounds.
    np.testing.assert_allclose(nearest_squared_difference(samples, references), [1.25, 9, 9, np.nan])


def test_nearest_squared_difference_against_loops():
    rng = np.random.default_rng(3)
    samples, references = (rng.integers(30, 60, size=(n, 6)) * rng.integers(2, size=(n, 6)) for n in (7, 5))
    for sample, value in zip(samples, nearest_squared_difference(samples, references), strict=True):
        pairs = [(sample - r)[(sample != REST) & (r != REST)] for r in references]
        assert value == pytest.approx(min(np.mean(pair**2) for pair in pairs if len(pair)))


def test_pitch_range_by_hand():
    np.testing.assert_array_equal(pitch_range(np.array([[40, 52, REST], [40, 40, 40], [REST] * 3])), [12, 0, np.nan])


def test_tunes_of_test_compare_perfectly_with_test(split_folder):
    data = NottinghamData(config_of(split_folder))
    figures = data.compare(data.test)
    assert tuple(figures) == tuple(name for name in data.compared if name not in OF_BARS)
    assert figures["interval_divergence"][0] == figures["rhythm_divergence"][0] == 0
    assert [figures[name][0] for name in ("bleu2", "bleu3", "bleu4", "mse", "copied_share")] == [1, 1, 1, 0, 0]
    assert figures["self_bleu4"][0] < 1


def test_windows_of_train_are_copies(split_folder):
    data = NottinghamData(config_of(split_folder, "--seq_len", "16"))
    samples = data.windows[:4].copy()
    samples[0, 8] = 1  # breaks the 16 tokens
    samples[1, :4] = REST
    figures = data.compare(samples)
    assert figures["copied_share"] == (0.5, pytest.approx(0.288675, abs=1e-6))  # sqrt(0.25 · 4 / 3 / 4)
    assert figures["rest_share"][0] == 4 / 64


def test_a_short_sequence_is_a_copy_where_a_training_tune_has_all_of_it(split_folder):
    data = NottinghamData(config_of(split_folder))  # of 8 tokens
    samples = data.windows[:4].copy()
    samples[0, 7] = 1
    assert data.compare(samples)["copied_share"][0] == 0.75


def test_held_out_tunes_that_tell_nothing_are_warned_of(split_folder, tmp_path, capsys):
    NottinghamData(config_of(split_folder))
    assert capsys.readouterr().err == ""
    shutil.rmtree(split_folder / "valid")
    shutil.copytree(split_folder / "train", split_folder / "valid")
    for tune in (split_folder / "test").iterdir():
        tune.unlink()
    NottinghamData(config_of(split_folder))
    assert capsys.readouterr().err == (
        f"warning: --data_dir {split_folder}: the whole validation set is in the training set as well\n"
        f"warning: --data_dir {split_folder}: the test set is empty; its figures are left out\n"
    )


def test_sequences_of_rests_have_no_pitch(split_folder):
    figures = NottinghamData(config_of(split_folder)).compare(np.zeros((3, 8), np.int32))
    assert figures["rest_share"] == (1, 0) and set(figures) == {
        *("bleu2", "bleu3", "bleu4", "self_bleu4", "rest_share", "copied_share", "longest_copy", "rhythm_divergence")
    }


@pytest.fixture
def model(split_folder) -> SeqGAN:
    return shared_model(config_of(split_folder), VOCAB_SIZE, START)


def known_of(data) -> set[str]:
    return {name for name in data.evaluated if name.removeprefix("real_") not in OF_BARS}


def test_evaluate(split_folder, model, monkeypatch):
    data = NottinghamData(config_of(split_folder))
    figures = data.evaluate(model, epoch=7, due=NOW)
    assert set(figures) == {"g_entropy", "nll_valid", "nll_test"}
    for name, windows in (("nll_valid", data.valid), ("nll_test", data.test)):
        nll = model.nll(tf.constant(windows)).numpy() / 8
        assert figures[name] == pytest.approx((nll.mean(), nll.std(ddof=1) / np.sqrt(len(nll))), rel=1e-4)
    assert figures["g_entropy"][0] == pytest.approx(np.log(VOCAB_SIZE), abs=0.2)  # untrained: nearly uniform

    full = data.evaluate(model, epoch=7, due=END)
    assert {name: full[name] for name in figures} == figures
    measured = NottinghamData(config_of(split_folder, *D_MEASURED))
    assert set(measured.evaluate_discriminator(model, epoch=7)) == {"d_test_acc"}  # too few windows for the others
    monkeypatch.setattr(held_out, "LEAST_DRAWS", 2)
    known = measured.evaluate_discriminator(model, epoch=7)
    assert set(known) == set(D_FIGURES) and set(full) | set(known) == known_of(data)
    real = data.compare(data.valid)  # six windows, as many as --eval_samples
    assert {name: full[f"real_{name}"] for name in data.compared if name not in OF_BARS} == real
    assert full["bleu4"] != full["real_bleu4"]


def test_evaluate_without_valid_and_test(tmp_path):
    write_song(tmp_path / "mine" / "a.mid", list(range(60, 80)))
    config = config_of(tmp_path / "mine")
    data = NottinghamData(config)
    figures = data.evaluate(shared_model(config, VOCAB_SIZE, START), epoch=0, due=END)
    without = {"bleu2", "bleu3", "bleu4", "mse", "interval_divergence", "rhythm_divergence", *OF_BARS}
    assert set(figures) == {"g_entropy", *data.compared} - without


def test_an_unknown_error_is_neither_recorded_nor_printed():
    figures = {"nll_test": (2.0, 0.125), "pitch_range": (7.0, float("nan"))}
    assert with_errors(figures) == {"nll_test": 2, "nll_test_se": 0.125, "pitch_range": 7}
    assert table(figures).splitlines()[1:] == ["nll_test     2.000 ± 0.125", "pitch_range  7.000"]


# --- what one can see and hear


def test_audio_has_the_pitch_and_the_duration():
    clip = audio(np.array([49, 49, 49, REST, REST]), FRAME)  # the A of 440 Hz for 1.2 s, then 0.8 s of silence
    assert clip.dtype == np.float32 and len(clip) == 2 * SAMPLE_RATE and np.abs(clip).max() <= 1
    tone = clip[: int(1.2 * SAMPLE_RATE)]
    assert np.argmax(np.abs(np.fft.rfft(tone))) / 1.2 == pytest.approx(440, abs=1)
    assert np.abs(tone).max() > 0.5 and np.abs(clip[int(1.3 * SAMPLE_RATE) :]).max() == 0


def test_audio_of_silence():
    clip = audio(np.full(5, REST), FRAME)
    assert len(clip) == 2 * SAMPLE_RATE and not clip.any()


def test_audio_takes_fluidsynth_where_it_is_installed(monkeypatch):
    asked = []

    def fluidsynth(self, fs):
        asked.append(fs)
        return np.full(10 * fs, 0.25)  # longer than the tune, as a note that dies away is

    monkeypatch.setattr(pretty_midi.PrettyMIDI, "fluidsynth", fluidsynth)
    clip = audio(np.array([49, 49]), FRAME)
    assert asked == [SAMPLE_RATE] and np.all(clip == 0.25) and len(clip) == 0.8 * SAMPLE_RATE


def test_piano_roll_draws_higher_pitches_higher_and_later_ones_to_the_right():
    low_then_high = piano_roll(np.array([[40, 40, 50, 50]]), FRAME, "a tune")
    assert low_then_high.dtype == np.uint8 and low_then_high.ndim == 3 and low_then_high.shape[2] == 3
    blue = low_then_high[:, :, 2].astype(int) - low_then_high[:, :, 0] > 100
    rows, columns = np.nonzero(blue)
    middle = (columns.min() + columns.max()) / 2
    assert rows[columns < middle - 2].min() > rows[columns > middle + 2].max() + 20


def test_piano_roll_of_silence():
    assert piano_roll(np.zeros((2, 4), int), FRAME, "silence").shape[2] == 3


def test_save_media(tmp_path):
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    clips = np.array([[0, 0.5, -0.5, 1], [0, 0, 0, 0]], np.float32)
    save_media(tmp_path / "media", "a", picture, clips)
    assert sorted(path.name for path in (tmp_path / "media").iterdir()) == ["a.png", "a_0.wav", "a_1.wav"]
    np.testing.assert_array_equal(tf.io.decode_png((tmp_path / "media" / "a.png").read_bytes()), picture)
    with wave.open(str(tmp_path / "media" / "a_0.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        heard = np.frombuffer(file.readframes(4), "<i2") / 32768
    np.testing.assert_allclose(heard, clips[0], atol=1e-4)


class Log:
    """Remembers what it is given."""

    def __init__(self):
        self.images, self.clips = [], []

    def image(self, step, name, pixels):
        self.images.append((step, name))

    def audio(self, step, name, clips, sample_rate):
        self.clips.append((step, name, clips.shape, sample_rate))


def test_samples_appear_every_so_often_and_at_a_phases_end(split_folder, model):
    data, log, songs = NottinghamData(config_of(split_folder)), Log(), []
    logs = split_folder.parent / "log"
    logs.mkdir()
    for epoch in range(5):
        data.log_samples(model, epoch, Due(True, epoch in (1, 3, 4), epoch == 4), log)
        if (logs / "sample0.mid").exists():
            songs.append((logs / "sample0.mid").read_bytes())
    due = [1, 3, 4]  # the second, the fourth, the last
    assert log.images == [(e, f"piano_roll/{kind}") for e in due for kind in ("generated", "real")]
    shape = (SAMPLES, round(8 * FRAME * SAMPLE_RATE))
    assert log.clips == [(e, f"audio/{kind}", shape, SAMPLE_RATE) for e in due for kind in ("generated", "real")]
    assert songs[0] == songs[1] and len(set(songs)) == 3  # of epochs 1 to 4: written anew where due


def test_nowhere_to_write_is_an_error(plain_folder):
    config = config_of(plain_folder)
    data = NottinghamData(config)
    with pytest.raises(OSError):  # there is no --log_dir
        data.log_samples(shared_model(config, VOCAB_SIZE, START), 0, END, Log())


# --- whole runs


EIGHTHS = Grid(0.25, 0.5, onsets=True)  # what the script has, at 120 beats a minute


def check_songs(folder: Path, seq_len: int, grid: Grid = Grid(FRAME)) -> None:  # noqa: B008
    """Each sample file is one song of one instrument, in the piano's range, at the right tempo and duration."""
    paths = sorted(folder.glob("sample*.mid"))
    assert [path.name for path in paths] == [f"sample{i}.mid" for i in range(SAMPLES)]
    for path in paths:
        pitches, song = to_pitches(read_tokens(path, *grid)), pretty_midi.PrettyMIDI(str(path))
        assert len(pitches) == seq_len and len(song.instruments) == 1
        assert song.get_tempo_changes()[1] == pytest.approx([30 / grid.seconds])  # a token is an eighth
        notes = song.instruments[0].notes
        assert sum(n.end - n.start for n in notes) == pytest.approx(grid.seconds * np.sum(pitches > 0), abs=1e-2)
        assert all(LOWEST_PITCH <= note.pitch <= HIGHEST_PITCH for note in notes)
        for note in notes:  # the middle of each note
            assert pitches[int((note.start + note.end) / 2 / grid.seconds)] == note.pitch


def check_events(folder: Path, seq_len: int, seconds: float = FRAME) -> None:
    """TensorBoard's files hold pictures and clips that can be decoded."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    for kind in ("generated", "real"):
        for event in events.Tensors(f"piano_roll/{kind}"):
            width, height, png = tf.make_ndarray(event.tensor_proto)
            assert tf.io.decode_png(png).shape == (int(height), int(width), 3)
        for event in events.Tensors(f"audio/{kind}"):
            clips = tf.make_ndarray(event.tensor_proto)
            assert clips.shape == (SAMPLES, 2)  # a WAV and a label each
            for wav, _ in clips:
                sound, rate = tf.audio.decode_wav(wav)
                assert rate == SAMPLE_RATE and len(sound) == round(seq_len * seconds * SAMPLE_RATE)
                assert np.abs(sound).max() > 0.1
    plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]}
    assert plugins["piano_roll/generated"] == "images" and plugins["audio/generated"] == "audio"
    assert len(events.Tensors("audio/generated")) == len(events.Tensors("audio/real")) > 0


def eval_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_whole_run_on_a_folder_with_splits(split_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(held_out, "LEAST_DRAWS", 2)
    logs, evaluation = tmp_path / "train", tmp_path / "eval"
    flags = ["--data_dir", str(split_folder), "--log_dir", str(logs), "--eval_log_dir", str(evaluation)]
    assert train([*TINY, *flags, *D_MEASURED, "--save_media"]) == 0
    out = capsys.readouterr().out
    shown = {line.split()[0]: line for line in out[out.index("generated  ") :].splitlines()[1:-1]}
    assert set(shown) == {"seconds", *(name for name in known_of(NottinghamData) if not name.startswith("real_"))}
    assert (
        all(shown[name].count(".") >= 2 for name in {*NottinghamData.compared} - OF_BARS) and "nan" not in out
    )  # beside real

    check_songs(logs, seq_len=8)
    assert not list(split_folder.glob("sample*"))  # there are other runs on these tunes
    check_events(evaluation, seq_len=8)
    rows = eval_rows(evaluation)
    assert [row["epoch"] for row in rows] == ["0", "2", "2", "3", "4"]  # the first and the last of each phase
    of_d = rows.pop(2)
    assert of_d["phase"] == "pretrain_d" and all(of_d[name] for name in D_FIGURES) and not of_d["nll_test"]
    for row in rows:
        ends_a_phase = row["epoch"] in "24"
        assert all(row[name] for name in ("nll_test", "nll_test_se", "nll_valid", "g_entropy"))
        assert bool(row["bleu4"]) == bool(row["real_bleu4"]) == bool(row["copied_share"]) == ends_a_phase
    sampled = (1, 2, 4)  # every second epoch of a phase, and its last
    names = [f"epoch{epoch:05d}_{kind}" for epoch in sampled for kind in ("generated", "real")]
    files = [f"{name}{end}" for name in names for end in (".png", *(f"_{i}.wav" for i in range(SAMPLES)))]
    assert sorted(path.name for path in (logs / "media").iterdir()) == sorted(files)

    assert train([*TINY, *flags, "--save_media"]) == 0  # its own samples are no tunes to train on
    assert "finished before" in capsys.readouterr().out
    assert len(NottinghamData(config_of(split_folder)).tunes.train) == COUNTS["train"]
    assert train([*TINY, *flags, "--save_media", "--no-is_train"]) == 0
    assert re.search(r"^bleu4 +\d\S+ ± \S+ +\d", capsys.readouterr().out, re.MULTILINE)


def test_a_whole_run_on_ones_own_tunes(plain_folder, tmp_path):
    before = {path.name for path in plain_folder.iterdir()}
    logs = ["--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(tmp_path / "eval")]
    assert train([*TINY, "--data_dir", str(plain_folder), *logs, "--no-jit"]) == 0
    check_songs(tmp_path / "train", seq_len=8)
    check_events(tmp_path / "eval", seq_len=8)
    assert not (tmp_path / "train" / "media").exists()
    after = {path.name for path in plain_folder.iterdir()}
    assert after - before <= {".tokens-0.4s.npz"}  # a sample there would be a tune of the next run


def test_a_log_dir_among_the_tunes(plain_folder, tmp_path, capsys):
    """The same command again finds the same tunes, and a second run does not train on the samples of the first."""
    logs, counted = plain_folder / "logs", "tunes: 2 train, 1 valid, 1 test;"
    flags = [*TINY, "--data_dir", str(plain_folder), "--no-evaluate", "--no-jit", "--log_dir"]
    for name in ("first", "first", "second"):
        assert train([*flags, str(logs / name)]) == 0
        assert counted in capsys.readouterr().out
    check_songs(logs / "first", seq_len=8)
    assert train([*flags, str(logs / "first"), "--overwrite"]) == 0
    assert counted in capsys.readouterr().out
    line = error_line(capsys, *flags[len(TINY) :], str(plain_folder / "logs" / ".."))
    assert "--log_dir" in line and "the tunes of --data_dir are there" in line


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_tune_that_was_in_the_log_dir_before_is_not_lost(plain_folder, tmp_path, capsys, flags):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "sample0.mid").write_bytes(b"mine")
    line = error_line(capsys, "--data_dir", str(plain_folder), "--log_dir", str(tmp_path / "log"), *flags)
    assert f"--log_dir {tmp_path / 'log'}: sample0.mid there is no run's" in line
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["sample0.mid"]


def test_a_whole_run_by_the_beat(split_folder, tmp_path, capsys):
    """The tunes' 0.4 s are 0.8 beats at their 120 a minute, and so are the samples' tokens."""
    for tune in split_folder.glob("*/*.mid"):
        assert pretty_midi.PrettyMIDI(str(tune)).get_tempo_changes()[1].tolist() == [120]
    flags = [*TINY, "--data_dir", str(split_folder), "--log_dir", str(tmp_path / "train"), "--frame_beats", "0.8"]
    assert train([*flags, "--no-evaluate", "--no-jit"]) == 0
    assert "8 tokens (6.4 beats, 3.2 s at the tunes' median of 120)" in capsys.readouterr().out
    tempo = json.loads((tmp_path / "train" / "tempo.json").read_text())
    assert tempo == {"beats_per_minute": pytest.approx(120, rel=1e-6)}
    for i in range(SAMPLES):
        path = tmp_path / "train" / f"sample{i}.mid"
        song = pretty_midi.PrettyMIDI(str(path))
        assert song.get_tempo_changes()[1] == pytest.approx([120])
        tokens = read_tokens(path, frame_beats=0.8)
        assert len(tokens) == 8 and tokens.tolist() == read_tokens(path, 0.4).tolist()
    by_second, by_beat = (NottinghamData(config_of(split_folder, *more)) for more in ([], ["--frame_beats", "0.8"]))
    np.testing.assert_array_equal(by_second.windows, by_beat.windows)
    assert by_beat.frame_seconds == pytest.approx(0.4) and by_second.frame_seconds == 0.4
    check_events(tmp_path / "train", seq_len=8)


def test_a_whole_run_with_onsets(split_folder, tmp_path):
    """What is struck again is heard, seen and written as two notes; what is measured of pitches is of pitches."""
    flags = [*TINY, "--data_dir", str(split_folder), "--log_dir", str(tmp_path / "train"), "--onsets", "--no-jit"]
    flags += ["--eval_log_dir", str(tmp_path / "eval"), "--save_media"]
    for tune in split_folder.glob("*/*.mid"):
        write_song(tune, [pitch for pitch in read_tokens(tune) + 20 for _ in range(2)])
    data = NottinghamData(config_of(split_folder, "--onsets"))
    assert data.vocab_size == data.start_token == 177 and data.windows.max() <= 88  # each frame is a note struck anew
    held = data.test.copy()
    held[:, 1::2] = held[:, ::2] + 88
    assert {name: data.compare(held)[name] for name in ("mse", "pitch_range", "rest_share")} == {
        **{name: data.compare(data.test)[name] for name in ("pitch_range", "rest_share")},
        "mse": data.compare(np.repeat(held[:, ::2], 2, axis=1))["mse"],
    }
    np.testing.assert_array_equal(data.decode(held)[0], np.repeat(held[0, ::2] + 20, 2))
    assert train(flags) == 0
    songs = [read_tokens(tmp_path / "train" / f"sample{i}.mid", FRAME, onsets=True) for i in range(SAMPLES)]
    assert all(len(song) == 8 for song in songs)
    tokens = np.array([45, 133, 45, 45, 0, 133, 46, 134])
    sampled = SimpleNamespace(sample=lambda size, *_: tf.constant(np.tile(tokens, [size, 1])))
    (tmp_path / "log").mkdir()
    data.log_samples(sampled, 0, END, Log())
    tokens[5] = 45  # after a rest it begins
    assert read_tokens(tmp_path / "log" / "sample0.mid", FRAME, onsets=True).tolist() == tokens.tolist()
    assert program.main([*flags, "--no-onsets"]) == 2


# --- the script


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the program, so that a run of the script leaves this one alone."""
    copy = tmp_path / "copy of the tree"
    copy.mkdir()
    for name in ("data", "data/music", "runs", "support", "tools"):
        (copy / name).mkdir()
        for path in [*(ROOT / name).glob("*.py"), *(ROOT / name).glob("*.sh")]:
            shutil.copy(path, copy / name)
    for path in [*ROOT.glob("*.py"), ROOT / "train_nottingham.sh"]:
        shutil.copy(path, copy)
    return copy


def run_script(tree: Path, zip_path: Path, *flags: str) -> subprocess.CompletedProcess:
    """The script, from another directory, with the zip named relative to it."""
    environment = {**os.environ, "PYTHON": sys.executable, "NOTTINGHAM_ZIP": os.path.relpath(zip_path, tree.parent)}
    command = ["bash", f"{tree.name}/train_nottingham.sh", *flags]
    return subprocess.run(command, cwd=tree.parent, env=environment, capture_output=True, text=True, timeout=300)


def tiny_zip(split_folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for tune in sorted(split_folder.rglob("*.mid")):
            archive.write(tune, Path("Nottingham") / tune.relative_to(split_folder))
    return path


def test_the_script_from_zip_to_songs(tree, split_folder, tmp_path):
    flags = [*SMALL, "--no-jit", "--seq_len", "12"]  # later flags win
    done = run_script(tree, tiny_zip(split_folder, tmp_path / "tiny.zip"), *flags)
    assert done.returncode == 0, done.stderr
    check_songs(tree / "data" / "Nottingham", 12, EIGHTHS)
    check_songs(tree / "logs" / "train" / "nottingham", 12, EIGHTHS)
    assert [row["epoch"] for row in eval_rows(tree / "logs" / "eval" / "nottingham")] == ["0", "2", "3", "4"]
    assert "--candidates: no evaluation of logs/train/nottingham" in done.stderr  # it has measured too little
    tunes = tree / "logs" / "train" / "nottingham" / "tunes"
    assert {path.name for path in tunes.iterdir() if path.suffix} == {
        *(f"sample{i}.{kind}" for i in range(20) for kind in ("mid", "abc")),
        *("tunes.abc", "tunes.html", ".samples.sha256"),
    }
    line = next(line for line in done.stdout.splitlines() if line.startswith("pretrain_d 1/1"))
    assert "d_pretrain_loss" in line and "nll" not in line  # which were those of before
    again = run_script(tree, tmp_path / "gone.zip", *flags)  # the folder is there, so the zip is not needed
    assert again.returncode == 0 and "finished before" in again.stdout
    (tree / "data" / "Nottingham" / "sample1.mid").write_bytes(b"mine")
    refused = run_script(tree, tmp_path / "gone.zip", *flags, "--overwrite")
    assert refused.returncode == 2 and (tree / "data" / "Nottingham" / "sample1.mid").read_bytes() == b"mine"
    line = "main.py: error: data/Nottingham/sample1.mid: not as this program wrote it; move it away, or choose another"
    assert refused.stderr.splitlines()[-1].startswith(line)
    assert list((tree / "logs" / "train" / "nottingham" / "checkpoints").glob("step-*"))  # of the run before


def test_what_the_scripts_leave_is_chosen_by_the_discriminator(tmp_path):
    """After a run that has ended, and there alone; that nothing can choose is no error."""
    script = 'set -euo pipefail; source tools/train.sh; python=echo; log_dir="a b"; status=0; choose 5 songs --abc; '
    script += "status=143; choose 5 songs; status=0; python=false; choose 5 songs || echo end"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "tools/sample.py a b --candidates 16 --rank -n 5 -o a b/songs --abc\nend\n"
    script = f"source tools/train.sh; log_dir={shlex.quote(str(tmp_path))}; earlier songs; touch $log_dir/songs; "
    done = subprocess.run(
        ["bash", "-ec", script + "earlier songs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == f"{tmp_path}/songs: not of this run, but of an earlier one\n"
    script = f"source tools/train.sh; python={sys.executable}; train --total_epochs 0 --version; echo not here"
    done = subprocess.run(["bash", "-ec", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and "not here" not in done.stdout


def test_the_script_interrupted_leaves_songs_too(tree, split_folder, tmp_path):
    """A signal to the script alone, as `timeout` or a service manager sends it, ends the training with a checkpoint."""
    zip_path, logs = tiny_zip(split_folder, tmp_path / "tiny.zip"), tree / "logs of mine"
    flags = [*SMALL, "--no-jit", "--no-evaluate", "--seq_len", "12", "--log_dir", str(logs)]
    flags += ["--pretrain_g_epochs", "1000000"]
    environment = {**os.environ, "PYTHON": sys.executable, "NOTTINGHAM_ZIP": str(zip_path)}
    script = subprocess.Popen(["bash", str(tree / "train_nottingham.sh"), *flags], env=environment)
    end = time.monotonic() + 120
    while not (logs / f"sample{SAMPLES - 1}.mid").exists() and time.monotonic() < end:
        time.sleep(0.1)
    script.send_signal(signal.SIGTERM)
    assert script.wait(60) == 143
    assert list((logs / "checkpoints").glob("step-*"))
    songs = [path.name for path in sorted((tree / "data" / "Nottingham").glob("sample*.mid"))]
    assert songs == [f"sample{i}.mid" for i in range(SAMPLES)]
    for name in songs:
        assert (tree / "data" / "Nottingham" / name).read_bytes() == (logs / name).read_bytes()


def test_the_script_refused_leaves_what_there_was(tree, split_folder, tmp_path):
    assert run_script(tree, tiny_zip(split_folder, tmp_path / "tiny.zip"), "--batch_size", "0").returncode == 2
    songs = tree / "data" / "Nottingham"
    for folder in (songs, tree / "logs" / "train" / "nottingham"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sample0.mid").write_text(str(folder))
    assert run_script(tree, tmp_path / "gone.zip", "--batch_size", "0").returncode == 2
    assert (songs / "sample0.mid").read_text() == str(songs)


def test_a_runs_songs_are_no_tunes(plain_folder, tmp_path):
    """Nor if they are among the tunes; what somebody has made of one is."""
    config = config_of(plain_folder, "--songs_dir", str(plain_folder))
    data, count = NottinghamData(config), 2
    assert len(data.tunes.train) == count
    (tmp_path / "log").mkdir()
    for _ in range(2):
        data.log_samples(shared_model(config, VOCAB_SIZE, START), 0, END, Log())
    assert (plain_folder / "sample0.mid").read_bytes() == (tmp_path / "log" / "sample0.mid").read_bytes()
    with open(plain_folder / ".samples.sha256", "a") as record:  # as a kill leaves it, before a song is there
        record.write("0" * 64 + "  sample0.mid\n")
    assert len(NottinghamData(config).tunes.train) == count
    write_song(plain_folder / "sample0.mid", list(range(50, 70)))
    assert len(NottinghamData(config_of(plain_folder)).tunes.train) == count + 1
    with pytest.raises(UsageError, match="sample0.mid: not as this program wrote it"):
        NottinghamData(config)
    with pytest.raises(UsageError, match="sample0.mid: not a folder"):
        NottinghamData(config_of(plain_folder, "--songs_dir", str(plain_folder / "sample0.mid")))


def test_the_script_leaves_no_songs_of_another_run(tree, split_folder, tmp_path):
    """The directory of --preset quick is its own, and has no songs."""
    (tree / "logs" / "train" / "nottingham").mkdir(parents=True)
    (tree / "logs" / "train" / "nottingham" / "sample0.mid").write_text("of an earlier run")
    flags = ["--preset", "quick", "--no-jit", "--no-evaluate", "--pretrain_g_epochs", "1", "--total_epochs", "0"]
    done = run_script(tree, tiny_zip(split_folder, tmp_path / "tiny.zip"), *flags, "--reward", "constant")
    assert done.returncode == 0 and (tree / "logs" / "train" / "quick" / "metrics.csv").exists(), done.stderr
    assert not list((tree / "data" / "Nottingham").glob("*.mid"))


def test_the_script_stops_where_there_is_no_data(tree, tmp_path):
    done = run_script(tree, tmp_path / "missing.zip")
    assert done.returncode == 2 and "NOTTINGHAM_ZIP" in done.stderr
    assert "main.py" not in done.stderr  # it was not started
    assert not (tree / "logs").exists()


def test_the_script_on_the_real_tunes(tree, shared_data):
    done = run_script(tree, shared_data("Nottingham.zip"), *SMALL, "--no-jit", "--train_size", "64")
    assert done.returncode == 0, done.stderr
    assert "694 train, 173 valid, 170 test MIDI files" in done.stdout
    assert "tunes: 692 train, 173 valid, 169 test, 3 skipped; 2670 training windows of 64 tokens" in done.stdout
    check_songs(tree / "data" / "Nottingham", 64, EIGHTHS)
    check_events(tree / "logs" / "eval" / "nottingham", 64, EIGHTHS.seconds)
    assert eval_rows(tree / "logs" / "eval" / "nottingham")[-1]["real_bleu4"]


def test_what_a_run_costs_is_bounded(split_folder, monkeypatch):
    """Large folders of one's own: held-out windows are a spread of those there are."""
    monkeypatch.setattr(dataset, "MAX_HELD_OUT", 3)
    data = NottinghamData(config_of(split_folder))
    assert len(data.valid) == len(data.test) == 3
