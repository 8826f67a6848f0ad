"""Make a file of molecules: `python -m data.prepare_molecules [--wheel FILE] [-o data/molecules.txt]`.

They are the training set of MOSES (Polykovskiy et al., arXiv:1811.12823), 1,584,663 SMILES strings of at most 57
characters, one a line. The PyPI package molsets 0.3.1 (MIT licence) holds them; its wheel is fetched with `pip
download`, unless --wheel names it, and read as a zip: the package is neither installed nor imported. Both the wheel and
the result must have a known SHA-256. A file of another content is not replaced.
"""

import gzip
import zipfile
from functools import partial
from pathlib import Path

from data.packages import Package, program
from support.streams import run_tool


def molecules(wheel: Path) -> bytes:
    """The SMILES strings of a wheel, one a line."""
    with zipfile.ZipFile(wheel) as archive:
        return gzip.decompress(archive.read("moses/dataset/data/train.csv.gz")).partition(b"\n")[2]  # after a header


PACKAGE = Package(
    name="molsets==0.3.1",
    command="pip download --no-deps --only-binary :all: molsets==0.3.1",
    flag="--wheel",
    sha256="7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34",
    read=molecules,
    lines="molecules",
    lines_sha256="4301e7f6118839465012eb93510328681ef4b7b24642e8748c4ad40971f4a304",
)

main = partial(program, PACKAGE)

if __name__ == "__main__":
    run_tool(main)
