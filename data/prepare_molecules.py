"""Make a file of molecules: `python -m data.prepare_molecules [--wheel FILE] -o data/molecules.txt`.

They are the training set of MOSES (Polykovskiy et al., arXiv:1811.12823), 1,584,663 SMILES strings of at most 57
characters, one a line. The PyPI package molsets 0.3.1 (MIT licence) holds them; its wheel is fetched with `pip
download`, unless --wheel names it, and read as a zip: the package is neither installed nor imported. What comes out
must have a known checksum, and a file of another content is not replaced.
"""

import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from data import DataError
from runs.directories import write_whole
from support.parser import Parser

PACKAGE = "molsets==0.3.1"
MEMBER = "moses/dataset/data/train.csv.gz"  # one column, SMILES
MOLECULES_SHA256 = "4301e7f6118839465012eb93510328681ef4b7b24642e8748c4ad40971f4a304"
PIP_SECONDS = 600  # the wheel has 52 MB


def molecules(wheel: Path) -> bytes:
    """The SMILES of a wheel, one a line.

    Raises DataError: it is not the wheel expected. Raises OSError: it can't be read.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            header, _, smiles = gzip.decompress(archive.read(MEMBER)).partition(b"\n")
    except (zipfile.BadZipFile, KeyError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{wheel}: not a wheel of {PACKAGE} ({error})") from None
    if header != b"SMILES" or not is_expected(smiles):
        raise DataError(f"{wheel}: its molecules are not those of {PACKAGE} (their SHA-256 is another)")
    return smiles


def is_expected(smiles: bytes) -> bool:
    """Whether these are the molecules."""
    return hashlib.sha256(smiles).hexdigest() == MOLECULES_SHA256


def fetch(folder: Path) -> Path:
    """Fetches the wheel into a folder; returns its file. Raises DataError: pip is missing, or fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    by_hand = f"run `pip download --no-deps {PACKAGE}` elsewhere and give its file to --wheel"
    try:
        subprocess.run(
            [*command, "--only-binary", ":all:", "--dest", str(folder), PACKAGE],
            check=True,
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"pip could not fetch {PACKAGE} within {PIP_SECONDS} s; {by_hand}") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]  # the first says why, the last what failed
        raise DataError(
            f"pip could not fetch {PACKAGE} ({lines[0] if lines else 'no reason given'}); {by_hand}"
        ) from None
    fetched = list(folder.glob("*.whl"))
    if not fetched:
        raise DataError(f"pip wrote no file; {by_hand}")
    return fetched[0]


def prepare(wheel: Path | None, output: Path) -> bytes:
    """Writes the molecules, one a line, unless they are there already; returns them.

    Args:
        wheel: the package's file; None fetches it.
        output: the file to write.

    Raises:
        DataError: the wheel is not what it should be or can't be fetched, or the file has another content.
        OSError: a file can't be read or written.
    """
    if output.exists():
        content = output.read_bytes()
        if not is_expected(content):
            raise DataError(f"{output}: is there, and holds something else; choose another --output")
        return content
    with tempfile.TemporaryDirectory() as folder:
        content = molecules(wheel or fetch(Path(folder)))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, content)
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where it can't be done."""
    parser = Parser(prog="prepare_molecules", description="Make a file of molecules.", allow_abbrev=False)
    parser.add_argument(
        "--wheel", type=Path, metavar="FILE", help=f"what `pip download --no-deps {PACKAGE}` made (default: fetch it)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("data/molecules.txt"), help="the file (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    try:
        content = prepare(arguments.wheel, arguments.output)
    except (DataError, OSError) as error:
        print(f"prepare_molecules: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    lines = content.count(b"\n")
    print(f"{arguments.output}: {lines:,} molecules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
