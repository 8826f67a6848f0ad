"""Get the Nottingham folk tunes in their usual split: `python -m data.fetch_nottingham [--dest data/Nottingham]`.

What is used, in this order: the folder `--dest` if it has the tunes already; the zip that the environment variable
NOTTINGHAM_ZIP names; a zip beside the folder, `<dest>.zip`, put there by hand or by an earlier run; a download from the
data set's home, kept as that `<dest>.zip`. The set is the one of Boulanger-Lewandowski, Bengio and Vincent, "Modeling
temporal dependencies in high-dimensional sequences" (ICML 2012): Nottingham/{train,valid,test}/*.mid, 694, 173 and 170
files.

Downloads and extractions are made under a temporary name beside their place and renamed when whole, so a run that is
killed at any moment leaves nothing that a later run would mistake for the data. Only the standard library is used.
"""

import argparse
import contextlib
import os
import shutil
import stat
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from data import DataError

URLS = (
    "https://www-labs.iro.umontreal.ca/~lisa/deep/data/Nottingham.zip",
    "http://www-labs.iro.umontreal.ca/~lisa/deep/data/Nottingham.zip",
    "https://www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip",
    "http://www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip",
)
SPLITS = ("train", "valid", "test")

# Bounds on what is taken from outside. The real zip has 0.6 MB, 1,037 files and 3 MB in them.
MAX_ZIP_BYTES = 8 << 20
MAX_ENTRIES = 10_000
MAX_TOTAL_BYTES = 64 << 20
SOCKET_SECONDS = 30  # wait for the next byte
DOWNLOAD_SECONDS = 300  # one whole download
STALE_SECONDS = 3600  # age at which a temporary name is taken for the leftover of a killed run


def count_tunes(folder: Path) -> dict[str, int]:
    """Count the MIDI files of each split in a folder; a split that is missing has 0."""
    return {split: sum(map(_is_midi, (folder / split).glob("*"))) for split in SPLITS}


def fetch(dest: Path) -> dict[str, int]:
    """Make sure that `dest` holds train, valid and test folders with MIDI files.

    Its parent is made if need be. Returns the number of MIDI files in each split. Raises DataError: it could not be
    done; the message says what to do by hand. Raises OSError: the disk refused.
    """
    if all(count_tunes(dest).values()):
        return count_tunes(dest)
    if dest.is_file() or (dest.is_dir() and any(dest.iterdir())):
        raise DataError(f"{dest}: is there but has no MIDI files in train, valid and test; move it away and run again")
    dest.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(dest)
    named, beside = os.environ.get("NOTTINGHAM_ZIP"), dest.with_name(dest.name + ".zip")
    if named:
        _extract(Path(named), dest, "NOTTINGHAM_ZIP: ")
    else:
        if not beside.exists():
            _download(beside)
        _extract(beside, dest)
    return count_tunes(dest)


def _is_midi(path: Path) -> bool:
    return path.suffix.lower() in (".mid", ".midi") and not path.name.startswith(".")


def _remove_leftovers(dest: Path) -> None:
    """Remove what killed runs left; what is young may belong to a run that is still at work."""
    for leftover in dest.parent.glob(f".{dest.name}*.tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # its owner may just be removing it
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()


def _wanted_entries(archive: zipfile.ZipFile) -> dict[tuple[str, str], zipfile.ZipInfo]:
    """The MIDI files of an archive by (split, file name), after a look at every entry.

    Raises DataError: an entry is unsafe, the whole too large, two entries claim one place, or a split has no MIDI file.
    """
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise DataError(f"has more than {MAX_ENTRIES} entries")
    if sum(entry.file_size for entry in entries) > MAX_TOTAL_BYTES:
        raise DataError(f"unpacks to more than {MAX_TOTAL_BYTES} bytes")
    wanted: dict[tuple[str, str], zipfile.ZipInfo] = {}
    for entry in entries:
        # orig_filename: zipfile cuts names at a NUL byte and, on some systems, turns backslashes into slashes.
        name, parts = entry.orig_filename, entry.orig_filename.split("/")
        outside = name.startswith("/") or ".." in parts or any(character in name for character in "\\:\0")
        if outside or stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"entry {name!r} would leave the folder")
        if len(parts) < 2 or parts[-2] not in SPLITS or not _is_midi(Path(parts[-1])):
            continue
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"entry {name!r} is compressed by a method that is not read")
        if wanted.setdefault((parts[-2], parts[-1]), entry) is not entry:
            raise DataError(f"entry {name!r} is there twice")
    if missing := [split for split in SPLITS if split not in {place for place, _ in wanted}]:
        raise DataError(f"has no MIDI files in {', '.join(missing)}")
    return wanted


