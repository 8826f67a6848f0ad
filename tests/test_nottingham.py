"""data/music/dataset.py, media.py, evaluation/tunes.py, train_nottingham.sh: what trains, is measured, seen, heard."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import wave
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pretty_midi
import pytest
import tensorflow as tf
from conftest import END, NOW, ROOT, evaluation_of, read_tokens, refusal, shared_seqgan, train
from fault_injection import events_of, fitting, timeless_rows

import main as program
from data import DataError
from data.music.dataset import NottinghamData
from data.music.folder import SPLITS
from data.music.media import SAMPLE_RATE, audio, piano_roll
from data.music.midi import midi_file
from data.music.tokens import HIGHEST_PITCH, LOWEST_PITCH, REST, Grid, before_end, to_pitches, transposed
from data.training_set import spread
from evaluation.metrics import D_FIGURES, table
from evaluation.policy import MeasuredPolicy
from evaluation.run import evaluator_of
from evaluation.tunes import SAMPLES, TuneEvaluator, with_rests
from generator import TokenSpec
from runs.logs import with_errors
from support.parser import parse
from support.seeds import Purpose

# Of these there is none in eight tokens, which are one bar.
OF_BARS = {"repeated_bars", "looped_bars", "alike_after_2", "alike_after_4", "alike_after_8"}
SMALL = shlex.split(
    "--batch_size 4 --g_emb_dim 3 --g_hidden_dim 5 --rollout_num 2 --d_emb_dim 3 --d_filter_sizes 1 3 "
    "--d_num_filters 4 3 --d_batch_size 8 --pretrain_g_epochs 3 --pretrain_d_epochs 1 --total_epochs 2 --d_steps 1 "
    "--d_epochs 1 --eval_samples 6 --sample_every 2 --d_eval_samples 0 --no-jit"
)
TINY = ["--dataset", "Nottingham", "--seq_len", "8", *SMALL]
FEW = fitting(TINY, shlex.split("--no-evaluate --pretrain_g_epochs 1 --total_epochs 0 --pretrain_d_epochs 0"))
FRAME = 0.4  # seconds
SECONDS = Grid(FRAME)
VOCAB_SIZE = SECONDS.vocab_size
# Each split has pitches of its own, so that it shows where a token comes from.
PITCHES = {"train": range(60, 70), "valid": range(70, 80), "test": range(80, 90)}
COUNTS = {"train": 5, "valid": 3, "test": 2}
LENGTHS = {"train": 20, "valid": 112, "test": 92}  # tokens a tune; of the held-out ones 42 and 22 windows of 8
EIGHTHS = Grid(0.25, 0.5, onsets=True)  # what the script has, at 120 beats a minute
SILENT = SimpleNamespace(image=lambda *_: None, audio=lambda *_: None)  # a log


@pytest.fixture(autouse=True)
def elsewhere(here, tmp_path_factory, monkeypatch) -> None:
    """The default directories of runs, and the cache, are in folders of the test's own."""
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


@pytest.fixture
def split_folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for split, pitches in PITCHES.items():
        for number in range(COUNTS[split]):
            write_song(tmp_path / "tunes" / split / f"{number}.mid", rng.choice(pitches, LENGTHS[split]).tolist())
    return tmp_path / "tunes"


@pytest.fixture
def plain_folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(4):  # dealt out as 2 train, 1 valid, 1 test
        write_song(tmp_path / "mine" / f"{number}.mid", rng.choice(PITCHES["train"], 20).tolist())
    return tmp_path / "mine"


def config_of(folder: Path, *flags: str):
    return parse([*TINY, "--data_dir", str(folder), "--log_dir", str(folder.parent / "log"), *flags])


def data_of(folder: Path, *flags: str) -> NottinghamData:
    return NottinghamData(config_of(folder, *flags))


def evaluator(folder: Path, *flags: str) -> TuneEvaluator:
    return evaluator_of(data_of(folder, *flags), config_of(folder, *flags))


