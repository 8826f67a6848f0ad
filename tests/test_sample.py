"""tools/sample.py: what it draws from runs of every data set, and what it refuses."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import tensorflow as tf
from conftest import ROOT, SIZES, all_sequences, index_of, probabilities, train
from test_generator import chi_square
from test_nottingham import write_song

from model import SeqGAN
from tools import sample

FEW = shlex.split("--pretrain_g_epochs 30 --total_epochs 0 --no-evaluate")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A short run of each data set: ids, text, words and tunes."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "lines.txt").write_text("\n".join(["ab", "abc", "bca", "cab", "c"] * 20), encoding="utf-8")
    (folder / "words.txt").write_text("\n".join(["to be", "or not to", "be", "not"] * 20), encoding="utf-8")
    text = ["--dataset", "text", "--vocab_size", "99"]
    (folder / "tunes").mkdir()
    for i in range(3):
        write_song(folder / "tunes" / f"{i}.mid", [60 + i, 62, 64, 65, 67, 69, 71, 72])
    for name, flags in (
        ("ids", ["--vocab_size", "4", "--oracle_emb_dim", "3", "--oracle_hidden_dim", "4"]),
        ("text", [*text, "--data_dir", str(folder / "lines.txt")]),
        ("words", [*text, "--tokens", "word", "--data_dir", str(folder / "words.txt")]),
        ("tunes", ["--dataset", "Nottingham", "--data_dir", str(folder / "tunes")]),
    ):
        assert train([*SIZES, *FEW, *flags, "--log_dir", str(folder / name)]) == 0
    shutil.rmtree(folder / "tunes" / "train", ignore_errors=True)
    (folder / "lines.txt").unlink()  # the run's own directory is all that is needed
    (folder / "words.txt").unlink()
    return folder


def lines_of(capsysbinary, *argv: str) -> list[str]:
    assert sample.main([str(word) for word in argv]) == 0
    captured = capsysbinary.readouterr()
    assert captured.err == b""
    return captured.out.decode().split("\n")[:-1]


def test_text_comes_back(runs, capsysbinary):
    lines = lines_of(capsysbinary, runs / "text", "-n", 300)
    assert len(lines) == 300 and set("".join(lines)) <= set("abc\ufffd")
    assert {len(line) for line in lines} == {0, 1, 2, 3} or {len(line) for line in lines} == {1, 2, 3}
    words = lines_of(capsysbinary, runs / "words", "-n", 50)
    assert {word for line in words for word in line.split()} <= {"to", "be", "or", "not", "<unk>"}


def test_the_seed_decides(runs, capsysbinary):
    first = lines_of(capsysbinary, runs / "text", "-n", 300, "--seed", 7)
    assert first == lines_of(capsysbinary, runs / "text", "-n", 300, "--seed", 7)
    assert first[:20] == lines_of(capsysbinary, runs / "text", "-n", 20, "--seed", 7)
    assert first != lines_of(capsysbinary, runs / "text", "-n", 300, "--seed", 8)
    assert first[:40] != first[256:296]  # drawn in portions of 256


def test_ids_and_their_file(runs, capsysbinary, tmp_path):
    lines = lines_of(capsysbinary, runs / "ids", "-n", 5)
    tokens = np.array([line.split() for line in lines], int)
    assert tokens.shape == (5, 3) and tokens.min() >= 0 and tokens.max() < 4
    assert lines_of(capsysbinary, runs / "ids", "-n", 5, "-o", tmp_path / "ids.txt") == []
    assert (tmp_path / "ids.txt").read_text() == "\n".join(lines) + "\n"


def test_tunes_are_midi_files(runs, capsysbinary, tmp_path):
    lines = lines_of(capsysbinary, runs / "tunes", "-n", 3, "--prefix", "40 0", "-o", tmp_path / "songs")
    assert lines == [f"3 tunes in {tmp_path / 'songs'}/sample*.mid"]
    for i in range(3):
        notes = pretty_midi.PrettyMIDI(str(tmp_path / "songs" / f"sample{i}.mid")).instruments[0].notes
        assert notes[0].pitch == 60 and notes[0].start == 0 and notes[0].end == pytest.approx(0.4)
        assert all(note.start >= 0.79 for note in notes[1:])
    assert lines_of(capsysbinary, runs / "tunes", "-n", 1) == [f"1 tunes in {runs / 'tunes' / 'samples'}/sample*.mid"]


@pytest.mark.parametrize(("run", "prefix"), [("text", "b"), ("text", "ca"), ("words", " not  be "), ("ids", "3 1")])
def test_a_prefix_is_kept(runs, capsysbinary, run, prefix):
    lines = lines_of(capsysbinary, runs / run, "-n", 30, "--prefix", prefix)
    assert all(line.startswith(" ".join(prefix.split())) for line in lines)
    assert len(set(lines)) > 1


@pytest.mark.parametrize(("run", "temperature"), [("ids", 1.0), ("ids", 0.5), ("text", 1.0), ("text", 2.0)])
def test_samples_follow_the_law_of_the_temperature(runs, run, temperature):
    """softmax(logits / temperature) at each step, by enumeration."""
    model = SeqGAN.restored(runs / run)
    generator = model.generator
    sequences = all_sequences(generator.vocab_size, 3, generator.end_token)
    drawn = sequences != generator.vocab_size
    logits = generator.logits(generator.states(tf.constant(sequences)).hidden) / temperature  # [T, n, V]
    log_probs = tf.gather(tf.nn.log_softmax(logits), np.where(drawn, sequences, 0).T, batch_dims=2).numpy()
    probs = np.exp((log_probs * drawn.T).sum(axis=0).astype(np.float64))
    if temperature == 1.0:
        np.testing.assert_allclose(probs, probabilities(generator), rtol=1e-4)
    tokens = sample.draw(model, 20_000, [], temperature, seed=3)
    counts = np.bincount(index_of(tokens, generator.vocab_size, generator.end_token), minlength=len(probs))
    assert chi_square(counts, probs) > 1e-3


def test_near_zero_the_likeliest_is_taken(runs, capsysbinary):
    assert len(set(lines_of(capsysbinary, runs / "text", "-n", 50, "--temperature", 1e-6))) == 1


def test_a_run_under_way(runs, capsysbinary, tmp_path):
    """Its lock is held and its checkpoints come and go; nothing of it is touched."""
    shutil.copytree(runs / "text", tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-000000030"
    damaged = newest.with_name("step-000000031")
    shutil.copytree(newest, damaged)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert sample.main([str(tmp_path / "run"), "-n", "5"]) == 0
    captured = capsysbinary.readouterr()
    assert captured.err.decode().startswith(f"warning: {damaged}: damaged checkpoint passed over")
    assert captured.out.decode().split("\n")[:5] == lines_of(capsysbinary, runs / "text", "-n", 5)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_reader_that_has_seen_enough(runs):
    command = f"{shlex.quote(sys.executable)} {ROOT / 'tools' / 'sample.py'} {runs / 'ids'} -n 100000 | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd="/", check=True)
    assert len(result.stdout.split()) == 3 and result.stderr == ""


BAD = [
    ("text", ["--prefix", "axyb"], "--prefix: not in the run's vocabulary: 'x' 'y'"),
    ("words", ["--prefix", "to bee"], "--prefix: not in the run's vocabulary: 'bee'"),
    ("ids", ["--prefix", "1 4"], "--prefix: not in the run's vocabulary: '4'"),
    ("ids", ["--prefix", "1 x -2 1.0"], "--prefix: not in the run's vocabulary: 'x' '-2' '1.0'"),
    ("ids", ["--prefix", "9" * 5000], "--prefix: not in the run's vocabulary: '999"),
    ("tunes", ["--prefix", "89"], "--prefix: not in the run's vocabulary: '89'"),
    ("text", ["--prefix", "abc"], "--prefix: 3 tokens leave none to draw of the run's 3"),
    ("text", ["--temperature", "0"], "argument --temperature: 0 is less than"),
    ("text", ["--temperature", "nan"], "argument --temperature: nan is not finite"),
    ("text", ["-n", "0"], "argument -n: 0 is less than 1"),
    ("text", ["--seed", "-1"], "argument --seed: -1 is less than 0"),
    ("text", ["-o", "/dev/null/x"], "/dev/null/x: Not a directory"),
    ("text", ["-o", "/"], "/: Is a directory"),
    ("tunes", ["-o", "/dev/null"], "/dev/null: File exists"),
    ("absent", [], "absent: no run (there is no config.json)"),
    ("", [], "no run"),
]


@pytest.mark.parametrize(("run", "flags", "why"), BAD)
def test_what_cannot_be_sampled(runs, capsys, run, flags, why):
    with pytest.raises(SystemExit) as stop:
        sample.main([str(runs / run), *flags])
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == ""
    assert captured.err.startswith("sample.py: error: ") and captured.err.count("\n") == 1 and why in captured.err


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("vocabulary.json", "{", "vocabulary.json: not a vocabulary"),
        ("vocabulary.json", '{"kind": "char", "entries": [1]}', "vocabulary.json: not a vocabulary"),
        ("vocabulary.json", '{"kind": "char", "entries": ["a", "b"]}', "vocabulary.json: not this run's vocabulary"),
        ("vocabulary.json", None, "vocabulary.json: No such file"),
        ("config.json", "{", "config.json: not a readable configuration"),
        (
            "config.json",
            lambda flags: flags.update(gone=1),
            "config.json: a run of another version, with unknown flags: --gone",
        ),
        ("config.json", lambda flags: flags.update(g_hidden_dim="x"), "config.json: "),
        ("checkpoints", None, "no checkpoint yet"),
    ],
)
def test_a_run_that_is_damaged(runs, capsys, tmp_path, name, content, why):
    shutil.copytree(runs / "text", tmp_path / "run")
    path = tmp_path / "run" / name
    if callable(content):
        described = json.loads(path.read_text())
        content(described["flags"])
        path.write_text(json.dumps(described))
    elif content is not None:
        path.write_text(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        os.unlink(path)
    with pytest.raises(SystemExit) as stop:
        sample.main([str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and why in error, error
