"""data/music/midi.py, tokens.py, folder.py: tokens to MIDI and back, melodies, the grid, folders, the cache, damage."""

import hashlib
import io
import logging
import random
import signal
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from conftest import canonical, cases, read_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DataError
from data.music.folder import MAX_TEMPO, MIN_TEMPO, SPLITS, Tunes, load_tunes, windows
from data.music.midi import MAX_FILE_BYTES, midi_file, read_notes
from data.music.tokens import REST, Grid, melody, named, spans, to_pitches

SECONDS = Grid(0.4)
VOCAB_SIZE = SECONDS.vocab_size
TICKS = 480  # a beat
BEAT = 500_000  # microseconds: 120 a minute, so a tick is 1/960 s and a frame of 0.4 s has 384 ticks
CACHE = ".tokens-0.4s.json"


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch) -> Path:
    """Keeps the user's own cache out of the tests."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def write_midi(tokens, path: Path, grid: Grid = SECONDS) -> Path:
    path.write_bytes(midi_file(tokens, grid))
    return path


def track(*notes, channel=0, velocity=80, extra=()) -> mido.MidiTrack:
    """A track of (start tick, end tick, pitch) notes and of `extra` (tick, message) pairs."""
    events = list(extra)
    for start, end, pitch in notes:
        events.append((start, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
        events.append((end, mido.Message("note_off", channel=channel, note=pitch)))
    # Releases before onsets of the same tick, as MIDI writers do.
    events.sort(key=lambda event: (event[0], event[1].type == "note_on"))
    result, now = mido.MidiTrack(), 0
    for tick, message in events:
        result.append(message.copy(time=tick - now))
        now = tick
    return result


def content_of(*tracks: mido.MidiTrack, kind=1, ticks=TICKS) -> bytes:
    content = io.BytesIO()
    mido.MidiFile(type=kind, ticks_per_beat=ticks, tracks=list(tracks)).save(file=content)
    return content.getvalue()


def save(path: Path, *tracks: mido.MidiTrack, **how) -> Path:
    path.write_bytes(content_of(*tracks, **how))
    return path


def tempo(tick: int, microseconds: int) -> tuple[int, mido.MetaMessage]:
    return tick, mido.MetaMessage("set_tempo", tempo=microseconds)


def scale_tune(length: int, first=60) -> np.ndarray:
    """A tune of `length` tokens without rests, every note unlike its neighbours."""
    return (first - 20 + np.arange(length) % 12).astype(np.int32)


def smf(body: bytes, kind=1, tracks=1, division=TICKS) -> bytes:
    header = b"MThd" + struct.pack(">LHHH", 6, kind, tracks, division)
    return header + b"MTrk" + struct.pack(">L", len(body)) + body


@settings(max_examples=200, deadline=None)
@given(
    # Short alphabets make repeats and long rests likely.
    tokens=st.lists(st.integers(0, 88), max_size=80) | st.lists(st.sampled_from([0, 1, 45, 88]), max_size=80),
    seconds=st.sampled_from([0.4, 0.01, 0.1, 1 / 3, 0.25, 10.0]),
    beats=st.sampled_from([0.0625, 0.25, 1 / 3, 0.5, 1.0, 1.5, 4.0]),
    tempo=st.sampled_from([MIN_TEMPO, 75.0, 97.3, 120.0, 1000 / 6, MAX_TEMPO]),
)
def test_tokens_to_midi_to_tokens_is_the_identity(tmp_path_factory, tokens, seconds, beats, tempo):
    """In seconds, and in beats at any tempo, when they last as long as they should."""
    path = tmp_path_factory.getbasetemp() / "round_trip.mid"
    back = read_tokens(write_midi(tokens, path, Grid(seconds)), seconds)
    assert back.dtype == np.int32 and back.tolist() == tokens
    write_midi(tokens, path, Grid(beats * 60 / tempo, beats))
    assert read_tokens(path, frame_beats=beats).tolist() == tokens == read_tokens(path, beats * 60 / tempo).tolist()


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 176), max_size=80) | st.lists(st.sampled_from([0, 45, 46, 133, 134]), max_size=80),
    beats=st.sampled_from([0.0, 0.25, 1 / 3, 0.5]),
)
def test_with_onsets_what_is_read_is_what_was_written(tmp_path_factory, tokens, beats):
    """Tokens of a model become those that the written tune has, the same notes, and stay as they are from then on."""
    path, grid = tmp_path_factory.getbasetemp() / "round_trip.mid", Grid(0.25, beats, onsets=True)
    back, tokens = read_tokens(write_midi(tokens, path, grid), *grid), np.array(tokens, int)
    assert back.dtype == np.int32 and back.tolist() == canonical(tokens, True).tolist()
    assert spans(back, True) == spans(tokens, True)
    np.testing.assert_array_equal(to_pitches(back), to_pitches(tokens))
    np.testing.assert_array_equal(read_tokens(write_midi(back, path, grid), *grid), back)


@cases(
    "seconds, beats, value, tempo",
    *((0.4, 0, 0.5, 75), (0.7, 0, 1, 60 / 0.7), (1 / 3, 0, 0.5, 90), (0.01, 0, 1 / 64, 93.75), (10, 0, 16, 96)),
    *((0.125, 0.25, 0.25, 120), (1, 0.5, 0.5, 30), (0.0125, 0.0625, 0.0625, 300)),
)
def test_a_token_is_a_note_value_on_the_grid(tmp_path, seconds, beats, value, tempo):
    """No onset lies between two ticks of the notation's grid, even after a thousand tokens or an hour."""
    count = min(1000, int(3600 / seconds))
    path = write_midi(np.arange(count) % 88 + 1, tmp_path / "a.mid", Grid(seconds, beats))
    file = mido.MidiFile(path)
    assert [m.tempo for m in file.tracks[0] if m.type == "set_tempo"] == [round(6e7 / tempo)]
    ticks, onsets = 0, []
    for message in file.tracks[1]:
        ticks += message.time
        if message.type == "note_on" and message.velocity:
            onsets.append(ticks)
    assert onsets == [i * value * file.ticks_per_beat for i in range(count)]
    notes = pretty_midi.PrettyMIDI(str(path)).instruments[0].notes
    assert notes[-1].end == pytest.approx(count * seconds, rel=2e-6)
    assert [note.pitch for note in notes] == [21 + i % 88 for i in range(count)]


