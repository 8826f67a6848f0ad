"""A table of experiments, methods × seeds: read from a TOML file and checked with the parser of main.py."""

import functools
import hashlib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs.directories import CHECKPOINTS, METRICS, changeable
from runs.schedule import Schedule
from support.config import FIELDS, Config
from support.config_file import (
    CONFIG,
    READ_FROM,
    UNRELATED_TO_PRETRAINING,
    differences,
    from_flags,
    pretraining_part,
    read_config,
)
from support.errors import UsageError
from support.parser import explicit_flags, read_flags, words_of

# Flags that the sweep itself gives to main.py, or that would make a cell something other than a training run.
RESERVED = ("seed", "threads", "log_dir", "eval_log_dir", "pretrained", "is_train", "overwrite")
PRETRAINED = "pretrained"  # the folder of the runs that pretrain a generator for several methods
# Flags on which the data depend: cells with equal values must have read the same data.
DATA_FLAGS = (
    *("dataset", "data_dir", "oracle_params", "objective", "seq_len", "vocab_size", "tokens", "min_count"),
    *("long_lines", "token_length", "onsets"),
)
TABLE_KEYS = ("title", "seeds", "flags", "threads", "methods", "report")
METHOD_KEYS = ("name", "label", "flags", "seeds")
REPORT_KEYS = ("metrics", "against", "table", "collapsed", "measured", "measures", "figures", "planes")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a folder


@dataclass(frozen=True)
class Method:
    """A row of the table: the `name` of its folder, a `label` for people, `flags` of main.py, and its `seeds`."""

    name: str
    label: str
    flags: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One run: a method with a seed, in `directory`. It starts from the pretraining of the cell `source`, if any."""

    method: Method
    seed: int
    threads: int
    directory: Path
    source: "Cell | None" = None

    @property
    def log_dir(self) -> Path:
        """The directory in which the run trains."""
        return self.directory / "train"

    @property
    def eval_log_dir(self) -> Path:
        """The directory of the run's evaluations."""
        return self.directory / "eval"

    @property
    def argv(self) -> list[str]:
        """The command line of main.py."""
        own = {"seed": self.seed, "threads": self.threads, "log_dir": self.log_dir, "eval_log_dir": self.eval_log_dir}
        if self.source:
            own["pretrained"] = self.source.log_dir
        return [*self.method.flags, *words_of(own)]

    @property
    def title(self) -> str:
        """The method and the seed, for people."""
        return f"{self.method.name}, seed {self.seed}"

    @functools.cached_property
    def epochs(self) -> int:
        """Number of epochs of all phases."""
        return Schedule(read_flags(self.argv)).all_epochs

    @property
    def epochs_done(self) -> int:
        """Number of epochs in the run's metrics.csv."""
        path = self.log_dir / METRICS
        return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0

    @property
    def data(self) -> str:
        """The fingerprint of the data that the run has read; "" if it read no files, or none is recorded."""
        path = self.log_dir / CONFIG
        return fingerprint(read_config(path)) if path.exists() else ""

    @property
    def finished(self) -> bool:
        """Whether the checkpoint of the run's last step exists.

        Raises:
            UsageError: the directory holds a run with other flags, which main.py could not resume.
        """
        if not (self.log_dir / CONFIG).exists():
            return False
        config = read_flags(self.argv)
        content = read_config(self.log_dir / CONFIG)
        recorded = from_flags(content["flags"])
        free = changeable(self.log_dir, content, recorded, config)
        if self.method.name.startswith(f"{PRETRAINED}/"):  # version 1.0 also recorded flags of the later phases
            free |= UNRELATED_TO_PRETRAINING
        if differing := differences(recorded, config, free):
            raise UsageError(f"{self.log_dir}: holds a run with {'; '.join(differing)}")
        return (self.log_dir / CHECKPOINTS / f"step-{len(Schedule(config)):09d}").is_dir()


def fingerprint(content: dict[str, Any]) -> str:
    """A checksum of what the `content` of a config.json records of its data; "" if the run reads no files."""
    read = content.get("data", {}) | ({"objective": content["objective"]} if content.get("objective") else {})
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16] if read else ""


def data_flags(cell: Cell) -> tuple[Any, ...]:
    """The values of the flags that determine which data a cell reads."""
    config = read_flags(cell.method.flags)
    values = {name: getattr(config, name, None) for name in DATA_FLAGS}
    return tuple(os.path.normpath(v) if v and name in READ_FROM else v for name, v in values.items())


