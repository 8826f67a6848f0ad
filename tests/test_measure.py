"""tools/measure.py: the figures of an evaluation, of any program's samples and of real data beside them."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SIZES, cases, read_melody, refusal, train
from fault_injection import rows_of

from data.music.abc import to_abc
from data.music.analysis import analysed
from data.music.folder import whole, windows
from data.music.midi import midi_file
from data.music.tokens import Grid, trim
from data.text import Lines
from data.training_set import spread
from evaluation.metrics import METRICS, Metric
from evaluation.ngrams import bleu, distinct, self_bleu
from evaluation.run import evaluator_of, measures_of
from generator import TokenSpec
from tools import measure
from tools.restored import restore

RUN = [*SIZES, *shlex.split("--pretrain_g_epochs 2 --total_epochs 0 --no-evaluate --dataset")]
GRID = Grid(0.25, beats=0.5, onsets=True)
LINES, TUNES = "--train train.txt --test test.txt", "--train mid/train --test mid/test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Lines and tunes, of which some of test are in train, and a run on each; some letters are not in train."""
    folder, rng = tmp_path_factory.mktemp("measured"), np.random.default_rng(0)
    for name, count in (("samples", 30), ("train", 60), ("test", 50), ("valid", 9)):
        letters = list("abcd" + {"samples": "z", "test": "yz"}.get(name, ""))
        lines = ["".join(rng.choice(letters, rng.integers(1, 6))) for _ in range(count)]
        (folder / f"{name}.txt").write_text("\n".join([*lines, "abca\n"]))
        for kind in ("mid", "abc"):
            (folder / kind / name).mkdir(parents=True)
        for i in range(count // 8 + 1):
            tokens = np.repeat(rng.integers(40, 52, 12), 2) + np.tile([0, 88], 12)
            tokens[[0, 1, -1]] = 0 if name == "samples" else tokens[0]
            (folder / "mid" / name / f"{i}.mid").write_bytes(midi_file(tokens, GRID))
            (folder / "abc" / name / f"{i}.abc").write_text(to_abc(analysed(tokens, GRID), 0.25, 1, "a"))
    flags = {"text": f"text --min_count 2 --data_dir {folder}"}
    flags["mid"] = f"Nottingham --token_length 0.5beats --onsets --seq_len 8 --data_dir {folder}/mid"
    flags["whole"] = flags["mid"] + " --window_stride 0 --seq_len 30"
    for name, words in flags.items():
        assert train([*RUN, *words.split(), "--log_dir", f"{folder}/run_{name}"]) == 0
    return folder


def measured(folder: Path, samples: str, *flags: str, place: str = "", ending: str = ".txt") -> list[dict[str, float]]:
    paths = [f"{folder}/{name}{ending}" for name in (samples, f"{place}train", f"{place}test")]
    words = [paths[0], "--train", paths[1], "--test", paths[2], "--csv", f"{folder}/x.csv", *flags]
    assert measure.main(words) == 0
    rows = rows_of(folder / "x.csv")
    assert [row.pop("run") for row in rows] == [Path(paths[0]).name, "real data"]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def read(folder: Path, kind: str, name: str, data) -> np.ndarray:
    """What a data set has for a file, or the folder of tunes as they were written: int32 [n, T]."""
    if kind == "text":
        lines = Lines(data.vocabulary, 3)
        for line in (folder / f"{name}.txt").read_text().split():
            lines.append(data.vocabulary.encode(line[:3]))
        return lines[np.arange(len(lines))]
    found = [read_melody(path, GRID)[0] for path in sorted((folder / "mid" / name).iterdir())]
    tunes = [tokens if name == "samples" else trim(tokens) for tokens in found]
    return windows(tunes, 8, 8) if kind == "mid" else whole(tunes, 30, GRID.vocab_size)


@cases("kind, place, ending", ("text", "", ".txt"), ("mid", "mid/", ""), ("whole", "mid/", ""))
def test_the_figures_are_those_of_the_runs_evaluation(folder, kind, place, ending, capsys):
    """Of real data as many, of --train; copies, NLL under the run are of --test. Text is measured as it is written."""
    run = restore(folder / f"run_{kind}")
    data = run.data()
    evaluator = evaluator_of(data, run.config)
    samples, train, test = (read(folder, kind, name, data) for name in ("samples", "train", "test"))
    own, real = measured(folder, f"{place}samples", "--run", str(run.logdir), ending=ending, place=place)
    expected, copies = evaluator.compare(spread(train, len(samples))), evaluator.compare(spread(test, len(samples)))
    expected |= {name: copies[name] for name in ("copied_share", "longest_copy") if name in copies}
    assert len(expected) > 9
    plain = measured(folder, "samples", "--seq_len", "3") if kind == "text" else [{}, {}]
    assert own.items() >= plain[0].items() and real.items() >= plain[1].items()
    for found, figures in ((own, evaluator.compare(samples)), (real, expected)) if kind != "text" else ():
        for name, pair in figures.items():
            assert (found[name], found[f"{name}_se"]) == pytest.approx(pair, rel=1e-6), name
    assert f"{len(samples)} sequences of each; real: --train, and {len(samples)} of --test" in capsys.readouterr().out
    own, real = measured(folder, f"{place}test", "--run", str(run.logdir), ending=ending, place=place)
    nll_test = evaluator.likelihoods(measures_of(run.config, run.seqgan).policy, samples)["nll_test"]
    for found in (own, real):
        assert (found["nll_run"], found["nll_run_se"]) == pytest.approx(nll_test, rel=1e-5)


def test_lines_are_measured_as_they_are_written(folder, monkeypatch):
    """Without a run no token is unknown; --train is as good as real lines, of which it has as many."""
    padded = Metric("padded", "padded", "", of=lambda rows, data: (rows == data.spec.vocab_size).mean(axis=1))
    monkeypatch.setitem(METRICS, "padded", padded)
    assert 0 < measured(folder, "train")[0]["padded"] < 1
    monkeypatch.undo()
    own, real = measured(folder, "train")
    assert own["copied_share"] == 1 > real["copied_share"] > 0
    assert [name for name in own if own[name] != real[name]] == ["copied_share", "copied_share_se"]
    lines, test = ((folder / f"{name}.txt").read_text().split() for name in ("samples", "test"))
    monkeypatch.setattr(measure, "reverse", lambda rows, test, spec, _: ((rows == spec[0] - 2).mean(), len(test)))
    own, real = measured(folder, "samples", "-n", "31", "--reverse")
    assert (real["nll_reverse"], real["nll_reverse_se"], real["texygen_bleu3"]) == (0, 51, real["bleu3"])
    assert own["texygen_bleu3"] == own["bleu3"] == pytest.approx(bleu(lines, test, (3,)).mean())
    assert own["texygen_self_bleu3"] == own["self_bleu3"] == pytest.approx(self_bleu(lines, (3,)).mean())
    assert own["distinct3"] == pytest.approx(distinct(lines, 3)[0]) and 0 < real["distinct2"] != own["distinct2"]


def test_abc_is_as_good_as_midi(folder):
    for name in ("train", "test"):
        (folder / "one" / name).mkdir(parents=True)
        texts = [path.read_text() for path in sorted((folder / "abc" / name).iterdir())]
        (folder / "one" / name / "tunes.abc").write_text("\n".join(texts))
    shutil.copytree(folder / "abc" / "train", folder / "abc" / "drawn")
    shutil.copy(folder / "one" / "train" / "tunes.abc", folder / "abc" / "drawn")  # as tools/sample.py --abc writes it
    (folder / "mid" / "train" / ".hidden").mkdir()
    shutil.copy(next((folder / "mid" / "test").iterdir()), folder / "mid" / "train" / ".hidden" / "a.mid")
    where = ("mid/train", "abc/drawn", "one/train")
    midi, abc, one = (measured(folder, p, "--seq_len", "16", place=p[:4], ending="") for p in where)
    assert midi == abc == one and len(midi[0]) > 20
    plain, moved = (measure.melodies(folder / "one" / "train", GRID, False, kind) for kind in ("none", "key"))
    assert [analysed(tune, GRID).key.sharps for tune in moved] == [0] * len(plain) and not np.array_equal(plain, moved)
    shutil.copy(folder / "mid" / "train" / "0.mid", folder / "one" / "train")
    (folder / "one" / "train" / "linked").symlink_to(folder / "mid" / "test")
    every = len(plain) + 1 + len([*(folder / "mid" / "test").iterdir()])
    assert len(measure.melodies(folder / "one" / "train", GRID, False, "none")) == every  # as in training


def test_an_lstm_learns_more_from_samples_of_the_same_kind():
    rng, spec = np.random.default_rng(0), TokenSpec(4, 6, start_token=4)
    like, other, test = (np.minimum(rng.geometric(p, [64, 6]) - 1, 3).astype(np.int32) for p in (0.7, 0.3, 0.7))
    (good, error), (bad, _) = (measure.reverse(rows, test, spec, "", steps=20) for rows in (like, other))
    assert 0 < error < 0.1 and good + 3 * error < bad < 2


@cases(
    "words, why",
    *((f"{name} {LINES}", f"{name}: neither a file nor a folder") for name in ("none", "/dev/null")),
    ("samples.txt --train mid --test test.txt", "--train mid: samples.txt is a file"),
    ("train.txt --train samples.txt --test test.txt", "31 lines of text, fewer than 61 samples; -n 31 would do"),
    (f"samples.txt {LINES} -n 99", "-n 99: samples.txt has 31 lines of text"),
    (f"one.txt {LINES}", "one.txt: 1 lines of text, and two or more are needed"),
    (f"empty.txt {LINES}", "empty.txt: no line of text"),
    ("samples.txt --train latin.txt --test test.txt", "latin.txt: line 1 is not UTF-8 (byte 2 of it"),
    *((f"samples.txt {LINES} --csv mid", "--csv: mid: a folder"), (f"samples.txt {LINES} --run mid", "mid: no run")),
    (f"samples.txt {LINES} --run run_text --csv valid.txt", "valid.txt: is read"),
    (f"samples.txt {LINES} --csv ./test.txt", "--csv test.txt: is --test test.txt, which is read"),
    (f"mid/samples {TUNES} --csv mid/test/0.mid", "--csv mid/test/0.mid: is in --test mid/test, which is read"),
    (f"mid/samples {TUNES} --run run_mid --csv mid/valid/0.mid", "mid/valid/0.mid: is read"),
    (f"samples.txt {LINES} --run run_mid", "--run run_mid: a run of --dataset Nottingham"),
    (f"samples.txt {LINES} --run run_text --seq_len 9", "--seq_len has no effect with --run"),
    (f"mid/samples {TUNES} --tokens char", "--tokens has no effect with tunes"),
    (f"mid/samples {TUNES}", "mid/samples: no tune of 128 tokens; the longest has 24; a smaller --seq_len"),
    (f"run_text {TUNES}", "run_text: no .mid, .midi or .abc file in it"),
)
def test_what_cannot_be_measured(folder, monkeypatch, capsys, words, why):
    """One line says why; before it, one tells of empty lines."""
    monkeypatch.chdir(folder)
    for name, content in {"one": b"a\n\n", "empty": b" \n", "latin": b"a\xe9\n"}.items():
        (folder / f"{name}.txt").write_bytes(content)
    assert why in refusal(capsys, measure.main, words.split(), alone=not words.startswith("one.txt"))
