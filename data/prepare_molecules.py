"""Make a file of molecules: `python -m data.prepare_molecules [--wheel FILE] -o data/molecules.txt`.

They are the training set of MOSES (Polykovskiy et al., arXiv:1811.12823), 1,584,663 SMILES strings of at most 57
characters, one a line. The PyPI package molsets 0.3.1 (MIT licence) holds them; its wheel is fetched with `pip
download`, unless --wheel names it, and read as a zip: the package is neither installed nor imported. What comes out
must have a known checksum, and a file of another content is not replaced.
"""

import gzip
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from data.packages import Package, program
from support.errors import DataError

PACKAGE = "molsets==0.3.1"
MEMBER = "moses/dataset/data/train.csv.gz"  # one column, SMILES
MOLECULES_SHA256 = "4301e7f6118839465012eb93510328681ef4b7b24642e8748c4ad40971f4a304"


def molecules(wheel: Path) -> bytes:
    """The SMILES of a wheel, one a line; raises OSError, and DataError where it is not the wheel expected."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            _, _, smiles = gzip.decompress(archive.read(MEMBER)).partition(b"\n")  # after a header
    except (zipfile.BadZipFile, KeyError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{wheel}: not a wheel of {PACKAGE} ({error})") from None
    return smiles


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where it can't be done."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps")
    package = Package(
        name=PACKAGE,
        lines="molecules",
        sha256=MOLECULES_SHA256,
        read=molecules,
        flag="--wheel",
        suffix=".whl",
        command=(*pip, "--only-binary", ":all:", "{}", "--dest"),
        by_hand=f"pip download --no-deps {PACKAGE}",
        absent="",
    )
    return program(package, argv)


if __name__ == "__main__":
    sys.exit(main())
