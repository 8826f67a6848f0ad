"""Make the files of the caption experiment: `python -m data.prepare_captions SOURCE -o FOLDER`.

SOURCE is a folder or a zip that holds, at any depth, the captions for training and those for testing, one a line:
`train.txt` and `test.txt`, or Texygen's `image_coco.txt` and `test_coco.txt`. Or it holds COCO's own annotations,
`captions_train*.json` and `captions_val*.json`, of each of which a fixed seed draws 10,000 captions. Captions are put
into lower case and split into tokens by nltk's NLTKWordTokenizer, as Texygen does; nltk's `word_tokenize` uses it too,
after a model that must be downloaded has split what are not single sentences. The last 1,000 captions for training
become the validation set. FOLDER gets train.txt, valid.txt and test.txt; a file of another content is not replaced.
"""

import json
import random
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from runs.directories import write_whole
from support.errors import DataError
from support.parser import Parser

PAIRS = (  # names of the files for training and for testing; the first pair that is there is used
    ("train.txt", "test.txt"),
    ("image_coco.txt", "test_coco.txt"),
    ("captions_train*.json", "captions_val*.json"),
)
SPLITS = {"train": "for training", "valid": "for validation", "test": "for testing"}
VALID = 1000  # captions
DRAWN = 10_000  # of an annotation file
SEED = 0


def members(source: Path) -> dict[str, Callable[[], bytes]]:
    """What a folder or a zip holds, at any depth: {path: a function that reads it}. Raises DataError: it is neither."""
    if source.is_dir():
        return {path.as_posix(): path.read_bytes for path in sorted(source.rglob("*")) if path.is_file()}
    if not zipfile.is_zipfile(source):
        raise DataError(f"{source}: neither a folder nor a zip")
    archive = zipfile.ZipFile(source)
    return {f"{source}/{name}": partial(archive.read, name) for name in archive.namelist()}


def find(source: Path, output: Path) -> list[tuple[str, bytes]]:
    """The two files of a source, for training and for testing: (path, content); none in an `output` inside.

    Raises DataError: it holds no such two files, or several of a name. Raises OSError: one can't be read.
    """
    there, own = members(source), output.resolve()
    if own != source.resolve():
        there = {path: read for path, read in there.items() if own not in Path(path).resolve().parents}
    for pair in PAIRS:
        found = [[path for path in there if fnmatchcase(path.split("/")[-1], name)] for name in pair]
        if all(found):
            for paths in found:
                if len(paths) > 1:
                    raise DataError(f"{source}: holds both {paths[0]} and {paths[1]}")
            return [(path, there[path]()) for (path,) in found]
    raise DataError(f"{source}: holds none of these pairs: {'; '.join(' and '.join(pair) for pair in PAIRS)}")


def captions(path: str, content: bytes) -> list[str]:
    """The captions of a file as tokens with blanks between them; of JSON, 10,000 of them in a random order.

    Raises DataError: it is not UTF-8, or not JSON of COCO's form; the message has the path.
    """
    from nltk.tokenize import NLTKWordTokenizer  # here, as the import takes a second

    tokenise = NLTKWordTokenizer().tokenize
    try:
        text = content.decode("utf-8-sig")
        if path.endswith(".json"):
            lines = [annotation["caption"].lower() for annotation in json.loads(text)["annotations"]]
            random.Random(SEED).shuffle(lines)
        else:
            lines = text.lower().replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line} is not UTF-8") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path}: not captions as COCO's annotation files have them") from None
    lines = [line for line in lines if line.strip()]
    return [" ".join(tokenise(line)) for line in (lines[:DRAWN] if path.endswith(".json") else lines)]


def prepare(source: Path, output: Path) -> None:
    """Writes train.txt, valid.txt and test.txt of a source to a folder.

    Raises DataError: the source is not what it should be, or a file is there with another content. Raises OSError: a
    file can't be read or written.
    """
    try:
        found = find(source, output)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:  # damaged, or with a password
        raise DataError(f"{source}: {error}") from None
    splits = {}
    for split, least, (name, content) in zip(("train", "test"), (VALID + 1, 1), found, strict=True):
        splits[split] = captions(name, content)
        if len(splits[split]) < least:
            raise DataError(f"{name}: {len(splits[split]):,} captions; at least {least:,} are needed")
    splits["train"], splits["valid"] = splits["train"][:-VALID], splits["train"][-VALID:]
    contents = {output / f"{split}.txt": "".join(f"{line}\n" for line in splits[split]) for split in SPLITS}
    missing = {path: text for path, text in contents.items() if not path.exists()}
    for path in contents.keys() - missing.keys():
        if path.read_bytes() != contents[path].encode():
            raise DataError(f"{path}: is there, with another content than {source} gives; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    for path, text in missing.items():
        write_whole(path, text)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where it can't be done."""
    parser = Parser(prog="prepare_captions", description="Make the files of COCO captions.", allow_abbrev=False)
    what, default = "a folder or a zip; not needed once the files are there", Path("data/captions")
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE", help=what)
    parser.add_argument("-o", "--output", type=Path, default=default, help="the folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    files = {split: arguments.output / f"{split}.txt" for split in SPLITS}
    try:
        if arguments.source:
            prepare(arguments.source, arguments.output)
        elif missing := [path for path in files.values() if not path.is_file()]:
            raise DataError(f"{missing[0]}: not there yet; give SOURCE (docs/text.md says where to find it)")
        counts = {split: path.read_bytes().count(b"\n") for split, path in files.items()}
    except (DataError, OSError) as error:
        print(f"prepare_captions: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{arguments.output}: {', '.join(f'{count:,} captions {SPLITS[split]}' for split, count in counts.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
