"""Pages to look at tunes, to listen to them and to rate them: each one file that needs no network."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from data import checksum
from data.music.abc import to_abc
from data.music.analysis import Stretch, Tune, analysed
from data.music.media import audio, wav
from data.music.staff import staff
from data.music.tokens import Grid

LONGEST = 600  # seconds that a player plays; ten minutes are 13 MB
RATE = 8_000  # Hz of its audio, so that it stays small; the highest note of a tune seldom has 2,000
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>TITLE</title>
<style>
body { margin: 2rem auto; max-width: 90rem; padding: 0 1.5rem; font: 1rem/1.5 system-ui, sans-serif }
body { color: #222; background: #faf8f4 }
h1 { margin-bottom: 0; overflow-wrap: anywhere }
h2 { margin: 0; font-size: 1.15rem } p { margin: .2rem 0 .6rem; color: #666 }
section { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem 3rem }
section { margin: 1.5rem 0; padding: 1.2rem 1.5rem; background: #fff; border: 1px solid #e4dfd4; border-radius: .6rem }
audio { width: 100%; height: 2.2rem; margin-bottom: .6rem } svg { display: block; width: 100% }
h3 { margin: .15rem 0 0; font-size: 1rem; font-weight: 600 } details { margin-top: .6rem; color: #666 }
pre { overflow-x: auto; font-size: .85rem }
svg { fill: currentColor }
.thin, .line, .beam, .open { fill: none; stroke: currentColor }
.thin { stroke-width: .7; opacity: .55 } .line { stroke-width: 1.3 }
.beam { stroke-width: 4 } .open { stroke-width: 1.7 }
.sign { font: 17px serif } .metre { font: bold 20px serif }
.marked { color: #c2410c } mark { color: #c2410c; background: none }
.again { fill: #d5e8f7 } span.again { background: #d5e8f7 }
</style>
</head>
<body>
<main>
<h1>TITLE</h1>
"""


CRITERIA = {  # what listeners rate from 1 to 5
    "danceable": "one can dance to it",
    "structure": "its phrases lead to one another, and end where they should",
    "form": "its parts come again, the same or varied",
    "playable": "it lies well on an instrument, such as a fiddle or a whistle",
}
_FORM_STYLE = """body { max-width: 55rem } .again { fill: none } section { display: block }
fieldset { display: inline-block; border: 0; padding: 0; margin: .6rem 2rem 0 0 } legend { padding: 0; color: #666 }
label { margin-right: .7rem } button { font: inherit; padding: .4rem 1rem }
"""
_FORM = """<form>
<p>Please rate each tune from 1, not at all, to 5, very much, then save the ratings and send the file back.</p>
<p>CRITERIA</p>
SECTIONS
<p><button type="button">Save the ratings</button> <output></output></p>
</form>
<script>
const page = "PAGE", tunes = COUNT, criteria = NAMES, form = document.querySelector("form");
let given = {};
try { given = JSON.parse(localStorage.getItem(page)) || {}; } catch {}
given.listener ||= Array.from(crypto.getRandomValues(new Uint8Array(4)), n => n.toString(16).padStart(2, "0")).join("");
for (const [name, value] of Object.entries(given)) if (form.elements[name]) form.elements[name].value = value;
form.addEventListener("change", event => {
  given[event.target.name] = event.target.value;
  try { localStorage.setItem(page, JSON.stringify(given)); } catch {}
});
document.querySelector("button").addEventListener("click", () => {
  const rows = Array.from({length: tunes}, (_, i) => criteria.map(name => given[`${name}${i + 1}`] || ""));
  const lines = rows.map((row, i) => [page, given.listener, i + 1, ...row].join(","));
  const link = document.createElement("a");
  const text = [["page", "listener", "tune", ...criteria].join(","), ...lines, ""].join("\\n");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = `ratings-${given.listener}.csv`;
  link.click();
  const left = rows.flat().filter(value => !value).length;
  document.querySelector("output").textContent = `${link.download} is saved; ${left} ratings are missing.`;
});
</script>
"""


class Near(NamedTuple):
    """The training tune that shares the longest stretch with a sample: its name, its tokens, and what they share."""

    name: str
    tokens: np.ndarray
    shared: Stretch


