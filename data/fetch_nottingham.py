"""Get the Nottingham folk tunes in their usual split: `python -m data.fetch_nottingham [--dest data/Nottingham]`.

What is used, in this order: the folder `--dest` if it has the tunes already; the zip that the environment variable
NOTTINGHAM_ZIP names; a zip beside the folder, `<dest>.zip`, put there by hand or by an earlier run; a download from the
data set's home, kept as that `<dest>.zip`. The set is the one of Boulanger-Lewandowski, Bengio and Vincent, "Modeling
temporal dependencies in high-dimensional sequences" (ICML 2012): Nottingham/{train,valid,test}/*.mid, 694, 173 and 170
files.

What is downloaded or unpacked gets its name when it is whole, so a run that is killed at any moment leaves nothing that
a later run would mistake for the data.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

from runs.directories import write_whole
from support.errors import DataError

URLS = (
    "https://www-labs.iro.umontreal.ca/~lisa/deep/data/Nottingham.zip",
    "http://www-labs.iro.umontreal.ca/~lisa/deep/data/Nottingham.zip",
    "https://www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip",
    "http://www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip",
)
SPLITS = ("train", "valid", "test")

# Bounds on what is taken from outside. The real zip has 0.6 MB, and 3 MB in it.
MAX_ZIP_BYTES = 8 << 20
MAX_TOTAL_BYTES = 64 << 20
SOCKET_SECONDS = 30  # wait for the next byte


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
    dest = dest.absolute()  # which has a name
    dest.parent.mkdir(parents=True, exist_ok=True)
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


def _extract(source: Path, dest: Path, prefix: str = "") -> None:
    """Unpack the MIDI files of a zip to `dest`, which is absent or an empty folder, in one step."""
    try:
        with open(source, "rb") as file:
            content = file.read(MAX_ZIP_BYTES + 1)
    except OSError as error:
        raise DataError(f"{prefix}{source}: {error.strerror}; {_by_hand(dest)}") from error
    place = Path(tempfile.mkdtemp(prefix=f".{dest.name}.tmp-", dir=dest.parent))
    try:
        _unpack(content, place)
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


def _unpack(content: bytes, place: Path) -> None:
    """Unpack the MIDI files of a zip into `place`/{train,valid,test}; raises DataError where it is not a good one.

    Of an entry's name the last two parts alone decide where it goes, so none can leave `place`.
    """
    try:
        if len(content) > MAX_ZIP_BYTES:
            raise DataError(f"larger than {MAX_ZIP_BYTES} bytes")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_TOTAL_BYTES:
                raise DataError(f"unpacks to more than {MAX_TOTAL_BYTES} bytes")
            for entry in archive.infolist():
                *_, split, name = ("", *entry.filename.split("/"))
                if split in SPLITS and _is_midi(Path(name)):
                    if (place / split / name).exists():
                        raise DataError(f"entry {entry.filename!r} is there twice")
                    (place / split).mkdir(exist_ok=True)
                    with archive.open(entry) as file:  # a plain read() would inflate more than is declared
                        (place / split / name).write_bytes(file.read(entry.file_size + 1))
    except DataError:
        raise
    except Exception as error:  # a damaged zip: zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ...
        raise DataError(f"cannot be unpacked: {' '.join(str(error).split())}") from error
    if missing := [split for split, count in count_tunes(place).items() if not count]:
        raise DataError(f"has no MIDI files in {', '.join(missing)}")


def _by_hand(dest: Path) -> str:
    zip_path = dest.with_name(dest.name + ".zip")
    return f"download {URLS[0]} by hand and put it at {zip_path}, or set NOTTINGHAM_ZIP to where it is"


def _download(beside: Path) -> None:
    """Download the zip to `beside` from the first address that has a good one."""
    failures = []
    for url in URLS:
        try:
            with urllib.request.urlopen(url, timeout=SOCKET_SECONDS) as response:
                content = response.read(MAX_ZIP_BYTES + 1)
            with tempfile.TemporaryDirectory() as scratch:  # a login page or half a file must not be kept
                _unpack(content, Path(scratch))
            write_whole(beside, content)
            return
        except Exception as error:  # urllib, http.client and ssl have many ways to fail
            failures.append(" ".join(str(error).split())[:120] or type(error).__name__)
    advice, why = _by_hand(beside.with_suffix("")), "; ".join(dict.fromkeys(failures))
    raise DataError(f"the Nottingham set could not be downloaded: {advice} ({why})")


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