def split_of(tokens) -> set[str]:
    """The splits whose pitches occur."""
    pitches = set((np.asarray(tokens).ravel() + 20).tolist())
    return {split for split, own in PITCHES.items() if pitches & set(own)}


def test_only_the_train_split_trains(split_folder):
    data = data_of(split_folder)
    for epoch in range(5):
        assert split_of(data.mle_batches(epoch)) == split_of(data.real(epoch)) == {"train"}
    assert (split_of(data.valid), split_of(data.test)) == ({"valid"}, {"test"})
    assert (data.spec.vocab_size, data.spec.start_token, data.spec.end_token) == (VOCAB_SIZE, VOCAB_SIZE, None)
    # An epoch is one batch, and held-out windows lie side by side.
    assert data.mle_batches(0).shape == (1, 4, 8) and data.mle_batches(0).dtype == tf.int32
    assert data.real(0).shape == (4, 8) and data.real(0).dtype == tf.int32
    assert (data.valid.shape, data.test.shape) == ((42, 8), (22, 8))


def test_training_windows_begin_anywhere_and_lie_in_one_tune(split_folder):
    data = data_of(split_folder)
    every = {tune[i : i + 8].tobytes() for tune in data.tunes.train for i in range(20 - 8 + 1)}
    drawn = {row.tobytes() for epoch in range(200) for row in data.mle_batches(epoch).numpy().reshape(-1, 8)}
    assert drawn == every  # 65 windows, 800 draws
    assert len(data_of(split_folder, "--window_stride", "4").sequences) == 5 * 4


def test_draws_follow_from_seed_and_step_alone(split_folder):
    data, again, other = (data_of(split_folder, "--seed", seed) for seed in "112")
    for draw in (lambda d, i: d.mle_batches(i), lambda d, i: d.real(i)):
        again_5 = draw(again, 5).numpy()  # asked for first, and out of order
        np.testing.assert_array_equal([draw(data, i).numpy() for i in range(6)][5], again_5)
        assert np.any(draw(data, 4).numpy() != again_5) and np.any(draw(other, 5).numpy() != again_5)


def test_one_window_is_enough(tmp_path):
    """And what needs held-out tunes is then left out."""
    write_song(tmp_path / "mine" / "a.mid", list(range(60, 68)))
    data = data_of(tmp_path / "mine")
    assert np.all(data.mle_batches(0).numpy() == np.arange(40, 48)) and data.mle_batches(0).shape == (1, 4, 8)
    evaluation = evaluation_of(data.config, data, shared_seqgan(data.config, data.spec))
    without = {"bleu2", "bleu3", "bleu4", "mse", "interval_divergence", "rhythm_divergence", *OF_BARS}
    assert set(evaluation.measure(0, END)) == {"g_entropy", *TuneEvaluator.compared} - without


def test_train_size_fixes_the_windows(split_folder):
    data = data_of(split_folder, "--train_size", "9")
    passes = [data.mle_batches(epoch).numpy().reshape(-1, 8) for epoch in range(30)]
    assert passes[0].shape == (8, 8)  # two batches of 4
    chosen = {row.tobytes() for row in data.real(0).numpy()}
    assert len(data.real(0)) == 9 and {row.tobytes() for rows in passes for row in rows} == chosen
    assert chosen != {row.tobytes() for row in data_of(split_folder, "--train_size=9", "--seed", "2").real(0).numpy()}
    with pytest.raises(DataError, match=r"^--train_size: 66 is more than the 65 windows of --data_dir "):
        data_of(split_folder, "--train_size", "66")


def test_the_introduction_counts(split_folder):
    (split_folder / "train" / "text.mid").write_text("not MIDI")
    line = data_of(split_folder).introduction()
    assert "5 train, 3 valid, 2 test, 1 skipped; 65 training windows of 8 tokens (3.2 s)" in line and "\n" not in line


