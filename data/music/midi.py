"""MIDI files: their notes in, a melody's tokens in and out.

What is written has a tempo mark that makes a token a note value, so that notation programs find every note on their
grid: an eighth at 75 beats a minute for 0.4 s, `Grid.beats` of a quarter note where they are given.

File format: Standard MIDI Files 1.0 (MIDI Manufacturers Association), read with mido. Notes and tempi are taken from
mido's messages here, not by `pretty_midi.PrettyMIDI(path)`: that allocates an array with one entry a tick, ignores
tempo changes outside the first track and splits a voice in two where its instrument changes.
"""

import io
import re
from collections.abc import Callable, Sequence

import mido
import numpy as np
import pretty_midi

from data.music.analysis import analysed
from data.music.tokens import Grid, Notes, melody, note_value, spans, to_tokens
from support.errors import DataError

# What a file may cost. The largest Nottingham file has 19 kB and lasts 7.5 minutes.
MAX_FILE_BYTES = 1 << 20  # mido makes an object of some 300 bytes out of 2 bytes of file
MAX_SECONDS = 3600.0
MAX_BEATS = 36_000.0  # ten a second
MAX_TICKS = 1 << 40  # keeps products with a 24-bit tempo well inside float64

Reader = Callable[[bytes, bool], Notes]  # of a file's content, by the beat or not
_DRUM_CHANNEL = 9
_ALL_NOTES_OFF = 123  # MIDI control number
_DEFAULT_TEMPO = 500_000  # microseconds a quarter note, MIDI's default: 120 a minute
_RESOLUTION = 960  # ticks a beat of what is written: a whole number of them for a 64th of a beat
# mido reads a number as long as the high bit is set, at a quadratic cost: a file of 0xff bytes takes it minutes.
_ENDLESS_NUMBER = re.compile(rb"[\x80-\xff]{4096}")


def read_notes(content: bytes, by_beat: bool = False) -> Notes:
    """Reads the notes of a Standard MIDI File, drums left out.

    A note ends at the first note-off of its channel and pitch; one that is never ended is dropped. Tempo changes count
    whichever track they stand in. The key signature is the first in time.
    `content`: the whole file. `by_beat`: whether times are in millionths of a beat; otherwise in microseconds. Raises
    DataError: the file is too long, of a kind that is not read (type 2, SMPTE time), or none of its notes ends. Raises
    Exception: whatever mido raises on a file that is damaged.
    """
    if _ENDLESS_NUMBER.search(content):
        raise DataError("a number in it never ends")
    midi = mido.MidiFile(file=io.BytesIO(content))
    if midi.type not in (0, 1):
        raise DataError(f"MIDI files of type {midi.type} are not read, only types 0 and 1")
    if midi.ticks_per_beat <= 0:
        raise DataError("time in SMPTE frames is not read, only in ticks a beat")

    rows = []  # start tick, end tick, pitch, voice
    tempi = [(0, _DEFAULT_TEMPO)]  # tick, microseconds a quarter note
    keys: list[tuple[int, str]] = []  # tick, such as Ebm
    last_tick, unended = 0, False
    for number, track in enumerate(midi.tracks):
        tick = 0
        sounding: dict[tuple[int, int], list[int]] = {}  # channel, pitch -> onset ticks
        for message in track:
            tick += message.time
            if tick > MAX_TICKS:
                raise DataError(f"longer than {MAX_TICKS} ticks")
            if message.type == "set_tempo":
                tempi.append((tick, message.tempo))
            elif message.type == "key_signature":
                keys.append((tick, message.key))
            elif message.type in ("note_on", "note_off") and message.channel != _DRUM_CHANNEL:
                key = message.channel, message.note
                if message.type == "note_on" and message.velocity > 0:
                    sounding.setdefault(key, []).append(tick)
                    continue
                onsets = sounding.pop(key, [])
                if ended := [onset for onset in onsets if onset < tick]:
                    rows.append((ended[0], tick, message.note, 16 * number + message.channel))
                    if len(ended) < len(onsets):  # struck again at the very tick of this release
                        sounding[key] = [tick]
        last_tick, unended = max(last_tick, tick), unended or bool(sounding)
    if unended and not rows:
        raise DataError("no melody: none of its notes has an end")

    change, tempo = np.array(sorted(tempi, key=lambda pair: pair[0]), np.int64).T
    micros_per_tick = tempo / midi.ticks_per_beat
    change_time = np.concatenate([[0.0], np.cumsum(np.diff(change) * micros_per_tick[:-1])])

    def time(ticks: np.ndarray, by_beat: bool = by_beat) -> np.ndarray:
        part = np.searchsorted(change, ticks, side="right") - 1
        micros = change_time[part] + (ticks - change[part]) * micros_per_tick[part]
        return np.rint(ticks * (1e6 / midi.ticks_per_beat) if by_beat else micros).astype(np.int64)

    micros, beats = int(time(np.array(last_tick), by_beat=False)), last_tick / midi.ticks_per_beat
    if micros > MAX_SECONDS * 1e6:  # before anything with an entry a frame is made
        raise DataError(f"lasts {micros / 1e6:.0f} s; the limit is {MAX_SECONDS:.0f} s")
    if by_beat and beats > MAX_BEATS:
        raise DataError(f"has {beats:.0f} beats; the limit is {MAX_BEATS:.0f}")
    start, end, pitch, voice = np.array(rows, np.int64).reshape(-1, 4).T
    mean = 6e7 * beats / micros if micros else 6e7 / _DEFAULT_TEMPO
    sharps = None
    if keys:  # fifths above F of the letter, then the accidental and the mode
        name = min(keys, key=lambda pair: pair[0])[1]
        sharps = "FCGDAEB".index(name[0]) - 1 + 7 * (name.count("#") - name.count("b")) - 3 * ("m" in name)
    return Notes(time(start), time(end), pitch, voice, int(time(np.array(last_tick))), mean, sharps)


