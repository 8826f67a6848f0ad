"""Songs in folders that people use, too: those that this program wrote are known from all others."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from runs.directories import SONG, write_whole
from support.errors import UsageError

WRITTEN = ".samples.sha256"  # in such a folder: what was written there, as `sha256sum` lists files


def written_songs(folder: Path) -> dict[str, str]:
    """The songs in a folder that this program wrote and nobody changed since: {name: digest}; raises OSError."""
    path = folder / WRITTEN
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    known = {(line[66:], line[:64]) for line in lines if SONG.fullmatch(line[66:]) and (folder / line[66:]).is_file()}
    return {name: digest for name, digest in known if _digest((folder / name).read_bytes()) == digest}


def check_songs(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Makes sure that no file of these names is somebody else's; returns `written_songs`.

    Raises UsageError: one is, or the folder is none; the message names it. Raises OSError: one can't be read.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    earlier = written_songs(folder)
    for name in names:
        if name not in earlier and os.path.lexists(folder / name):
            raise UsageError(f"{folder / name}: not as this program wrote it; move it away, or choose another folder")
    return earlier


def write_songs(folder: Path, names: Sequence[str], contents: Iterable[bytes]) -> None:
    """Writes songs to a folder, which is made; those that were written there before go, and nothing else.

    Each is on the record before it is there, so that none is taken for somebody else's after a kill. Raises UsageError:
    as `check_songs`, and then nothing is written. Raises OSError: one can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = check_songs(folder, names)
    for name, content in zip(names, contents, strict=True):
        with open(folder / WRITTEN, "a", encoding="utf-8") as file:
            file.write(f"{_digest(content)}  {name}\n")
        write_whole(folder / name, content)
    for name in earlier.keys() - set(names):
        (folder / name).unlink()
    lines = [f"{digest}  {name}\n" for name, digest in written_songs(folder).items()]
    write_whole(folder / WRITTEN, "".join(sorted(lines, key=lambda line: (len(line), line[66:]))))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
