"""Tunes as ABC, the notation of folk music (abcnotation.com, standard 2.1): written here, read by music21."""

import contextlib
import importlib.util
import io
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

import numpy as np

from data.music.analysis import LETTERS, Sign, Tune, written
from data.music.midi import MAX_BEATS, MAX_FILE_BYTES, one_line
from data.music.tokens import Notes
from support.errors import DataError

HEADER = "%abc-2.1\n"  # a file's first line
_BARS_A_LINE = 4
_LINE = " || "  # at single bar lines music21 makes measures and beams, which takes most of its time
_TUNE = re.compile("^(?=X:)", re.MULTILINE)  # where one begins
_BLOCK = re.compile(r"^%%begin(\w+).*?(?:^%%end\1[^\n]*\n?|\Z)", re.MULTILINE | re.DOTALL)  # of text
_QUOTED = re.compile(r'"[^"]*"')  # chord symbols and other text
_HEARD = "MLQK"  # the fields on which notes depend: metre, length of a note, tempo, key
_FIELD = re.compile(r"((?![A-Ga-gx-zXZ]:\s*[|:])[A-Za-z+]):\s*(.*)")  # no note before a repeat; + goes on with another
_INLINE = re.compile(r"\[([A-Za-z]):([^][]*)\]")
_UNHEARD = re.compile(  # but for fields: decorations, `!` at the end of a line, grace notes, slurs, space
    rf"(?P<field>{_INLINE.pattern})|(?P<jump>[!+](?:D\.[CS]\.|dacapo|dacoda|dalsegno))|!(?:[^!|]*!)?|"
    r"\+[^+|]{,20}[h-w][^+|]{,20}\+|(?P<other>[&+])|\{[^{}]*\}|\((?!\d)|\)|y[\d/]*|[H-Wh-w~.]"
)
_JUMP = re.compile(r"(?<![A-Za-z])(?:D[CS]\b|(?i:D\.\s*[CS]\b\.?|Da\s*Capo|Dal\s*Segno))")  # in a text
_HEAD = re.compile(  # what comes before the first notes
    rb"(?s)(?:\A.*?\nK:[^\n]*\n)?(?:(?:[A-Za-z+]:|%)[^\n]*\n|\s*\n|\s*\[[A-Za-z]:[^]\n]*\])*"
)
_TEMPI = re.compile(rb"(?m)(?:^|\[)Q:\s*+([^]%\r\n]*[^]%\s])")
_MIDI_MOVE = re.compile(r"%%MIDI\s+transpose\s+[-+]?0*[1-9]")
_MOVE = re.compile(r"(?:^V:\s*\S++|(?:^|\[)K:)[^][]*?([-+^_a-z]8(?!\d)|\b(?:octave|transpose|shift|score|sound)=(?!0))")
_TEMPO = re.compile(r"(?:(?:[1-9]\d{,3}+(?:/[1-9]\d{,3}+)? ?)++=)?[1-9]\d{,3}(?:\.\d*)?")
_FIFTHS = "fcgdaeb"  # the keys from one flat to five sharps; then how many more a mode has
_MODES = {"lyd": 1, "maj": 0, "ion": 0, "mix": -1, "dor": -2, "min": -3, "aeo": -3, "phr": -4, "loc": -5, "m": -3}
_KEY = re.compile(rf"([a-g])([#b]?)\s*(?:({'|'.join(_MODES)})[a-z]*)?(?!\S)")
_ACCIDENTALS = re.compile(r"\bexp\b|(?<![_^])[_^]++[A-Ga-g]\b|\s=[A-Ga-g]\b")  # in a key
_BARS_REST = re.compile(r"[\s\\]*[XZ](\d{,6})[\s\\]*")  # alone between bar lines
_ENDING = re.compile(r"\s*\[?(?P<ending>\d[\d,-]*)")
_PART = re.compile(
    rf"{_INLINE.pattern}|\(\d+(?::\d*)*|(?P<bar>(?::*|:[ \t]+)\[?\|[|\]]*(?::++(?!\|))?|::+)|"
    r"(?:(?<=[|:\]])\[?|\[)(?P<ending>\d[\d,-]*)|[^[:|(]+|.",
    re.DOTALL,
)
_NOTE = re.compile(r"([_^=]{,2})([A-Ga-g])([,']*)([\d/]*)(-?)")
_NEXT = re.compile(rf"[<>\s]*{_NOTE.pattern}")
_CHORD = re.compile(r"\[([^][|\nA-Ga-g]*[A-Ga-g][^][|\n]*)\]([\d/]*)(-?)")


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