def mixed(data: dict[Cell, str]) -> str:
    """Names the cells that have read other data than most cells with equal data flags, in a message; "" if none has.

    `data` has the fingerprints of the cells' data, "" if unknown.
    """
    groups: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    for cell, digest in data.items():
        if digest:
            groups.setdefault(data_flags(cell), {}).setdefault(digest, []).append(cell.title)
    for group in groups.values():
        most, *others = sorted(group.values(), key=len, reverse=True)
        if others:
            return f"{'; '.join(sum(others, []))}: read other data than {'; '.join(most)}"
    return ""


@dataclass(frozen=True)
class Experiment:
    """The content of a table's file; `report` holds the options of tools/report.py."""

    name: str
    title: str
    methods: tuple[Method, ...]
    threads: int
    report: dict[str, Any] = field(default_factory=dict)

    def cells(self, logs: Path, only: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Cell]:
        """The runs of the table in `logs`/NAME, in the table's order, each after the run that it starts from.

        Args:
            logs: the folder of all tables' runs.
            only: names of methods; () selects all.
            seeds: () selects all.

        Raises:
            UsageError: the table has no such method or seed.
        """
        if unknown := set(only) - {method.name for method in self.methods}:
            raise UsageError(f"--only: {self.name} has no method {', '.join(sorted(unknown))}")
        if absent := set(seeds) - {seed for method in self.methods for seed in method.seeds}:
            raise UsageError(f"--seeds: {self.name} has no seed {', '.join(map(str, sorted(absent)))}")
        sources = self._sources()
        cells: dict[Path, Cell] = {}

        def add(method: Method, seed: int, source: Cell | None = None) -> Cell:
            directory = logs / self.name / method.name / str(seed)
            return cells.setdefault(directory, Cell(method, seed, self.threads, directory, source))

        for method in self.methods:
            source = sources.get(method.name)
            for seed in method.seeds:
                if (not only or method.name in only) and (not seeds or seed in seeds):
                    add(method, seed, add(source, seed) if source and seed in source.seeds else None)
        return list(cells.values())

    def _sources(self) -> dict[str, Method]:
        """The method whose pretraining other methods start from, by the names of these.

        Methods that differ only in what follows the pretraining of the generator share it. They start from a method
        that does nothing else or, if there is none, from an additional one in the folder PRETRAINED.
        """
        groups: dict[Config, list[Method]] = {}
        for method in self.methods:
            groups.setdefault(pretraining(read_flags(method.flags)), []).append(method)
        sources: dict[str, Method] = {}
        for config, alike in groups.items():
            schedules = [(method, Schedule(read_flags(method.flags))) for method in alike]
            only_pretrain = [method for method, steps in schedules if len(steps) == config.pretrain_g_epochs]
            if len(alike) == 1 or not config.pretrain_g_epochs:
                continue
            first, seeds = alike[0], tuple(sorted({seed for method in alike for seed in method.seeds}))
            flags = {name: value for name, value in vars(config).items() if value != FIELDS[name].default}
            words = tuple(words_of(flags | {"total_epochs": 0, "reward": "constant"}))  # without a discriminator
            added = Method(f"{PRETRAINED}/{first.name}", f"pretraining of {first.label}", words, seeds)
            source = only_pretrain[0] if only_pretrain else added
            sources |= {method.name: source for method in alike if method not in only_pretrain}
        return sources


def pretraining(config: Config) -> Config:
    """The flags on which the generator's pretraining and its curves depend; all others have their defaults."""
    return pretraining_part(config, UNRELATED_TO_PRETRAINING - {"eval_every"})  # which determines the curves' points


class TableError(UsageError):
    """A wrong value in a table's file: the message, the `key` and the number of its method, None outside of methods."""


def require(right: object, key: str, message: str, index: int | None = None) -> None:
    """Raises TableError, unless `right`."""
    if not right:
        raise TableError(message, key, index)


