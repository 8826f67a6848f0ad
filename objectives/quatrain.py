"""Objectives for Chinese quatrains of 4 lines of 5 characters: tones and rhyme. They need `pip install pypinyin`.

A poem is a string of 20 characters. Readings are today's Mandarin: the rules were made for the Chinese of the Tang,
whose entering tone is gone. So a poem of the time that keeps all rules may break some here.
"""

import functools
import re

from pypinyin import Style, lazy_pinyin

LINES, LENGTH = 4, 5
KINDS = {1: "level", 2: "level", 3: "oblique", 4: "oblique"}
PLACES = (1, 3)  # in a line, from 0: the second and the fourth character, whose tones the rules bind


@functools.cache
def reading(character: str) -> tuple[str, int]:
    """What a character rhymes on, a final without its glide, and its tone, 1 to 5; ("", 0) if it has no reading."""
    found = re.fullmatch(r"(\D+)(\d)", lazy_pinyin(character, Style.FINALS_TONE3, neutral_tone_with_five=True)[0])
    return (re.sub(r"^[iuv](?=[ao]|e.)", "", found[1]).replace("ve", "ie"), int(found[2])) if found else ("", 0)


def rhyme(poems: list[str]) -> list[float]:
    """1 where the second and the fourth line end in different characters that rhyme, else 0."""
    return [float(rhymes(poem)) for poem in poems]


def tones(poems: list[str]) -> list[float]:
    """The share of the rules of `pattern` that a poem keeps."""
    return [sum(pattern(poem)) / len(pattern(poem)) for poem in poems]


def rhymes(poem: str) -> bool:
    """Whether the second line and the fourth rhyme, each with a character of its own."""
    ends = poem[2 * LENGTH - 1 : 2 * LENGTH], poem[4 * LENGTH - 1 : 4 * LENGTH]
    return all(ends) and ends[0] != ends[1] and reading(ends[0])[0] == reading(ends[1])[0] != ""


def pattern(poem: str) -> list[bool]:
    """Which of seven rules a poem keeps.

    Level tones (the first two) and oblique ones (the third and the fourth) alternate between the second and the fourth
    character of each of 4 lines. The lines of a couplet have opposite tones there; the second line and the third, of
    different couplets, have the same. A character without one of these four tones, such as an unknown one, keeps none.
    """
    if len(poem) != LINES * LENGTH:
        return [False] * 7
    kinds = [[KINDS.get(reading(poem[LENGTH * line + place])[1], "") for place in PLACES] for line in range(LINES)]
    pairs = [*kinds, *([kinds[a][0], kinds[b][0]] for a, b in ((0, 1), (2, 3)))]  # which have one of each kind
    return [*(set(pair) == {"level", "oblique"} for pair in pairs), kinds[1][0] == kinds[2][0] != ""]
