"""data/music/midi.py, tokens.py, folder.py: tokens to MIDI and back, melodies, the grid, folders, the cache, damage."""

import logging
import os
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
from conftest import canonical, read_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DataError
from data.music import folder as folders
from data.music import midi
from data.music.folder import SPLITS, load_tunes, windows
from data.music.midi import midi_file, to_pretty_midi
from data.music.tokens import (
    HIGHEST_PITCH,
    LOWEST_PITCH,
    REST,
    Grid,
    melody,
    named,
    spans,
    to_pitches,
    to_tokens,
    trim,
)
from runs.directories import write_whole

VOCAB_SIZE = START = Grid().vocab_size
TICKS = 480  # a beat
BEAT = 500_000  # microseconds: 120 a minute, so a tick is 1/960 s and a frame of 0.4 s has 384 ticks


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch) -> Path:
    """Keep the user's own cache out of the tests."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def write_midi(tokens, path: Path, *arguments, **named) -> None:
    write_whole(path, midi_file(tokens, *arguments, **named))


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


def save(path: Path, *tracks: mido.MidiTrack, kind=1) -> Path:
    mido.MidiFile(type=kind, ticks_per_beat=TICKS, tracks=list(tracks)).save(path)
    return path


def tempo(tick: int, microseconds: int) -> tuple[int, mido.MetaMessage]:
    return tick, mido.MetaMessage("set_tempo", tempo=microseconds)


def scale_tune(length: int, first=60) -> np.ndarray:
    """A tune of `length` tokens without rests, every note unlike its neighbours."""
    return (first - 20 + np.arange(length) % 12).astype(np.int32)


def smf(body: bytes, kind=1, tracks=1, division=TICKS) -> bytes:
    """A MIDI file around the bytes of one track."""
    header = b"MThd" + struct.pack(">LHHH", 6, kind, tracks, division)
    return header + b"MTrk" + struct.pack(">L", len(body)) + body


# --- tokens to MIDI to tokens


def test_the_vocabulary():
    assert (REST, VOCAB_SIZE, LOWEST_PITCH, HIGHEST_PITCH - 20) == (0, 89, 21, VOCAB_SIZE - 1)


@settings(max_examples=200, deadline=None)
@given(
    # Short alphabets make repeats and long rests likely.
    tokens=st.lists(st.integers(0, 88), max_size=80) | st.lists(st.sampled_from([0, 1, 45, 88]), max_size=80),
    frame_seconds=st.sampled_from([0.4, 0.01, 0.1, 1 / 3, 0.25, 10.0]),
)
def test_tokens_to_midi_to_tokens_is_the_identity(tmp_path_factory, tokens, frame_seconds):
    path = tmp_path_factory.getbasetemp() / "round_trip.mid"
    write_midi(tokens, path, frame_seconds)
    back = read_tokens(path, frame_seconds)
    assert back.dtype == np.int32 and back.tolist() == tokens


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.lists(st.sampled_from([0, 1, 45, 88]), max_size=80),
    beats=st.sampled_from([0.0625, 0.25, 1 / 3, 0.5, 1.0, 1.5, 4.0]),
    tempo=st.sampled_from([folders.MIN_TEMPO, 75.0, 97.3, 120.0, 1000 / 6, folders.MAX_TEMPO]),
)
def test_tokens_of_beats_come_back_at_any_tempo(tmp_path_factory, tokens, beats, tempo):
    path = tmp_path_factory.getbasetemp() / "round_trip.mid"
    write_midi(tokens, path, beats * 60 / tempo, beats)
    assert read_tokens(path, frame_beats=beats).tolist() == tokens
    assert read_tokens(path, beats * 60 / tempo).tolist() == tokens  # they last as long as they should


@pytest.mark.parametrize(
    ("frame_seconds", "frame_beats", "value", "tempo"),
    [
        (0.4, 0, 0.5, 75),
        (0.25, 0, 0.5, 120),
        (0.5, 0, 1, 120),
        (0.7, 0, 1, 60 / 0.7),
        (1 / 3, 0, 0.5, 90),
        (0.01, 0, 1 / 64, 93.75),
        (10, 0, 16, 96),
        (0.125, 0.25, 0.25, 120),
        (1, 0.5, 0.5, 30),
        (0.0125, 0.0625, 0.0625, 300),
    ],
)
def test_a_token_is_a_note_value_on_the_grid(tmp_path, frame_seconds, frame_beats, value, tempo):
    """No onset lies between two ticks of the notation's grid, even after a thousand tokens or an hour."""
    count = min(1000, int(3600 / frame_seconds))
    tokens = np.arange(count) % 88 + 1
    write_midi(tokens, tmp_path / "a.mid", frame_seconds, frame_beats)
    file = mido.MidiFile(tmp_path / "a.mid")
    (mark,) = (message.tempo for message in file.tracks[0] if message.type == "set_tempo")
    assert mark == round(6e7 / tempo)
    ticks, onsets = 0, []
    for message in file.tracks[1]:
        ticks += message.time
        if message.type == "note_on" and message.velocity:
            onsets.append(ticks)
    assert onsets == [i * value * file.ticks_per_beat for i in range(count)]
    notes = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments[0].notes
    assert notes[-1].end == pytest.approx(count * frame_seconds, rel=2e-6)


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 176), max_size=80) | st.lists(st.sampled_from([0, 45, 46, 133, 134]), max_size=80),
    beats=st.sampled_from([0.0, 0.25, 1 / 3, 0.5]),
)
def test_with_onsets_what_is_read_is_what_was_written(tmp_path_factory, tokens, beats):
    """Tokens of a model become those that the written tune has, the same notes, and stay as they are from then on."""
    path = tmp_path_factory.getbasetemp() / "round_trip.mid"
    write_midi(tokens, path, 0.25, beats, onsets=True)
    back = read_tokens(path, 0.25, beats, onsets=True)
    assert back.dtype == np.int32 and back.tolist() == canonical(np.array(tokens, int), True).tolist()
    assert spans(back, True) == spans(np.array(tokens, int), True)
    np.testing.assert_array_equal(to_pitches(back), to_pitches(np.array(tokens, int)))
    write_midi(back, path, 0.25, beats, onsets=True)
    np.testing.assert_array_equal(read_tokens(path, 0.25, beats, onsets=True), back)