def tunes_of(content: bytes) -> list[tuple[str, bytes]]:
    """The tunes of an ABC file: the number of each, and a file of it alone; a tune ends at an empty line."""
    before, *tunes = _TUNE.split(_BLOCK.sub("", "\n".join(content.decode("utf-8-sig", "replace").splitlines())))
    head = [line for line in before.splitlines() if line.strip() and not line.startswith("K:")]
    found = [[*takewhile(str.strip, tune.splitlines())] for tune in tunes]
    return [(first[2:].strip(), "\n".join([first, *head, *rest]).encode()) for first, *rest in found]


def _kept(found: re.Match) -> str:
    """What is left of a match of `_UNHEARD`. Raises DataError: it tells what is played, in a way that is not read."""
    if sign := found["jump"] or found["other"]:
        raise DataError(f"the sign {sign} is not read")
    return found["field"] or ""


def _whole_notes(text: str) -> Fraction:
    """What a metre or a note value lasts, in whole notes: (2+3)/8 five eighths, C and no metre one."""
    *over, under = [int(number) for number in re.findall(r"\d+", text)] or [1]
    return Fraction(sum(over), max(under, 1)) if over else Fraction(1)


def _value(name: str, value: str) -> str:
    """What a field tells: of a key the major one of its signature; raises DataError: it is none, or has accidentals."""
    if name != "K":
        return f"{value}/1" if name == "L" and "/" not in value else value
    if _ACCIDENTALS.search(value):
        raise DataError(f"a key with accidentals is not read: K:{value}")
    key = {"hp": "d", "none": "c", "": "c"}.get(value.partition(" ")[0].lower(), value.lower())  # HP: of bagpipes
    if found := _KEY.match(key):
        fifths = _FIFTHS.index(found[1]) + 7 * {"b": -1, "": 0, "#": 1}[found[2]] + _MODES.get(found[3], 0)
        if -7 < fifths < 9:
            return _FIFTHS[fifths % 7].upper() + "b" * (fifths < 0) + "#" * (fifths > 6)
    raise DataError(f"the key {value} is not read")


def _field(name: str, value: str, now: dict[str, str]) -> str:
    """A line for music21, of a field among `now`: a tempo without blanks at its `=`, and C3 as what three notes last.

    A tempo that is no number, such as 110-120, gives none; one without a beat, of old files, is that of C.
    """
    value = f"C={value}" if name == "Q" and value.isdecimal() else value
    if name == "Q" and "=" in value:
        beat, tempo = (part.strip() for part in value.split("=", 1))
        if old := re.fullmatch(r"C(\d*)", beat):
            beat = "{}/{}".format(*(_whole_notes(now["L"]) * int(old[1] or 1)).as_integer_ratio())
        value = f"{beat}={tempo}"
    return "" if name == "Q" and not _TEMPO.fullmatch(value) else f"{name}:{value}\n"


