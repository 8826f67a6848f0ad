"""A tune on a staff, as SVG: the treble clef, notes in the place of their time, beams, ties, accidentals."""

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape

from data.music.analysis import Sign, Tune, repeated_bars, written

_STEP = 4  # pixels: half of what is between two lines; all lengths below are pixels
_MIDDLE = 34  # the step of the middle line, B4
_LEAST_BEAT, _LEAST_TOKEN, _WIDEST = 42, 18, 760
_SHARPS, _FLATS = (38, 35, 39, 36, 33, 37, 34), (34, 37, 33, 36, 32, 35, 31)  # steps of a signature, in their order
_ACCIDENTALS = "♭♮♯"
_CLEF = (
    "M12 12c-5 1-7-7-1-9 6-1 10 5 7 10-4 6-15 4-15-5 0-12 15-14 14-27 0-7-4-10-7-3-3 8 2 26 4 42 1 8-8 10-9 4"
    "m7-21c-4 0-6 4-4 7"
)
_QUARTER_REST = "M-2-12l5 8q-5 5 1 9q-6-2-3 5q-6-4-1-9l-4-5q5-4 2-8z"
_EIGHTH_REST = "M-3-3a2.4 2.4 0 1 0 4.5 0q2 0 3-3l-4.500 14"


def staff(tune: Tune, marked: range = range(0), name: str = "a tune") -> str:
    """Draws a tune as SVG, which screen readers call the score of its name.

    Notes and rests that begin at the tokens of `marked` are of the class `marked`. A bar that occurs before in the tune
    lies on a ground of the class `again`.
    """
    bars, sharps, again = written(tune), tune.key.sharps, repeated_bars(tune)
    steps = [sign.step for bar in bars for sign in bar if sign.step is not None]
    above = (max([*steps, _MIDDLE + 6]) - _MIDDLE) * _STEP + 24
    height = above + (_MIDDLE - min([*steps, _MIDDLE - 6])) * _STEP + 24
    token = max(_LEAST_BEAT * tune.value, _LEAST_TOKEN)
    width = 16 + token * tune.bar
    signature = [(step, 1) for step in _SHARPS[: max(sharps, 0)]] + [(step, -1) for step in _FLATS[: max(-sharps, 0)]]
    left = 32 + 9 * len(signature)
    a_line = max(min(4, int(_WIDEST / width)), 1)  # bars
    drawn = []
    for line, first in enumerate(range(0, len(bars), a_line)):
        begin = left + 22 * (line == 0)
        here = bars[first : first + a_line]
        right = begin + width * len(here)
        grounds = [begin + width * i for i in range(len(here)) if again[first + i : first + i + 1].any()]
        parts = [f'<rect x="{x:g}" y="-22" width="{width:g}" height="44" class="again"/>' for x in grounds]
        parts.append(f'<path d="{"".join(f"M0 {y}H{right:g}" for y in range(-16, 17, 8))}" class="thin"/>')
        parts.append(f'<path d="{_CLEF}" transform="translate(5 0)" class="line"/>')
        parts += [_accidental(24 + 9 * i, step, sharp) for i, (step, sharp) in enumerate(signature)]
        if line == 0:
            metre = zip((-1, 15), tune.metre.split("/"), strict=True)
            parts += [f'<text x="{left}" y="{y}" class="metre">{number}</text>' for y, number in metre]
        for i, bar in enumerate(here):
            x = begin + width * i + 12
            places = [x + token * (sign.start % tune.bar) for sign in bar]
            for _, group in itertools.groupby(zip(places, bar, strict=True), key=lambda pair: _beam(tune, pair[1])):
                parts += _notes(tune, list(group), marked)
            ends = [*places[1:], x + width - 12]
            parts += [_tie(a, b, sign.step) for a, b, sign in zip(places, ends, bar, strict=True) if sign.tied]
            parts.append(f'<path d="M{x + width - 12:g}-16V16" class="thin"/>')
        if first + a_line >= len(bars):
            parts.append(f'<path d="M{right - 1:g}-16V16" class="beam"/>')
        drawn.append(f'<g transform="translate(1 {above + height * line:g})">' + "".join(parts) + "</g>")
    across = left + 24 + width * a_line
    size = f'viewBox="0 0 {across:g} {height * len(drawn):g}" style="max-width:{across:g}px"'
    return f'<svg {size} role="img" aria-label="Score of {escape(name)}">' + "".join(drawn) + "</svg>"