def test_onsets_by_hand(tmp_path):
    """A crotchet, the same pitch struck twice, a rest, what goes on after a rest or another pitch, which begins."""
    tokens = np.array([45, 133, 45, 45, 0, 133, 46, 133])
    assert (Grid().vocab_size, Grid(onsets=True).vocab_size) == (89, 177)
    assert spans(tokens, True) == [(65, 0, 2), (65, 2, 3), (65, 3, 4), (65, 5, 6), (66, 6, 7), (65, 7, 8)]
    assert canonical(tokens, True).tolist() == [45, 133, 45, 45, 0, 45, 46, 45]
    assert to_pitches(tokens).tolist() == [65, 65, 65, 65, 0, 65, 66, 65]
    assert spans(np.array([45, 45, 0, 46]), False) == [(65, 0, 2), (66, 3, 4)]
    # Frames of 384 ticks: a note of two frames and a half, the same pitch struck again where the frame is half over.
    path = save(tmp_path / "a.mid", track((0, 384 * 5 // 2, 60), (384 * 5 // 2, 384 * 4, 60), (384 * 4, 384 * 5, 60)))
    assert read_tokens(path, onsets=True).tolist() == [40, 128, 128, 40, 40]
    assert read_tokens(path).tolist() == [40] * 5


def test_names_of_tokens():
    assert [named(word, None, True) for word in ("A0", "c8", "Bb4", "A#4", "B3", "Cb4", "R")] == [
        *(1, 88, 50, 50, 39, 39, REST)
    ]
    assert [named("-", before, True) for before in (REST, 40, 128, None)] == [REST, 128, 128, None]
    assert named("-", 40, False) == 40
    assert not any(named(word, 40, True) for word in ("G0#", "A9", "C0", "60", "H4", ""))


def test_every_pitch_survives(tmp_path):
    tokens = np.arange(VOCAB_SIZE)
    write_midi(tokens, tmp_path / "a.mid")
    np.testing.assert_array_equal(read_tokens(tmp_path / "a.mid"), tokens)
    pitches = [note.pitch for note in pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments[0].notes]
    assert pitches == list(range(21, 109))


def test_pitch_and_time_are_right_in_the_file(tmp_path):
    """Middle C for two tokens, a rest, the A above: 0-0.8 s and 1.2-1.6 s, one instrument, eighths at 75 a minute."""
    write_midi([40, 40, 0, 49], tmp_path / "a.mid", frame_seconds=0.4)
    song = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    assert len(song.instruments) == 1
    notes = [(note.pitch, note.start, note.end) for note in song.instruments[0].notes]
    np.testing.assert_allclose(notes, [(60, 0, 0.8), (69, 1.2, 1.6)], atol=1e-9)
    file = mido.MidiFile(tmp_path / "a.mid")
    assert [message.tempo for message in file.tracks[0] if message.type == "set_tempo"] == [800_000]
    np.testing.assert_allclose(file.length, 1.6, atol=0.002)  # the end of the track is a tick later


def test_files_do_not_share_an_instrument(tmp_path):
    for number, tokens in enumerate(([40, 41], [42])):
        write_midi(tokens, tmp_path / f"{number}.mid")
    assert read_tokens(tmp_path / "1.mid").tolist() == [42]
    assert len(to_pretty_midi([42]).instruments) == 1


@pytest.mark.parametrize("tokens", [[START], [-1], [[1, 2]], [1.5], ["a"], 3])
def test_what_is_not_a_token_sequence_is_refused(tmp_path, tokens):
    with pytest.raises(DataError, match=r"integers in 0\.\.88"):
        write_midi(tokens, tmp_path / "a.mid")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame_seconds", [0, -1, float("nan"), 0.001, 11, float("inf")])
def test_frame_seconds_is_bounded(tmp_path, frame_seconds):
    with pytest.raises(DataError, match=r"frame_seconds must be in 0\.01\.\.10\.0"):
        to_pretty_midi([1], frame_seconds)
    with pytest.raises(DataError, match=r"frame_seconds must be in 0\.01\.\.10\.0"):
        load_tunes(tmp_path, frame_seconds)


@pytest.mark.parametrize("frame_beats", [-1, 0.06, 4.1, float("nan"), float("inf")])
def test_frame_beats_is_bounded(tmp_path, frame_beats):
    for attempt in (
        lambda: to_pretty_midi([1], 0.4, frame_beats),
        lambda: load_tunes(tmp_path, frame_beats=frame_beats),
        lambda: read_tokens(tmp_path / "a.mid", frame_beats=frame_beats),
    ):
        with pytest.raises(DataError, match=r"frame_beats must be 0 or in 0\.0625\.\.4\.0"):
            attempt()


def test_a_file_is_written_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.mid"
    write_midi([40], path)
    before = path.read_bytes()

    def no_space(*args):
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_midi([41] * 100, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# --- the time grid


def test_gaps_of_a_tick_between_notes_are_no_rests(tmp_path):
    """Quarter notes as abc2midi writes them. The piano roll sampled on the grid has a rest at every fifth frame."""
    notes = [(TICKS * i, TICKS * (i + 1) - 1, 60 + i % 12) for i in range(32)]
    path = save(tmp_path / "a.mid", track(*notes))
    tokens = read_tokens(path)
    assert len(tokens) == 40 and np.all(tokens != REST)
    sampled = pretty_midi.PrettyMIDI(str(path)).instruments[0].get_piano_roll(fs=1 / 0.4).any(axis=0)
    assert np.flatnonzero(~sampled[:39]).tolist() == [4, 9, 14, 19, 24, 29, 34]


def test_a_frame_is_the_pitch_that_sounds_longest_in_it(tmp_path):
    # Frames end at ticks 384, 768, 1152. In the second, 62 sounds in two parts that together are longest.
    path = save(tmp_path / "a.mid", track((0, 200, 60), (200, 500, 62), (500, 640, 64), (640, 1152, 62)))
    assert read_tokens(path).tolist() == [60 - 20, 62 - 20, 62 - 20]


def test_a_tie_goes_to_the_higher_pitch(tmp_path):
    for first, second in ((60, 72), (72, 60)):
        path = save(tmp_path / "a.mid", track((0, 192, first), (192, 384, second)))
        assert read_tokens(path).tolist() == [72 - 20]


@pytest.mark.parametrize(("sounding", "token"), [(192, 40), (191, REST)])
def test_a_frame_is_a_rest_only_if_more_than_half_is_silent(tmp_path, sounding, token):
    path = save(tmp_path / "a.mid", track((0, 384, 62), (384, 384 + sounding, 60), (768, 1152, 62)))
    assert read_tokens(path).tolist() == [42, token, 42]


@pytest.mark.parametrize(("end", "frames"), [(575, 1), (576, 2)])
def test_a_last_piece_of_half_a_frame_counts(tmp_path, end, frames):
    path = save(tmp_path / "a.mid", track((0, end, 60)))
    assert read_tokens(path).tolist() == [40] * frames


@pytest.mark.parametrize("where", [0, 1], ids=["first track", "second track"])
def test_tempo_changes_count(tmp_path, where):
    """At 60 a minute a beat is a second; from beat 2 on, at 240, it is a quarter: 1 s = 10 frames of 0.1 s."""
    changes = [tempo(0, 1_000_000), tempo(2 * TICKS, 250_000)]
    notes = [(0, TICKS, 60), (TICKS, 2 * TICKS, 62), (2 * TICKS, 6 * TICKS, 64), (6 * TICKS, 7 * TICKS, 65)]
    tracks = [track(extra=changes), track(*notes)] if where == 0 else [track(*notes, extra=changes)]
    path = save(tmp_path / "a.mid", *tracks)
    # The last quarter of a second is 2.5 frames.
    assert read_tokens(path, 0.1).tolist() == [40] * 10 + [42] * 10 + [44] * 10 + [45] * 3


def test_tempo_changes_in_several_tracks_are_put_in_order(tmp_path):
    late, early = track(extra=[tempo(TICKS, 250_000)]), track((0, 2 * TICKS, 60), extra=[tempo(0, 1_000_000)])
    assert len(read_tokens(save(tmp_path / "a.mid", late, early), 0.05)) == 25


def test_beats_are_those_of_the_file(tmp_path):
    """Eighths and sixteenths, whatever the tempo and its changes; by the second the same file is another tune."""
    notes = [(0, 240, 60), (240, 480, 62), (480, 600, 64), (600, 720, 65), (720, 960, 64), (960, 1440, 60)]
    path = save(
        tmp_path / "a.mid", track(*notes, extra=[tempo(0, 1_000_000), tempo(480, 300_000), tempo(777, 450_000)])
    )
    assert read_tokens(path, frame_beats=0.25).tolist() == [40, 40, 42, 42, 44, 45, 44, 44, 40, 40, 40, 40]
    assert read_tokens(path, frame_beats=0.5).tolist() == [40, 42, 45, 44, 40, 40]  # a tie goes to the higher pitch
    assert read_tokens(path, frame_beats=1).tolist() == [42, 44, 40]
    assert len(read_tokens(path, 0.25)) == 7  # 1 s, 0.3 · 297 / 480 s and 0.45 · 663 / 480 s


def test_ticks_that_are_no_whole_millionths_of_a_beat(tmp_path):
    mido.MidiFile(ticks_per_beat=96, tracks=[track(*((32 * i, 32 * i + 31, 60 + i % 2) for i in range(300)))]).save(
        tmp_path / "a.mid"
    )
    assert read_tokens(tmp_path / "a.mid", frame_beats=1 / 3).tolist() == [40, 41] * 150


def test_the_tempo_of_tunes_is_the_median_of_those_that_train(folder):
    """A tune's own is beats over minutes: here 2 beats of 1 s and 6 of 0.5 s make 96 a minute."""
    for number, changes in enumerate(([tempo(0, 1_000_000), tempo(960, 500_000)], [tempo(0, 400_000)], [])):
        notes = track(*((480 * i, 480 * i + 480, 60 + i) for i in range(8)), extra=changes)
        save(folder / "train" / f"{number}.mid", notes)
    for cached in (False, False, True):
        assert load_tunes(folder, min_len=8, cache=cached).tempo == 120  # of 96, 150, 120
    (folder / "train" / "2.mid").unlink()
    assert load_tunes(folder, frame_beats=1, min_len=8).tempo == 123
    save(folder / "train" / "0.mid", track(*((480 * i, 480 * i + 480, 60 + i) for i in range(8)), extra=[tempo(0, 9)]))
    (folder / "train" / "1.mid").unlink()
    assert load_tunes(folder, frame_beats=1, min_len=8).tempo == folders.MAX_TEMPO


def test_resolution_and_default_tempo(tmp_path):
    mido.MidiFile(ticks_per_beat=96, tracks=[track((0, 96, 60), (96, 384, 62))]).save(tmp_path / "a.mid")
    assert read_tokens(tmp_path / "a.mid", 0.25).tolist() == [40] * 2 + [42] * 6


def test_pitches_off_the_piano_move_by_octaves(tmp_path):
    pitches = [0, 20, 21, 108, 109, 127]
    path = save(tmp_path / "a.mid", track(*((384 * i, 384 * i + 384, pitch) for i, pitch in enumerate(pitches))))
    assert (read_tokens(path) + 20).tolist() == [24, 32, 21, 108, 97, 103]


# --- which notes are the melody

TUNE = [(384 * i, 384 * i + 384, 67 + i % 5) for i in range(8)]
CHORDS = [(1536 * i, 1536 * i + 1536, pitch) for i in range(3) for pitch in (48, 55, 64)]  # the last one: chords alone


def test_chords_under_a_silent_melody_are_a_rest(tmp_path):
    path = save(tmp_path / "a.mid", track(*TUNE, velocity=105), track(*CHORDS, channel=2, velocity=75))
    assert read_tokens(path).tolist() == [47, 48, 49, 50, 51, 47, 48, 49, 0, 0, 0, 0]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("loud", [20, 120])
def test_the_melody_is_found_whatever_its_place_and_loudness(tmp_path, order, loud):
    tracks = [track(*TUNE, velocity=70), track(*CHORDS, channel=2, velocity=loud)][::order]
    assert read_tokens(save(tmp_path / "a.mid", *tracks))[:8].tolist() == [47, 48, 49, 50, 51, 47, 48, 49]


def test_channels_of_one_track_are_voices(tmp_path):
    both = mido.merge_tracks([track(*TUNE), track(*CHORDS, channel=2)])
    assert read_tokens(save(tmp_path / "a.mid", both, kind=0))[:8].tolist() == [47, 48, 49, 50, 51, 47, 48, 49]


def test_a_low_melody_under_long_chords_is_found(tmp_path):
    """The chord is on top for most of the time, but most onsets above it are the tune's (a case in Nottingham)."""
    tune = [(240 * i, 240 * i + 120, (69, 52, 67)[i % 3]) for i in range(24)]
    chords = [(1440 * i, 1440 * i + 1440, pitch) for i in range(4) for pitch in (57, 61, 64)]
    notes = midi.read_notes(save(tmp_path / "a.mid", track(*chords), track(*tune, channel=1)).read_bytes())
    assert set(melody(notes).voice) == {17}


def test_drums_are_no_melody(tmp_path):
    drums = track(*((96 * i, 96 * i + 48, 80) for i in range(32)), channel=9)
    assert read_tokens(save(tmp_path / "a.mid", drums, track(*TUNE)))[:8].tolist() == [47, 48, 49, 50, 51, 47, 48, 49]


def test_a_change_of_instrument_does_not_split_the_melody(tmp_path):
    change = (1536, mido.Message("program_change", program=73))
    assert np.all(read_tokens(save(tmp_path / "a.mid", track(*TUNE, extra=[change]))) != REST)


def test_the_highest_of_overlapping_notes_wins(tmp_path):
    path = save(tmp_path / "a.mid", track((0, 1152, 60), (384, 768, 72), (384, 768, 64)))
    assert read_tokens(path).tolist() == [40, 52, 40]


def test_a_note_struck_again_at_the_tick_of_its_release(tmp_path):
    """Whichever of the two events stands first, and whether the release is a note_off or an onset of velocity 0."""
    on, off = mido.Message("note_on", note=60, velocity=80), mido.Message("note_on", note=60, velocity=0)
    for middle in ([off, on], [on, off]):
        events = [on, middle[0].copy(time=384), middle[1], off.copy(time=768)]
        assert read_tokens(save(tmp_path / "a.mid", mido.MidiTrack(events))).tolist() == [40, 40, 40]


# --- folders


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder `tunes` with three tunes in each split, of 40 tokens and more."""
    root = tmp_path / "tunes"
    for place, split in enumerate(SPLITS):
        (root / split).mkdir(parents=True)
        for number in range(3):
            write_midi(scale_tune(40 + number, 50 + 3 * place + number), root / split / f"{number}.mid")
    return root


def same(a: folders.Tunes, b: folders.Tunes) -> bool:
    pairs = [pair for split in SPLITS for pair in zip(getattr(a, split), getattr(b, split), strict=True)]
    return (a.skipped, a.tempo) == (b.skipped, b.tempo) and all(np.array_equal(x, y) for x, y in pairs)


def test_splits_are_read_as_they_are_and_in_order(folder):
    tunes = load_tunes(folder)
    assert tunes.skipped == []
    for place, split in enumerate(SPLITS):
        assert all(tune.dtype == np.int32 for tune in getattr(tunes, split))
        expected = [scale_tune(40 + number, 50 + 3 * place + number) for number in range(3)]
        assert [tune.tolist() for tune in getattr(tunes, split)] == [tune.tolist() for tune in expected]


def test_rests_at_the_ends_are_trimmed_and_those_inside_kept(folder):
    write_midi([0, 0, *[40] * 20, 0, *[41] * 19, 0], folder / "train" / "0.mid")
    assert load_tunes(folder).train[0].tolist() == [40] * 20 + [0] + [41] * 19


@pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (12, (9, 2, 1))])
def test_a_plain_folder_is_dealt_out_in_tens(tmp_path, count, sizes):
    (tmp_path / "more").mkdir()
    for number in range(count):
        write_midi(scale_tune(32 + number), tmp_path / ("more" if number % 2 else ".") / f"{number:02d}.midi")
    (tmp_path / "0.mid").write_text("not usable, so it takes nobody's place")
    tunes = load_tunes(tmp_path)
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
    tunes = load_tunes(tmp_path)
    lengths = [{len(tune) for tune in getattr(tunes, split)} for split in SPLITS]
    assert [len(getattr(tunes, split)) for split in SPLITS] == [18, 4, 2]
    assert sum(map(len, lengths)) == len(set.union(*lengths)) == 12


def test_only_midi_files_that_show_are_read(folder):
    good = (folder / "train" / "0.mid").read_bytes()
    for name in ("3.MID", "4.midi", ".5.mid", "6.txt", "deeper/7.mid", ".hidden/8.mid"):
        (folder / "train" / name).parent.mkdir(exist_ok=True)
        (folder / "train" / name).write_bytes(good)
    (folder / "train" / "folder.mid").mkdir()
    tunes = load_tunes(folder)
    assert len(tunes.train) == 6 and tunes.skipped == []


def test_what_runs_have_written_is_not_read(folder):
    """Their directories may lie among the tunes: told by what is in them, or named before there is anything."""
    good = (folder / "train" / "0.mid").read_bytes()
    run, new, mine = folder / "train" / "logs" / "run", folder / "train" / "logs" / "new", folder / "train" / "mine"
    for place in (run, run / "samples", new, mine):
        place.mkdir(parents=True, exist_ok=True)
        (place / "sample0.mid").write_bytes(good)
    for name in ("config.json", "metrics.csv"):
        (run / name).touch()
    (mine / "config.json").touch()  # of something else
    assert len(load_tunes(folder).train) == 5
    assert len(load_tunes(folder, besides=folder / "train" / "mine" / ".." / "logs" / "new").train) == 4
    assert len(load_tunes(run, min_len=1).train) == 2  # asked for, they are


def test_what_cannot_be_used_is_skipped_with_a_warning_that_says_why(folder, caplog):
    bad = folder / "train"
    good = (bad / "0.mid").read_bytes()
    (bad / "empty.mid").write_bytes(b"")
    (bad / "text.mid").write_text("X:1\nT:a tune in ABC\nK:G\n")
    (bad / "cut.mid").write_bytes(good[: len(good) // 2])
    (bad / "large.mid").write_bytes(bytes(midi.MAX_FILE_BYTES + 1))
    write_midi(scale_tune(31), bad / "short.mid")
    write_midi([0] * 40, bad / "silent.mid")
    save(bad / "drums.mid", track(*TUNE * 8, channel=9))
    save(bad / "endless.mid", mido.MidiTrack([mido.Message("note_on", note=60 + i, time=384) for i in range(40)]))
    save(bad / "hours.mid", track((0, 960 * 3601, 60)))
    save(bad / "type2.mid", track(*TUNE * 8), kind=2)
    (bad / "smpte.mid").write_bytes(smf(b"\0\xff\x2f\0", division=0xE728))
    with caplog.at_level(logging.WARNING):
        tunes = load_tunes(folder, min_len=32)
    assert len(tunes.train) == 3
    reasons = dict(tunes.skipped)
    expected = {
        "train/cut.mid": "ends too early",
        "train/drums.mid": "no melody: it has no notes, or only drums",
        "train/empty.mid": "empty file",
        "train/endless.mid": "no melody: none of its notes has an end",
        "train/hours.mid": "lasts 3601 s; the limit is 3600 s",
        "train/large.mid": "larger than 1048576 bytes",
        "train/short.mid": "too short: 31 tokens of 0.4 s, 32 needed",
        "train/silent.mid": "no melody: it has no notes, or only drums",
        "train/smpte.mid": "time in SMPTE frames is not read, only in ticks a beat",
        "train/text.mid": "MThd not found. Probably not a MIDI file",
        "train/type2.mid": "MIDI files of type 2 are not read, only types 0 and 1",
    }
    assert reasons == expected
    # A line a reason; of several files that have one, the first and how many there are besides.
    silent = expected.pop("train/silent.mid")
    told = [f"skipped {folder / name}: {reason}" for name, reason in expected.items()]
    assert caplog.messages == [line.replace(f": {silent}", f" and 1 more: {silent}") for line in told]


def test_reasons_that_differ_in_numbers_alone_are_one(folder, caplog):
    for length in (3, 20, 31):
        write_midi(scale_tune(length), folder / "valid" / f"short{length}.mid")
    with caplog.at_level(logging.WARNING):
        load_tunes(folder, min_len=32)
    shown = folder / "valid" / "short20.mid"
    assert caplog.messages == [f"skipped {shown} and 2 more: too short: 20 tokens of 0.4 s, 32 needed"]


def test_odd_events_and_empty_tracks_do_no_harm(folder):
    odd = [
        (0, mido.MetaMessage("key_signature", key="F#m")),
        (0, mido.MetaMessage("time_signature", numerator=7, denominator=8)),
        (0, mido.UnknownMetaMessage(0x4B, data=(1, 2, 3))),
        (5, mido.MetaMessage("sequencer_specific", data=(0, 1))),
        (9, mido.MetaMessage("text", text="\xfc\xff")),
        (9, mido.Message("sysex", data=(1, 2))),
        (50, mido.Message("pitchwheel", pitch=-8192)),
        tempo(100, BEAT),
    ]
    path = save(folder / "train" / "0.mid", track(), track(*TUNE, extra=odd), track(extra=odd))
    content = path.read_bytes()
    content = content[:10] + struct.pack(">H", 4) + content[12:] + b"MTrk\0\0\0\0"  # a track without a single event
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tunes = load_tunes(folder, min_len=8)
    assert tunes.train[0].tolist() == [47, 48, 49, 50, 51, 47, 48, 49] and tunes.skipped == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "tunes: no such folder"),
        (lambda root: root.mkdir(), "tunes: no .mid or .midi file in it"),
        (lambda root: (root / "train").mkdir(parents=True), "tunes: has train but not all of train, valid and test"),
        (lambda root: root.write_text("a file"), "tunes: no such folder"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_clear_line(tmp_path, make, message):
    make(tmp_path / "tunes")
    with pytest.raises(DataError) as error:
        load_tunes(tmp_path / "tunes")
    assert str(error.value).endswith(message) and str(error.value).startswith(str(tmp_path))


def test_nothing_left_is_one_clear_line(folder):
    with pytest.raises(DataError, match=r"no usable tune \(9 of 9 files skipped; train/0.mid: too short: 40 tokens"):
        load_tunes(folder, min_len=100)
    for path in (folder / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"train: no usable tune \(0 of 6 files skipped\)"):
        load_tunes(folder)
    with pytest.raises(DataError, match="min_len"):
        load_tunes(folder, min_len=0)


# --- windows


def test_windows_lie_within_one_tune():
    tunes = [np.arange(7, dtype=np.int32), np.arange(10, 13, dtype=np.int32), np.arange(20, 24, dtype=np.int32)]
    cut = windows(tunes, seq_len=4, stride=2)
    assert cut.dtype == np.int32
    assert cut.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [20, 21, 22, 23]]
    assert windows([], 4, 1).shape == (0, 4) and windows([], 4, 1).dtype == np.int32
    for seq_len, stride in ((0, 1), (4, 0)):
        with pytest.raises(DataError):
            windows(tunes, seq_len, stride)


# --- the cache


@pytest.fixture
def parsed(monkeypatch) -> list[Path]:
    """The files that were parsed and not taken from a cache."""
    seen = []
    plain = folders._parse

    def counted(path, frame):
        seen.append(path)
        return plain(path, frame)

    monkeypatch.setattr(folders, "_parse", counted)
    return seen


def test_the_cache_gives_the_same_and_parses_nothing(folder, parsed, caplog):
    (folder / "train" / "bad.mid").write_text("bad")
    first = load_tunes(folder)
    assert len(parsed) == 10 and (folder / ".tokens-0.4s.npz").is_file()
    caplog.clear()
    again = load_tunes(folder)
    assert len(parsed) == 10 and same(first, again) and len(again.skipped) == 1
    assert len(caplog.messages) == 1
    assert len(load_tunes(folder, min_len=41).train) == 2 and len(parsed) == 10
    assert [path.name for path in folder.iterdir() if path.is_file()] == [".tokens-0.4s.npz"]


def test_whatever_the_tokens_depend_on_makes_them_parsed_again(folder, parsed, monkeypatch):
    load_tunes(folder)

    def parsed_again(**arguments) -> bool:
        parsed.clear()
        load_tunes(folder, **arguments)
        return bool(parsed)

    assert not parsed_again()
    assert parsed_again(frame_seconds=0.2)
    assert not parsed_again() and not parsed_again(frame_seconds=0.2)
    assert parsed_again(frame_beats=0.2) and not parsed_again(frame_beats=0.2) and not parsed_again(frame_seconds=0.2)
    path = folder / "train" / "0.mid"
    content = path.read_bytes()
    path.write_bytes(content.replace(bytes([50]), bytes([51])))  # the same size
    assert parsed_again() and load_tunes(folder).train[0][0] == 31
    path.rename(folder / "train" / "00.mid")  # the same place in the order
    assert parsed_again()
    (folder / "valid" / "0.mid").unlink()
    assert parsed_again()
    assert not parsed_again()
    assert parsed_again(cache=False)
    monkeypatch.setattr(folders, "_CACHE_VERSION", folders._CACHE_VERSION + 1)
    assert parsed_again()


def test_a_damaged_cache_is_built_again(folder, parsed):
    first = load_tunes(folder)
    cache = folder / ".tokens-0.4s.npz"
    whole = cache.read_bytes()
    rng = random.Random(0)
    for trial in range(60):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        cache.write_bytes((bytes(damaged), whole[: rng.randrange(len(whole))], b"")[trial % 3])
        parsed.clear()
        assert same(load_tunes(folder), first)
        assert not parsed or cache.read_bytes() == whole  # a flipped bit may hit a byte that means nothing
    assert same(load_tunes(folder), first)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": np.full(369, 89, np.int32)},
        {"tokens": np.full(369, -1, np.int32)},
        {"tokens": np.full(369, 1.0)},
        {"tokens": np.zeros(368, np.int32)},
        {"lengths": np.array([369])},
        {"reasons": np.array([""])},
        {"lengths": np.array([369]), "reasons": np.array([""])},
        {"lengths": np.array([400, -31, 0, 0, 0, 0, 0, 0, 0])},
    ],
)
def test_a_cache_that_says_impossible_things_is_not_believed(folder, parsed, wrong):
    first = load_tunes(folder)
    cache = folder / ".tokens-0.4s.npz"
    with np.load(cache) as arrays:
        content = {**arrays, **wrong}
    np.savez(cache, **content)
    parsed.clear()
    assert same(load_tunes(folder), first) and len(parsed) == 9


def test_a_cache_is_written_as_a_whole_or_not_at_all(folder, cache_home, monkeypatch):
    def no_space(*args):
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", no_space)
    assert len(load_tunes(folder).train) == 3
    written = [path for place in (folder, cache_home) for path in place.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} == {".mid"}


def test_a_cache_is_data_and_never_code(folder, tmp_path):
    class Code:
        def __reduce__(self):
            return (tmp_path / "was_run").touch, ()

    load_tunes(folder)
    cache = folder / ".tokens-0.4s.npz"
    with np.load(cache) as arrays:
        content = {**arrays, "tokens": np.array([Code()])}
    np.savez(cache, **content)
    load_tunes(folder)
    assert not (tmp_path / "was_run").exists()


def test_a_cache_that_unpacks_without_end_is_not_read(folder, parsed, monkeypatch):
    load_tunes(folder)
    parsed.clear()
    monkeypatch.setattr(folders, "_MAX_CACHE_BYTES", 1000)
    load_tunes(folder)
    assert len(parsed) == 9


def test_where_the_folder_cannot_be_written_the_cache_is_elsewhere_or_nowhere(
    folder, parsed, cache_home, monkeypatch, tmp_path
):
    (folder / ".tokens-0.4s.npz").mkdir()  # in the way, also of a superuser
    load_tunes(folder)
    load_tunes(folder)
    assert len(parsed) == 9 and len(list((cache_home / "seqgan").glob("*.npz"))) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_tunes(folder)
    assert len(parsed) == 18
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home directory")))
    load_tunes(folder)
    assert len(parsed) == 27
    assert sorted(path.name for path in folder.iterdir()) == [".tokens-0.4s.npz", "test", "train", "valid"]


# --- hostile files


class Hang(BaseException):
    """Raised by an alarm; not an Exception, so the loader cannot take it for a damaged file."""


@pytest.fixture
def bounded():
    """Fail when the test takes 60 s or Python allocates more than 64 MB at once during it."""

    def ring(*args):
        raise Hang

    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, ring)
        signal.alarm(60)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damage a file. Half the time a few bytes get other values below 128, and what mido reads may still be whole.

    Else bytes are changed, inserted, removed or repeated, numbers made extreme, the file cut.
    """
    damaged = bytearray(content)
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 2, 4))):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(128)
        return bytes(damaged)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(damaged) + 1)
        length = rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                damaged[at : at + length] = rng.randbytes(length)
            case 1:
                damaged[at:at] = rng.randbytes(length)
            case 2:
                del damaged[at : at + length]
            case 3:
                damaged[at:at] = damaged[rng.randrange(len(damaged) + 1) :][:64]
            case 4:
                damaged[at : at + length] = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * length
            case 5:
                del damaged[max(at, 1) :]
    return bytes(damaged)


