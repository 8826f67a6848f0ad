"""tools/sample.py: what it draws from runs of every data set, and what it refuses."""

import csv
import html
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pretty_midi
import pytest
import tensorflow as tf
from conftest import SIZES, all_sequences, canonical, cases, index_of, probabilities, read_tokens, refusal, train
from fault_injection import change
from test_generator import chi_square
from test_nottingham import write_song

from data.music.abc import HEADER, read_abc, to_abc
from data.music.analysis import analysed
from data.music.midi import melody_of, midi_file
from data.music.songs import write_songs, written_songs
from data.music.staff import staff
from data.music.tokens import Grid, transposed
from generator import Excluding, Policy, Tempered
from runs.checkpoints import MARKS, Checkpoints
from runs.directories import WRITTEN_SONGS, RunDirectory
from support.parser import parse
from tools import sample
from tools.restored import Restored, restore

FEW = shlex.split("--pretrain_g_epochs 30 --total_epochs 0 --no-evaluate")


def write_melodies(folder: Path) -> None:
    for i in range(3):
        write_song(folder / f"{i}.mid", [60 + i, 62, 64, 65, 67, 69, 71, 72])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A short run of each data set: ids, text, words and tunes."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "lines.txt").write_text("\n".join(["ab", "abc", "bca", "cab", "c"] * 20), encoding="utf-8")
    (folder / "words.txt").write_text("\n".join(["to be", "or not to", "be", "not"] * 20), encoding="utf-8")
    write_melodies(folder / "melodies")
    for name, flags in (
        ("ids", "--vocab_size 4 --oracle_emb_dim 3 --oracle_hidden_dim 4 --pretrain_d_epochs 1"),
        ("text", f"--dataset text --vocab_size 99 --data_dir {folder}/lines.txt --pretrain_d_epochs 1"),
        ("words", f"--dataset text --vocab_size 99 --tokens word --data_dir {folder}/words.txt --pretrain_d_epochs 0"),
        ("tunes", f"--dataset Nottingham --data_dir {folder}/melodies --pretrain_d_epochs 1"),
        ("onsets", f"--dataset Nottingham --onsets --data_dir {folder}/melodies --pretrain_d_epochs 0"),
        ("whole", f"--dataset Nottingham --window_stride 0 --seq_len 12 --data_dir {folder}/melodies --total_epochs 0"),
    ):
        assert train([*SIZES, *FEW, *flags.split(), "--log_dir", str(folder / name)]) == 0
    shutil.rmtree(folder / "melodies")
    (folder / "lines.txt").unlink()  # the run's own directory is all that is needed
    (folder / "words.txt").unlink()
    return folder


@pytest.fixture
def melodies(runs) -> Iterator[Path]:
    """What the runs on music were trained on."""
    write_melodies(runs / "melodies")
    yield runs / "melodies"
    shutil.rmtree(runs / "melodies")


def told(capsysbinary, *argv: object) -> tuple[list[str], str]:
    """The lines of stdout, and stderr."""
    assert sample.main([str(word) for word in argv]) == 0
    out, err = (text.decode() for text in capsysbinary.readouterr())
    return out.split("\n")[:-1], err


def lines_of(capsysbinary, *argv: object) -> list[str]:
    lines, err = told(capsysbinary, *argv)
    assert err == ""
    return lines


def refused(capsys, *argv: object, status: int = 2) -> str:
    return refusal(capsys, sample.main, [str(word) for word in argv], status=status)


def drawn(policy: Policy, count: int, seed: int, length: int = 3, prefix: Sequence[int] = (), **choice) -> np.ndarray:
    """Samples, int32 [count, T]."""
    return np.concatenate(list(sample.portions(policy, count, prefix, seed, length, False, **choice)))


def test_text_comes_back_and_the_seed_decides(runs, capsysbinary):
    lines = lines_of(capsysbinary, runs / "text", "-n", 300, "--seed", 7)
    assert len(lines) == 300 and set("".join(lines)) <= set("abc\ufffd") and {*map(len, lines)} | {0} == {0, 1, 2, 3}
    assert lines[:20] == lines_of(capsysbinary, runs / "text", "-n", 20, "--seed", 7)
    assert lines[:20] != lines_of(capsysbinary, runs / "text", "-n", 20, "--seed", 8)
    assert lines[:40] != lines[256:296]  # drawn in portions of 256


def test_ids_and_their_file(runs, capsysbinary, tmp_path, monkeypatch):
    lines = lines_of(capsysbinary, runs / "ids", "-n", 5)
    tokens = np.array([line.split() for line in lines], int)
    assert tokens.shape == (5, 3) and tokens.min() >= 0 and tokens.max() < 4
    assert lines_of(capsysbinary, runs / "ids", "-n", 5, "-o", tmp_path / "ids.txt") == []
    assert (tmp_path / "ids.txt").read_text() == "\n".join(lines) + "\n"
    monkeypatch.setattr(sys, "stdout", None)  # nobody to print to
    assert refused(capsysbinary, runs / "ids") == "sample.py: error: stdout is closed; -o names a file\n"


@pytest.mark.parametrize(("run", "prefix"), [("text", "ca"), ("text", "c\ufffd"), ("words", " not  be ")])
def test_a_prefix_is_kept(runs, capsysbinary, run, prefix):
    flags, begin = [runs / run, "-n", 30, "--prefix", prefix], " ".join(prefix.split())
    lines = lines_of(capsysbinary, *flags)
    assert all(line.startswith(begin) for line in lines) and len(set(lines)) > 1
    rest = [line.removeprefix(begin).strip() for line in lines]
    assert lines_of(capsysbinary, *flags, "--without_prefix") == rest
    assert run == "text" or {word for line in rest for word in line.split()} <= {"to", "be", "or", "not", "<unk>"}


