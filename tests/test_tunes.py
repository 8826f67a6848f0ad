"""data/music/analysis.py, abc.py, staff.py, page.py, evaluation/tunes.py: what musicians are given, and can tell."""

import base64
import html
import io
import re
import shutil
import subprocess
import sys
import wave
from collections import Counter

import numpy as np
import pytest
from conftest import canonical, cases, read_melody
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from data import DataError
from data.music.abc import HEADER, read_abc, to_abc
from data.music.analysis import Key, Stretch, analysed, longest_copies, written
from data.music.folder import load_tunes
from data.music.midi import midi_file, read_notes
from data.music.page import Near, page
from data.music.staff import staff
from data.music.tokens import REST, Grid, melody, to_tokens, transposed
from evaluation.tunes import divergence, intervals, musical, nearest_squared_difference, pitch_range, rhythms

music21 = pytest.importorskip("music21", reason="music21, of requirements-dev.txt, is not installed")
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 11, 12)
NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MINORS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
EIGHTHS = Grid(0.25, beats=0.5)
QUICKLY = (Phase.explicit, Phase.reuse, Phase.generate)  # music21 takes too long to look for the smallest example
# Notes and rests of any pitch and length, or of a narrow range, where accidentals meet.
pieces = st.tuples(st.one_of(st.integers(0, 88), st.integers(38, 52)), st.integers(1, 20))
tunes = st.lists(pieces, min_size=1, max_size=30).map(
    lambda found: np.concatenate([[pitch] + [pitch + 88 * (pitch > 0)] * (length - 1) for pitch, length in found])
)
values = st.sampled_from([0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0])


def scale(tonic: int, steps: tuple[int, ...]) -> np.ndarray:
    """Up and down, beginning and ending with a longer tonic; tokens."""
    line = [*steps, *steps[-2::-1]]
    return np.array([tonic + 40] * 2 + [tonic + 40 + step for step in line] + [tonic + 40] * 3, np.int32)


def on_grid(notes, value: float) -> list[list[int]]:
    """Notes of a file, times in millionths of a beat, as pitch, start and length in tokens."""
    start, end = np.rint(notes.start / 1e6 / value).astype(int), np.rint(notes.end / 1e6 / value).astype(int)
    return np.stack([notes.pitch, start, end - start], axis=1).tolist()


@pytest.mark.parametrize(("steps", "names", "suffix"), [(MAJOR, NAMES, ""), (MINOR, MINORS, "m")])
def test_the_key_of_a_scale_is_its_own(steps, names, suffix):
    """Its signature is the one that music21 gives it; a major scale needs no accidentals."""
    found = [analysed(scale(tonic, steps), EIGHTHS) for tonic in range(12)]
    assert [str(tune.key) for tune in found] == [name + suffix for name in names]
    assert [tune.key.tonic for tune in found] == list(range(12))
    for tune in found:
        key = music21.key.Key(str(tune.key).replace("b", "-").rstrip("m"), "minor" if suffix else "major")
        assert tune.key.sharps == key.sharps
        assert bytes([0xFF, 0x59, 2, key.sharps % 256, bool(suffix)]) in midi_file(tune.tokens, EIGHTHS)
        assert suffix or all(sign.sharp is None for bar in written(tune) for sign in bar)
    assert analysed(np.zeros(4, np.int32), EIGHTHS).key == Key(0, False)  # of silence
    assert str(analysed(np.repeat([40, 44, 47, 41, 45, 48], [8, 8, 8, 1, 1, 1]), EIGHTHS).key) == "C"  # by lengths


def test_the_notation_of_a_few_bars():
    """F sharp is in the key; its natural holds until the bar line, and not for another octave without a sign."""
    tokens = np.array([47, 49, 51, 52, 54, 54, 56, 58, 59, 59, 57, 57, 45, 57, 58, 59, 59, 59, 59, 59, 59, 0, 58, 59])
    text = to_abc(analysed(tokens, EIGHTHS), 0.25, 3, "a\\%b\r")
    assert text.splitlines() == [
        *("X:3", "T:a  b ", "M:4/4", "L:1/8", "Q:1/4=120", "K:G"),
        "GABc d2ef | g2=f2 =Ff^fg- | g4- gzfg |]",
    ]