def test_2000_damaged_files_are_read_or_skipped(tmp_path, bounded, caplog):
    write_midi([40, 0, 42, 88, 1] * 8, tmp_path / "0.mid")
    save(tmp_path / "1.mid", track(extra=[tempo(0, BEAT), tempo(960, 300_000)]), track(*TUNE * 2), track(*CHORDS))
    odd = [(9, mido.Message("sysex", data=(1, 2))), (9, mido.MetaMessage("key_signature", key="Bb"))]
    save(tmp_path / "2.mid", track(*TUNE, extra=odd), kind=0)
    whole = [(tmp_path / f"{number}.mid").read_bytes() for number in range(3)]
    rng = random.Random(0)
    for number in range(2000):
        (tmp_path / f"damaged_{number}.mid").write_bytes(mutate(whole[number % 3], rng))
    tunes = load_tunes(tmp_path, min_len=1, cache=False)
    read = sum(len(getattr(tunes, split)) for split in SPLITS)
    assert read + len(tunes.skipped) == 2003 and 5 < len(caplog.messages) < 100
    assert read > 200 and len(tunes.skipped) > 800  # damage of both kinds was tried
    assert all(tune.min() >= 0 and tune.max() < VOCAB_SIZE for tune in tunes.train)
    assert all(reason and "\n" not in reason and len(reason) <= 200 for _, reason in tunes.skipped)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (smf(b"\xff" * 1_000_000), "a number in it never ends"),
        (smf(b"\x80" * 1_000_000), "a number in it never ends"),
        (smf(b"\x00\x90\x40\x40\xff\xff\xff\x7f\x40\x00"), "lasts 279620 s; the limit is 3600 s"),
        (smf(b"\x00\x90\x40\x40" + b"\xff" * 9 + b"\x7f\x40\x00"), "longer than 1099511627776 ticks"),
        (smf(b"\x00\xff\x51\x03\xff\xff\xff\x00\x90\x40\x40\xff\xff\x7f\x40\x00"), "lasts 73301 s"),
        (smf(b"\x00\xff\x01\xff\xff\xff\x7f"), "Message length"),
        (smf(b"\x00\xff\x51\x03\x00\x00\x00\x00\x90\x40\x40\x83\x00\x40\x00"), "no melody"),
        (smf(b"", division=0), "time in SMPTE frames"),
        (smf(b"", tracks=65535, division=96), "no melody"),
        (b"MThd\xff\xff\xff\xff", "ends too early"),
    ],
    ids=range(10),
)
def test_files_made_to_exhaust_the_reader_are_skipped(tmp_path, bounded, content, reason):
    write_midi(scale_tune(40), tmp_path / "good.mid")
    (tmp_path / "bad.mid").write_bytes(content)
    tunes = load_tunes(tmp_path, frame_seconds=0.01, cache=False)
    assert len(tunes.train) == 1 and [name for name, _ in tunes.skipped] == ["bad.mid"]
    assert tunes.skipped[0][1].startswith(reason)