def test_text_goes_on_until_its_end(runs, capsysbinary):
    lines = lines_of(capsysbinary, runs / "text", "-n", 100, "--length", 1000)
    assert 3 < max(map(len, lines)) < 1000
    assert [line[:3] for line in lines] == lines_of(capsysbinary, runs / "text", "-n", 100)
    ids = lines_of(capsysbinary, runs / "ids", "-n", 2, "--length", 700, "--prefix", "1 3 " * 300)
    assert [len(line.split()) for line in ids] == [700, 700] and all(line.startswith("1 3 " * 300) for line in ids)


@pytest.mark.parametrize(("run", "temperature"), [("ids", 0.5), ("text", 2.0)])
def test_samples_follow_the_distribution_of_the_temperature(runs, run, temperature):
    policy = Tempered(restore(runs / run).policy(), temperature)
    probs = probabilities(policy)
    counts = index_of(drawn(policy, 20_000, seed=3), policy.vocab_size, policy.end_token)
    assert chi_square(np.bincount(counts, minlength=len(probs)), probs) > 1e-3


def test_the_unknown_token_is_not_drawn(runs, capsysbinary):
    """The others keep their proportions. Near a temperature of 0 the likeliest is taken."""
    policy = restore(runs / "text").policy()
    unknown = policy.vocab_size - 2
    policy.output_layer.bias.assign_add(np.eye(policy.vocab_size, dtype=np.float32)[unknown] * 3)
    first = drawn(policy, 20_000, 1)[:, 0], drawn(Excluding(policy, [unknown]), 20_000, 2)[:, 0]
    plain, without = (np.bincount(tokens, minlength=unknown + 2) for tokens in first)
    assert plain[unknown] > 1000 and without[unknown] == 0
    logits = policy.logits(policy.first_state(1).hidden).numpy()[0].astype(np.float64)
    probs = np.delete(np.exp(logits), unknown)
    assert chi_square(np.delete(without, unknown), probs / probs.sum()) > 1e-3
    hot = "".join(lines_of(capsysbinary, runs / "text", "-n", 300, "--temperature", 100, "--no-unknown"))
    assert {*hot} == {*"abc"}  # a fifth would be unknown else
    assert len(set(lines_of(capsysbinary, runs / "text", "-n", 50, "--temperature", 1e-6))) == 1


def test_a_failure_leaves_the_file_that_was_there(runs, tmp_path, capsys):
    (tmp_path / "boom.py").write_text("def boom(lines):\n    raise ValueError('no')\n")
    for name in ("mine.txt", "mine.txt.partial"):
        (tmp_path / name).write_text("precious")
    argv = [str(runs / "text"), "-n", "3", "-o", str(tmp_path / "mine.txt")]
    assert "ValueError: no" in refused(capsys, *argv, "--objective", f"{tmp_path / 'boom.py'}:boom")
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert sample.main(argv) == 0 and len((tmp_path / "mine.txt").read_text().splitlines()) == 3
    assert not list(tmp_path.glob(".*")) and (tmp_path / "mine.txt.partial").read_text() == "precious"
    (tmp_path / "link.txt").symlink_to("mine.txt")  # as /dev/stdout is one
    assert sample.main([*argv[:-1], str(tmp_path / "link.txt"), "-n", "5"]) == 0
    assert (tmp_path / "link.txt").is_symlink() and len((tmp_path / "mine.txt").read_text().splitlines()) == 5


def test_tunes_are_midi_files(runs, capsysbinary, tmp_path):
    """The prefix is a middle C and a rest. A single tune has the name that it is given."""
    lines = lines_of(capsysbinary, runs / "tunes", "-n", 3, "--prefix", " C4 r", "-o", tmp_path / "songs")
    assert lines == [f"3 tunes in {tmp_path / 'songs'}/sample*.mid"]
    for i in range(3):
        notes = pretty_midi.PrettyMIDI(str(tmp_path / "songs" / f"sample{i}.mid")).instruments[0].notes
        assert notes[0].pitch == 60 and notes[0].start == 0 and notes[0].end == pytest.approx(0.4)
        assert all(note.start >= 0.79 for note in notes[1:])
    assert lines_of(capsysbinary, runs / "tunes", "-n", 1) == [f"1 tune in {runs / 'tunes' / 'samples'}/sample0.mid"]
    file = tmp_path / "tune.mid"
    assert lines_of(capsysbinary, runs / "tunes", "-n", 1, "-o", file) == [f"1 tune in {file}"]
    assert file.read_bytes() == (runs / "tunes" / "samples" / "sample0.mid").read_bytes()
    like = ["--like", runs / "tunes" / "samples" / "sample0.mid"]
    assert "folder is where tunes go; choose another -o" in refused(capsysbinary, runs / "tunes", *like)
    for more in ([], ["--like", file, "--keep", 1]):
        why = f"-o {file}: is there; choose another name, or a folder\n"
        assert refused(capsysbinary, runs / "tunes", "-n", 1, "-o", file, *more).endswith(why)