@pytest.mark.parametrize(
    ("bar", "metre"),
    [([1, 1, 1, 1, 2, 2], "4/4"), ([2, 1, 2, 1], "6/8"), ([4, 2], "3/4"), ([3, 1, 2, 2], "4/4"), ([3, 1, 1, 1], "6/8")],
)  # fmt: skip
def test_the_metre_is_that_in_which_lengths_come_again(bar, metre):
    """In eighths, sixteenths, and so on. With a token a beat a waltz is no jig."""
    lengths = np.array(bar * 10)
    tokens = np.repeat(40 + np.arange(len(lengths)) * 5 % 13, lengths)
    for repeat in (1, 2, 4):
        tune = analysed(np.repeat(tokens, repeat), grid := Grid(0.25, 0.5 / repeat))
        signature = bytes([0xFF, 0x58, 4, int(metre[0]), int(metre[2]).bit_length() - 1])
        assert tune.metre == metre and signature in midi_file(tune.tokens, grid)
    if metre == "3/4":
        assert analysed(tokens[::2], Grid(beats=1.0)).metre == "3/4"


@given(tokens=tunes, value=values, onsets=st.booleans())
@settings(max_examples=40, deadline=None, phases=QUICKLY)
def test_music21_reads_the_same_notes(tokens, value, onsets):
    """With onsets a note struck again is two; without, as all tokens up to 88 say that the pitch sounds, one."""
    grid = Grid(beats=value, onsets=onsets)
    tune = analysed(canonical(tokens, onsets), grid)
    if not len(tune.notes):
        return
    notes = read_abc(to_abc(tune, 0.25, 1, "a").encode(), by_beat=True)
    assert on_grid(notes, value) == tune.notes.tolist() and to_tokens(notes, grid).tolist() == tune.tokens.tolist()


