"""Tunes as ABC, the notation of folk music (abcnotation.com, standard 2.1): written here, read by music21."""

import contextlib
import io
import re

import numpy as np

from data.music.analysis import LETTERS, Sign, Tune, written
from data.music.midi import MAX_BEATS, MAX_FILE_BYTES, one_line
from data.music.tokens import Notes
from support.errors import DataError

HEADER = "%abc-2.1\n"  # a file's first line
_BARS_A_LINE = 4


def to_abc(tune: Tune, seconds: float, number: int, title: str) -> str:
    """Writes a tune, number 1, 2, ... of a file; its tempo makes a token last `seconds`, to whole beats a minute."""
    title = "".join(letter if letter.isprintable() and letter not in "%\\" else " " for letter in title)
    tempo = max(round(60 * tune.value / seconds), 1)
    head = f"X:{number}\nT:{title}\nM:{tune.metre}\nL:1/{4 / tune.value:.0f}\nQ:1/4={tempo}\nK:{tune.key}\n"
    # Spaces part the beams.
    bars = ["".join(" " * (sign.start % tune.beam == 0) + _text(sign) for sign in bar)[1:] for bar in written(tune)]
    lines = [" | ".join(bars[i : i + _BARS_A_LINE]) for i in range(0, len(bars), _BARS_A_LINE)]
    return head + " |\n".join(lines) + " |]\n"


def _text(sign: Sign) -> str:
    length = str(sign.length) if sign.length > 1 else ""
    if sign.step is None:
        return f"z{length}"
    letter, octave = LETTERS[sign.step % 7], sign.step // 7
    name = letter + "," * (4 - octave) if octave <= 4 else letter.lower() + "'" * (octave - 5)
    return ("" if sign.sharp is None else "_=^"[sign.sharp + 1]) + name + length + "-" * sign.tied


def read_abc(content: bytes, by_beat: bool = False) -> Notes:
    """Reads the first tune of an ABC file, without its repeats.

    `content`: the whole file. `by_beat`: as in `midi.read_notes`; the tempo is that of the first mark or 120 beats a
    minute. Raises DataError: music21 is not installed, or finds no tune, or the file or tune is too long.
    """
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"larger than {MAX_FILE_BYTES} bytes")
    try:
        import music21  # optional; it takes a second
    except ImportError:
        raise DataError("ABC files are read by music21, which is not installed: pip install music21") from None
    text = content.decode("utf-8", "replace")
    if "[V:" in text:
        raise DataError("voices that change within a line, [V:...], are not read")
    # A head with neither M: nor L: means eighths (ABC 2.1), which music21 would be told.
    text = re.sub(r"^X:.*\n(?:(?![LMK]:).*\n)*(?=K:)", lambda head: head[0] + "L:1/8\n", text, flags=re.MULTILINE)
    text = text if text.startswith("%abc") else HEADER + text  # else no accidental holds until the bar line
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it has much to say
            parsed = music21.converter.parseData(text, format="abc")
    except Exception as error:  # it may raise almost anything
        raise DataError(f"no ABC that music21 reads: {one_line(error)}") from error
    score = parsed.scores[0] if isinstance(parsed, music21.stream.Opus) else parsed
    rows = [
        (note.offset, note.offset + note.quarterLength, max(pitch.midi for pitch in note.pitches), voice)
        for voice, part in enumerate(score.parts)
        for note in part.flatten().stripTies().notes
        if note.quarterLength and not isinstance(note, music21.harmony.ChordSymbol)
    ]
    if not rows:
        raise DataError("no tune in it")
    if score.highestTime > MAX_BEATS:
        raise DataError(f"has {score.highestTime:.0f} beats; the limit is {MAX_BEATS:.0f}")
    marks = score.flatten().getElementsByClass(music21.tempo.MetronomeMark)
    tempo = float((marks and marks[0].getQuarterBPM()) or 120)
    scale = 1e6 if by_beat else 60e6 / tempo
    start, end, pitch, voice = np.array(rows, float).T
    start, end = (np.rint(time * scale).astype(np.int64) for time in (start, end))
    return Notes(start, end, pitch.astype(np.int64), voice.astype(np.int64), round(score.highestTime * scale), tempo)