def page(title: str, tunes: Mapping[str, Tune], near: Sequence[Near | None], grid: Grid, stem: str = "") -> str:
    """The page, as HTML: tunes by their titles, and beside each the training tune of `near`, or nothing.

    With a `stem` such as `sample` it has links to their files, sample0.mid, sample0.abc and so on.
    """
    files = [f"{stem}{i}" if stem else "" for i in range(len(tunes))]
    sections = [_section(*each, grid) for each in zip(tunes, tunes.values(), files, near, strict=True)]
    shared = " Notes in <mark>orange</mark>: the longest stretch that a tune shares with the training set." * any(near)
    about = f'<p>On <span class="again">blue</span>: bars that occur before in the same tune.{shared}</p>'
    return f"{_HEAD.replace('TITLE', escape(title))}{about}\n{''.join(sections)}</main>\n</body>\n</html>\n"


def blind_page(tunes: Sequence[Tune], grid: Grid) -> tuple[str, str]:
    """A page on which listeners rate tunes that are numbered alone: as HTML, and its name, of eight hexadecimal digits.

    Its button saves CSV: the page's name, a random one for the listener, a tune's number, and a column for each of
    `CRITERIA`, empty where nothing was chosen. Until then the browser keeps what was chosen.
    """
    name = checksum(tune.tokens for tune in tunes)[:8]
    sections = []
    for i, tune in enumerate(tunes, 1):
        fields = ""
        for criterion in CRITERIA:
            radio = f'<label><input type="radio" name="{criterion}{i}" value='
            choices = "".join(f'{radio}"{value}"> {value}</label>' for value in range(1, 6))
            fields += f"<fieldset><legend>{criterion.capitalize()}</legend>{choices}</fieldset>"
        shown = _player_and_staff(f"Tune {i}", tune, grid, range(0))
        sections.append(f"<section><h2>Tune {i}</h2>{shown}{fields}</section>")
    form = _FORM.replace("CRITERIA", "<br>".join(f"{word.capitalize()}: {what}." for word, what in CRITERIA.items()))
    form = form.replace("PAGE", name).replace("COUNT", str(len(tunes))).replace("NAMES", json.dumps([*CRITERIA]))
    form = form.replace("SECTIONS", "\n".join(sections))
    head = _HEAD.replace("TITLE", "How do these tunes sound?").replace("</style>", f"{_FORM_STYLE}</style>")
    return f"{head}{form}</main>\n</body>\n</html>\n", name


def _section(title: str, tune: Tune, file: str, near: Near | None, grid: Grid) -> str:
    count, marked, beside = len(tune.tokens), range(0), ""
    if near:
        length, first, _, place = near.shared
        marked = range(first, first + length)
        begin = min(max(place - first, 0), max(len(near.tokens) - count, 0))  # the same place, if there is so much
        told = f"{length} of {count} tokens are the same" if length else "not a token is the same"
        head = f"<h3>Nearest training tune: {escape(near.name)}</h3><p>{told}, from its token {place + 1} on</p>"
        other = analysed(near.tokens[begin : begin + count], grid)
        same = range(place - begin, place - begin + length)
        beside = f"<div>{head}{_player_and_staff('the nearest training tune', other, grid, same)}</div>"
    text, tempo = escape(to_abc(tune, grid.seconds, 1, title)), 60 * tune.value / grid.seconds
    key = f"{str(tune.key).rstrip('m')} {'minor' if tune.key.minor else 'major'}"
    head = f"<h2>{escape(title)}</h2><p>{key}, {tune.metre}, {tempo:.0f} quarter notes a minute</p>"
    notation = f"<details><summary>ABC</summary><pre>{text}</pre></details>"
    notation += f'<p><a href="{file}.mid">MIDI</a> <a href="{file}.abc">ABC</a></p>' * bool(file)
    return f"<section><div>{head}{_player_and_staff(title, tune, grid, marked)}{notation}</div>{beside}</section>\n"


def _player_and_staff(name: str, tune: Tune, grid: Grid, marked: range) -> str:
    player = f"<p>no player: longer than {LONGEST} seconds</p>"
    if len(tune.tokens) * grid.seconds <= LONGEST:
        data = base64.b64encode(wav(audio(tune.tokens, grid, RATE), RATE)).decode()
        label = f'aria-label="{escape(name)}"'
        player = f'<audio controls preload="none" {label} src="data:audio/wav;base64,{data}"></audio>'
    return player + staff(tune, marked, name)