def _plain(content: bytes) -> str:
    """The first tune of an ABC file as music21 reads it right: its notes and what they depend on, repeats played out.

    Raises DataError: it has no tune, or what is not read here.
    """
    head: dict[str, str] = {}  # ends with the key
    voices: dict[str, list[str]] = {"": []}  # the lines of each
    voice, drums = "", set()
    for line in (tunes_of(content) or [("", b"")])[0][1].decode().splitlines():
        if jump := _JUMP.search(" ".join(_QUOTED.findall(line))):
            raise DataError(f"{jump[0]} is not read")
        if _MIDI_MOVE.match(line):
            raise DataError("notes moved by %%MIDI transpose are not read")
        line = _QUOTED.sub("", line).partition("%")[0].strip().replace("[|]", "|")
        if moved := _MOVE.search(line):
            raise DataError(f"notes moved by {moved[1]} are not read")
        name, value = match.groups() if (match := _FIELD.fullmatch(line)) else ("", line)
        if name == "V":
            voice = value.partition(" ")[0]
            drums |= {voice} if re.search(r"\bperc\b", value) else set()
        elif "K" in head and name and name in _HEARD and not (voice or any(voices[""])):  # of all voices
            head[name] = _value(name, value)
        elif "K" in head and not (name and name not in _HEARD):
            line = f"[{name}:{value}]" if name else _UNHEARD.sub(_kept, line)
            voices.setdefault(voice, []).append(re.sub(r"\[P:[^][]*\]", _LINE, line))
        elif name == "P" and "K" in head:  # a part begins, in all voices
            for lines in filter(None, voices.values()):
                lines.append(_LINE)
        elif name and name in _HEARD:
            head[name] = _value(name, value)
            voice = ""
        elif name == "P" and re.fullmatch(r"[A-Z\d(). ]+", value):  # else it names a part
            parts = [*re.sub("[. ]", "", value)]
            if parts != sorted({*parts}):
                raise DataError(f"an order of parts is not read: P:{value}")
    if "K" not in head:
        raise DataError("no tune in it: X: begins one, and K: its notes")
    head.setdefault("L", "1/16" if _whole_notes(head.get("M", "")) < 0.75 else "1/8")
    found = ["\n".join(lines) for name, lines in voices.items() if lines and name not in drums]
    anew = "".join(_field(name, head[name], head) for name in "MLK" if name in head)  # music21 goes on with a voice's
    notes = [f"V:{i}\n{anew * (i > 1)}{_played_out(lines, head)}" for i, lines in enumerate(found, 1)]
    fields = "".join(_field(name, head[name], head) for name in _HEARD if name in head)
    return f"{HEADER}X:1\n{fields}" + "\n".join(notes) + "\n"


def _played_out(notes: str, head: dict[str, str]) -> str:
    """The notes of a voice with their repeats, by the standard's section 4.8; `head` has the fields before them.

    music21's own `expandRepeats` takes two parts that end in `:|` for one, and plays second endings too late. Raises
    DataError: an ending is that of several passes, or a field is not read.
    """
    played: list[str] = []
    now = dict(head)  # the fields that hold
    section: list[str] = []  # what a repeat sign repeats
    common: list[str] | None = None  # of it, what comes before its endings
    before, ending, explicit, size = dict(now), 0, False, 0
    held: dict[str, str] = {}  # the accidentals of the bar, by the letter

    def signed(note: re.Match) -> str:  # music21 has none from or for a chord, nor double ones
        letter = note[2].upper()
        held[letter] = note[1] or held.get(letter, "")
        after = _NEXT.match(note.string, note.end()) if "]" not in note.string[note.end() :] else None
        slur = after and (after.group(2, 3) != note.group(2, 3) or after[1] not in ("", held[letter]))
        return held[letter] + note[0].removeprefix(note[1]).removesuffix("-" * bool(slur))

    def play(parts: Iterable[str]) -> None:
        for part in parts:
            if field := _INLINE.fullmatch(part):
                now[field[1]] = _value(field[1], field[2].strip())
                part = "\n" + _field(field[1], now[field[1]], now) if field[1] in _HEARD else ""
            elif rest := _BARS_REST.fullmatch(part):
                part = f"z{_whole_notes(now.get('M', '')) * int(rest[1] or 1) / (_whole_notes(now['L']) or 1)}"
            elif part == _LINE:
                held.clear()
            else:
                part = _NOTE.sub(signed, re.sub("[xXZ]", "z", part))  # some write Z for a rest among notes
            played.append(part)

    def again(parts: list[str]) -> None:
        nonlocal size
        size += sum(map(len, parts))
        if size > MAX_FILE_BYTES:
            raise DataError(f"its repeats are longer than {MAX_FILE_BYTES} bytes")
        play([_LINE, *(f"[{name}:{value}]" for name, value in before.items() if now[name] != value), *parts])

    for part in _PART.finditer(notes):
        if number := part["ending"]:
            if not number.isdecimal():
                raise DataError(f"endings of several passes, [{number}, are not read")
            if common is not None and int(number) <= ending:
                raise DataError(f"[{number} after [{ending}, with no double bar line between them, is not read")
            if common is not None:
                again(common)
            common, ending = section[:] if common is None else common, int(number)
        elif sign := part["bar"]:
            ends, begins = sign.startswith(":"), sign.endswith(":")
            more = _ENDING.match(notes, part.end()) and common is not None  # another ending follows
            if ends and not more and ending < 2:
                for _ in range(sign.partition("|")[0].count(":") if "|" in sign else 1):
                    again(section if common is None else common)
            play([_LINE])
            section.append(_LINE)
            double = bool(re.search(r"\|\||[][]", sign)) and (ending > 1 or not (ending or explicit))
            if begins or double or (ends and not more):
                section, before, common, ending, explicit = [], dict(now), None, 0, begins
        else:
            if re.match(r":|\([\d:]*\d\d", part[0]):  # a lone colon, or a tuplet that music21 reads wrong
                raise DataError(f"the sign {part[0]} is not read")
            play([part[0]])
            section.append(part[0])
    return _CHORD.sub(_highest, "".join(played))