def test_what_a_run_costs_is_bounded(tmp_path):
    """Large folders of one's own: held-out windows are a spread of those there are."""
    assert spread(np.arange(10), 4).tolist() == [0, 3, 6, 9] and spread(np.arange(3), 4).tolist() == [0, 1, 2]
    for split, length in zip(SPLITS, (40, 8_300, 8_300), strict=True):
        (tmp_path / "tunes" / split).mkdir(parents=True)
        (tmp_path / "tunes" / split / "a.mid").write_bytes(midi_file(np.arange(length) % 7 + 40, SECONDS))
    data = data_of(tmp_path / "tunes")
    assert len(data.valid) == len(data.test) == 1024


def error_line(capsys, *flags: str) -> str:
    return refusal(capsys, program.main, [*TINY, *flags], alone=False)


def test_no_tunes_or_none_so_long(plain_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty"):
        line = error_line(capsys, "--data_dir", str(folder), "--log_dir", str(tmp_path / "log"))
        assert f"--data_dir {folder}" in line and "bash train_nottingham.sh" in line
        assert not (tmp_path / "log").exists()
    line = error_line(capsys, "--data_dir", str(plain_folder), "--seq_len", "21")
    assert f"--data_dir {plain_folder}" in line and "a smaller --seq_len than 21" in line


def test_held_out_tunes_that_tell_nothing_are_warned_of(split_folder, capsys):
    data_of(split_folder)
    assert capsys.readouterr().err == ""
    shutil.rmtree(split_folder / "valid")
    shutil.copytree(split_folder / "train", split_folder / "valid")
    for tune in (split_folder / "test").iterdir():
        tune.unlink()
    data_of(split_folder)
    assert capsys.readouterr().err == (
        f"warning: --data_dir {split_folder}: the whole validation set is in the training set as well\n"
        f"warning: --data_dir {split_folder}: the test set is empty; its figures are left out\n"
    )


def test_tunes_of_test_compare_perfectly_with_test(split_folder):
    measured = evaluator(split_folder)
    figures = measured.compare(measured.data.test)
    assert tuple(figures) == tuple(name for name in measured.compared if name not in OF_BARS)
    assert figures["interval_divergence"][0] == figures["rhythm_divergence"][0] == 0
    assert [figures[name][0] for name in ("bleu2", "bleu3", "bleu4", "mse", "copied_share")] == [1, 1, 1, 0, 0]
    assert figures["self_bleu4"][0] < 1
    silent = measured.compare(np.zeros((3, 8), np.int32))  # has no pitch
    assert silent["rest_share"] == (1, 0) and set(silent) == {
        *("bleu2", "bleu3", "bleu4", "self_bleu4", "rest_share", "copied_share", "longest_copy", "rhythm_divergence")
    }


def test_windows_of_train_are_copies(split_folder):
    """From 16 tokens on or, where a sequence has fewer, all of it."""
    measured = evaluator(split_folder, "--seq_len", "16")
    samples = measured.data.sequences[:4].copy()
    samples[0, 8] = 1  # breaks the 16 tokens
    samples[1, :4] = REST
    figures = measured.compare(samples)
    assert figures["copied_share"] == (0.5, pytest.approx(0.288675, abs=1e-6))  # sqrt(0.25 · 4 / 3 / 4)
    assert figures["rest_share"][0] == 4 / 64
    measured = evaluator(split_folder)  # of 8 tokens
    samples = measured.data.sequences[:4].copy()
    samples[0, 7] = 1
    assert measured.compare(samples)["copied_share"][0] == 0.75
    moved, samples = evaluator(split_folder, "--transpose", "all"), transposed(measured.data.sequences[:4], 6)
    assert [each.compare(samples)["copied_share"][0] for each in (measured, moved)] == [0, 0]
    samples -= 12  # the octave that training has
    assert [each.compare(samples)["copied_share"][0] for each in (measured, moved)] == [0, 1]
    np.testing.assert_array_equal(moved.data.valid, measured.data.valid)


def test_whole_tunes_have_an_end_and_are_measured_up_to_it(tmp_path):
    """A longer one is cut and has none. Figures are those of windows that hold the tunes, but that length is told."""
    rng, end, padding = np.random.default_rng(0), VOCAB_SIZE, VOCAB_SIZE + 1
    for split, lengths in (("train", (40, 40, 3, 63, 64, 90)), ("valid", [40] * 4), ("test", [40] * 3)):
        for i, length in enumerate(lengths):
            write_song(tmp_path / "tunes" / split / f"{i}.mid", rng.choice(PITCHES["train"], length).tolist())
    whole = evaluator(tmp_path / "tunes", "--window_stride", "0", "--seq_len", "64")
    data, windows = whole.data, evaluator(tmp_path / "tunes", "--seq_len", "40")
    assert data.spec == TokenSpec(VOCAB_SIZE + 1, 64, start_token=VOCAB_SIZE + 2, end_token=end)
    rows = [[*tune, end, *[padding] * 64][:64] for tune in data.tunes.train]
    assert data.sequences.tolist() == rows and data.sequences.dtype == np.int32 and len(rows) == 6
    assert [len(pitches) for pitches in data.decode(data.sequences)] == [40, 40, 3, 63, 64, 64]
    assert "6 train, 4 valid, 3 test; 1 training tunes cut to 64 tokens (25.6 s)" in data.introduction()
    data.valid[:, 5] = windows.data.valid[:, 5] = REST
    figures, expected = whole.compare(data.valid), windows.compare(windows.data.valid)
    assert figures.pop("length") == (40, 0) and expected.pop("mse") and figures == expected
    assert figures["rest_share"] == (1 / 40, 0) and "length" in whole.columns and "length" not in windows.columns
    assert whole.compare(np.array([[end] + [padding] * 63] * 2))["copied_share"][0] == 0  # of no token
    np.testing.assert_array_equal(with_rests(np.array([[40, end, padding]]), SECONDS), [[40, REST, REST]])
    (tmp_path / "log").mkdir()
    policy = MeasuredPolicy(shared_seqgan(data.config, data.spec).policy, seed=1, jit=False)
    whole.show(policy, 0, END, SILENT)
    drawn = before_end(policy.sample(SAMPLES, Purpose.IMAGES, tf.constant(0)).numpy(), SECONDS)
    lengths = [len(read_tokens(tmp_path / "log" / f"sample{i}.mid")) for i in range(SAMPLES)]
    assert lengths == [len(tokens) for tokens in drawn] and min(lengths) < 64


def test_evaluate(split_folder):
    config = config_of(split_folder, "--d_eval_samples", "42")
    data = NottinghamData(config)
    seqgan = shared_seqgan(config, data.spec)
    evaluation = evaluation_of(config, data, seqgan)
    figures = evaluation.measure(7, NOW, of_discriminator=False)
    assert set(figures) == {"g_entropy", "nll_valid", "nll_test"}
    for name, windows in (("nll_valid", data.valid), ("nll_test", data.test)):
        nll = evaluation.policy.nll(tf.constant(windows)).numpy() / 8
        assert figures[name] == pytest.approx((nll.mean(), nll.std(ddof=1) / np.sqrt(len(nll))), rel=1e-4)
    assert figures["g_entropy"][0] == pytest.approx(np.log(VOCAB_SIZE), abs=0.2)  # untrained: nearly uniform
    full, columns = evaluation.measure(7, END), set(evaluation.columns)
    assert {name: full[name] for name in figures} == figures and set(full) < columns
    assert {name for name in columns - set(full) if "resampled" not in name} == OF_BARS | {f"real_{n}" for n in OF_BARS}
    real = evaluation.evaluator.compare(spread(data.valid, 6))  # as many as --eval_samples
    assert {name: full[f"real_{name}"] for name in TuneEvaluator.compared if name not in OF_BARS} == real
    assert full["bleu4"] != full["real_bleu4"]


def test_an_unknown_error_is_neither_recorded_nor_printed():
    figures = {"nll_test": (2.0, 0.125), "pitch_range": (7.0, float("nan"))}
    assert with_errors(figures) == {"nll_test": 2, "nll_test_se": 0.125, "pitch_range": 7}
    assert table(figures).splitlines()[1:] == ["nll_test     2.000 ± 0.125", "pitch_range  7.000"]


def test_audio_has_the_pitch_and_the_duration():
    clip = audio(np.array([49, 49, 49, REST, REST]), SECONDS)  # the A of 440 Hz for 1.2 s, then 0.8 s of silence
    assert clip.dtype == np.float32 and len(clip) == 2 * SAMPLE_RATE and np.abs(clip).max() <= 1
    tone = clip[: int(1.2 * SAMPLE_RATE)]
    assert np.argmax(np.abs(np.fft.rfft(tone))) / 1.2 == pytest.approx(440, abs=1)
    assert np.abs(tone).max() > 0.5 and np.abs(clip[int(1.3 * SAMPLE_RATE) :]).max() == 0
    silent = audio(np.full(5, REST), SECONDS)
    assert len(silent) == 2 * SAMPLE_RATE and not silent.any()


def test_piano_roll_draws_higher_pitches_higher_and_later_ones_to_the_right():
    low_then_high = piano_roll(np.array([[40, 40, 50, 50]]), SECONDS, "a tune")
    assert low_then_high.dtype == np.uint8 and low_then_high.ndim == 3 and low_then_high.shape[2] == 3
    blue = low_then_high[:, :, 2].astype(int) - low_then_high[:, :, 0] > 100
    rows, columns = np.nonzero(blue)
    middle = (columns.min() + columns.max()) / 2
    assert rows[columns < middle - 2].min() > rows[columns > middle + 2].max() + 20
    assert piano_roll(np.zeros((2, 4), int), SECONDS, "silence").shape[2] == 3


def test_a_runs_songs_are_no_tunes(plain_folder, tmp_path, capsys):
    """Nor if they are among the tunes; what somebody has made of one is, and it stays."""
    shown, count = evaluator(plain_folder, "--songs_dir", str(plain_folder)), 2
    assert len(shown.data.tunes.train) == count
    policy = MeasuredPolicy(shared_seqgan(shown.data.config, shown.data.spec).policy, seed=1, jit=False)
    with pytest.raises(OSError):
        shown.show(policy, 0, END, SILENT)  # there is no --log_dir
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "sample0.mid").write_bytes(b"of version 1.0, which kept no record")
    for _ in range(2):
        shown.show(policy, 0, END, SILENT)
    assert (plain_folder / "sample0.mid").read_bytes() == (tmp_path / "log" / "sample0.mid").read_bytes()
    for folder in (tmp_path / "log", plain_folder):
        (folder / "sample1.mid").write_bytes(b"mine")
    shown.show(policy, 1, END, SILENT)
    warnings = capsys.readouterr().err.splitlines()
    assert ["sample1.mid: changed by somebody, so it is not" in line for line in warnings] == [True, True]
    assert (plain_folder / "sample1.mid").read_bytes() == (tmp_path / "log" / "sample1.mid").read_bytes() == b"mine"
    (plain_folder / "sample1.mid").unlink()
    with open(plain_folder / ".samples.sha256", "a") as record:  # as a kill leaves it, before a song is there
        record.write("0" * 64 + "  sample0.mid\n")
    assert len(NottinghamData(shown.data.config).tunes.train) == count
    write_song(plain_folder / "sample0.mid", list(range(50, 70)))
    assert len(data_of(plain_folder).tunes.train) == count + 1
    for name, reason in (("", "not as this program wrote it"), ("sample0.mid", "not a folder")):
        words = ["--data_dir", str(plain_folder), "--songs_dir", str(plain_folder / name)]
        assert f"sample0.mid: {reason}" in error_line(capsys, *words, "--log_dir", str(tmp_path / "new"))