def test_onsets_by_hand(tmp_path):
    """A crotchet, the same pitch struck twice, a rest, what goes on after a rest or another pitch, which begins."""
    tokens = np.array([45, 133, 45, 45, 0, 133, 46, 133])
    assert (VOCAB_SIZE, Grid(onsets=True).vocab_size) == (89, 177)
    assert spans(tokens, True) == [(65, 0, 2), (65, 2, 3), (65, 3, 4), (65, 5, 6), (66, 6, 7), (65, 7, 8)]
    assert canonical(tokens, True).tolist() == [45, 133, 45, 45, 0, 45, 46, 45]
    assert to_pitches(tokens).tolist() == [65, 65, 65, 65, 0, 65, 66, 65]
    assert spans(np.array([45, 45, 0, 46]), False) == [(65, 0, 2), (66, 3, 4)]
    # Frames of 384 ticks: a note of two frames and a half, the same pitch struck again where the frame is half over.
    path = save(tmp_path / "a.mid", track((0, 384 * 5 // 2, 60), (384 * 5 // 2, 384 * 4, 60), (384 * 4, 384 * 5, 60)))
    assert read_tokens(path, onsets=True).tolist() == [40, 128, 128, 40, 40]
    assert read_tokens(path).tolist() == [40] * 5


def test_names_of_tokens():
    expected = {"A0": 1, "c8": 88, "Bb4": 50, "A#4": 50, "B3": 39, "Cb4": 39, "R": REST}
    assert {word: named(word, None, True) for word in expected} == expected
    assert [named("-", before, True) for before in (REST, 40, 128, None)] == [REST, 128, 128, None]
    assert named("-", 40, False) == 40
    assert not any(named(word, 40, True) for word in ("G0#", "A9", "C0", "60", "H4", ""))


def test_there_is_no_rest_between_notes_that_meet_or_leave_a_gap_of_a_tick(tmp_path):
    """Quarter notes as abc2midi writes them. The piano roll sampled on the grid has a rest at every fifth frame."""
    path = save(tmp_path / "a.mid", track(*((TICKS * i, TICKS * (i + 1) - 1, 60 + i % 12) for i in range(32))))
    tokens = read_tokens(path)
    assert len(tokens) == 40 and np.all(tokens != REST)
    sampled = pretty_midi.PrettyMIDI(str(path)).instruments[0].get_piano_roll(fs=1 / 0.4).any(axis=0)
    assert np.flatnonzero(~sampled[:39]).tolist() == [4, 9, 14, 19, 24, 29, 34]
    # A note struck again at the tick of its release, which is a note_off or an onset of velocity 0, in either order.
    on, off = mido.Message("note_on", note=60, velocity=80), mido.Message("note_on", note=60, velocity=0)
    for middle in ([off, on], [on, off]):
        events = [on, middle[0].copy(time=384), middle[1], off.copy(time=768)]
        assert read_tokens(save(path, mido.MidiTrack(events))).tolist() == [40, 40, 40]


@cases(
    "notes, tokens",
    # Frames end at ticks 384, 768, 1152. The pitch that sounds longest: 62, in two parts of the second.
    ([(0, 200, 60), (200, 500, 62), (500, 640, 64), (640, 1152, 62)], [40, 42, 42]),
    ([(0, 192, 60), (192, 384, 72)], [52]),  # a tie goes to the higher pitch
    ([(0, 192, 72), (192, 384, 60)], [52]),
    ([(0, 384, 62), (384, 384 + 192, 60), (768, 1152, 62)], [42, 40, 42]),  # half of it sounds
    ([(0, 384, 62), (384, 384 + 191, 60), (768, 1152, 62)], [42, REST, 42]),
    ([(0, 575, 60)], [40]),  # a last piece of half a frame counts
    ([(0, 576, 60)], [40, 40]),
    ([(0, 1152, 60), (384, 768, 72), (384, 768, 64)], [40, 52, 40]),  # the highest of those that overlap
    # At and beyond the ends of a piano.
    ([(384 * i, 384 * i + 384, pitch) for i, pitch in enumerate((0, 20, 21, 108, 109, 127))], [4, 12, 1, 88, 77, 83]),
)
def test_a_frame_is_the_pitch_that_sounds_longest_in_it(tmp_path, notes, tokens):
    assert read_tokens(save(tmp_path / "a.mid", track(*notes))).tolist() == tokens


@pytest.mark.parametrize("where", [0, 1], ids=["first track", "second track"])
def test_tempo_changes_count(tmp_path, where):
    """At 60 a minute a beat is a second; from beat 2 on, at 240, it is a quarter: 1 s = 10 frames of 0.1 s."""
    changes = [tempo(0, 1_000_000), tempo(2 * TICKS, 250_000)]
    notes = [(0, TICKS, 60), (TICKS, 2 * TICKS, 62), (2 * TICKS, 6 * TICKS, 64), (6 * TICKS, 7 * TICKS, 65)]
    tracks = [track(extra=changes), track(*notes)] if where == 0 else [track(*notes, extra=changes)]
    path = save(tmp_path / "a.mid", *tracks)
    # The last quarter of a second is 2.5 frames.
    assert read_tokens(path, 0.1).tolist() == [40] * 10 + [42] * 10 + [44] * 10 + [45] * 3
    late, early = track(extra=[tempo(TICKS, 250_000)]), track((0, 2 * TICKS, 60), extra=[tempo(0, 1_000_000)])
    assert len(read_tokens(save(path, late, early), 0.05)) == 25  # put in order


def test_beats_are_those_of_the_file(tmp_path):
    """Whatever the tempo, its changes and the resolution; by the second the same file is another tune."""
    notes = [(0, 240, 60), (240, 480, 62), (480, 600, 64), (600, 720, 65), (720, 960, 64), (960, 1440, 60)]
    changes = [tempo(0, 1_000_000), tempo(480, 300_000), tempo(777, 450_000)]
    path = save(tmp_path / "a.mid", track(*notes, extra=changes))
    assert read_tokens(path, frame_beats=0.25).tolist() == [40, 40, 42, 42, 44, 45, 44, 44, 40, 40, 40, 40]
    assert read_tokens(path, frame_beats=0.5).tolist() == [40, 42, 45, 44, 40, 40]  # a tie goes to the higher pitch
    assert read_tokens(path, frame_beats=1).tolist() == [42, 44, 40]
    assert len(read_tokens(path, 0.25)) == 7  # 1 s, 0.3 · 297 / 480 s and 0.45 · 663 / 480 s
    save(path, track((0, 96, 60), (96, 384, 62)), ticks=96)
    assert read_tokens(path, 0.25).tolist() == [40] * 2 + [42] * 6  # of the default tempo
    save(path, track(*((32 * i, 32 * i + 31, 60 + i % 2) for i in range(300))), ticks=96)
    assert read_tokens(path, frame_beats=1 / 3).tolist() == [40, 41] * 150  # no whole millionths of a beat


def test_the_tempo_of_tunes_is_the_median_of_those_that_train(folder):
    """A tune's own is beats over minutes: here 2 beats of 1 s and 6 of 0.5 s make 96 a minute."""
    for number, changes in enumerate(([tempo(0, 1_000_000), tempo(960, 500_000)], [tempo(0, 400_000)], [])):
        notes = track(*((480 * i, 480 * i + 480, 60 + i) for i in range(8)), extra=changes)
        save(folder / "train" / f"{number}.mid", notes)
    for _ in range(2):  # parsed, and from the cache
        assert load_tunes(folder, SECONDS, min_len=8).tempo == 120  # of 96, 150, 120
    (folder / "train" / "2.mid").unlink()
    assert load_tunes(folder, Grid(beats=1), min_len=8).tempo == 123
    save(folder / "train" / "0.mid", track(*((480 * i, 480 * i + 480, 60 + i) for i in range(8)), extra=[tempo(0, 9)]))
    (folder / "train" / "1.mid").unlink()
    assert load_tunes(folder, Grid(beats=1), min_len=8).tempo == MAX_TEMPO


TUNE = [(384 * i, 384 * i + 384, 67 + i % 5) for i in range(8)]
HEARD = [47, 48, 49, 50, 51, 47, 48, 49]
CHORDS = [(1536 * i, 1536 * i + 1536, pitch) for i in range(3) for pitch in (48, 55, 64)]  # the last one: chords alone
DRUMS = track(*((96 * i, 96 * i + 48, 80) for i in range(32)), channel=9)
QUIET, LOUD = (track(*CHORDS, channel=2, velocity=velocity) for velocity in (20, 120))


@cases(
    "tracks",
    *([track(*TUNE, velocity=70), QUIET], [QUIET, track(*TUNE, velocity=70)]),
    *([track(*TUNE, velocity=70), LOUD], [LOUD, track(*TUNE, velocity=70)]),
    [mido.merge_tracks([track(*TUNE), QUIET])],  # channels of one track are voices
    [DRUMS, track(*TUNE)],
    [track(*TUNE, extra=[(1536, mido.Message("program_change", program=73))])],  # another instrument, the same voice
)
def test_the_melody_is_found_whatever_its_place_and_loudness(tmp_path, tracks):
    tokens = read_tokens(save(tmp_path / "a.mid", *tracks, kind=1 if len(tracks) > 1 else 0)).tolist()
    assert tokens[:8] == HEARD and not any(tokens[8:])  # chords under a silent melody are a rest


def test_a_low_melody_under_long_chords_is_found(tmp_path):
    """The chord is on top for most of the time, but most onsets above it are the tune's (a case in Nottingham)."""
    tune = [(240 * i, 240 * i + 120, (69, 52, 67)[i % 3]) for i in range(24)]
    chords = [(1440 * i, 1440 * i + 1440, pitch) for i in range(4) for pitch in (57, 61, 64)]
    notes = read_notes(save(tmp_path / "a.mid", track(*chords), track(*tune, channel=1)).read_bytes())
    assert set(melody(notes).voice) == {17}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder `tunes` with three tunes in each split, of 40 tokens and more."""
    root = tmp_path / "tunes"
    for place, split in enumerate(SPLITS):
        (root / split).mkdir(parents=True)
        for number in range(3):
            write_midi(scale_tune(40 + number, 50 + 3 * place + number), root / split / f"{number}.mid")
    return root


def same(a: Tunes, b: Tunes) -> bool:
    pairs = [pair for split in SPLITS for pair in zip(getattr(a, split), getattr(b, split), strict=True)]
    return (a.skipped, a.names, a.tempo) == (b.skipped, b.names, b.tempo) and all(
        np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs
    )


def test_splits_are_read_as_they_are_and_in_order(folder):
    """Rests at the ends are trimmed, and those inside kept."""
    write_midi([0, 0, *[40] * 20, 0, *[41] * 19, 0], folder / "train" / "9.mid")
    tunes = load_tunes(folder, SECONDS)
    assert tunes.skipped == [] and tunes.names == [f"train/{number}.mid" for number in (0, 1, 2, 9)]
    assert tunes.train.pop().tolist() == [40] * 20 + [0] + [41] * 19
    for place, split in enumerate(SPLITS):
        assert all(tune.dtype == np.int32 for tune in getattr(tunes, split))
        expected = [scale_tune(40 + number, 50 + 3 * place + number) for number in range(3)]
        assert [tune.tolist() for tune in getattr(tunes, split)] == [tune.tolist() for tune in expected]


@pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (12, (9, 2, 1))])
def test_a_plain_folder_is_dealt_out_in_tens(tmp_path, count, sizes):
    (tmp_path / "more").mkdir()
    for number in range(count):
        write_midi(scale_tune(32 + number), tmp_path / ("more" if number % 2 else ".") / f"{number:02d}.midi")
    (tmp_path / "0.mid").write_text("not usable, so it takes nobody's place")
    tunes = load_tunes(tmp_path, SECONDS)
    assert tuple(len(getattr(tunes, split)) for split in SPLITS) == sizes
    by_path = sorted(range(count), key=lambda number: (number % 2, number))  # 00.midi, 02.midi, ..., more/01.midi, ...
    lengths = [32 + number for number in by_path]
    assert [len(tune) for tune in tunes.valid] == lengths[1::10]
    assert [len(tune) for tune in tunes.test] == lengths[2::10]
    assert [len(tune) for tune in tunes.train] == [n for i, n in enumerate(lengths) if i % 10 not in (1, 2)]


def test_equal_tunes_of_a_plain_folder_are_in_one_split(tmp_path):
    """Whatever their names, and the rests around them; those that differ are dealt out as if they were alone."""
    for number in range(12):
        write_midi(scale_tune(32 + number), tmp_path / f"{number:02d}.mid")
        write_midi([0, *scale_tune(32 + number), 0], tmp_path / f"{11 - number:02d} again.mid")
    tunes = load_tunes(tmp_path, SECONDS)
    lengths = [{len(tune) for tune in getattr(tunes, split)} for split in SPLITS]
    assert [len(getattr(tunes, split)) for split in SPLITS] == [18, 4, 2]
    assert sum(map(len, lengths)) == len(set.union(*lengths)) == 12


def test_only_midi_files_that_show_and_no_run_has_written_are_read(folder):
    """Runs may lie among the tunes: told by what is in them, or named before there is anything."""
    good, train = (folder / "train" / "0.mid").read_bytes(), folder / "train"
    for name in ("3.MID", "4.midi", ".5.mid", "6.txt", "deeper/7.mid", ".hidden/8.mid"):
        (train / name).parent.mkdir(exist_ok=True)
        (train / name).write_bytes(good)
    (train / "folder.mid").mkdir()
    tunes = load_tunes(folder, SECONDS)
    assert len(tunes.train) == 6 and tunes.skipped == []
    run, new, mine = train / "logs" / "run", train / "logs" / "new", train / "mine"
    for place in (run, run / "samples", new, mine):
        place.mkdir(parents=True, exist_ok=True)
        (place / "sample0.mid").write_bytes(good)
    for name in ("config.json", "metrics.csv"):
        (run / name).touch()
    (mine / "config.json").touch()  # of something else
    assert len(load_tunes(folder, SECONDS).train) == 8
    assert len(load_tunes(folder, SECONDS, besides=mine / ".." / "logs" / "new").train) == 7
    assert len(load_tunes(run, SECONDS, min_len=1).train) == 2  # asked for, they are


def test_files_that_are_skipped_are_told_a_line_a_reason(folder, caplog):
    """With the first of those that have it, or one that differs in a number, and how many there are besides."""
    for length in (3, 20, 31):
        write_midi(scale_tune(length), folder / "valid" / f"short{length}.mid")
    write_midi([0] * 40, folder / "train" / "silent.mid")
    with caplog.at_level(logging.WARNING):
        tunes = load_tunes(folder, SECONDS)
    assert dict(tunes.skipped) == {
        "train/silent.mid": "no melody: it has no notes, or only drums",
        **{f"valid/short{n}.mid": f"too short: {n} tokens of 0.4 s, 32 needed" for n in (20, 3, 31)},
    }
    assert caplog.messages == [
        f"skipped {folder}/train/silent.mid: no melody: it has no notes, or only drums",
        f"skipped {folder}/valid/short20.mid and 2 more: too short: 20 tokens of 0.4 s, 32 needed",
    ]


@pytest.mark.filterwarnings("error")
def test_odd_events_and_empty_tracks_do_no_harm(folder):
    odd = [
        (0, mido.MetaMessage("key_signature", key="F#m")),
        (0, mido.MetaMessage("time_signature", numerator=7, denominator=8)),
        *((0, mido.UnknownMetaMessage(0x4B, data=(1, 2, 3))), (5, mido.MetaMessage("sequencer_specific", data=(0, 1)))),
        *((9, mido.MetaMessage("text", text="\xfc\xff")), (9, mido.Message("sysex", data=(1, 2)))),
        *((50, mido.Message("pitchwheel", pitch=-8192)), tempo(100, BEAT)),
    ]
    path = save(folder / "train" / "0.mid", track(), track(*TUNE, extra=odd), track(extra=odd))
    content = path.read_bytes()
    content = content[:10] + struct.pack(">H", 4) + content[12:] + b"MTrk\0\0\0\0"  # a track without a single event
    path.write_bytes(content)
    tunes = load_tunes(folder, SECONDS, min_len=8)
    assert tunes.train[0].tolist() == HEARD and tunes.skipped == []
    for name, sharps in (("F#m", 3), ("Cb", -7), ("Ebm", -6), ("C", 0)):
        signed = track(*TUNE, extra=[(0, mido.MetaMessage("key_signature", key=name))])
        assert read_notes(content_of(signed)).sharps == sharps
        in_a, in_d = (mido.MetaMessage("key_signature", key=key) for key in "AD")
        notes = read_notes(content_of(track(extra=[(9, in_a)]), track(extra=[(9, in_d)]), signed))
        assert notes.sharps == sharps  # of several the first in time, whichever track it is in


def test_a_folder_that_cannot_be_used_is_one_clear_line(folder, tmp_path):
    def fails(place: Path, message: str, min_len: int = 32) -> None:
        with pytest.raises(DataError) as error:
            load_tunes(place, SECONDS, min_len)
        assert str(error.value).startswith(f"{place}{message}"), error.value

    first = "train/0.mid: too short: 40 tokens of 0.4 s, 100 needed)"
    fails(folder, f"/train: no usable tune (9 of 9 tunes skipped; {first}", min_len=100)
    (folder / "train" / "-.mid").touch()  # empty, which comes first and is no reason
    fails(folder, f"/train: no usable tune (10 of 10 tunes skipped; {first}", min_len=100)
    for path in (folder / "train").iterdir():
        path.unlink()
    fails(folder, "/train: no usable tune (0 of 6 tunes skipped)")
    (folder / "valid").rename(folder / "other")
    fails(folder, ": has train and test but not all of train, valid and test")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    fails(tmp_path / "empty", ": no .mid, .midi or .abc file in it")
    for name, why in (("file", ": not a folder"), ("absent", ": no such folder")):
        fails(tmp_path / name, why)


def parses(folder: Path, grid: Grid = SECONDS, cache: Path | None = None) -> bool:
    """Whether loading a folder parses its files: then it writes the cache anew."""
    place = cache or folder / f".tokens-{str(grid).replace(' ', '')}.json"
    before = place.stat().st_ino if place.is_file() else None
    load_tunes(folder, grid)
    return place.stat().st_ino != before


def test_the_cache_gives_the_same_until_what_it_depends_on_changes(folder, caplog):
    (folder / "train" / "bad.mid").write_text("bad")
    first = load_tunes(folder, SECONDS)
    caplog.clear()
    again = load_tunes(folder, SECONDS)
    assert same(first, again) and len(again.skipped) == len(caplog.messages) == 1
    assert len(load_tunes(folder, SECONDS, min_len=41).train) == 2 and not parses(folder)
    assert [path.name for path in folder.iterdir() if path.is_file()] == [CACHE]
    eighths, short, beats = Grid(0.4, onsets=True), Grid(0.2), Grid(beats=0.2)
    assert parses(folder, short) and not parses(folder) and not parses(folder, short)
    assert parses(folder, beats) and not parses(folder, beats) and not parses(folder, short)
    place = folder / ".tokens-0.4s-onsets.json"
    assert parses(folder, eighths, place) and not parses(folder, eighths, place) and not parses(folder)
    path = folder / "train" / "0.mid"
    content = path.read_bytes()
    path.write_bytes(content.replace(bytes([50]), bytes([51])))  # the same size
    assert parses(folder) and load_tunes(folder, SECONDS).train[0][0] == 31
    path.rename(folder / "train" / "00.mid")  # the same place in the order
    assert parses(folder)
    (folder / "valid" / "0.mid").unlink()
    assert parses(folder) and not parses(folder)


def test_a_damaged_cache_is_built_again(folder):
    """Bits that flip, a file cut off; one of other files, or with what no tokens are, under its own checksum."""
    first, cache = load_tunes(folder, SECONDS), folder / CACHE
    whole, rng = cache.read_bytes(), random.Random(0)
    for trial in range(60):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        cache.write_bytes((bytes(damaged), whole[: rng.randrange(len(whole))], b"")[trial % 3])
        assert same(load_tunes(folder, SECONDS), first) and cache.read_bytes() == whole
    content = b'[[["boom"], "", 120]]'
    cache.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    assert same(load_tunes(folder, SECONDS), first) and cache.read_bytes() == whole


@pytest.mark.filterwarnings("error")
def test_where_the_folder_cannot_be_written_the_cache_is_elsewhere_or_nowhere(folder, cache_home, monkeypatch):
    (folder / CACHE).mkdir()  # in the way, also of a superuser
    first = load_tunes(folder, SECONDS)
    (elsewhere,) = (cache_home / "seqgan").glob("*.json")
    assert not parses(folder, SECONDS, elsewhere)
    (cache_home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home / "file"))
    assert same(load_tunes(folder, SECONDS), first)
    assert sorted(path.name for path in folder.iterdir()) == [CACHE, "test", "train", "valid"]


@pytest.fixture
def bounded():
    """Fails when the test takes 60 s or Python allocates more than 64 MB at once during it."""
    # What pytest.fail raises is no Exception, so the loader cannot take it for a damaged file.
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still not done after 60 s"))
    signal.alarm(60)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
        signal.alarm(0)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damages a file. Half the time a few bytes get other values below 128, and what mido reads may still be whole."""
    damaged = bytearray(content)
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 2, 4))):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(128)
        return bytes(damaged)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(damaged) + 1), rng.choice((1, 2, 4, 8, 64))
        extreme = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * length
        again = bytes(damaged[rng.randrange(len(damaged) + 1) :][:64])
        damaged[at : at + length * rng.randrange(2)] = rng.choice((rng.randbytes(length), extreme, again, b""))
        if rng.random() < 1 / 6:
            del damaged[max(at, 1) :]
    return bytes(damaged)