def test_an_hour_in_frames_of_10_ms_is_read(tmp_path, bounded):
    path = save(tmp_path / "a.mid", track((0, 960 * 3599, 60)))
    assert len(read_tokens(path, 0.01)) == 359_900


# --- the real set


@pytest.fixture(scope="module")
def nottingham(tmp_path_factory, shared_data) -> Path:
    place = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(shared_data("Nottingham.zip")) as archive:
        archive.extractall(place)
    return place / "Nottingham"


def test_nottingham_statistics(nottingham):
    """The measured numbers; another count of tokens or rests means that the reader has changed."""
    tunes = load_tunes(nottingham)
    assert tunes.skipped == [
        ("train/reels_simple_chords_116.mid", "too short: 25 tokens of 0.4 s, 32 needed"),
        ("train/xmas_simple_chords_7.mid", "too short: 27 tokens of 0.4 s, 32 needed"),
    ]
    found = {}
    for split in SPLITS:
        tokens = np.concatenate(getattr(tunes, split))
        pitch = tokens[tokens != REST] + 20
        rests = int(np.sum(tokens == REST))
        cut = len(windows(getattr(tunes, split), 32, 32)), len(windows(getattr(tunes, split), 32, 1))
        found[split] = len(getattr(tunes, split)), len(tokens), rests, int(pitch.min()), int(pitch.max()), *cut
    assert found == {
        "train": (692, 110_032, 128, 55, 88, 3157, 88_580),
        "valid": (173, 28_340, 29, 55, 86, 813, 22_977),
        "test": (170, 27_750, 24, 57, 86, 794, 22_480),
    }


