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
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.real import HeldOut, warn_of_held_out
from data.training_set import spread, training_data
from generator import TokenSpec
from runs.directories import VOCABULARY
from support.config import FIELDS, Config
from support.errors import DataError, UsageError

SPLITS = ("train", "valid", "test")
MAX_HELD_OUT = 2000  # lines of the validation set, and of the test set, that are used
MAX_LINE = 2**20  # characters
MAX_SEQ_LEN = FIELDS["seq_len"].metadata["high"]
HELD = 0.95  # the share of lines that a longer --seq_len should hold whole
# Byte order marks of other encodings; UTF-32 first, as one of its marks begins with one of UTF-16.
WIDE = {"UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}


def tokenise(line: str, tokens: str) -> Sequence[str]:
    """The tokens of a line: its characters as they are (`char`), or what white space separates (`word`)."""
    return line.split() if tokens == "word" else line


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, without their ends, which are LF, CR LF or CR; holds one line at a time.

    A byte order mark is skipped, also where files that have one were put together. Raises DataError: a line is not
    UTF-8 or is longer than 1 Mi characters; the message has its number. Raises OSError: the file can't be read.
    """
    with open(path, "rb") as raw:
        begins = raw.read(4)
    for code, marks in WIDE.items():
        if begins.startswith(marks):
            raise DataError(f"{path}: {code}, not UTF-8; `iconv -f {code} -t UTF-8` converts it")
    with (
        open(path, encoding="utf-8", errors="surrogateescape") as file,  # what is not UTF-8 becomes surrogates
        tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None) as bar,
    ):
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            line = line.removesuffix("\n")
            if len(line) > MAX_LINE:
                why = f"longer than {MAX_LINE:,} characters; there should be one sequence a line"
                raise DataError(f"{path}: line {number} is {why}")
            try:
                line.encode()
            except UnicodeEncodeError as error:
                place = len(line[: error.start].encode()) + 1
                raise DataError(f"{path}: line {number} is not UTF-8 (byte {place} of it)") from None
            yield line.removeprefix("\ufeff")
            if number % 2**14 == 0:
                bar.update(os.lseek(file.fileno(), 0, os.SEEK_CUR) - bar.n)


def split_of(tokens: Sequence[str]) -> str:
    """The part that a line of a single file belongs to: of ten, eight are for training, one each for valid and test.

    A keyed hash of its tokens decides, so that equal sequences are never on both sides, wherever they are in the file.
    """
    text = tokens if isinstance(tokens, str) else " ".join(tokens)
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=bytes(8)).digest()
    return {0: "valid", 1: "test"}.get(int.from_bytes(digest, "little") % 10, "train")


def split_files(data_dir: str) -> dict[str, Path | None]:
    """The file of each part: {split: path}, None for a part without one; only `train` where one file is to be split.

    Raises DataError: there is no such file, or the folder has no train.txt.
    """
    path = Path(data_dir)
    if path.is_dir():
        files = {split: path / f"{split}.txt" for split in SPLITS}
        if not files["train"].is_file():
            raise DataError(f"--data_dir {data_dir}: the folder holds no train.txt")
        held_out = {split: file if file.is_file() else None for split, file in files.items()}
        return held_out if held_out["valid"] or held_out["test"] else {"train": files["train"]}
    if not path.is_file():
        raise DataError(f"--data_dir {data_dir}: neither a file nor a folder")
    return {"train": path}


class Rules(NamedTuple):
    """How lines become sequences: `seq_len`, what `tokens` are, and what becomes of `long_lines`."""

    seq_len: int
    tokens: str
    long_lines: str


class Source:
    """The lines of --data_dir that are used, as tokens, with counts of those that are not used whole."""

    def __init__(self, folder: str, rules: Rules, whole: bool = False):
        """Finds the files; raises DataError where there are none. `whole`: lines are not cut to --seq_len."""
        self.folder, self.rules, self.files, self.whole = folder, rules, split_files(folder), whole
        self.empty = 0  # lines of white space
        self.lengths: Counter[int] = Counter()  # {tokens: lines of so many}, of all others
        self.used: Counter[str] = Counter()  # {split: lines}

    def __iter__(self) -> Iterator[tuple[str, Sequence[str]]]:
        """(split, at most --seq_len tokens, or all) of each line that has any; reads the files anew and counts anew.

        Raises DataError, OSError: as `read_lines` does.
        """
        rules, by_rule = self.rules, len(self.files) == 1
        self.empty = 0
        self.lengths.clear()
        self.used.clear()
        for split, path in self.files.items():
            for line in read_lines(path) if path else ():
                tokens = tokenise(line, rules.tokens) if line.strip() else ()
                if not tokens:
                    self.empty += 1
                    continue
                self.lengths[len(tokens)] += 1
                if len(tokens) > rules.seq_len and rules.long_lines == "drop":
                    continue
                cut = tokens[: rules.seq_len]
                part = split_of(cut) if by_rule else split
                self.used[part] += 1
                yield part, tokens if self.whole else cut

    @property
    def long(self) -> int:
        """How many lines are longer than --seq_len."""
        return sum(count for length, count in self.lengths.items() if length > self.rules.seq_len)

    def sufficient(self, share: float) -> tuple[int, float]:
        """The least --seq_len that holds such a share of the lines whole, or else the largest; and the share it holds.

        Returns (--seq_len, at most `share`).
        """
        held, total = 0, self.lengths.total()
        for length in sorted(length for length in self.lengths if length <= MAX_SEQ_LEN):
            held += self.lengths[length]
            if held >= share * total:
                return length, share
        return MAX_SEQ_LEN, held / total


@dataclass(frozen=True)
class Vocabulary:
    """Token ids: those of `entries` in their order, then unknown and end, which are generated too; padding and start.

    `kind` is `char` or `word`.
    """

    kind: str
    entries: tuple[str, ...]

    @property
    def unknown(self) -> int:
        """Stands for every token that is not an entry."""
        return len(self.entries)

    @property
    def end(self) -> int:
        """Follows the last token of a sequence that is shorter than T."""
        return len(self.entries) + 1

    @property
    def size(self) -> int:
        """V: ids 0..V-1 are generated; V itself is padding, which follows the end."""
        return len(self.entries) + 2

    @property
    def start(self) -> int:
        """Fed before the first token, never generated."""
        return len(self.entries) + 3

    @classmethod
    def count(cls, lines: Iterable[Sequence[str]], kind: str, most: int, min_count: int) -> "Vocabulary":
        """The most frequent tokens, at most `most` of them and each found `min_count` times or more; ties in order."""
        found: Counter[str] = Counter()
        for tokens in lines:
            found.update(tokens)
        frequent = sorted((-count, token) for token, count in found.items() if count >= min_count)
        return cls(kind, tuple(token for _, token in frequent[:most]))

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The id of each entry."""
        return {token: i for i, token in enumerate(self.entries)}

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Their ids, without an end; those that are not entries become unknown."""
        ids, unknown = self.ids, len(self.entries)
        return [ids.get(token, unknown) for token in tokens]

    def strip(self, rows: np.ndarray) -> list[list[int]]:
        """What comes before the end: int [n, T] → n lists of ids."""
        return [row[:n].tolist() for row, n in zip(rows, (rows < self.end).sum(axis=1), strict=True)]

    def tokens(self, rows: np.ndarray) -> list[list[str]]:
        """The tokens of sequences, int [n, T]; an unknown one is shown as \ufffd or, among words, as <unk>."""
        shown = [*self.entries, "<unk>" if self.kind == "word" else "\ufffd"]
        return [[shown[i] for i in ids] for ids in self.strip(rows)]

    def decode(self, rows: np.ndarray) -> list[str]:
        """The text of sequences, int [n, T]."""
        return [(" " if self.kind == "word" else "").join(tokens) for tokens in self.tokens(rows)]

    def to_json(self, **more) -> str:
        """The content of a vocabulary file."""
        return json.dumps({"kind": self.kind, "entries": self.entries, **more}, ensure_ascii=False, indent=0) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Reads a vocabulary file. Raises UsageError: it is none. Raises OSError: it can't be read."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            vocabulary = cls(content["kind"], tuple(content["entries"]))
            if vocabulary.kind not in ("char", "word") or not all(isinstance(e, str) for e in vocabulary.entries):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(f"{path}: not a vocabulary") from None
        return vocabulary


class Lines:
    """Sequences of unequal length, packed: 2 bytes per token below 65,536 tokens, and 8 a line."""

    def __init__(self, vocabulary: Vocabulary, seq_len: int):
        """An empty collection of sequences of at most `seq_len` tokens."""
        self.vocabulary, self.seq_len = vocabulary, seq_len
        self._tokens, self._ends = array("H" if vocabulary.size < 2**16 else "I"), array("q")
        self._hashes: np.ndarray | None = None

    def append(self, ids: list[int]) -> None:
        """Adds a sequence, without an end."""
        self._tokens.extend(ids)
        self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The sequences of these numbers, each followed by its end and padding: int [k] → int32 [k, T]."""
        if not len(rows):
            return np.zeros([0, self.seq_len], np.int32)
        flat, ends = np.frombuffer(self._tokens, self._tokens.typecode), np.frombuffer(self._ends, "q")
        starts = np.where(rows > 0, ends[rows - 1], 0)
        lengths, places = (ends[rows] - starts)[:, None], np.arange(self.seq_len)
        tokens = flat[np.minimum(starts[:, None] + places, len(flat) - 1)]
        after = np.where(places == lengths, self.vocabulary.end, self.vocabulary.size)
        return np.where(places < lengths, tokens, after).astype(np.int32)

    def contains(self, sequences: list[list[int]]) -> np.ndarray:
        """Whether each sequence is one of these, whole: bool [n].

        By 64-bit hashes: among 10^7 lines one in 10^12 answers is wrong.
        """
        kind = self._tokens.typecode
        if self._hashes is None:  # sorted, as a set of as many integers takes twelve times the memory
            bounds = zip(chain((0,), self._ends), self._ends, strict=False)
            self._hashes = np.sort(np.fromiter((hash(self._tokens[a:b].tobytes()) for a, b in bounds), "q", len(self)))
        hashes = np.array([hash(array(kind, ids).tobytes()) for ids in sequences], "q")
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return self._hashes[places] == hashes

    def digest(self) -> str:
        """A checksum of all sequences and their order."""
        digest = hashlib.sha256(self._tokens)
        digest.update(self._ends)
        return digest.hexdigest()


class TextData(HeldOut):
    """Lines of text: what training reads, and how far what is generated is from lines that training never saw.

    The files are read twice, once for the vocabulary and once for the lines, which stay in memory as token ids. As with
    the oracle, an epoch of pretraining is one batch, drawn at random, and with --train_size it is a pass over a fixed
    choice of lines.
    """

    kind = "text"

    def __init__(self, config: Config):
        """Reads the lines of --data_dir.

        Raises DataError: they can't be used; the message names the file. Raises OSError: a file can't be read.
        """
        self.config, self.origin = config, f"--data_dir {config.data_dir}"
        self.source = Source(config.data_dir, Rules(config.seq_len, config.tokens, config.long_lines))
        lines = (tokens for split, tokens in self.source if split == "train")
        counted = Vocabulary.count(lines, config.tokens, config.vocab_size - 2, config.min_count)
        given = Path(config.data_dir, VOCABULARY)  # another run's, so that likelihoods can be compared
        self.vocabulary = Vocabulary.read(given) if given.is_file() else counted
        if self.vocabulary.kind != config.tokens:
            raise DataError(f"{given}: its tokens are of the kind {self.vocabulary.kind}, not --tokens {config.tokens}")
        start, end = self.vocabulary.start, self.vocabulary.end
        self.spec = TokenSpec(self.vocabulary.size, config.seq_len, start, end)
        self.lines = {split: Lines(self.vocabulary, config.seq_len) for split in SPLITS}
        self._check()
        for split, tokens in self.source:
            self.lines[split].append(self.vocabulary.encode(tokens))
        self.valid, self.test = (spread(self.lines[split], MAX_HELD_OUT) for split in ("valid", "test"))
        self.training = training_data(self.lines["train"], config, "training lines")
        warn_of_held_out(self.origin, {"valid": self._in_training(self.valid), "test": self._in_training(self.test)})

    def _check(self) -> None:
        """Raises DataError where nothing can be learnt from what was counted."""
        config, entries = self.config, len(self.vocabulary.entries)
        if entries > 1 and self.source.used["train"]:
            return
        if not self.source.used["train"]:
            why = "no line to train on"
            if self.source.used:
                why += f"; the split leaves none of {self.source.used.total()} for training"
            if config.long_lines == "drop" and self.source.long:
                why += f"; {self.source.long} are longer than --seq_len {config.seq_len}"
        else:
            only = f"--tokens {config.tokens}, --min_count {config.min_count} and --vocab_size {config.vocab_size}"
            why = f"{only} leave a vocabulary of {entries} token{'s' * (entries != 1)}: nothing to choose from"
        raise DataError(f"--data_dir {config.data_dir}: {why}")

    def _in_training(self, rows: np.ndarray) -> np.ndarray:
        """Whether train has each held-out line, int32 [n, T], as well: bool [n]; where one file is split, none."""
        if len(self.source.files) == 1:
            return np.zeros(len(rows), bool)
        return self.lines["train"].contains(self.vocabulary.strip(rows))

    def digests(self) -> dict[str, str]:
        """A checksum of the tokens of each split, and of the vocabulary."""
        digests = {f"lines of {split}": lines.digest() for split, lines in self.lines.items()}
        entries = "\n".join(self.vocabulary.entries)
        return digests | {"the vocabulary": hashlib.sha256(entries.encode()).hexdigest()}

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
        counts = ", ".join(f"{len(self.lines[split]):,} {split}" for split in SPLITS)
        long, (enough, held) = "", source.sufficient(HELD)
        if source.long:
            share = f"{100 * source.long / source.lengths.total():.3g} %"
            long = f"; {source.long:,} ({share}) longer than {config.seq_len} tokens "
            long += "dropped" if config.long_lines == "drop" else "truncated"
            most = " (the most)" if held < HELD else ""
            long += f", --seq_len {enough}{most} would hold {100 * held:.3g} %" if enough > config.seq_len else ""
        empty = f"; {source.empty:,} empty ones skipped" if source.empty else ""
        return (
            f"{config.data_dir}: lines: {counts}{long}{empty}; {self.spec.vocab_size:,} tokens "
            f"(each a {config.tokens}), unknown and end among them"
        )