def test_1000_damaged_files_are_read_or_skipped(tmp_path, bounded, caplog):
    write_midi([40, 0, 42, 88, 1] * 8, tmp_path / "0.mid")
    save(tmp_path / "1.mid", track(extra=[tempo(0, BEAT), tempo(960, 300_000)]), track(*TUNE * 2), track(*CHORDS))
    odd = [(9, mido.Message("sysex", data=(1, 2))), (9, mido.MetaMessage("key_signature", key="Bb"))]
    save(tmp_path / "2.mid", track(*TUNE, extra=odd), kind=0)
    whole, rng = [(tmp_path / f"{number}.mid").read_bytes() for number in range(3)], random.Random(0)
    for number in range(1000):
        (tmp_path / f"damaged_{number}.mid").write_bytes(mutate(whole[number % 3], rng))
    tunes = load_tunes(tmp_path, SECONDS, min_len=1)
    read = sum(len(getattr(tunes, split)) for split in SPLITS)
    assert read + len(tunes.skipped) == 1003 and 5 < len(caplog.messages) < 100
    assert read > 100 and len(tunes.skipped) > 400  # damage of both kinds was tried
    assert all(tune.min() >= 0 and tune.max() < VOCAB_SIZE for tune in tunes.train)
    assert all(reason and "\n" not in reason and len(reason) <= 200 for _, reason in tunes.skipped)


