"""What a checkpoint says of its run, without TensorFlow: its manifest, and what the logs were when it was saved."""

import json
from pathlib import Path
from typing import Any

from runs.directories import METRICS, sha256_of
from support.errors import UsageError

MANIFEST = "manifest.txt"  # in a checkpoint's directory: its own checksum, then a line of JSON
MAX_MANIFEST = 2**24  # bytes; one of a long run has thousands
CHECKSUM = "sha256"  # in a position: of metrics.csv


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """`step`, `sha256` of its files by their names, and `details` of a checkpoint's directory.

    Raises ValueError: it is damaged. Raises OSError: it can't be read.
    """
    with open(checkpoint / MANIFEST, encoding="utf-8") as file:
        checksum, _, content = file.read(MAX_MANIFEST).partition("\n")
    if sha256_of(content.encode()) != checksum:
        raise ValueError(f"{MANIFEST} differs from its checksum")
    return json.loads(content)


def sizes_at(directory: Path, position: dict[str, Any], advice: str = "; --overwrite starts afresh") -> dict[str, int]:
    """How long each file of a directory was at a position, {file name: bytes}.

    Raises UsageError: a file is shorter now, or metrics.csv does not begin with the rows that were written until then.
    Raises OSError: one can't be read.
    """
    sizes = {name: size for name, size in position.items() if name != CHECKSUM}
    for name, size in sizes.items():
        path = directory / Path(name).name
        if not path.is_file() or path.stat().st_size < size:
            raise UsageError(f"{path}: missing or cut short since the last checkpoint{advice}")
        if name == METRICS and sha256_of(path.read_bytes()[:size]) != position.get(CHECKSUM):
            raise UsageError(f"{path}: rows or line ends changed since the last checkpoint; restore it{advice}")
    return sizes