def test_nottingham_melodies_and_rests(nottingham):
    """The voice chosen, the notes against pretty_midi's, and the rests that sampling on the grid would invent.

    abc2midi writes the tune to channel 0 and what it makes of the chord symbols to channels 1 and 2. The stress of the
    beat, velocities 80, 95 and 105, marks the tune as well; chords have one velocity.
    """
    sizes = {}
    frames = sampled_rests = 0
    for path in folders._midi_files([nottingham / split for split in SPLITS], besides=None):
        sizes[path.parent.name] = sizes.get(path.parent.name, 0) + 1
        notes = midi.read_notes(path.read_bytes())
        tune = melody(notes)
        assert set(tune.voice % 16) == {0}, path.name
        if path.parent.name != "valid":
            continue  # pretty_midi takes three times as long as all else
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tempo marks outside the first track
            song = pretty_midi.PrettyMIDI(str(path))
        theirs = {
            (round(note.start * 960), round(note.end * 960), note.pitch) for i in song.instruments for note in i.notes
        }
        ours = {
            (round(s * 960e-6), round(e * 960e-6), int(p))
            for s, e, p in zip(notes.start, notes.end, notes.pitch, strict=True)
        }
        assert ours <= theirs
        # It makes two notes of a pitch that is struck while it sounds, both with the same end.
        assert all(any(s <= a and (b, c) == (e, p) for s, e, p in ours) for a, b, c in theirs - ours)

        sounding = song.instruments[0].get_piano_roll(fs=1 / 0.4).any(axis=0)
        tokens = trim(to_tokens(tune))
        first = int(np.flatnonzero(to_tokens(tune))[0])
        sounding = np.pad(sounding, (0, max(0, first + len(tokens) - len(sounding))))[first : first + len(tokens)]
        frames, sampled_rests = frames + len(tokens), sampled_rests + int(np.sum(~sounding))
    assert sizes == {"train": 694, "valid": 173, "test": 170}
    assert frames == 28_340 and 0.17 < sampled_rests / frames < 0.18