ENDLESS = mido.MidiTrack([mido.Message("note_on", note=60 + i, time=384) for i in range(40)])
BAD = [
    *((b"", "empty file"), (b"X:1\nT:a tune in ABC\nK:G\n", "MThd not found. Probably not a MIDI file")),
    *((b"MThd\xff\xff\xff\xff", "ends too early"), (midi_file(scale_tune(40), SECONDS)[:200], "ends too early")),
    (bytes(MAX_FILE_BYTES + 1), "larger than 1048576 bytes"),
    (content_of(DRUMS), "no melody: it has no notes, or only drums"),
    (content_of(ENDLESS), "no melody: none of its notes has an end"),
    (content_of(track((0, 960 * 3601, 60))), "lasts 3601 s; the limit is 3600 s"),
    (content_of(track(*TUNE), kind=2), "MIDI files of type 2 are not read, only types 0 and 1"),
    (smf(b"\0\xff\x2f\0", division=0xE728), "time in SMPTE frames is not read, only in ticks a beat"),
    (smf(b"", division=0), "time in SMPTE frames is not read, only in ticks a beat"),
    *((smf(b"\xff" * 1_000_000), "a number in it never ends"), (smf(b"\x80" * 1_000_000), "a number in it never ends")),
    (smf(b"\x00\x90\x40\x40\xff\xff\xff\x7f\x40\x00"), "lasts 279620 s; the limit is 3600 s"),
    (smf(b"\x00\x90\x40\x40" + b"\xff" * 9 + b"\x7f\x40\x00"), "longer than 1099511627776 ticks"),
    (smf(b"\x00\xff\x51\x03\xff\xff\xff\x00\x90\x40\x40\xff\xff\x7f\x40\x00"), "lasts 73301 s; the limit is 3600 s"),
    (smf(b"\x00\xff\x01\xff\xff\xff\x7f"), "Message length 268435455 exceeds maximum length 1000000"),
    (smf(b"\x00\xff\x51\x03\x00\x00\x00\x00\x90\x40\x40\x83\x00\x40\x00"), "no melody: no note fills half of a token"),
    (smf(b"", tracks=65535, division=96), "no melody: it has no notes, or only drums"),
]