def _highest(chord: re.Match) -> str:
    """The highest note of a chord, as long as its first: of a chord music21 knows no tie."""
    notes, steps = _NOTE.findall(chord[1]), LETTERS + LETTERS.lower()
    top = max(notes, key=lambda n: (steps.index(n[1]) + 7 * (n[2].count("'") - n[2].count(",")), n[0].strip("_")))
    (over, *under), (more, *less) = notes[0][3].split("/"), chord[2].split("/")
    length = f"{int(over or 1) * int(more or 1)}/{math.prod(int(number or 2) for number in under + less)}"
    return f"{''.join(top[:3])}{length}{top[4] or chord[3]}"


def check_music21(where: Path | str = "ABC files") -> None:
    """Raises DataError, which names `where`: music21, which is optional, is not installed."""
    if not importlib.util.find_spec("music21"):
        raise DataError(f"{where}: ABC is read by music21, which is not installed: pip install music21")


def read_abc(content: bytes, by_beat: bool = False) -> Notes:
    """Reads the first tune of an ABC file, with its repeats.

    `content`: the whole file. `by_beat`: as in `midi.read_notes`; the tempo is that of the first mark or 120 beats a
    minute. Raises DataError: music21 is not installed, or finds no tune, or the tune is too long or not all read here.
    """
    check_music21()
    import music21  # it takes a second

    if b"[V:" in content:
        raise DataError("voices that change within a line, [V:...], are not read")
    notes = _HEAD.sub(b"", content, count=1)
    before = _TEMPI.findall(content[: len(content) - len(notes)])
    if not by_beat and {*_TEMPI.findall(notes)} - {*before[-1:]}:
        raise DataError("its tempo changes, which only MIDI may where tokens last seconds")
    text = _plain(content)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it has much to say
            parsed = music21.converter.parseData(text, format="abc")
    except Exception as error:  # it may raise almost anything
        raise DataError(f"no ABC that music21 reads: {one_line(error)}") from error
    score = parsed.scores[0] if isinstance(parsed, music21.stream.Opus) else parsed
    rows: list[list[float]] = []  # start, end, pitch, voice
    for voice, part in enumerate(score.parts):
        tied: int | None = None  # the letter of a note with a tie; some write a slur as a tie, to another letter
        for note in part.flatten().notes:
            if not note.quarterLength:
                continue
            pitch, end = max(note.pitches), note.offset + note.quarterLength
            if tied == pitch.diatonicNoteNum and abs(rows[-1][1] - note.offset) < 1e-6:
                rows[-1][1] = end
            else:
                rows.append([note.offset, end, pitch.midi, voice])
            tied = pitch.diatonicNoteNum if note.tie and note.tie.type != "stop" else None
    if not rows:
        raise DataError("no tune in it")
    if score.highestTime > MAX_BEATS:
        raise DataError(f"has {score.highestTime:.0f} beats; the limit is {MAX_BEATS:.0f}")
    flat = score.flatten()
    marks = flat.getElementsByClass(music21.tempo.MetronomeMark)
    keys = flat.getElementsByClass(music21.key.KeySignature)
    keys = [] if re.search(rb"(?m)^K:[ \t]*(?:none\b|\r?$)", content) else keys
    tempo = float((marks and marks[0].getQuarterBPM()) or 120)
    scale = 1e6 if by_beat else 60e6 / tempo
    start, end, pitch, voice = np.rint(np.array(rows, float) * (scale, scale, 1, 1)).astype(np.int64).T
    return Notes(start, end, pitch, voice, round(score.highestTime * scale), tempo, keys[0].sharps if keys else None)
