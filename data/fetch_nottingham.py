"""Get the Nottingham folk tunes in their usual split: `python -m data.fetch_nottingham [--dest data/Nottingham]`.

The set is the one of Boulanger-Lewandowski, Bengio and Vincent, "Modeling temporal dependencies in high-dimensional
sequences" (ICML 2012): {train,valid,test}/*.mid, 694, 173 and 170 files.

A folder `--dest` that has tunes is used as it is. Else the zip that NOTTINGHAM_ZIP names is unpacked, whatever its
tunes. Without that it is `<dest>.zip`, which is downloaded where it is missing, and must hold the set's tunes.
"""

import os
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pooch

from runs.directories import sha256_of
from support.errors import DataError, first_line
from support.parser import Parser
from support.streams import run_tool

URLS = (
    "https://www-labs.iro.umontreal.ca/~lisa/deep/data/Nottingham.zip",
    "https://www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip",
    "https://web.archive.org/web/20190502175445id_/www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip",
)
# Of the tunes, see `sha256_of_tunes`, rather than of the zip: the set is there in several packings.
SHA256 = "ce41a1a35e08211993806034ba4926408241bc0b9d1e5e217cef0f067cd60346"
SPLITS = ("train", "valid", "test")
TUNE = re.compile(r"[^.].*\.midi?", re.IGNORECASE)  # the name of a MIDI file that is not hidden
MAX_BYTES = 64 << 20  # in a zip; the set has 3 MB


def count_tunes(folder: Path) -> dict[str, int]:
    """Count the MIDI files of each split in a folder; a split that is missing has 0."""
    return {split: sum(bool(TUNE.fullmatch(path.name)) for path in (folder / split).glob("*")) for split in SPLITS}


def sha256_of_tunes(folder: Path) -> str:
    """The SHA-256 of the tunes in a folder's splits: of each one's name and content, in the order of their names."""
    paths = sorted(path for split in SPLITS for path in (folder / split).iterdir())
    tunes = [(f"{path.parent.name}/{path.name}", path.read_bytes()) for path in paths]
    return sha256_of(b"".join(f"{name} {len(content)}\n".encode() + content for name, content in tunes))


def unpack(source: Path, place: Path, sha256: str = "") -> None:
    """Unpack the MIDI files of a zip to the new folder `place`, into train, valid and test.

    Of an entry's name the last two parts alone decide where it goes, so none can leave `place`. Raises DataError: the
    zip can't be read, lacks a split, or its tunes have another checksum than `sha256`, if that is given.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise DataError(f"more than {MAX_BYTES} bytes in it")
            for entry in archive.infolist():
                *_, split, name = ("", *entry.filename.split("/"))
                if split in SPLITS and TUNE.fullmatch(name):
                    (place / split).mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as file, open(place / split / name, "xb") as tune:
                        tune.write(file.read(entry.file_size + 1))  # a plain read() would inflate more than is declared
    except Exception as error:  # a damaged zip: BadZipFile, zlib.error, struct.error, RuntimeError, ...
        raise DataError(f"cannot be unpacked: {first_line(error)}") from error
    if missing := [split for split, count in count_tunes(place).items() if not count]:
        raise DataError(f"has no MIDI files in {', '.join(missing)}")
    if sha256 and sha256_of_tunes(place) != sha256:
        raise DataError("holds other tunes than the Nottingham set (their SHA-256 is another)")
    os.sync()  # the files before the names that they are to be found by


def fetch(dest: Path, urls: Sequence[str] = URLS, sha256: str = SHA256) -> dict[str, int]:
    """Make sure that `dest` holds train, valid and test folders with MIDI files, all of them or none.

    `urls` are addresses of a zip whose tunes have the checksum `sha256`. Returns the number of files in each split.
    Raises DataError: it could not be done; the message says what to do by hand. Raises OSError: the disk refused.
    """
    if all(count_tunes(dest).values()):
        return count_tunes(dest)
    if dest.is_file() or (dest.is_dir() and any(dest.iterdir())):
        raise DataError(f"{dest}: is there but has no MIDI files in train, valid and test; move it away and run again")
    dest = dest.resolve()  # which has a name, and is no link
    dest.parent.mkdir(parents=True, exist_ok=True)
    given, kept, failures = os.environ.get("NOTTINGHAM_ZIP"), dest.with_name(f"{dest.name}.zip"), []
    downloads = not given and not kept.exists()
    pooch.get_logger().setLevel("ERROR")  # no line for each attempt
    with tempfile.TemporaryDirectory(prefix=f".{dest.name}.tmp-", dir=dest.parent) as folder:
        for i, source in enumerate(urls if downloads else [given or kept]):
            place = Path(folder, f"tunes{i}")
            try:
                zip_path = pooch.retrieve(source, None, f"{i}.zip", folder) if downloads else source  # checked below
                unpack(Path(zip_path), place, "" if given else sha256)
                break
            except (OSError, ValueError) as error:  # of requests and of the disk; DataError
                failures.append(first_line(error)[:120])
        else:
            what = f"NOTTINGHAM_ZIP: {given}" if given else f"{kept}"
            what = "the Nottingham set could not be downloaded" if downloads else what
            by_hand = f"download {urls[-1]} by hand and put it at {kept}, or set NOTTINGHAM_ZIP to a zip of tunes"
            raise DataError(f"{what}: {'; '.join([*dict.fromkeys(failures), by_hand])}")
        if downloads:
            os.replace(zip_path, kept)
        try:
            os.rename(place, dest)
        except OSError:
            if not all(count_tunes(dest).values()):  # else another run was quicker
                raise
    return count_tunes(dest)


def main(argv: Sequence[str] | None = None, urls: Sequence[str] = URLS, sha256: str = SHA256) -> int:
    """The program, which takes the set from elsewhere in tests; returns the exit status, 2 after a line on stderr."""
    parser = Parser(prog="fetch_nottingham", description="Get the Nottingham MIDI files in their usual split.")
    parser.add_argument("--dest", type=Path, default=Path("data/Nottingham"), help="folder (default: %(default)s)")
    dest = parser.parse_args(argv).dest
    with parser.failing_in_one_line(dest):
        counts = ", ".join(f"{count} {split}" for split, count in fetch(dest, urls, sha256).items())
        print(f"{dest}: {counts} MIDI files")
    return 0


if __name__ == "__main__":
    run_tool(main)