def test_files_that_are_wrong_or_made_to_exhaust_the_reader_are_skipped(tmp_path, bounded):
    write_midi(scale_tune(40), tmp_path / "good.mid")
    for i, (content, _) in enumerate(BAD):
        (tmp_path / f"{i:02d}.mid").write_bytes(content)
    tunes = load_tunes(tmp_path, Grid(0.01))
    assert len(tunes.train) == 1 and tunes.skipped == [(f"{i:02d}.mid", reason) for i, (_, reason) in enumerate(BAD)]


def test_nottingham(tmp_path, shared_data):
    """The measured numbers, of which another count means that the reader has changed; melodies; pretty_midi's notes."""
    with zipfile.ZipFile(shared_data("Nottingham.zip")) as archive:
        archive.extractall(tmp_path)
    tunes = load_tunes(tmp_path / "Nottingham", SECONDS)
    assert tunes.skipped == [
        ("train/reels_simple_chords_116.mid", "too short: 25 tokens of 0.4 s, 32 needed"),
        ("train/xmas_simple_chords_7.mid", "too short: 27 tokens of 0.4 s, 32 needed"),
    ]
    found = {}
    for split in SPLITS:
        tokens = np.concatenate(getattr(tunes, split))
        pitch, rests = tokens[tokens != REST] + 20, int(np.sum(tokens == REST))
        cut = len(windows(getattr(tunes, split), 32, 32)), len(windows(getattr(tunes, split), 32, 1))
        found[split] = len(getattr(tunes, split)), len(tokens), rests, int(pitch.min()), int(pitch.max()), *cut
    assert found == {
        "train": (692, 110_032, 128, 55, 88, 3157, 88_580),
        "valid": (173, 28_340, 29, 55, 86, 813, 22_977),
        "test": (170, 27_750, 24, 57, 86, 794, 22_480),
    }
    # abc2midi writes the tune to channel 0, in velocities 80, 95 and 105, and chord symbols to channels 1 and 2.
    for place, path in enumerate(sorted(tmp_path.glob("Nottingham/*/*.mid"))[::2]):
        notes = read_notes(path.read_bytes())
        assert set(melody(notes).voice % 16) == {0}, path.name
        if path.parent.name != "valid" or place % 4:
            continue  # pretty_midi takes three times as long as all else
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tempo marks outside the first track
            song = pretty_midi.PrettyMIDI(str(path))
        notes_of = [note for instrument in song.instruments for note in instrument.notes]
        theirs = {(round(note.start * 960), round(note.end * 960), note.pitch) for note in notes_of}
        times = zip(notes.start, notes.end, notes.pitch, strict=True)
        ours = {(round(start * 960e-6), round(end * 960e-6), int(pitch)) for start, end, pitch in times}
        assert ours <= theirs
        # It makes two notes of a pitch that is struck while it sounds, both with the same end.
        assert all(any(s <= a and (b, c) == (e, p) for s, e, p in ours) for a, b, c in theirs - ours)