def test_a_song_that_comes_before_the_runs_first_ones_stays(plain_folder, tmp_path, monkeypatch, capsys):
    words = [*FEW, "--data_dir", str(plain_folder), "--log_dir", str(tmp_path / "log")]
    with monkeypatch.context() as patched:
        patched.setattr(program, "algorithm_1", lambda *_: None)  # interrupted before its first step
        assert train(words) == 0
    (tmp_path / "log" / "sample0.mid").write_bytes(b"mine")
    assert train(words) == 0 and "sample0.mid: changed by somebody" in capsys.readouterr().err
    assert (tmp_path / "log" / "sample0.mid").read_bytes() == b"mine" and (tmp_path / "log" / "sample1.mid").is_file()


def check_songs(folder: Path, seq_len: int, grid: Grid = SECONDS) -> None:
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
    events = events_of(folder)
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


def test_a_whole_run_on_a_folder_with_splits(split_folder, tmp_path, capsys):
    logs, evaluation = tmp_path / "train", tmp_path / "eval"
    flags = ["--data_dir", str(split_folder), "--log_dir", str(logs), "--eval_log_dir", str(evaluation)]
    flags += ["--d_eval_samples", "42", "--log_generation"]
    assert train([*TINY, *flags]) == 0
    out = capsys.readouterr().out
    shown = {line.split()[0]: line for line in out[out.index("generated  ") :].splitlines()[1:-1]}
    compared = {*TuneEvaluator.compared} - OF_BARS
    assert set(shown) == {"seconds", "nll_test", "nll_valid", "g_entropy", *D_FIGURES} | compared
    assert all(shown[name].count(".") >= 2 for name in compared) and "nan" not in out  # beside real
    check_songs(logs, seq_len=8)
    assert not list(split_folder.glob("sample*"))  # there are other runs on these tunes
    check_events(evaluation, seq_len=8)
    rows = timeless_rows(evaluation)
    assert [row["epoch"] for row in rows] == ["0", "2", "2", "3", "4"]  # the first and the last of each phase
    of_d = rows.pop(2)
    assert of_d["phase"] == "pretrain_d" and all(of_d[name] for name in D_FIGURES) and not of_d["nll_test"]
    for row in rows:
        ends_a_phase = row["epoch"] in "24"
        assert all(row[name] for name in ("nll_test", "nll_test_se", "nll_valid", "g_entropy"))
        assert bool(row["bleu4"]) == bool(row["real_bleu4"]) == bool(row["copied_share"]) == ends_a_phase
    data = data_of(split_folder)
    assert len(data.tunes.train) == COUNTS["train"]
    sampled = (1, 2, 4)  # every second epoch of a phase, and its last
    names = [f"epoch{epoch:05d}_{kind}" for epoch in sampled for kind in ("generated", "real")]
    files = [f"{name}{end}" for name in names for end in (".png", *(f"_{i}.wav" for i in range(SAMPLES)))]
    assert sorted(path.name for path in (logs / "media").iterdir()) == sorted(files)
    picture = tf.io.decode_png((logs / "media" / files[0]).read_bytes())
    assert picture.shape == piano_roll(data.sequences[:SAMPLES], SECONDS, "").shape
    with wave.open(str(logs / "media" / files[1])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        assert file.getnframes() == 8 * FRAME * SAMPLE_RATE and any(file.readframes(100_000))
    assert train([*TINY, *flags]) == 0  # its own samples are no tunes to train on
    assert "finished before" in capsys.readouterr().out and train([*TINY, *flags, "--no-is_train"]) == 0
    assert re.search(r"^bleu4 +\d\S+ ± \S+ +\d", capsys.readouterr().out, re.MULTILINE)


def test_a_log_dir_among_the_tunes(plain_folder, capsys):
    """The same command again finds the same tunes, and a second run does not train on the samples of the first."""
    logs, counted, before = plain_folder / "logs", "tunes: 2 train, 1 valid, 1 test;", {*plain_folder.iterdir()}
    flags = [*FEW, "--data_dir", str(plain_folder), "--log_dir"]
    for name in ("first", "second"):
        assert train([*flags, str(logs / name)]) == 0 and counted in capsys.readouterr().out
    check_songs(logs / "first", seq_len=8)
    check_events(logs / "first", seq_len=8)
    assert not (logs / "first" / "media").exists()
    # A sample there would be a tune of the next run.
    assert {path.name for path in {*plain_folder.iterdir()} - before} <= {".tokens-0.4s.json", "logs"}
    assert train([*flags, str(logs / "first"), "--overwrite"]) == 0 and counted in capsys.readouterr().out
    line = error_line(capsys, *flags[len(FEW) :], str(plain_folder / "logs" / ".."))
    assert "--log_dir" in line and "the tunes of --data_dir are there" in line
    write_song(plain_folder / "sub" / "a.mid", list(range(50, 70)))
    for flag, other in (("--log_dir", "--eval_log_dir"), ("--eval_log_dir", "--log_dir")):
        words = ["--data_dir", str(plain_folder), flag, str(plain_folder / "sub"), other, str(logs / "third")]
        assert f"{flag} {plain_folder}/sub: has tunes of --data_dir" in error_line(capsys, *words)
    below = str(plain_folder / "sub" / "a.mid" / "x")
    words = ["--data_dir", str(plain_folder), "--log_dir", str(logs / "third"), "--songs_dir", below]
    assert f"--songs_dir {below}: Not a directory" in error_line(capsys, *words)


def test_a_whole_run_by_the_beat(split_folder, tmp_path, capsys):
    """The tunes' 0.4 s are 0.8 beats at their 120 a minute, and so are the samples' tokens."""
    beats = ["--token_length", "0.8beats"]
    flags = [*FEW, "--data_dir", str(split_folder), "--log_dir", str(tmp_path / "train"), *beats]
    assert train(flags) == 0 and "8 tokens (6.4 beats, 3.2 s at the tunes' median of 120)" in capsys.readouterr().out
    tempo = json.loads((tmp_path / "train" / "tempo.json").read_text())
    assert tempo == {"beats_per_minute": pytest.approx(120, rel=1e-6)}
    for i in range(SAMPLES):
        path = tmp_path / "train" / f"sample{i}.mid"
        assert pretty_midi.PrettyMIDI(str(path)).get_tempo_changes()[1] == pytest.approx([120])
        tokens = read_tokens(path, frame_beats=0.8)
        assert len(tokens) == 8 and tokens.tolist() == read_tokens(path, 0.4).tolist()
    by_second, by_beat = data_of(split_folder), data_of(split_folder, *beats)
    np.testing.assert_array_equal(by_second.sequences, by_beat.sequences)
    assert by_beat.grid.seconds == pytest.approx(0.4) and by_second.grid.seconds == 0.4
    check_events(tmp_path / "train", seq_len=8)


def test_a_whole_run_with_onsets(split_folder, tmp_path):
    """What is struck again is heard, seen and written as two notes; what is measured of pitches is of pitches."""
    flags = [*FEW, "--data_dir", str(split_folder), "--log_dir", str(tmp_path / "train"), "--onsets"]
    for tune in split_folder.glob("*/*.mid"):
        write_song(tune, [pitch for pitch in read_tokens(tune) + 20 for _ in range(2)])
    measured = evaluator(split_folder, "--onsets")
    data, compare = measured.data, measured.compare
    assert data.spec[:3] == (177, 8, 177) and data.sequences.max() <= 88  # each frame is a note struck anew
    held = data.test.copy()
    held[:, 1::2] = held[:, ::2] + 88
    assert {name: compare(held)[name] for name in ("mse", "pitch_range", "rest_share")} == {
        **{name: compare(data.test)[name] for name in ("pitch_range", "rest_share")},
        "mse": compare(np.repeat(held[:, ::2], 2, axis=1))["mse"],
    }
    np.testing.assert_array_equal(data.decode(held)[0], np.repeat(held[0, ::2] + 20, 2))
    assert train(flags) == 0
    songs = [read_tokens(tmp_path / "train" / f"sample{i}.mid", FRAME, onsets=True) for i in range(SAMPLES)]
    assert all(len(song) == 8 for song in songs)
    tokens = np.array([45, 133, 45, 45, 0, 133, 46, 134], np.int32)
    (tmp_path / "log").mkdir()
    singing = SimpleNamespace(sample=lambda size, *_: tf.constant(np.tile(tokens, [size, 1])))
    measured.show(singing, 0, END, SILENT)
    tokens[5] = 45  # after a rest it begins
    assert read_tokens(tmp_path / "log" / "sample0.mid", FRAME, onsets=True).tolist() == tokens.tolist()
    assert program.main([*flags, "--no-onsets"]) == 2


def run_script(tree: Path, zip_path: Path, *flags: str) -> subprocess.CompletedProcess:
    """The script, from another directory, with the zip named relative to it."""
    environment = {**os.environ, "PYTHON": sys.executable, "NOTTINGHAM_ZIP": os.path.relpath(zip_path, tree.parent)}
    command = ["bash", f"{tree.name}/train_nottingham.sh", *flags]
    return subprocess.run(command, cwd=tree.parent, env=environment, capture_output=True, text=True, timeout=300)


def test_the_script_from_zip_to_songs(split_folder, tmp_path):
    """In a copy of the program, so that this one is left alone."""
    tree, packages = tmp_path / "copy of the tree", [place.parent for place in ROOT.glob("*/__init__.py")]
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.sh"), *(p for each in packages for p in each.rglob("*.[ps][yh]"))]:
        place = tree / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    flags = ["--discriminator", "pooled", *SMALL, "--seq_len", "12"]  # later flags win
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        for tune in sorted(split_folder.rglob("*.mid")):
            archive.write(tune, Path("Nottingham") / tune.relative_to(split_folder))
    done = run_script(tree, tmp_path / "tiny.zip", *flags)
    assert done.returncode == 0, done.stderr
    check_songs(tree / "data" / "Nottingham", 12, EIGHTHS)
    check_songs(tree / "logs" / "train" / "nottingham", 12, EIGHTHS)
    assert [row["epoch"] for row in timeless_rows(tree / "logs" / "eval" / "nottingham")] == ["0", "2", "3", "4"]
    assert "--candidates: no evaluation of logs/train/nottingham" in done.stderr  # it has measured too little
    tunes = tree / "logs" / "train" / "nottingham" / "tunes"
    assert {path.name for path in tunes.iterdir() if path.suffix} == {
        *(f"sample{i}.{kind}" for i in range(20) for kind in ("mid", "abc")),
        *("tunes.abc", "tunes.html", ".samples.sha256"),
    }
    (tree / "data" / "Nottingham" / "sample1.mid").write_bytes(b"mine")
    refused = run_script(tree, tmp_path / "gone.zip", *flags, "--overwrite")  # the zip is not needed any more
    assert refused.returncode == 2 and (tree / "data" / "Nottingham" / "sample1.mid").read_bytes() == b"mine"
    line = "main.py: error: data/Nottingham/sample1.mid: not as this program wrote it; move it away, or choose another"
    assert refused.stderr.splitlines()[-1].startswith(line)
    assert list((tree / "logs" / "train" / "nottingham" / "checkpoints").glob("step-*"))  # of the run before


def test_the_real_tunes_as_the_script_has_them(shared_data, tmp_path):
    with zipfile.ZipFile(shared_data("Nottingham.zip")) as archive:
        archive.extractall(tmp_path)
    data = NottinghamData(parse(["--preset", "music", "--data_dir", str(tmp_path / "Nottingham")]))
    found = "tunes: 666 train, 165 valid, 163 test, 43 skipped; 1978 training windows of 128 tokens"
    assert found in data.introduction() and (data.grid.beats, data.grid.onsets) == (EIGHTHS.beats, EIGHTHS.onsets)
    assert data.valid.shape[1] == data.test.shape[1] == 128
