"""Lines of text as real data: read as a stream, turned into tokens and back."""

import codecs
import functools
import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.real import Dataset, warn_of_held_out
from data.training_set import spread, training_data
from generator import TokenSpec
from support.config import VOCABULARY, Config
from support.errors import DataError, UsageError

SPLITS = ("train", "valid", "test")
MAX_HELD_OUT = 2000  # lines of the validation set, and of the test set, that are used
MAX_LINE = 2**20  # characters
UNKNOWN = {"char": "\ufffd", "word": "<unk>"}  # what an unknown token is shown as, and stands for it in data, too
WORDS = "the vocabulary"  # its checksum's name in config.json
# Byte order marks of other encodings; UTF-32 first, as one of its marks begins with one of UTF-16.
WIDE = {"UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}
UTF16 = "; if it is UTF-16, `iconv -f UTF-16LE -t UTF-8` or `-f UTF-16BE` converts it"
LATIN = "; if it is Latin-1 or UTF-16, `iconv -f LATIN1 -t UTF-8` or `-f UTF-16LE` converts it"


def tokenise(line: str, tokens: str) -> Sequence[str]:
    """The tokens of a line: its characters as they are (`char`), or what white space separates (`word`)."""
    return line.split() if tokens == "word" else line


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, without their ends, which are LF, CR LF or CR; holds one line at a time.

    A byte order mark is skipped, also where files that have one were put together. Raises DataError: a line is not
    UTF-8, has a NUL byte or is longer than 1 Mi characters; the message has its number. Raises OSError.
    """
    with open(path, "rb") as file:
        begins = file.read(4)
    code = next((code for code, marks in WIDE.items() if begins.startswith(marks)), "")
    if code:
        raise DataError(f"{path}: {code}, not UTF-8; `iconv -f {code} -t UTF-8` converts it")
    with (
        open(path, encoding="utf-8", errors="surrogateescape") as text,  # what is not UTF-8 becomes surrogates
        tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None) as bar,
    ):
        for number, line in enumerate(iter(lambda: text.readline(MAX_LINE + 1), ""), 1):
            line = line.removesuffix("\n")
            if len(line) > MAX_LINE:
                why = f"longer than {MAX_LINE:,} characters; there should be one sequence a line"
                raise DataError(f"{path}: line {number} is {why}")
            if "\0" in line:
                raise DataError(f"{path}: line {number} has a NUL byte, which is no text{UTF16}")
            try:
                line.encode()
            except UnicodeEncodeError as error:
                place = len(line[: error.start].encode()) + 1
                raise DataError(f"{path}: line {number} is not UTF-8 (byte {place} of it){LATIN}") from None
            yield line.removeprefix("\ufeff")
            if number % 2**14 == 0:
                bar.update(os.lseek(text.fileno(), 0, os.SEEK_CUR) - bar.n)


def split_of(tokens: Sequence[str]) -> str:
    """The part that a line of a single file belongs to: of ten, eight are for training, one each for valid and test."""
    # A keyed hash of its tokens decides, so that equal sequences are on one side, wherever they are in the file.
    text = tokens if isinstance(tokens, str) else " ".join(tokens)
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=bytes(8)).digest()
    return {0: "valid", 1: "test"}.get(int.from_bytes(digest, "little") % 10, "train")


def split_files(data_dir: str) -> dict[str, Path]:
    """The file of each part that has one: {split: path}; only `train` where one file is to be split.

    Raises DataError: there is no such file, or the folder has no train.txt.
    """
    path = Path(data_dir)
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise DataError(f"--data_dir {data_dir}: neither a file nor a folder")
    files = {split: file for split in SPLITS if (file := path / f"{split}.txt").is_file()}
    if "train" not in files:
        raise DataError(f"--data_dir {data_dir}: the folder holds no train.txt")
    return files


class Source:
    """The lines of --data_dir that are used, as tokens, with counts of those that are not used whole."""

    def __init__(self, config: Config, as_version_1: bool = False):
        """Finds the files; raises DataError where there are none.

        `as_version_1`: a single file is split by what is left of long lines, and not by whole lines.
        """
        self.config, self.as_version_1, self.files = config, as_version_1, split_files(config.data_dir)
        self.empty = 0  # lines of white space
        self.lengths: Counter[int] = Counter()  # {tokens: lines of so many}, of all others
        self.used: Counter[str] = Counter()  # {split: lines}

    def __iter__(self) -> Iterator[tuple[str, Sequence[str]]]:
        """(split, all tokens) of each line that has any and is kept, counted anew; raises as `read_lines` does."""
        seq_len = self.config.seq_len
        self.empty, self.lengths, self.used = 0, Counter(), Counter()
        for split, path in self.files.items():
            for line in read_lines(path):
                if not line.strip():
                    self.empty += 1
                    continue
                tokens = tokenise(line, self.config.tokens)
                self.lengths[len(tokens)] += 1
                if len(tokens) > seq_len and self.config.long_lines == "drop":
                    continue
                part = split_of(tokens[:seq_len] if self.as_version_1 else tokens) if len(self.files) == 1 else split
                self.used[part] += 1
                yield part, tokens

    @property
    def long(self) -> int:
        """How many lines are longer than --seq_len."""
        return sum(count for length, count in self.lengths.items() if length > self.config.seq_len)


@dataclass
class Vocabulary:
    """Token ids of `kind` `char` or `word`: those of `entries` in their order, then `unknown`, `end`, padding, `start`.

    Ids 0..`size` - 1 are generated; padding, `size` itself, follows the end of a sequence that is shorter than T, and
    `start` is fed before the first token.
    """

    kind: str
    entries: tuple[str, ...]

    def __post_init__(self) -> None:
        self.unknown, self.end, self.size, self.start = range(len(self.entries), len(self.entries) + 4)
        self.ids = {token: i for i, token in enumerate(self.entries)}

    @classmethod
    def count(
        cls, lines: Iterable[Sequence[str]], kind: str, most: int, min_count: int, as_version_1: bool = False
    ) -> "Vocabulary":
        """The most frequent tokens, at most `most` of them and each found `min_count` times or more; ties in order.

        What stands for an unknown token is none of them, but `as_version_1`.
        """
        found = Counter(chain.from_iterable(lines))
        if not as_version_1:
            del found[UNKNOWN[kind]]
        frequent = sorted((-count, token) for token, count in found.items() if count >= min_count)
        return cls(kind, tuple(token for _, token in frequent[:most]))

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Their ids, without an end; those that are not entries become unknown."""
        return [self.ids.get(token, self.unknown) for token in tokens]

    def strip(self, rows: np.ndarray) -> list[list[int]]:
        """What comes before the end: int [n, T] → n lists of ids."""
        return [row[:n].tolist() for row, n in zip(rows, (rows < self.end).sum(axis=1), strict=True)]

    def decode(self, rows: np.ndarray) -> list[str]:
        """The text of sequences, int [n, T]; an unknown token is shown as \ufffd or, among words, as <unk>."""
        blank, shown = " " * (self.kind == "word"), [*self.entries, UNKNOWN[self.kind]]
        return [blank.join(shown[i] for i in ids) for ids in self.strip(rows)]

    def digest(self) -> str:
        """A checksum of the entries."""
        return hashlib.sha256("\n".join(self.entries).encode()).hexdigest()

    def to_json(self, **more) -> str:
        """The content of a vocabulary file."""
        return json.dumps({"kind": self.kind, "entries": self.entries, **more}, ensure_ascii=False, indent=0) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Reads a vocabulary file. Raises UsageError: it is none. Raises OSError: it can't be read."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            kind, entries = content["kind"], content["entries"]
            right = kind in ("char", "word") and isinstance(entries, list) and len(set(entries)) == len(entries)
            if not (right and all(isinstance(each, str) and [*tokenise(each, kind)] == [each] for each in entries)):
                raise TypeError
            "".join(entries).encode()  # a ValueError where one is half a surrogate pair
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(f"{path}: not a vocabulary, whose entries are different tokens") from None
        return cls(kind, tuple(entries))


class Lines:
    """Sequences of unequal length, packed: 2 bytes per token below 65,536 tokens, and 8 a line."""

    def __init__(self, vocabulary: Vocabulary, seq_len: int, sequences: Iterable[list[int]] = ()):
        """A collection of sequences of at most `seq_len` tokens, at first of those that are given."""
        self.vocabulary, self.seq_len = vocabulary, seq_len
        self._tokens, self._ends = array("H" if vocabulary.size < 2**16 else "I"), array("q")
        for ids in sequences:
            self.append(ids)

    def append(self, ids: list[int]) -> None:
        """Adds a sequence, without an end."""
        self._tokens.extend(ids)
        self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The sequences of these numbers, each followed by its end and padding: int [k] → int32 [k, T]."""
        flat, ends = np.frombuffer(self._tokens, self._tokens.typecode), np.frombuffer(self._ends, "q")
        starts = np.where(rows > 0, ends[rows - 1], 0)
        lengths, places = (ends[rows] - starts)[:, None], np.arange(self.seq_len)
        tokens = flat[np.minimum(starts[:, None] + places, len(flat) - 1)]
        after = np.where(places == lengths, self.vocabulary.end, self.vocabulary.size)
        return np.where(places < lengths, tokens, after).astype(np.int32)

    @functools.cached_property
    def _hashes(self) -> np.ndarray:  # sorted, as a set of as many integers takes twelve times the memory
        hashes = (hash(self._tokens[a:b].tobytes()) for a, b in pairwise(chain((0,), self._ends)))
        return np.sort(np.fromiter(hashes, "q", len(self)))

    def contains(self, sequences: list[list[int]]) -> np.ndarray:
        """Whether each sequence is one of these, whole: bool [n]; after it no sequence may be added."""
        # By 64-bit hashes: among 10^7 lines one in 10^12 answers is wrong.
        hashes = np.array([hash(array(self._tokens.typecode, ids).tobytes()) for ids in sequences], "q")
        return np.searchsorted(self._hashes, hashes, "right") > np.searchsorted(self._hashes, hashes)

    def without(self, others: "Lines") -> "Lines":
        """These but for those of T tokens, as truncated ones have, that others have as well."""
        sequences = [self._tokens[a:b].tolist() for a, b in pairwise(chain((0,), self._ends))]
        full = np.diff(self._ends, prepend=0) == self.seq_len
        return Lines(self.vocabulary, self.seq_len, compress(sequences, ~(others.contains(sequences) & full)))

    def digest(self) -> str:
        """A checksum of all sequences and their order."""
        digest = hashlib.sha256(self._tokens)
        digest.update(self._ends)
        return digest.hexdigest()


class TextData(Dataset):
    """Lines of text. The files are read twice: for the vocabulary, and for the lines, which are kept as token ids."""

    kind = "text"

    def __init__(self, config: Config, as_version_1: bool = False):
        """Reads the lines of --data_dir; `as_version_1` as in `Source`, and what shows an unknown token is an entry.

        Raises DataError: they can't be used; the message names the file. Raises OSError: a file can't be read.
        """
        self.config, self.origin = config, f"--data_dir {config.data_dir}"
        if os.path.realpath(config.log_dir) == os.path.realpath(config.data_dir):  # which gets a vocabulary.json
            raise DataError(f"--log_dir {config.log_dir}: the lines of --data_dir are there")
        self.source = Source(config, as_version_1)
        lines = (tokens[: config.seq_len] for split, tokens in self.source if split == "train")
        most = config.vocab_size - 2
        counted = Vocabulary.count(lines, config.tokens, most, config.min_count, as_version_1)
        given = Path(config.data_dir, VOCABULARY)  # another run's, so that likelihoods can be compared
        self.counted = not given.is_file()
        self.vocabulary = counted if self.counted else Vocabulary.read(given)
        if self.vocabulary.kind != config.tokens:
            raise DataError(f"{given}: its tokens are of the kind {self.vocabulary.kind}, not --tokens {config.tokens}")
        self.spec = TokenSpec(self.vocabulary.size, config.seq_len, self.vocabulary.start, self.vocabulary.end)
        self.lines = {split: Lines(self.vocabulary, config.seq_len) for split in SPLITS}
        used, long, entries = self.source.used, self.source.long, len(self.vocabulary.entries)
        if not used["train"]:
            why = "no line to train on" + f"; the split leaves none of {used.total()} for training" * bool(used)
            dropped = config.long_lines == "drop" and long
            why += f"; {long} are longer than --seq_len {config.seq_len}" * bool(dropped)
            raise DataError(f"{self.origin}: {why}")
        if entries < 2:
            only = f"--tokens {config.tokens}, --min_count {config.min_count} and --vocab_size {config.vocab_size}"
            few = f"leave a vocabulary of {entries} token{'s' * (entries != 1)}: nothing to choose from"
            raise DataError(f"{self.origin}: {only} {few}")
        for split, tokens in self.source:
            self.lines[split].append(self.vocabulary.encode(tokens[: config.seq_len]))
        truncated = self.source.long and config.long_lines == "truncate" and not as_version_1
        if truncated and len(self.source.files) == 1:  # lines that begin alike
            for split, other in (("valid", "train"), ("test", "train"), ("test", "valid")):
                self.lines[split] = self.lines[split].without(self.lines[other])
        self.left_out = self.source.used.total() - sum(map(len, self.lines.values()))
        self.valid, self.test = (spread(self.lines[split], MAX_HELD_OUT) for split in ("valid", "test"))
        self.training = training_data(self.lines["train"], config, "training lines")
        # Where one file is split, train has no held-out line.
        train = self.lines["train"] if len(self.source.files) > 1 else Lines(self.vocabulary, config.seq_len)
        known = (train.contains(self.vocabulary.strip(rows)) for rows in (self.valid, self.test))
        warn_of_held_out(self.origin, dict(zip(("valid", "test"), known, strict=True)))

    def digests(self) -> dict[str, str]:
        """A checksum of the tokens of each split, and of the vocabulary."""
        digests = {f"lines of {split}": lines.digest() for split, lines in self.lines.items()}
        return digests | {WORDS: self.vocabulary.digest()}

    def files(self) -> dict[str, str]:
        """What is kept with the run: {file name: content}. It differs where the lines do."""
        checksums = {split: lines.digest() for split, lines in self.lines.items()}
        return {VOCABULARY: self.vocabulary.to_json(sha256_of_tokens=checksums)}

    def decode(self, rows: np.ndarray) -> list[str]:
        """The text of sequences, int32 [n, T]: for an objective."""
        return self.vocabulary.decode(rows)

    def introduction(self) -> str:
        """The line a run begins with."""
        config, source = self.config, self.source
        parts = [f"lines: {', '.join(f'{len(lines):,} {split}' for split, lines in self.lines.items())}"]
        if source.long:
            long = f"{source.long:,} ({100 * source.long / source.lengths.total():.3g} %) longer than"
            long += f" {config.seq_len} tokens {'dropped' if config.long_lines == 'drop' else 'truncated'}"
            parts.append(long)
        parts += [f"{self.left_out:,} held-out ones left out, as others begin alike"] * bool(self.left_out)
        parts += [f"{source.empty:,} empty ones skipped"] * bool(source.empty)
        given = "" if self.counted else f" of its {VOCABULARY}"
        parts.append(f"{self.spec.vocab_size:,} tokens{given} (each a {config.tokens}), unknown and end among them")
        for rows, name in ((self.valid, "validation"), (self.test, "test")):
            if count := np.sum(rows < self.vocabulary.end):
                share = 100 * np.sum(rows == self.vocabulary.unknown) / count
                parts.append(f"{share:.3g} % of the tokens of the {name} set are unknown")
        return f"{config.data_dir}: {'; '.join(parts)}"
