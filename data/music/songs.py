"""Songs in folders that people use, too: those that this program wrote are known from all others."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from runs.directories import WRITTEN_SONGS, locked, sha256_of, write_whole, written_songs
from support.errors import UsageError


def check_songs(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The `written_songs` of a folder; raises UsageError: it is none, or one of `names` is somebody else's; OSError."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    earlier = written_songs(folder)
    for name in names:
        if name not in earlier and os.path.lexists(folder / name):
            raise UsageError(f"{folder / name}: not as this program wrote it; move it away, or choose another folder")
    return earlier


def make_folder(folder: Path) -> None:
    """Makes a --songs_dir; raises UsageError: it can't be made, or nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--songs_dir {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--songs_dir {folder}: nothing can be written there")


def write_songs(folder: Path, names: Sequence[str], contents: Iterable[bytes], spare: bool = False) -> None:
    """Writes songs to a folder, which is made; those that were written there before go, and nothing else.

    Each is on the record before it is there, so that none is taken for somebody else's after a kill. With `spare`
    somebody else's song stays, as a line on stderr says, and those of other names stay, too; the folder must be there.
    Other processes that write songs there wait meanwhile. Raises UsageError: as `check_songs`, and then nothing is
    written. Raises OSError: one can't be written.
    """
    if not spare:
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        earlier = written_songs(folder) if spare else check_songs(folder, names)
        for name, content in zip(names, contents, strict=True):
            if spare and name not in earlier and os.path.lexists(folder / name):
                print(f"warning: {folder / name}: changed by somebody, so it is not written anew", file=sys.stderr)
                continue
            with open(folder / WRITTEN_SONGS, "a", encoding="utf-8") as file:
                file.write(f"\n{sha256_of(content)}  {name}\n")  # a kill may have left half a line
            write_whole(folder / name, content)
        for name in () if spare else earlier.keys() - set(names):
            (folder / name).unlink()
        lines = [f"{digest}  {name}\n" for name, digest in written_songs(folder).items()]
        write_whole(folder / WRITTEN_SONGS, "".join(sorted(lines, key=lambda line: (len(line), line[66:]))))