def _extract(source: Path, dest: Path, prefix: str = "") -> None:
    """Unpack the MIDI files of a zip to `dest`, which is absent or an empty folder, in one step."""
    place = Path(tempfile.mkdtemp(prefix=f".{dest.name}.tmp-", dir=dest.parent))
    try:
        _unpack(source, place)
        place.chmod(0o755)  # mkdtemp's is private
        if hasattr(os, "sync"):
            os.sync()  # the files before the name they are found by
        try:
            os.rename(place, dest)
        except OSError:
            if not all(count_tunes(dest).values()):  # else another run was quicker
                raise
    except DataError as error:
        raise DataError(f"{prefix}{source}: {error}; {_by_hand(dest)}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unpack(source: Path, place: Path) -> None:
    """Unpack the MIDI files of a zip into `place`/{train,valid,test}; DataError if it is not a good one."""
    for split in SPLITS:
        (place / split).mkdir()
    try:
        if source.stat().st_size > MAX_ZIP_BYTES:
            raise DataError(f"larger than {MAX_ZIP_BYTES} bytes")
        with zipfile.ZipFile(source) as archive:
            for (split, name), entry in _wanted_entries(archive).items():
                with archive.open(entry) as file:
                    content = file.read(entry.file_size + 1)  # a plain read() would inflate more than is declared
                (place / split / name).write_bytes(content)
    except DataError:
        raise
    except Exception as error:  # a damaged zip: zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ...
        raise DataError(f"cannot be unpacked: {' '.join(str(error).split())}") from error


def _by_hand(dest: Path) -> str:
    zip_path = dest.with_name(dest.name + ".zip")
    return f"download {URLS[0]} by hand and put it at {zip_path}, or set NOTTINGHAM_ZIP to where it is"


def _download(beside: Path) -> None:
    """Download the zip to `beside` from the first address that has a good one."""
    failures = []
    for url in URLS:
        handle, name = tempfile.mkstemp(prefix=f".{beside.name}.tmp-", dir=beside.parent)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                _copy_url(url, file)
                file.flush()
                os.fsync(file.fileno())
            with tempfile.TemporaryDirectory() as scratch:  # a login page or half a file must not be kept
                _unpack(partial, Path(scratch))
            partial.chmod(0o644)
            os.replace(partial, beside)
            return
        except Exception as error:  # urllib, http.client and ssl have many ways to fail
            failures.append(" ".join(str(error).split())[:120] or type(error).__name__)
        finally:
            partial.unlink(missing_ok=True)
    advice, why = _by_hand(beside.with_suffix("")), "; ".join(dict.fromkeys(failures))
    raise DataError(f"the Nottingham set could not be downloaded: {advice} ({why})")


def _copy_url(url: str, file: BinaryIO) -> None:
    """Copy what an address serves to an open file, within bounds of size and time."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    size = 0
    with urllib.request.urlopen(url, timeout=SOCKET_SECONDS) as response:
        while chunk := response.read(1 << 16):
            size += len(chunk)
            if size > MAX_ZIP_BYTES:
                raise DataError(f"larger than {MAX_ZIP_BYTES} bytes")
            if time.monotonic() > deadline:
                raise DataError(f"not finished after {DOWNLOAD_SECONDS} s")
            file.write(chunk)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 2 with one line on stderr that says what to do."""
    parser = argparse.ArgumentParser(description="Get the Nottingham MIDI files in their train/valid/test split.")
    parser.add_argument("--dest", type=Path, default=Path("data/Nottingham"), help="folder (default: %(default)s)")
    dest = parser.parse_args(argv).dest
    try:
        counts = fetch(dest)
    except (DataError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{dest}: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " MIDI files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