def read(path: Path) -> Experiment:
    """Reads a table of experiments.

    The file is TOML. `title` is a text, `seeds` a list, and `flags` are flags of main.py for all methods. `threads`
    are those of one run; its numbers depend on them, so the default is 1. Each of `[[methods]]` has `name`, `label`,
    `flags` and, if not the table's, `seeds`. `[report]` has the options of tools/report.py, which checks their values.

    Raises:
        UsageError: the table can't be used; the message names the file and the line.
        OSError: the file can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # with or without a byte-order mark
        content = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not NAME.fullmatch(path.stem):
        raise UsageError(f"{path}: the file's name, which the runs' folder gets, must be letters, digits, - and _")
    try:
        return _experiment({"title": path.stem, "threads": 1, "methods": [], "report": {}} | content, path.stem)
    except TableError as error:
        message, key, index = error.args
        raise UsageError(f"{path}, line {_line_of(text, key, index)}: {message}") from None


def _line_of(text: str, key: str, index: int | None) -> int:
    """The line of a `key` in the `text` of a file; if it is missing, that of its method."""
    methods, section, found = 0, None, 1
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("["):
            section = methods if line.lstrip().startswith("[[") else None
            methods += section is not None
            found = number if section == index is not None else found
        if section == index and re.match(rf"\s*\[*(report\.)?{re.escape(key)}\b", line):
            return number
    return found


def _experiment(content: dict[str, Any], name: str) -> Experiment:
    _check_keys(content, TABLE_KEYS)
    title, threads, tables, report = (content[key] for key in ("title", "threads", "methods", "report"))
    require(_is_text(title), "title", f"title is {title!r}, not a text")
    require(type(threads) is int and 0 < threads <= 1024, "threads", f"threads is {threads!r}, not 1 to 1024")
    right = isinstance(tables, list) and tables and all(isinstance(table, dict) for table in tables)
    require(right, "methods", "there must be at least one [[methods]]")
    words = _read_words(content.get("flags", ""))
    methods = tuple(_method(table, index, words, content.get("seeds")) for index, table in enumerate(tables))
    for key in ("name", "label"):
        values = [getattr(method, key) for method in methods]
        for index, value in enumerate(values):
            require(value not in values[:index], key, f"there are two methods with the {key} {value!r}", index)
    require(isinstance(report, dict), "report", "report is not a table")
    _check_keys(report, REPORT_KEYS)
    for key in ("against", "collapsed"):
        listed = report.get(key, [])
        for listed_name in listed if isinstance(listed, list) else [listed]:
            known = listed_name in [method.name for method in methods]
            require(known, key, f"report.{key} is {listed!r}; there is no method {listed_name!r}")
    return Experiment(name, title, methods, threads, report)


def _method(table: dict[str, Any], index: int, common: tuple[str, ...], seeds: Any) -> Method:
    """The method of number `index`; `common` are the words of the flags that all have, `seeds` those of the file."""
    _check_keys(table, METHOD_KEYS, index)
    name: Any = table.get("name")
    label, seeds = table.get("label", name), table.get("seeds", seeds)
    right = isinstance(name, str) and NAME.fullmatch(name) and name != PRETRAINED
    require(right, "name", f"name is {name!r}; it must be letters, digits, - and _, and not {PRETRAINED}", index)
    require(_is_text(label), "label", f"label is {label!r}, not a text", index)
    right = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    right = right and 0 < len(seeds) == len(set(seeds))
    message = f"seeds is {seeds!r}, not a list of different numbers of 0 to {2**31 - 1}"
    require(right, "seeds", message, index if "seeds" in table or seeds is None else None)
    words = common + _read_words(table.get("flags", ""), index)
    try:
        read_flags(words)
    except UsageError as error:
        raise TableError(str(error), "flags", index if "flags" in table else None) from None
    return Method(name, label, words, tuple(seeds))


def _read_words(flags: Any, index: int | None = None) -> tuple[str, ...]:
    """Splits flags as a shell does; each of them must be one that main.py has and that the sweep does not give."""
    require(isinstance(flags, str), "flags", f"flags is {flags!r}, not a text", index)
    try:
        words = tuple(shlex.split(flags))
        given = explicit_flags(words)
    except ValueError as error:  # a UsageError is one
        raise TableError(f"flags: {error}", "flags", index) from None
    for name in RESERVED:
        require(name not in given, "flags", f"--{name} is not for a table to give", index)
    return words


def _check_keys(table: Iterable[str], keys: Sequence[str], index: int | None = None) -> None:
    for key in table:
        require(key in keys, key, f"{key} is not known here; there are {', '.join(keys)}", index)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