@pytest.mark.skipif(not shutil.which("abc2midi"), reason="abc2midi, of Debian's package abcmidi, is not installed")
@given(found=st.lists(tunes, min_size=1, max_size=4), value=st.sampled_from([0.25, 0.5, 1.0]))
@settings(max_examples=15, deadline=None, phases=QUICKLY)
def test_abc2midi_reads_the_same_notes_of_all_tunes_in_a_file(tmp_path_factory, found, value):
    folder = tmp_path_factory.mktemp("abc")
    read, path = [analysed(tokens, Grid(beats=value, onsets=True)) for tokens in found], folder / "tunes.abc"
    path.write_text(HEADER + "\n".join(to_abc(tune, 0.25, i, f"Tune {i}") for i, tune in enumerate(read, 1)))
    for i, tune in enumerate(read, 1):
        command = ["abc2midi", str(path), str(i), "-o", str(folder / "a.mid")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "Error" not in done.stdout, done.stdout
        if len(tune.notes):
            notes = read_notes((folder / "a.mid").read_bytes(), by_beat=True)
            # It ends a note a tick early, and has 480 of them a beat.
            late = notes._replace(end=notes.end + 2_100)
            assert on_grid(melody(late), value) == tune.notes.tolist()


FOLK = """%abc-2.1
X:1
R:jig
of two lines
M:6/8
L:1/8
Q:3/8=80
K:Ador
e|"Am"A>B{g}c !trill![eA]2d|(3efg =f3-|f2z A,^G,G,:|

X:2
T:Another
K:C
C
"""


@cases(
    "text, grid, tokens",
    (FOLK, Grid(0.4, 0.25), "76*2 69*3 71*1 72*2 76*4 74*2 | 76*1 78*2 79*1 77*10 20*2 57*2 56*4"),
    (FOLK, Grid(0.25, 0.0), "76 69 71 72 76 76 74"),  # three eighths at 80: a beat of half a second
    ("X:1\nT:a\nK:C\nCD2\nX:2\nK:C\nE|\n", Grid(beats=0.5), "60 62*2"),  # without M: and L:, in eighths
    # Note values of old, in a field of a line; text between fields, with an empty line.
    ("X:1\nL:1/8\nK:C\n[Q:C2 = 60]C2\n%%begintext\n\nabc\n%%endtext\nD2|\n", Grid(0.5), "60*2 62*2"),
    *((f"X:1\nL:1/8\nQ:{mark}\nK:C\nC4D4\n", Grid(0.5), "60*4 62*4") for mark in ("1/4 = 60", "C2=60", "3/8 = 40")),
    *((f"X:1\nQ:{mark}\nK:C\nC4D4\n", Grid(0.5), "60*2 62*2") for mark in ("1/4=0", "3/8=110-120", "1/4=c. 90")),
    # The highest of several voices.
    ("X:1\nL:1/4\nM:4/4\nK:C\nV:1\nC,D,G,F,|\nV:2\nCDEF|\nV:3 clef=perc\ncccc|\n", Grid(beats=1.0), "60 62 64 65"),
)
def test_common_abc_is_read(tmp_path, text, grid, tokens):
    """Modes, chords and their symbols, grace notes, decorations, broken rhythm, triplets, ties, repeats."""
    path = tmp_path / "a.ABC"
    path.write_text(text)
    words = [word.split("*") for word in tokens.replace("|", "").split()]
    expected = [int(pitch) - 20 for pitch, *times in words for _ in range(int(times[0] if times else 1))]
    assert read_melody(path, grid, read_abc)[0].tolist()[: len(expected)] == expected


@cases(
    "content, reason",
    (b"X:1\nL:1/8\nK:C\n[V:1]abc|\n", "voices that change within a line, [V:...], are not read"),
    *((b"X:1\nL:1/8\nK:C\nz4|]\n", "no tune in it"), (b"X:1\nK:C\n|:C[1,3D:|[2E|]\n", "endings of several passes")),
    (b"X:1\nK:C\n|:" + b"C" * 9999 + b":" * 999 + b"|\n", "its repeats are longer than 1048576 bytes"),
    *((b"X:1\nL:1/1\nK:C\nC99999|]\n", "has 399996 beats; the limit"), (b"%" * (2**20 + 1), "larger than 1048576 ")),
    *((b'X:1\nK:C\nC "_%s al Fine"D' % sign, sign.decode()) for sign in (b"D.C.", b"DC", b"D. C.", b"Da Capo")),
    *((f"X:1\nK:C\nC{sign}D".encode(), f"the sign {sign} is not") for sign in ("&", "+", "!D.C.", "!D.S.", "!dacapo")),
    *((f"X:1\nK:C\nC{sign}D".encode(), f"the sign {sign} is not") for sign in ("!dalsegno", "(10", "(3:2:10")),
    *((b"X:1\nK:C %s\nC" % clef, "notes moved by ") for clef in (b"treble-8", b"clef=treble+8", b"octave=-1")),
    *((b"X:1\nK:C\n%s\nC" % line, "notes moved by ") for line in (b"V:1 transpose=-2", b"[K:C shift=cd]")),
    (b"X:1\nK:C\n%%MIDI transpose -12\nC", "notes moved by %%MIDI transpose"),
    *((b"X:1\n" + head + b"K:C\nCD[Q:1/4=90]EF", "its tempo changes") for head in (b"", b"Q:1/4=100\n")),
    *((b"X:1\nK:C\n|CD:E|", "the sign : is not"), (b"X:1\nK:C\nA|1B:|2c|d|1e:|2f|", "[1 after [2, with no")),
    *((b"X:1\nK:%s\nC" % key, "the key ") for key in (b"Es", b"Dmix=c", b"G#", b"H")),
    *((b"X:1\nK:%s\nC" % key, "a key with accidentals is not read: K:D ") for key in (b"D exp _b", b"D =c")),
    *((b"X:1\nK:C\nC%sD" % key, "a key with accidentals") for key in (b"[K:D ^f=c]", b"\nK:D Phr ^f\n")),
    (b"X:1\nP:AABB\nK:C\nP:A\nC|\nP:B\nD|\n", "an order of parts is not read: P:AABB"),
    *((content, "no") for content in (b"", b"\xff\x00\x01", b"X:1", b"MThd", b"K:C\nabc")),
)
def test_what_is_no_tune_is_said_in_one_line(tmp_path, content, reason):
    path = tmp_path / "a.abc"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_melody(path, EIGHTHS if reason != "its tempo changes" else Grid(0.25), read_abc)
    assert str(error.value).startswith(f"{path}: {reason}") and len(str(error.value).splitlines()) == 1


@cases(
    "body, played",
    *(("|:CD|EF:|GA||", "CDEFCDEFGA"), ('"50%|:"C{de}(D:|% "', "CDCD")),
    *(("CD|EF:|GA|Bc:|", "CDEFCDEFGABcGABc"), ("C||DE:|F|]G::A:|", "CDEDEFGGAA"), ("|:C||D:|[|]E:|", "CDCDEE")),
    *(("|:C|1D:|2E||F|[1G:|\n[2A|]|:BB:|", "CDCEFGFABBBB"), ("|:C|1D:|2E:|3F|]G:|", "CDCECFGG")),
    *(("|:C|1D|2E:|F", "CDCEF"), ("|:C|1D:|E", "CDCE"), ("|::C::|D", "CCCD"), ("|:F[K:D]F:|", "F[K:D]F[K:C]F[K:D]F")),
    # Decorations, an `!` that ends a line, space, rests unseen and of whole bars, and what else is no note.
    ("HC!turn!J~uvD|y20ETy3/2F.G!|\n+trill+A!B|", "CD|EFGAB"),
    *(("CxDx2|Xz", "CzDz2|z5"), ("C4|Z|[M:3/4]Z2|[L:1/8]Z|D2", "C4z4z6z3[L:1/8]D2"), ("[r:H&+!D.C.!]CZ|D", "Cz|D")),
    *(("P:A\nC4\nw:do\n+:re Hmi\ns:!fermata!", "C4"), ("[K:Fmix]FB", "[K:Eb]F_B"), ("[K:C clef=alto]C", "C")),
    *(("^F-|F|c-B", "^F2cB"), ("G-<E", "G<E")),  # an accidental holds as long as a tie; one to another note is a slur
    *(("A-^AA[A-d-][Ad]", "A^A^Ad2"), ("|:A|1B:|2c|\nP:B\nd:|", "ABAcdd"), ("A|[P:B]c:|", "Acc")),
    *(("[F^A]A|^A[FA]|[^FA]F|A", "^A^A|^A^A|A^F|A"), ("__BB|^^FF|F", "AA|GG|F"), ("[=F^F][c,E]", "^FE")),
    *(("[Ad]-[Ad]|[FA]-|[FA]", "d2A2"), ("[A-d-][Ad]|[A-d][Ad]", "d2dd"), ("[F2A]3/2[CE]/", "A3E/"), ("A>.B", "A>B")),
    *(("AB|(3:2:2A2B(3::2A2BC", "ABA4/3B2/3A4/3B2/3C"), ("|:A|(3:2:3ABc(3:::dcB:|F", "A(3ABc(3dcBA(3ABc(3dcBF")),
    *(("A|(5:4:5ABcdeF(6:4:6ABcdefG", "AA4/5B4/5c4/5d4/5e4/5FA2/3B2/3c2/3d2/3e2/3f2/3G"), ("[L:1]C", "C4")),
    *(("AB: |cd:|", "ABABcdcd"), ("A: |:B : |c", "AABBc"), ('"Am"DC"G"D', "DCD"), ("A[|]c:|", "AcAc")),
    *(("[K:C bass]C\nK:C middle=d\nE", "CE"), ("V:b8 clef=bass octave=0\nC", "C"), ("[K:F#m]C[K:none]F", "^CF")),
    *(("V:a\nC|\nV:b\nE|\nP:B\nV:a\nD:|\nV:b\nF:|", "EFF"), ("[K:HP]FC", "^F^C")),
    *(("[K:E locrian]BF|[K:F#loc]BF|[K:Bb Dorian]D", "_BF|=B^F|_D"), ("[K:Cb]C[K:C#]C", "_C^C")),
    *(("V:a clef=treble\nK:D\nCD:|\nV:b\nEF:|", "EFEF"), ("V:a\nC:|\nV:b\nE:|\nV:a\nG:|\nV:b\nA:|", "EEAA")),
)
def test_repeats_are_played_out(body, played):
    found, expected = (melody(read_abc(f"X:1\nM:4/4\nL:1/4\nK:C\n{text}\n".encode(), True)) for text in (body, played))
    assert [part.tolist() for part in found[:3]] == [part.tolist() for part in expected[:3]]


@pytest.mark.parametrize(("metre", "length"), [("2/4", 16), ("5/8", 16), ("(2+3)/8", 16), ("6/8", 8), ("C|", 8)])
def test_without_a_length_the_metre_tells_it(metre, length):
    given, other = (read_abc(f"X:1\nM:{metre}\nQ:90\n{own}K:C\nCD\n".encode(), True) for own in (f"L:1/{length}\n", ""))
    assert given.end.tolist() == other.end.tolist() == [4e6 // length, 8e6 // length] and given.tempo == 360 / length


def test_folders_of_abc_are_read_and_moved_to_one_key_or_twelve(tmp_path, monkeypatch):
    """By signatures, or the keys that they seem to have. What differs in its key alone is in one split."""
    in_g, in_a = "DEFG ABcd edcB AGFE", "EFGA Bcde fedc BAGF"
    book = f"X:7\nK:G\n{in_g}\n\nABC is fun\n\nX:8\nK:C\n[1,2C|\n\nX:9\nK:Gm\n{in_g}\n"
    (tmp_path / "a.abc").write_text(f"%abc-2.1\nL:1/4\n\n{book}")
    (tmp_path / "b.abc").write_text(f"\ufeffX:1\nL:1/4\nK:Bdor\n{in_a}\n")
    for name, steps in (("c.mid", MAJOR), ("d.mid", MINOR)):  # of D, without a signature
        (tmp_path / name).write_bytes(midi_file(scale(2, steps).repeat(2), EIGHTHS))
    plain, key, all_ = (load_tunes(tmp_path, Grid(beats=1.0), 16, None, moved) for moved in ("none", "key", "all"))
    assert plain.names == ["a.abc X:7", "c.mid", "d.mid"] and [name for name, _ in plain.skipped] == ["a.abc X:8"]
    assert key.names == all_.names[:3] == ["a.abc X:7", "b.abc", "d.mid"]
    assert all_.names[3:5] == ["a.abc X:7, +1 semitones", "b.abc, +1 semitones"]

    def moves(tunes: list[np.ndarray], others: list[np.ndarray]) -> list[set[int]]:
        return [{*(a - b).tolist()} for a, b in zip(tunes, others, strict=True)]

    assert moves(key.train, [plain.train[0], plain.test[0], plain.train[2]]) == [{5}, {3}, {-5}]
    assert moves(key.valid + key.test, [*plain.valid, plain.train[1]]) == [{2}, {-2}]
    assert moves(all_.valid + all_.test, [*plain.valid, plain.train[1]]) == [{0}, {0}]
    assert moves(all_.train[::3], [plain.train[0]] * 12) == [{by} for by in (0, 1, 2, 3, 4, 5, -6, -5, -4, -3, -2, -1)]
    monkeypatch.setitem(sys.modules, "music21", None)
    for where, attempt in ((tmp_path, lambda: load_tunes(tmp_path, EIGHTHS)), ("", lambda: read_abc(FOLK.encode()))):
        why = f"^{where}.*: ABC is read by music21, which is not installed: pip install mu"
        with pytest.raises(DataError, match=why):
            attempt()


def test_links_are_followed_once_and_a_book_may_be_larger_than_a_tune(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "more").symlink_to(tmp_path / "there")
    (tmp_path / "there" / "back").symlink_to(tmp_path / "here")
    tunes = "".join(f"X:{i}\nL:1/4\nK:C\n{'CDEF' * i}|\n" + "% " * (1 << 18) + "\n\n" for i in (5, 6, 7))
    (tmp_path / "there" / "book.abc").write_text(tunes)
    found = load_tunes(tmp_path / "here", Grid(beats=1.0), 16, None, "none")
    assert found.names + found.skipped == ["more/book.abc X:5"] and len(found.valid) == len(found.test) == 1


def test_a_tune_that_is_moved_stays_on_the_keyboard():
    """An octave off as a whole, or note by note where it is too wide; what goes on and what rests does so."""
    tunes = {(1, 89, 0, 88, 176): [4, 92, 0, 79, 167], (87, 175, 0, 70): [78, 166, 0, 61], (5, 6): [8, 9]}
    assert [transposed(np.array(tune, np.int32), 3).tolist() for tune in tunes] == [*tunes.values()]
    assert transposed(np.array([1, 0, 20], np.int32), -6).tolist() == [7, 0, 26]


def test_the_measures_of_a_tune_by_hand():
    """Three bars of G A B c d, the second with an F natural and a leap, the third as the first."""
    bar, other = np.array([47, 47, 49, 49, 51, 52, 54, 54]), [47, 47, 45, 45, 57, 0, 0, 0]
    tune = analysed(np.array([*bar, *other, *bar]), EIGHTHS)
    figures, drawn = musical(tune), staff(tune)
    assert re.findall('<rect x="([0-9]*)"[^>]*class="again"', drawn) == ["431"]  # where the third bar begins
    assert figures["stepwise"] == pytest.approx(9 / 12)  # 2 2 1 2, then 7, 2, 12, 10, and 2 2 1 2
    assert figures["repeated_bars"] == 0.5 and figures["alike_after_2"] == 1 and np.isnan(figures["alike_after_4"])
    assert figures["ends_on_tonic"] == figures["looped_bars"] == 0
    for bars, repeated, looped in (
        ([bar, bar, other, bar], 2 / 3, 0),
        ([bar, bar, bar, other], 2 / 3, 1 / 3),
        ([bar, other] * 3, 4 / 5, 1 / 5),
        ([bar, other, bar, bar + 1, bar, other, bar], 4 / 6, 0),  # a rondo
        ([bar, bar, bar, bar], 1, 2 / 3),
    ):
        figures = musical(analysed(np.concatenate(bars), EIGHTHS))
        assert (figures["repeated_bars"], figures["looped_bars"]) == (repeated, looped)
    silent = analysed(np.zeros(8, np.int32), EIGHTHS)
    assert all(np.isnan(value) for value in musical(silent).values())
    single = musical(analysed(np.array([40, 40]), EIGHTHS))
    assert single["scale_consistency"] == 1 and single["pitch_class_entropy"] == 0 and np.isnan(single["stepwise"])
    assert all(np.isnan(divergence([intervals(silent)], [intervals(silent)])))


def test_scale_consistency_and_pitch_class_entropy_are_those_of_muspy():
    muspy = pytest.importorskip("muspy", reason="muspy, of requirements-dev.txt, is not installed")
    rng = np.random.default_rng(0)
    for _ in range(20):
        tune = analysed(rng.integers(38, 50, rng.integers(1, 40)), EIGHTHS)
        notes = [muspy.Note(start, pitch, length) for pitch, start, length in tune.notes.tolist()]
        music, figures = muspy.Music(tracks=[muspy.Track(notes=notes)]), musical(tune)
        assert figures["scale_consistency"] == pytest.approx(muspy.scale_consistency(music))
        assert figures["pitch_class_entropy"] == pytest.approx(muspy.pitch_class_entropy(music))


def test_divergence_is_that_of_scipy_and_its_error_the_error():
    """The deviation of many divergences of 100 samples each is what one of them says."""
    rng, shares = np.random.default_rng(0), [0.4, 0.3, 0.2, 0.1]
    references = [Counter({0: 30, 1: 30, 3: 40})]

    def draw() -> list[Counter]:
        return [Counter(rng.choice(4, 5, p=shares).tolist()) for _ in range(100)]

    samples = draw()
    total = sum(samples, Counter())
    expected = jensenshannon([total[i] for i in range(4)], [30, 30, 0, 40], base=2) ** 2
    assert divergence(samples, references)[0] == pytest.approx(expected)
    assert divergence(references, references)[0] == 0
    assert divergence([Counter({7: 1})], references)[0] == pytest.approx(1)
    found = np.array([divergence(draw(), references) for _ in range(300)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.12)


def test_rhythms_and_intervals_by_hand():
    tune = analysed(np.array([47, 47, 49, 49, 51, 52, 54, 54, 66, 66, 66, 66, 64, 0, 0, 0, 54]), EIGHTHS)
    assert intervals(tune) == {2: 3, 1: 1, 12: 1, -2: 1, -10: 1}
    assert {tuple(np.frombuffer(key, bool).astype(int)): n for key, n in rhythms(tune).items()} == {
        (1, 0, 1, 0, 1, 1, 1, 0): 1,
        (1, 0, 0, 0, 1, 0, 0, 0): 1,
    }


def test_the_nearest_tune_by_hand_and_against_loops():
    references = np.array([[40, 40, 40, 40], [50, 50, REST, 50]])
    samples = np.array([[41, 42, 40, 40], [47, 47, 47, 47], [REST, REST, 43, REST], [REST] * 4])
    # (1 + 4) / 4; 9 to the second, whose rest does not count; the second is silent where the third sample sounds.
    np.testing.assert_allclose(nearest_squared_difference(samples, references), [1.25, 9, 9, np.nan])
    rng = np.random.default_rng(3)
    samples, references = (rng.integers(30, 60, size=(n, 6)) * rng.integers(2, size=(n, 6)) for n in (7, 5))
    for sample, value in zip(samples, nearest_squared_difference(samples, references), strict=True):
        pairs = [(sample - r)[(sample != REST) & (r != REST)] for r in references]
        assert value == pytest.approx(min(np.mean(pair**2) for pair in pairs if len(pair)))
    np.testing.assert_array_equal(pitch_range(np.array([[40, 52, REST], [40, 40, 40], [REST] * 3])), [12, 0, np.nan])


def test_the_longest_copy_is_found():
    """By all pairs of places; whatever the type of the numbers, and in no two tunes at once."""
    rng = np.random.default_rng(0)
    corpus = [rng.integers(0, 3, length).astype(np.int32) for length in (5, 30, 1, 40)]
    corpus[2][0] = 176
    across = np.concatenate([corpus[1][-6:], corpus[2], corpus[3][:6]])
    samples = [rng.integers(0, 3, 25), np.array([176, 176]), np.array([100]), corpus[3][7:30], across]
    for sample, found in zip(samples, longest_copies(samples, corpus), strict=True):
        longest = max(
            k for k in range(len(sample) + 1)
            if any((np.array_equal(sample[i : i + k], tune[j : j + k])) and j + k <= len(tune)
                   for tune in corpus for j in range(len(tune)) for i in range(len(sample) - k + 1))
        )  # fmt: skip
        assert found.length == longest
        copied = corpus[found.tune][found.place : found.place + longest]
        assert np.array_equal(sample[found.first : found.first + longest], copied)
    assert [found[:3] for found in longest_copies(samples[1:4], corpus)] == [(1, 0, 2), (0, 0, 0), (23, 0, 3)]


def test_a_staff_has_every_note():
    """One head for each sign that is no rest, one accidental for each that has one; what is marked is marked."""
    rng = np.random.default_rng(0)
    for value in (0.0625, 0.25, 0.5, 4):
        tokens = np.repeat(rng.integers(30, 60, 12) * (rng.random(12) < 0.9), rng.integers(1, 9, 12))
        tune = analysed(tokens, Grid(beats=value))
        signs = [sign for bar in written(tune) for sign in bar]
        drawn = staff(tune, range(3, 20))
        assert drawn.count("<ellipse") == sum(sign.step is not None for sign in signs)
        accidentals, lines = sum(sign.sharp is not None for sign in signs), drawn.count('<g transform="translate(1 ')
        assert drawn.count('class="sign"') == accidentals + lines * abs(tune.key.sharps)
        assert drawn.count('class="marked"') == sum(3 <= sign.start < 20 for sign in signs)
    assert staff(analysed(np.zeros(0, np.int32), EIGHTHS)).startswith("<svg")
    bar, other = np.array([40, 42, 44, 45, 47, 45, 44, 42]), np.array([47, 49, 51, 52, 51, 49, 47, 45])
    assert staff(analysed(np.concatenate([bar, other, bar, other + 1]), EIGHTHS)).count('class="again"') == 1


def test_a_page_escapes_text_and_plays_what_is_not_too_long():
    near = Near("<b>&.mid", np.arange(40, 60), Stretch(3, 1, 0, 7))
    text = page("<i>", {"<u>": analysed(np.arange(46, 50), EIGHTHS)}, [near], EIGHTHS)
    assert not {"<b>", "<i>", "<u>"} & set(re.findall("<[^>]*>", text))
    assert all(html.escape(part) in text for part in ("<i>", "<u>", "<b>&.mid", "4/4, 120 quarter notes a minute"))
    assert text.count('class="marked"') == 6  # three of each
    assert "3 of 4 tokens are the same, from its token 8 on" in text and '="Score of &lt;u&gt;"' in text
    players = re.findall('src="data:audio/wav;base64,([^"]*)"', text)
    with wave.open(io.BytesIO(base64.b64decode(players[0]))) as clip:  # a second of it, heard
        assert (clip.getnframes(), clip.getframerate()) == (8000, 8000) and any(clip.readframes(8000))
    assert len(players) == 2
    long = page("a", {"a": analysed(np.arange(40, 80).repeat(61), EIGHTHS)}, [None], EIGHTHS)
    assert "no player: longer than 600 seconds" in long and "<audio" not in long and "<svg" in long