def melody_of(content: bytes, grid: Grid, read: Reader) -> tuple[np.ndarray, float, int | None]:
    """The melody of a file's content, rests at both ends included: the inverse of `midi_file`.

    `read` reads its notes, by the beat or not. Returns the tokens, int32 [frames], the mean tempo in beats a minute and
    `Notes.sharps`. Raises DataError: it cannot be used.
    """
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"larger than {MAX_FILE_BYTES} bytes")
    try:
        notes = melody(read(content, grid.beats > 0))
        tokens = to_tokens(notes, grid)
        if notes.pitch.size and not tokens.any():
            raise DataError("no melody: no note fills half of a token")
        return tokens, notes.tempo, notes.sharps
    except Exception as error:  # a damaged file makes mido raise almost anything
        raise DataError(one_line(error)) from error


def one_line(error: Exception) -> str:
    """The message of an exception, or its type if there is none, as one line of bounded length."""
    if isinstance(error, EOFError):
        return "ends too early"  # mido says nothing
    return " ".join(str(error).split())[:200] or type(error).__name__


def to_pretty_midi(tokens: Sequence[int] | np.ndarray, grid: Grid) -> pretty_midi.PrettyMIDI:
    """Turns tokens, integers [length], into a song of one instrument.

    A token lasts `grid.seconds`. Its note value, `grid.beats` or else `note_value`, makes the tempo mark.
    """
    tokens = np.asarray(tokens, np.int32)
    beats = grid.beats or note_value(grid.seconds)
    micros = round(grid.seconds / beats * 1e6)  # a beat: a tempo mark holds whole microseconds
    seconds = beats * micros / 1e6  # of a token, on the grid of the ticks
    song = pretty_midi.PrettyMIDI(None, _RESOLUTION, 6e7 / micros / (1 + 1e-12))  # its `write` rounds micros down
    instrument = pretty_midi.Instrument(program=0, name="melody")
    found = ((pitch, first * seconds, end * seconds) for pitch, first, end in spans(tokens, grid.onsets))
    instrument.notes = [pretty_midi.Note(100, *note) for note in found]
    # An event at the very end, so that rests after the last note are not lost.
    instrument.control_changes.append(pretty_midi.ControlChange(_ALL_NOTES_OFF, 0, len(tokens) * seconds))
    song.instruments.append(instrument)
    return song


def midi_file(tokens: Sequence[int] | np.ndarray, grid: Grid, plain: bool = False) -> bytes:
    """A MIDI file (type 1, one song, one instrument) of tokens, integers [length], as `to_pretty_midi` has them.

    `melody_of` gives them back, as long as they last at most `MAX_SECONDS`; a pitch that goes on after another then
    begins. Key and metre are estimated, `plain` as by `analysed`.
    """
    song, tune, content = to_pretty_midi(tokens, grid), analysed(np.asarray(tokens), grid, plain), io.BytesIO()
    song.time_signature_changes = [pretty_midi.TimeSignature(*map(int, tune.metre.split("/")), 0)]
    song.key_signature_changes = [pretty_midi.KeySignature(tune.key.tonic + 12 * tune.key.minor, 0)]
    song.write(content)
    return content.getvalue()
