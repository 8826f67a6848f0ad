"""Make the files of the caption experiment: `python -m data.prepare_captions SOURCE [-o FOLDER] [--valid SHARE]`.

SOURCE is a folder or a zip that holds, at any depth, the captions for training and those for testing, one a line:
`train.txt` and `test.txt`, or Texygen's `image_coco.txt` and `test_coco.txt`. Or it holds COCO's own annotations,
`captions_train*.json` and `captions_val*.json`, of each of which a fixed seed draws 10,000 captions. Captions are put
into lower case and split into tokens by nltk's NLTKWordTokenizer, as Texygen does. The last tenth of the captions for
training, or SHARE of them, is the validation set. FOLDER gets train.txt, valid.txt and test.txt; a file of another
content is not replaced.
"""

import codecs
import json
import lzma
import os
import random
import zipfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import support.quiet  # noqa: F401 - before TensorFlow

from data.text import LATIN, UTF16
from runs.directories import locked, write_whole
from support.errors import DataError
from support.parser import Parser, number
from support.streams import run_tool

PAIRS = (  # names of the files for training and for testing; the first pair that is there is used
    ("train.txt", "test.txt"),
    ("image_coco.txt", "test_coco.txt"),
    ("captions_train*.json", "captions_val*.json"),
)
FILES = ("train.txt", "valid.txt", "test.txt")
VALID = 0.1  # of the captions for training
DRAWN = 10_000  # of an annotation file


def find(source: Path, output: Path) -> list[tuple[str, bytes]]:
    """The two files of a folder or zip, at any depth but not in `output`: (path, content) for training, for testing.

    Raises DataError: it holds no such two files, or several of a name. Raises OSError: one can't be read.
    """
    if source.is_dir():
        own = Path(os.path.realpath(output))
        paths = (path for path in sorted(source.rglob("*")) if own not in Path(os.path.realpath(path)).parents)
        files = {path.as_posix(): path.read_bytes for path in paths if path.is_file()}
    elif zipfile.is_zipfile(source):
        archive = zipfile.ZipFile(source)
        files = {f"{source}/{name}": partial(archive.read, name) for name in archive.namelist()}
    else:
        raise DataError(f"{source}: neither a folder nor a zip")
    for pair in PAIRS:
        found = [[path for path in files if fnmatchcase(path.split("/")[-1], name)] for name in pair]
        if all(found):
            if several := [paths for paths in found if len(paths) > 1]:
                raise DataError(f"{source}: holds both {' and '.join(several[0][:2])}")
            return [(path, files[path]()) for (path,) in found]
    pairs = "; ".join(" and ".join(pair) for pair in PAIRS)
    raise DataError(f"{source}: holds none of these pairs (--output is not searched): {pairs}")


def captions(path: str, content: bytes) -> list[str]:
    """The captions of a file as tokens with blanks between them; of JSON, 10,000 of them in a random order.

    Raises DataError: it is not UTF-8, has a NUL byte, or is not JSON of COCO's form; the message has the path.
    """
    from nltk.tokenize import NLTKWordTokenizer  # here, as the import takes a second

    tokenise, drawn = NLTKWordTokenizer().tokenize, None
    if b"\0" in content:
        raise DataError(f"{path}: has a NUL byte, which is no text{UTF16}")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
        if path.endswith(".json"):
            drawn, lines = DRAWN, [annotation["caption"].lower() for annotation in json.loads(text)["annotations"]]
            "".join(lines).encode()  # a ValueError where one has half a surrogate pair
            random.Random(0).shuffle(lines)
        else:
            lines = text.lower().replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {number} is not UTF-8{LATIN}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path}: not captions as COCO's annotation files have them") from None
    return [" ".join(tokenise(line)) for line in [line for line in lines if line.strip()][:drawn]]


def prepare(source: Path, output: Path, share: float) -> None:
    """Writes train.txt, valid.txt and test.txt of a source to a folder; `share` of the former goes to valid.txt.

    Raises DataError: the source is unusable, or a file is there with another content. Raises OSError.
    """
    try:
        found = find(source, output)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise DataError(f"{source}: {error}") from None  # damaged, or with a password
    train, test = (captions(path, content) for path, content in found)
    kept = len(train) - round(share * len(train))
    if not test or not 0 < kept < len(train):
        counts = f"{len(train):,} captions for training, {len(test):,} for testing"
        raise DataError(f"{source}: {counts}: with --valid {share:g} too few for three files")
    splits = zip(FILES, (train[:kept], train[kept:], test), strict=True)
    contents = {output / name: "".join(f"{line}\n" for line in lines) for name, lines in splits}
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):  # another process may be writing them
        for path, text in contents.items():
            if path.exists() and path.read_bytes() != text.encode():
                raise DataError(f"{path}: is there, with another content than {source} gives; choose another --output")
        for path, text in contents.items():
            write_whole(path, text)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, or exits with 2 and one line on stderr."""
    parser = Parser(prog="prepare_captions", description="Make the files of COCO captions.", allow_abbrev=False)
    text, default = "a folder or a zip; not needed once the files are there", Path("data/captions")
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE", help=text)
    parser.add_argument("-o", "--output", type=Path, default=default, help="the folder (default: %(default)s)")
    text = f"share of the captions for training that becomes the validation set (default: {VALID})"
    parser.add_argument("--valid", type=number(float, 0, 1), metavar="SHARE", help=text)
    arguments = parser.parse_args(argv)
    source, output, share = arguments.source, arguments.output, arguments.valid
    files = [output / name for name in FILES]
    with parser.failing_in_one_line(output):
        if source:
            prepare(source, output, VALID if share is None else share)
        elif missing := [path for path in files if not path.is_file()]:
            raise DataError(f"{missing[0]}: not there yet; give SOURCE (docs/text.md says where to find it)")
        elif share is not None:
            raise DataError("--valid has no effect without SOURCE")
        counts = [f"{len(path.read_bytes().splitlines()):,} captions for" for path in files]
        print(f"{output}: {counts[0]} training, {counts[1]} validation, {counts[2]} testing")
    return 0


if __name__ == "__main__":
    run_tool(main)