def _y(step: int) -> int:
    return (_MIDDLE - step) * _STEP


def _flags(tune: Tune, sign: Sign) -> int:
    return max(-math.floor(math.log2(sign.length * tune.value)), 0)


def _beam(tune: Tune, sign: Sign) -> tuple[bool, float]:
    """Equal for neighbours that a beam joins."""
    beamed = sign.step is not None and _flags(tune, sign) > 0
    return beamed, sign.start // tune.beam if beamed else sign.start


def _accidental(x: float, step: int, sharp: int) -> str:
    return f'<text x="{x:g}" y="{_y(step) + 5}" class="sign">{_ACCIDENTALS[sharp + 1]}</text>'


def _tie(start: float, end: float, step: int | None) -> str:
    assert step is not None
    side = 1 if step < _MIDDLE else -1
    y = _y(step) + 7 * side
    return f'<path d="M{start + 4:g} {y}Q{(start + end) / 2:g} {y + 8 * side} {end - 4:g} {y}" class="line"/>'


def _notes(tune: Tune, group: Sequence[tuple[float, Sign]], marked: range) -> Iterator[str]:
    """A rest, a note, or notes under a beam: (x, what) each."""
    steps = [sign.step for _, sign in group if sign.step is not None]
    up = sum(steps) < _MIDDLE * len(steps)
    side = -1 if up else 1
    edge = min(map(_y, steps), default=0) - 27 if up else max(map(_y, steps), default=0) + 27  # where the stems end
    stems = [x - 4.6 * side for x, _ in group]
    flags = [_flags(tune, sign) for _, sign in group]
    for (x, sign), stem, many in zip(group, stems, flags, strict=True):
        beats, parts = sign.length * tune.value, []
        if sign.step is None:
            y = -4
            if beats >= 2:
                parts.append(f'<rect x="{x - 5:g}" y="{-8 if beats >= 4 else -4}" width="11" height="4"/>')
            else:
                shape = f'd="{_EIGHTH_REST}" class="line"' if many else f'd="{_QUARTER_REST}"'
                parts += [f'<path {shape} transform="translate({x - 2 * i:g} {7 * i})"/>' for i in range(max(many, 1))]
        else:
            y = _y(sign.step)
            if lines := [*range(_MIDDLE - 6, sign.step - 1, -2), *range(_MIDDLE + 6, sign.step + 1, 2)]:
                parts.append(f'<path d="{"".join(f"M{x - 8:g} {_y(step)}h16" for step in lines)}" class="thin"/>')
            kind = ' class="open"' if beats >= 2 else ""
            parts.append(f'<ellipse rx="5" ry="3.600" transform="translate({x:g} {y})rotate(-20)"{kind}/>')
            if beats < 4:
                parts.append(f'<path d="M{stem:g} {y}V{edge}" class="line"/>')
            if sign.sharp is not None:
                parts.append(_accidental(x - 15, sign.step, sign.sharp))
            if len(group) == 1:
                flag = f"q1 {-6 * side} 7 {-9 * side}q2 {-4 * side} 0 {-10 * side}"
                parts += [f'<path d="M{stem:g} {edge - 7 * i * side}{flag}" class="line"/>' for i in range(many)]
        if sign.length & (sign.length - 1):
            parts.append(f'<circle cx="{x + 9:g}" cy="{y - 4 * (y % 8 == 0)}" r="1.700"/>')
        colour = ' class="marked"' if sign.start in marked else ""
        yield f"<g{colour}>{''.join(parts)}</g>"
    if len(group) > 1:
        for level in range(max(flags)):
            y = edge - 6 * level * side
            for i, stem in enumerate(stems):
                if flags[i] > level:
                    joined = i + 1 < len(stems) and flags[i + 1] > level
                    alone = not joined and (i == 0 or flags[i - 1] <= level)
                    end = stems[i + 1] if joined else stem + (7 if i == 0 else -7) * alone
                    yield f'<path d="M{stem:g} {y}H{end:g}" class="beam"/>'