def test_two_runs_may_write_songs_to_one_folder(tmp_path, capsys):
    def write(run: int) -> None:
        for i in range(40):
            write_songs(tmp_path, ["sample0.mid", "sample1.mid"], [b"%d %d" % (run, i)] * 2, spare=True)

    (tmp_path / WRITTEN_SONGS).write_text("0" * 40)  # half a line, which a kill has left
    with ThreadPoolExecutor(2) as pool:
        assert not [*filter(None, pool.map(write, (1, 2)))] and not capsys.readouterr().err
    assert written_songs(tmp_path).keys() == {"sample0.mid", "sample1.mid"}


def test_no_stale_tunes_among_new_ones(runs, capsysbinary, tmp_path):
    """What an earlier call has left goes, one that was interrupted as well; what is somebody's own stays."""

    def interrupted() -> Iterator[bytes]:
        yield from (b"tune", b"tune")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_songs(tmp_path, [f"sample{i}.mid" for i in range(3)], interrupted())
    assert (tmp_path / "sample0.mid").read_bytes() == b"tune"
    lines_of(capsysbinary, runs / "tunes", "-n", 4, "-o", tmp_path)
    assert all((tmp_path / f"sample{i}.mid").read_bytes() != b"tune" for i in range(4))
    mine = ["sample.mid", "sample4.wav", "sample5a.mid", "sample7.mid", "tune7.mid"]
    for name in mine:
        (tmp_path / name).touch()
    (tmp_path / "sample3.mid").write_bytes(b"made better by hand")
    lines_of(capsysbinary, runs / "tunes", "-n", 2, "-o", tmp_path)
    mine += ["sample3.mid", "sample0.mid", "sample1.mid", ".samples.sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(mine)
    assert (tmp_path / "sample3.mid").read_bytes() == b"made better by hand"


@pytest.mark.parametrize("earlier", [[], [3], [3, 1]])
def test_no_tune_of_somebody_else_is_lost(runs, capsys, tmp_path, earlier):
    """Neither one that was there before, nor one that was changed, nor one in the place of one that was removed."""
    for count in earlier:
        assert sample.main([str(runs / "tunes"), "-n", str(count), "-o", str(tmp_path)]) == 0
    (tmp_path / "sample2.mid").write_bytes(b"mine")
    capsys.readouterr()
    line = f"{tmp_path / 'sample2.mid'}: not as this program wrote it; move it away, or choose another folder\n"
    assert refused(capsys, runs / "tunes", "-n", 3, "--seed", 9, "-o", tmp_path).endswith(line)
    assert (tmp_path / "sample2.mid").read_bytes() == b"mine"


def elements(text: str) -> Counter:
    """How many elements of each kind a page has, each of which is closed: it is XML but for what HTML leaves out."""
    text = re.sub("<!DOCTYPE html>|<meta[^>]*>|(?<=<audio) controls", "", text)
    return Counter(element.tag for element in ElementTree.fromstring(text).iter())


def test_tunes_as_abc_and_as_a_page(runs, melodies, capsysbinary, tmp_path):
    pytest.importorskip("music21", reason="music21, of requirements-dev.txt, is not installed")
    songs, flags = tmp_path / "<songs>", [runs / "tunes", "-n", 3, "-o", tmp_path / "<songs>"]
    line = f"3 tunes in {songs}/sample*.mid, to look at and listen to: {songs}/tunes.html"
    assert lines_of(capsysbinary, *flags, "--length", 40, "--abc") == [line]
    files = {f"sample{i}.{end}" for i in range(3) for end in ("mid", "abc")} | {"tunes.abc", "tunes.html"}
    assert {path.name for path in songs.iterdir()} == {*files, ".samples.sha256"}
    texts = []
    for i in range(3):
        tokens = read_tokens(songs / f"sample{i}.mid")
        melody, _, _ = melody_of((songs / f"sample{i}.abc").read_bytes(), Grid(0.4), read_abc)
        assert melody.tolist() == tokens.tolist()
        texts.append((songs / f"sample{i}.abc").read_text().removeprefix(HEADER))
        assert texts[-1].startswith(f"X:{i + 1}\nT:Tune {i} of seed 1\nM:")
    assert (songs / "tunes.abc").read_text() == HEADER + "\n".join(texts)
    page = (songs / "tunes.html").read_text()
    assert [elements(page)[tag] for tag in ("main", "section", "svg", "audio", "h3", "pre")] == [1, 3, 6, 6, 3, 3]
    assert "http" not in page and all(f"<h2>Tune {i} of seed 1</h2>" in page for i in range(3))
    assert html.escape(str(runs / "tunes")) in page and [page.count(x) for x in (".mid</h3>", "aria-label=")] == [3, 12]
    assert {*re.findall('href="(.*?)"', page)} == files - {"tunes.abc", "tunes.html"}
    write_song(melodies / "short.mid", [60])  # told as in training, though there TensorFlow gives log lines a format
    code = f"import logging, runpy; logging.basicConfig(); runpy.run_path({sample.__file__!r}, run_name='__main__')"
    command = [sys.executable, "-c", code, *map(str, flags), "--abc"]
    assert subprocess.run(command, capture_output=True, text=True).stderr.startswith(f"skipped {melodies}/short.mid: ")
    # The next tunes replace them all; where the melodies are others, or gone, none is shown beside them.
    write_song(melodies / "0.mid", [60, 64, 62, 65, 67, 69, 71, 72])
    for reason in ("has other tunes than the run has read", "no such folder"):
        _, error = told(capsysbinary, *flags, "--abc")
        assert error.startswith(f"sample.py: tunes.html shows no training tunes: --data_dir {melodies}")
        assert reason in error and error.count("\n") == 1
        assert elements((songs / "tunes.html").read_text())["svg"] == 3
        shutil.rmtree(melodies, ignore_errors=True)
    melodies.mkdir()
    assert lines_of(capsysbinary, *flags) == [line.split(",")[0]]
    assert lines_of(capsysbinary, *flags[:-1], melodies) == [f"3 tunes in {melodies}/sample*.mid"]
    assert {path.name for path in songs.iterdir()} == {"sample0.mid", "sample1.mid", "sample2.mid", ".samples.sha256"}
    (songs / "tunes.html").write_text("mine")
    assert "tunes.html" in refusal(capsysbinary, sample.main, [*map(str, flags), "--abc"], alone=False)
    assert (songs / "tunes.html").read_text() == "mine"


def test_a_page_to_rate_tunes_and_its_key(runs, melodies, capsysbinary, tmp_path):
    """Each kind has its tunes, and the page tells none; a browser saves what is chosen, and keeps it until then."""
    lines_of(capsysbinary, runs / "tunes", "-n", 2, "-o", tmp_path / "mine")

    def blind(seed: int, *more: object) -> tuple[str, list[list[str]]]:
        flags = ["-n", 1, "--length", 8, "--seed", seed, "--blind", tmp_path / "mine", runs / "tunes", *more]
        place = tmp_path / f"blind{seed}"
        (line,) = lines_of(capsysbinary, runs / "tunes", *flags, "-o", place)
        assert line == f"4 tunes in {place}/blind.html; what they are, in {place}/KEY.csv"
        return (place / "blind.html").read_text(), [*csv.reader((place / "KEY.csv").read_text().splitlines())]

    page, (head, *key) = blind(1)
    kinds = {f"samples of {runs / 'tunes'}", f"--blind {tmp_path / 'mine'}", f"--blind {runs / 'tunes'}", "real"}
    assert head == ["page", "tune", "kind"] and {kind for *_, kind in key} == kinds
    assert [place for _, place, _ in key] == [*"1234"] and {name for name, *_ in key} == {page.split('page = "')[1][:8]}
    tune, place = np.array([42, 42, 44, 45, 47, 49, 51, 52]), [kind for *_, kind in key].index("real") + 1
    assert staff(analysed(tune, Grid(0.4)), name=f"Tune {place}") in page
    assert blind(1) == (page, [head, *key]) and len({str([kind for *_, kind in blind(i)[1]]) for i in range(5)}) > 1
    assert [page.count(x) for x in ("<audio ", "<svg ", '"radio"', '="Tune 3"', "<style>")] == [4, 4, 80, 1, 1]
    assert not [word for word in (str(tmp_path), str(runs), "real", "http") if word in page]
    for i, more in ((1, ()), (9, ("--temperature", 0.01))):  # which holds for both runs; their seed is one
        assert len(set(re.findall("<g .*?</svg>", blind(i, *more)[0], re.DOTALL))) == 3
    assert "--blind: not with a prefix" in refused(capsysbinary, runs / "tunes", "--blind", "--prefix", "C4")
    line = refused(capsysbinary, runs / "tunes", "--blind", "-n", 1, "-o", tmp_path / "blind1")
    assert "KEY.csv: is there, and holds something else; choose another -o" in line and blind(1)[0] == page
    if browser := shutil.which("chromium"):
        act = """<script>
            for (const [name, value] of [["form2", 4], ["danceable4", 1]])
              document.querySelector(`input[name=${name}][value="${value}"]`).click();
            URL.createObjectURL = blob => { blob.text().then(text => document.body.textContent = text); return "#"; };
            document.querySelector("button").click();
        </script>"""
        (tmp_path / "act.html").write_text(page.replace("</body>", f"{act}</body>"))
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
        done = subprocess.run([*command, f"file://{tmp_path}/act.html"], capture_output=True, text=True, check=True)
        rows = [*csv.reader(re.search("<body>(.*)\n</body>", done.stdout, re.DOTALL)[1].splitlines())]
        assert rows[0] == ["page", "listener", "tune", "danceable", "structure", "form", "playable"]
        assert [",".join(row[2:]) for row in rows[1:]] == ["1,,,,", "2,,,4,", "3,,,,", "4,1,,,"]
        assert {row[0] for row in rows[1:]} == {key[0][0]} and re.fullmatch("[0-9a-f]{8}", rows[1][1])


def test_whole_tunes_are_written_up_to_their_end(runs, melodies, capsysbinary, tmp_path):
    lines_of(capsysbinary, runs / "whole", "-n", 12, "--length", 40, "--abc", "-o", tmp_path / "tunes")
    tunes = [read_tokens(tmp_path / "tunes" / f"sample{i}.mid").tolist() for i in range(12)]
    (rows,) = sample.portions(restore(runs / "whole").policy(), 12, [], 1, 40, False)
    assert tunes == [row[: (row == 89).argmax() if 89 in row else 40].tolist() for row in rows]
    assert len({len(tokens) for tokens in tunes}) > 3 and max(map(len, tunes)) > 12
    assert (tmp_path / "tunes" / "tunes.html").read_text().count("<audio ") == 24
    (line,) = lines_of(capsysbinary, runs / "whole", "--blind", runs / "tunes", "-n", 1, "-o", tmp_path / "blind")
    assert line.startswith("3 tunes in") and "real" in (tmp_path / "blind" / "KEY.csv").read_text()
    (tmp_path / "a.py").write_text("def f(pitches):\n    return [len(each) for each in pitches]\n")
    flags = "--objective", tmp_path / "a.py:f", "-n", 12, "--length", 40, "-o", tmp_path / "scored"
    mean = np.mean([len(tokens) for tokens in tunes])
    assert f"objective: mean {mean:.4g} ±" in told(capsysbinary, runs / "whole", *flags)[1]


def test_variations_of_a_tune_begin_as_it_does(runs, capsysbinary, tmp_path):
    """Of a MIDI or ABC file, by default 16 tokens; what they begin with can be left out of what is written."""
    pytest.importorskip("music21", reason="music21, of requirements-dev.txt, is not installed")
    begin = [40, 42, 42 + 88, 0, 45, 45 + 88, 44, 44, 44, 40, 0, 0, 52, 52, 52, 51, 33, 33]  # 42 is struck again
    tokens, grid = canonical(np.array(begin), True), Grid(0.4, onsets=True)
    texts = [*(to_abc(analysed(tokens, grid), 0.4, i, "a") for i in (1, 2)), "X:3\nK:C exp _b\nC\n"]
    (three := tmp_path / "three.abc").write_text(HEADER + "\n".join(texts))
    why = f"--blind {tmp_path}: 2 tunes there, and -n is 3; {three}: a key with accidentals is not read"
    assert why in refused(capsysbinary, runs / "onsets", "-n", 3, "--blind", tmp_path)
    _, error = told(capsysbinary, runs / "onsets", "--length", 30, "--like", three)
    assert error.startswith(f"sample.py: --like {three}: the first of its tunes;")
    (tmp_path / "a.mid").write_bytes(midi_file([0, 0, *tokens], grid))
    (tmp_path / "a.abc").write_text(to_abc(analysed(tokens, grid), 0.4, 1, "a"))

    def songs(*more: object, run: Path = runs / "onsets") -> list[list[int]]:
        lines_of(capsysbinary, run, "-n", 2, "--length", 30, *more, "-o", tmp_path / "songs")
        return [read_tokens(tmp_path / "songs" / f"sample{i}.mid", onsets=True).tolist() for i in range(2)]

    whole = songs("--like", tmp_path / "a.mid", "--keep", 9)
    assert [song[:9] for song in whole] == [tokens.tolist()[:9]] * 2 and whole[0] != whole[1]
    rest = songs("--prefix_file", tmp_path / "a.abc", "--keep", 9, "--without_prefix")
    assert rest == [canonical(np.array(song[9:]), True).tolist() for song in whole]
    assert [song[:16] for song in songs("--like", tmp_path / "a.abc")] == [tokens.tolist()[:16]] * 2
    assert [song[:18] for song in songs("--like", tmp_path / "a.abc", "--keep", 29)] == [tokens.tolist()] * 2
    run = with_flags(runs / "onsets", tmp_path / "run", transpose="key")
    (tmp_path / "d.abc").write_text(to_abc(analysed(moved := transposed(tokens, 2), grid), 0.4, 1, "from C to D"))
    write_songs(tmp_path / "own", ["sample0.mid"], [midi_file(moved, grid)])  # of a run without --transpose
    (tmp_path / "own/key.mid").write_bytes(midi_file(moved, grid, plain=True))
    (tmp_path / "key.abc").write_text(to_abc(analysed(moved, grid, plain=True), 0.4, 1, "in C"))
    for name, given in (("d.abc", tokens), ("own/sample0.mid", tokens), ("own/key.mid", moved), ("key.abc", moved)):
        assert [song[:18] for song in songs("--like", tmp_path / name, "--keep", 18, run=run)] == [given.tolist()] * 2


def test_a_tune_longer_than_those_of_training(runs, capsysbinary, tmp_path):
    """1,000 tokens of 0.4 s, of which the first are those of a shorter tune."""
    for length in (30, 1000):
        words = ["-n", 1, "--length", length, "--prefix", "R Eb5 D#5 R F#4", "-o", tmp_path / f"{length}.mid"]
        lines_of(capsysbinary, runs / "tunes", *words)
        song = pretty_midi.PrettyMIDI(str(tmp_path / f"{length}.mid"))
        assert song.get_end_time() == pytest.approx(0.4 * length) and song.get_tempo_changes()[1] == pytest.approx([75])
    first = [(note.pitch, note.start, note.end) for note in song.instruments[0].notes[:2]]
    assert first[0] == (75, pytest.approx(0.4), pytest.approx(1.2)) and first[1][:2] == (66, pytest.approx(1.6))
    shorter, longer = (read_tokens(tmp_path / f"{length}.mid") for length in (30, 1000))
    assert len(longer) == 1000 and longer[:30].tolist() == shorter.tolist() and len(set(longer[700:].tolist())) > 5


def with_flags(run: Path, copy: Path, **flags: object) -> Path:
    shutil.copytree(run, copy, dirs_exist_ok=True)
    change(copy / "config.json", flags=flags)
    return copy


def test_a_tune_by_the_beat_has_the_tempo_of_its_run(runs, capsysbinary, tmp_path):
    run = with_flags(runs / "tunes", tmp_path / "run", token_length="0.5beats")
    (run / "tempo.json").write_text('{"beats_per_minute": 90}')
    lines_of(capsysbinary, run, "-n", 1, "--prefix", "C4 R", "-o", tmp_path / "a.mid")
    song = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    assert song.get_tempo_changes()[1] == pytest.approx([90]) and song.get_end_time() == pytest.approx(1)
    assert song.instruments[0].notes[0].end == pytest.approx(1 / 3)
    (run / "tempo.json").write_text('{"beats_per_minute": 9e9}')
    assert "tempo.json: not a run's tempo" in refused(capsysbinary, run)


def test_any_checkpoint_there_is_also_of_a_run_under_way(runs, capsysbinary, tmp_path):
    """Whose lock is held and whose checkpoints come and go; nothing of it is touched."""
    flags = [shutil.copytree(runs / "text", tmp_path / "run"), "-n", 50]
    newest = tmp_path / "run" / "checkpoints" / "step-000000031"
    damaged = newest.with_name("step-000000032")
    shutil.copytree(newest, damaged)
    before = sorted(path for path in tmp_path.rglob("*"))
    with RunDirectory(str(tmp_path / "run"), "--log_dir"):
        lines, error = told(capsysbinary, *flags)
    assert error.startswith(f"warning: {damaged}: damaged checkpoint passed over")
    assert lines == lines_of(capsysbinary, runs / "text", "-n", 50)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    shutil.rmtree(damaged)
    assert lines == lines_of(capsysbinary, *flags) == lines_of(capsysbinary, *flags, "--checkpoint", 30)
    seqgan = restore(tmp_path / "run").seqgan
    seqgan.generator.output_layer.bias.assign_add([5.0, *[0.0] * (seqgan.policy.vocab_size - 1)])
    Checkpoints(tmp_path / "run" / "checkpoints", seqgan.checkpoint(), 2).save(32, {MARKS: {"best": 31}})
    assert lines_of(capsysbinary, *flags) != lines == lines_of(capsysbinary, *flags, "--checkpoint", "best")


UNKNOWN, ALONE = "--prefix: not in the run's vocabulary:", "no name that ends in .mid, nor a folder that is there"
GAIN = {"d_gain_valid": (0.1, 0.01)}
NOTE = "a token of music is a note, such as C4 or F#4, R, a rest, or -, which holds one"
BAD = [
    *(("text", ["--prefix", "axyb"], f"{UNKNOWN} 'x' 'y'"), ("words", ["--prefix", "to bee"], f"{UNKNOWN} 'bee'")),
    *(("ids", ["--prefix", "1 4"], f"{UNKNOWN} '4'"), ("ids", ["--prefix", "1 x -2 1.0"], f"{UNKNOWN} 'x' '-2' '1.0'")),
    *(("ids", ["--prefix", "9" * 5000], f"{UNKNOWN} '999"), ("absent", [], "absent: no run (there is no config.json)")),
    ("tunes", ["--prefix", "60 0"], f"{UNKNOWN} '60' '0'; {NOTE}\n"),
    ("tunes", ["--prefix", "C4 H4 C-1 C C10 G#0"], f"{UNKNOWN} 'H4' 'C-1' 'C' 'C10' 'G#0'"),
    ("text", ["--prefix", "abc"], "--prefix: 3 tokens leave none to draw of the run's 3"),
    ("text", ["--prefix", "abc", "--length", "2"], "--prefix: 3 tokens leave none to draw of --length 2"),
    ("text", ["--abc"], "--abc: RUNS/text is no run on music"),
    ("ids", ["--like", "a.mid"], "--like: RUNS/ids is no run on music"),
    ("tunes", ["--like", "a.mid", "--prefix", "C4"], "--like: not with --prefix"),
    ("tunes", ["--keep", "3"], "--keep has no effect without --like"),
    ("tunes", ["--without_prefix"], "--without_prefix has no effect without --prefix or --like"),
    ("tunes", ["--like", "absent.mid"], "absent.mid: No such file or directory"),
    ("tunes", ["-n", "1", "--abc", "-o", "a.mid"], "-o a.mid: --abc needs a folder, as it writes several files"),
    ("tunes", ["-n", "2", "-o", "tune.mid"], "-o tune.mid: -n 2 tunes need a folder, or -n 1"),
    ("tunes", ["-n", "1", "-o", "song.wav"], f"-o song.wav: {ALONE}"),
    ("tunes", ["-o", ""], "argument -o/--output: an empty name"),
    ("tunes", ["-o", "/dev/null"], "/dev/null: not a folder"),
    *(("text", ["-o", "/dev/null/x"], "/dev/null/x: there is no such"), ("text", ["-o", "/"], "/: a folder, not a")),
    ("text", ["--length", "100001"], "argument --length: 100001 is more than 100000"),
    ("ids", ["--checkpoint", "best"], "ids/checkpoints: none is marked best: that takes evaluations on a valid split"),
    ("ids", ["--checkpoint", "7"], "ids/checkpoints: none of step 7; there are 30, 31"),
    ("ids", ["--checkpoint", "last"], "'last' is neither newest, best, pretrained nor a number of steps"),
    ("ids", ["--no-unknown"], "so there is no unknown token"),
    ("ids", ["--guide"], "--guide: the run's discriminator is not an additive one"),
    ("text", ["--temperature", "0"], "argument --temperature: 0 is less than"),
    ("text", ["-n", "0"], "argument -n: 0 is less than 1"),
    ("text", ["--seed", "-1"], "argument --seed: -1 is less than 0"),
    ("text", ["--objective", "none.py:f"], "--objective none.py: No such file or directory"),
    ("text", ["--objective", "RUNS/chance.py:f"], "for one sequence; a score may depend on that sequence alone"),
    ("text", ["--objective", "RUNS/chance.py:f", "-o", "RUNS/chance.py"], "RUNS/chance.py: is read"),
    ("text", ["--objective", "none.py"], "--objective none.py: not a FILE.py:NAME"),
    ("text", ["--objective", "a.py:f", "--eta", "1", "--candidates", "2"], "--eta is of the discriminator"),
    ("ids", ["--eta", "1"], "--eta has no effect without --candidates of 2 or more"),
    *(("ids", ["--blind"], "--blind: RUNS/ids is no run"), ("tunes", ["--blind", "--abc"], "--blind: not with --abc")),
    ("tunes", ["--blind", "RUNS", "RUNS/"], "--blind: a folder is given twice"),
    ("text", ["-o", "RUNS/text/vocabulary.json"], "RUNS/text/vocabulary.json: a run's own file; name another"),
    ("text", ["-o", "RUNS/text/checkpoints/step-000000031/weights.index"], "weights.index: a run's own file"),
    ("tunes", ["-o", "RUNS/tunes"], "RUNS/tunes: a run is there; name another folder"),
    ("tunes", ["--blind", "RUNS"], "--blind RUNS: 0 tunes there, and -n is 10"),
    ("tunes", ["--blind", "RUNS/onsets"], "--blind RUNS/onsets: a run with other tokens than RUNS/tunes"),
    ("tunes", ["--blind"], "--data_dir RUNS/melodies: no such folder"),
    ("ids", ["--candidates", "0"], "argument --candidates: 0 is less than 1"),
    ("ids", ["--candidates", "2", "--guide"], "--candidates are the generator's own: not with --guide"),
]


@pytest.mark.parametrize(("run", "flags", "why"), BAD)
def test_what_cannot_be_sampled(runs, capsys, run, flags, why):
    (runs / "chance.py").write_text("import random\ndef f(lines):\n    return [random.random() for _ in lines]\n")
    flags = [flag.replace("RUNS", str(runs)) for flag in flags]
    assert why.replace("RUNS", str(runs)) in refused(capsys, runs / run, *flags)


@cases(
    "name, content, why",
    ("vocabulary.json", "{", "vocabulary.json: not a vocabulary"),
    ("vocabulary.json", '{"kind": "char", "entries": [1]}', "vocabulary.json: not a vocabulary"),
    ("vocabulary.json", '{"kind": "char", "entries": ["a", "b"]}', "vocabulary.json: not this run's vocabulary"),
    ("vocabulary.json", '{"kind": "char", "entries": ["v", "w", "x"]}', "not this run's vocabulary"),
    ("vocabulary.json", None, "vocabulary.json: No such file"),
    ("config.json", "{", "config.json: not a readable configuration"),
    ("config.json", {"gone": 1}, "config.json: a run of another version, with unknown flags: --gone"),
    ("config.json", {"g_hidden_dim": "x"}, "config.json: "),
    ("checkpoints", None, "a run whose weights are gone: no checkpoint is left in "),
)
def test_a_run_that_is_damaged(runs, capsys, tmp_path, name, content, why):
    run = with_flags(runs / "text", tmp_path / "run", **(content if isinstance(content, dict) else {}))
    if content is None:
        (run / name).rename(tmp_path / "gone")
    elif isinstance(content, str):
        (run / name).write_text(content)
    assert why in refused(capsys, run)


def test_candidates_are_chosen_by_the_run_s_discriminator(knowing, capsysbinary):
    run = restore(knowing)
    eta, g, discriminator = run.recorded["d_eta"][0], probabilities(run.policy()), run.seqgan.discriminator
    w = np.exp(eta * discriminator.log_odds(tf.constant(all_sequences(4, 3))).numpy().astype(np.float64))
    q = 2 * g * (g * w[:, None] / (w[:, None] + w)).sum(axis=1)
    lines = lines_of(capsysbinary, knowing, "-n", 20_000, "--candidates", 2)
    tokens = np.array([line.split() for line in lines], int)
    counts = np.bincount(index_of(tokens, 4), minlength=64)
    assert chi_square(counts, q) > 1e-3 and chi_square(counts, g) < 1e-6
    plain = lines_of(capsysbinary, knowing, "-n", 300, "--candidates", 1)
    ranked = lines_of(capsysbinary, knowing, "-n", 300, "--rank")
    assert ranked != plain and sorted(ranked) == sorted(plain)
    odds = discriminator.log_odds(tf.constant(np.array([line.split() for line in ranked], np.int32))).numpy()
    assert (np.diff(odds) <= 1e-6).all()
    assert lines_of(capsysbinary, knowing, "-n", 300, "--candidates", 2, "--eta", eta) == lines[:300]


def test_longer_samples_are_chosen_a_stretch_at_a_time(knowing):
    policy = restore(knowing).policy()

    def chosen(length: int, count: int, prefix: Sequence[int] = ()) -> np.ndarray:
        def log_weights(tokens: tf.Tensor) -> tf.Tensor:  # of as many tokens as in training
            assert tokens.shape == [sample.ROWS, 3]
            return 100 * tf.reduce_sum(tf.cast(tokens == 1, tf.float32), axis=1)

        return drawn(policy, count, 1, length, prefix, choice=(log_weights, 256))

    longer = chosen(8, 64)
    assert longer.shape == (64, 8) and (longer == 1).mean() > 0.9
    np.testing.assert_array_equal(chosen(3, 20), longer[:20, :3])
    begun = chosen(8, 64, prefix=[3, 3, 3, 2])
    assert (begun[:, :4] == [3, 3, 3, 2]).all() and (begun[:, 4:] == 1).mean() > 0.9
    assert probabilities(policy) @ (all_sequences(4, 3) == 1).mean(axis=1) < 0.6  # of what is not chosen


@cases(
    "recorded, words, status, why",
    ({"d_gain_valid": (0.003, 0.002), "d_eta": (1, 0)}, "--candidates 4", 3, "d_gain_valid 0.0030 ± 0.0020; witho"),
    ({"d_gain_valid": (0.001, 0.002)}, "--rank", 3, "--rank: the discriminator of"),
    ({"nll": (1.0, 0.1)}, "--candidates 4", 3, "no evaluation of"),
    ({"d_gain": (0.1, 0.01), "d_eta": (1, 0)}, "--candidates 4", 3, "has d_gain_valid, which takes 40 validation"),
    (GAIN, "--rank --length 7", 2, "--rank: the discriminator reads 3 tokens"),
    (GAIN, "--candidates 2 --eta 1 --checkpoint pretrained", 3, "is not trained; without --cand"),
    (GAIN, "--rank --checkpoint pretrained", 3, "--pretrain_d_epochs N trains and measures one"),
)
def test_what_cannot_choose_is_one_line(knowing, tmp_path, capsys, recorded, words, status, why):
    """With a status of its own where only the discriminator is at fault."""
    run = restore(knowing)
    shutil.copytree(knowing, tmp_path / "run")
    marks = {"evaluation": recorded, MARKS: {"pretrained": run.config.pretrain_g_epochs}}
    Checkpoints(tmp_path / "run" / "checkpoints", run.seqgan.checkpoint()).save(run.taken + 1, marks)
    assert why in refused(capsys, tmp_path / "run", *words.split(), status=status)


@cases(
    "flags, steps",
    ("--pretrain_d_epochs 2", [5, 6, 7, 8, 9]),
    ("--pretrain_d_epochs 0", [6, 7, 8, 9, 10]),  # the first g-step comes before
    ("--pretrain_d_epochs 0 --d_steps 0", []),
    ("--pretrain_d_epochs 2 --discriminator bigram --g_update fold", [5, 6, 8, 9]),  # a fold begins a new one
    ("--pretrain_d_epochs 2 --discriminator bigram --g_update fold --d_steps 0 --total_epochs 1", [5, 6]),
)
def test_a_discriminator_is_trained_once_it_has_taken_a_step(flags, steps):
    config = parse(["--pretrain_g_epochs", "4", "--total_epochs", "3", "--d_steps", "2", *flags.split()])
    last = steps[-1] if len(steps) > 2 else 8
    trained = [Restored(Path(), config, {}, None, taken, {}).trained() for taken in range(last + 1)]
    assert [taken for taken, is_trained in enumerate(trained) if is_trained] == steps


def test_lines_and_tunes_are_chosen_too(runs, capsysbinary, tmp_path):
    words = ["--candidates", 3, "--eta", 1, "--rank", "-n"]
    lines = lines_of(capsysbinary, runs / "text", *words, 40)
    assert len(lines) == 40 and set("".join(lines)) <= set("abc\ufffd") and max(map(len, lines)) <= 3
    assert max(map(len, lines_of(capsysbinary, runs / "text", *words[:4], "-n", 40, "--length", 9))) > 3
    assert lines_of(capsysbinary, runs / "tunes", *words, 3, "-o", tmp_path / "songs")
    assert sorted(path.name for path in (tmp_path / "songs").glob("*.mid")) == [f"sample{i}.mid" for i in range(3)]


OBJECTIVES = """
def most_a(texts):
    assert all(isinstance(text, str) for text in texts)
    return [text.count("a") for text in texts]

def first(rows):
    return [(float(row[0]), row.fill(0))[0] for row in rows]  # its own, to change as it likes
"""


def test_an_objective_tells_the_mean_ranks_and_keeps_the_best(runs, capsysbinary, tmp_path):
    """Of text; of tunes it hears the pitches, and of ids the numbers."""
    mine = tmp_path / "mine.py"
    mine.write_text(OBJECTIVES)

    def written(*more: str) -> tuple[list[str], float]:
        lines, error = told(capsysbinary, runs / "text", "--objective", f"{mine}:most_a", "-n", *more)
        assert error.startswith("objective: mean ") and error.split()[3] == "±"
        return lines, float(error.split()[2])

    plain, mean = written("600")
    counts = [line.count("a") for line in plain]
    assert mean == pytest.approx(np.mean(counts), rel=1e-3)
    best, mean = written("150", "--candidates", "4")
    assert plain[:20] == lines_of(capsysbinary, runs / "text", "-n", 20)
    groups = [plain[i : i + 4] for i in range(0, 600, 4)]
    assert best == [max(group, key=lambda line: line.count("a")) for group in groups]
    assert mean == pytest.approx(np.mean([line.count("a") for line in best]), rel=1e-3) and mean > np.mean(counts) + 0.1
    ranked, _ = written("150", "--candidates", "4", "--rank")
    assert ranked == sorted(best, key=lambda line: -line.count("a"))
    for run, prefix, value in (("tunes", "C4", 60), ("ids", "2", 2)):
        flags = ["-n", 3, "--objective", f"{mine}:first", "--prefix", prefix, "-o", tmp_path / run]
        assert told(capsysbinary, runs / run, *flags)[1] == f"objective: mean {value} ± 0\n"
    assert re.fullmatch(r"(2 .*\n){3}", (tmp_path / "ids").read_text())
