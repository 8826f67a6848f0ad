"""A table of experiments, methods × seeds: read from a TOML file and checked with the parser of main.py."""

import functools
import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs.directories import CHECKPOINTS, METRICS, changeable, in_vain, sha256_of
from runs.schedule import Schedule
from support.config import FIELDS, OWN_CODE, Config, lacking, own_names, own_sources
from support.config_file import CONFIG, UNRELATED_TO_PRETRAINING, differences, from_flags, pretraining_part, read_config
from support.errors import UsageError
from support.parser import explicit_flags, read_flags, words_of

# Flags that the sweep itself gives to main.py, or that would make a cell something other than a training run.
RESERVED = ("seed", "threads", "log_dir", "eval_log_dir", "pretrained", "teacher", "is_train", "overwrite")
# What is measured, and when: the same for all of a table.
MEASURING = {"eval_samples", "d_eval_samples", "candidates", "eval_every", "sample_every"}
PRETRAINED = "pretrained"  # the folder of the runs that pretrain a generator for several methods
# Flags on which the data depend: cells with equal values must have read the same data.
DATA_FLAGS = (
    *("dataset", "data_dir", "oracle_params", "objective", "seq_len", "vocab_size", "tokens", "min_count"),
    *("long_lines", "token_length", "onsets", "transpose", "window_stride"),
)
# The keys of a table, of a method and of what is said of the report.
TABLE = {"title": str, "seeds": list, "flags": str, "threads": int, "methods": list, "report": dict}
METHOD = {"name": str, "label": str, "flags": str, "seeds": list, "teachers": list}
REPORT_LISTS = "metrics against table pivot best collapsed measured measures figures planes"
REPORT: dict[str, type] = dict.fromkeys(REPORT_LISTS.split(), list)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a folder
TEACHER = re.compile(rf"({NAME.pattern})(?:\+([1-9]))?")  # a method, and how many seeds further


@dataclass(frozen=True)
class Method:
    """A row of the table: the `name` of its folder, a `label`, `flags` of main.py, `seeds`; methods for --teacher."""

    name: str
    label: str
    flags: tuple[str, ...]
    seeds: tuple[int, ...]
    teachers: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The flags, and --teacher with the names of methods for directories."""
        return [*self.flags, *words_of({"teacher": self.teachers} if self.teachers else {})]

    @functools.cached_property
    def config(self) -> Config:
        """What the flags mean."""
        return read_flags(self.words)


@dataclass(frozen=True)
class Cell:
    """A method with a seed, in `directory`; it starts from the pretraining of `source`, and learns from `teachers`."""

    method: Method
    seed: int
    threads: int
    directory: Path
    source: "Cell | None" = None
    teachers: tuple["Cell", ...] = ()

    @property
    def needs(self) -> list["Cell"]:
        """The runs that must have finished before."""
        return [*([self.source] if self.source else []), *self.teachers]

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
        others = {"pretrained": [self.source.log_dir]} if self.source else {}
        others |= {"teacher": [cell.log_dir for cell in self.teachers]} if self.teachers else {}
        return [*self.method.flags, *words_of(own | others)]

    @property
    def title(self) -> str:
        """The method and the seed, for people."""
        return f"{self.method.name}, seed {self.seed}"

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases: rows of the training log."""
        return sum(phase.epochs for phase in Schedule(self.method.config).phases)

    @property
    def epochs_done(self) -> int:
        """Number of epochs in the run's metrics.csv."""
        path = self.log_dir / METRICS
        return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0

    @property
    def recorded(self) -> dict[str, Any]:
        """The content of the run's config.json; {} if there is none."""
        path = self.log_dir / CONFIG
        return read_config(path) if path.exists() else {}

    @property
    def moved(self) -> bool:
        """Whether the table names other data, or other code of one's own, than the run there has on record."""
        if not (content := self.recorded):
            return False
        return self.recoded or data_flags(from_flags(content["flags"])) != data_flags(self.method.config)

    @property
    def recoded(self) -> bool:
        """Whether the code of one's own that the table names is not what the run there has on record."""
        content, code = self.recorded, own_sources(self.method.config).items()
        return any(content.get(flag, source) != source for flag, source in code)

    @property
    def checkpoint(self) -> Path:
        """The directory of the checkpoint after the last step."""
        return self.log_dir / CHECKPOINTS / f"step-{len(Schedule(self.method.config)):09d}"

    @property
    def finished(self) -> bool:
        """Whether the last checkpoint exists; raises UsageError: the run there has other flags, or other teachers."""
        if not (content := self.recorded):
            return False
        config, recorded = read_flags(self.argv), from_flags(content["flags"])
        free = changeable(self.log_dir, recorded, config)
        free -= MEASURING - in_vain(recorded, config)  # of one table at equal numbers of samples
        if self.method.name.startswith(f"{PRETRAINED}/"):  # version 1.0 also recorded flags of the later phases
            free |= UNRELATED_TO_PRETRAINING
        if differing := differences(recorded, config, free):
            raise UsageError(f"{self.log_dir}: holds a run with {'; '.join(differing)}")
        learnt = [(record["run"], record["steps"]) for record in content.get("teacher", [])]
        present = [(cell.recorded.get("run"), len(Schedule(cell.method.config))) for cell in self.teachers]
        if len(learnt) != len(present) or any(now[0] and now != of for now, of in zip(present, learnt, strict=True)):
            raise UsageError(f"{self.log_dir}: holds a run that learnt from others than its teachers now")
        return self.checkpoint.is_dir()


def named_teacher(text: str) -> tuple[str, int]:
    """The method that "mle+1" names, and how many seeds further; raises UsageError: `text` is no such name."""
    if not (found := TEACHER.fullmatch(text)):
        raise UsageError(f"teachers: {text!r} is not the name of a method, or one and +1 to +9")
    return found[1], int(found[2] or 0)


def fingerprint(content: dict[str, Any]) -> str:
    """A checksum of what the `content` of a config.json records of data and a user's code; "" without a record."""
    read = content.get("data", {}) | {flag: content[flag] for flag in OWN_CODE if content.get(flag)}
    return sha256_of(json.dumps(read, sort_keys=True).encode())[:16] if read else ""


def data_flags(config: Config) -> tuple[Any, ...]:
    """The values of the flags that determine which data, and which code of a user's own, a run reads."""
    values = [*(getattr(config, name) for name in DATA_FLAGS), *own_names(config).values()]
    return tuple(os.path.normpath(value) if value and isinstance(value, str) else value for value in values)


def mixed(data: dict[Cell, str]) -> str:
    """Which cells have read other data, by fingerprints ("" unknown), than most with equal data flags; or ""."""
    groups: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    for cell, digest in data.items():
        if digest:
            groups.setdefault(data_flags(cell.method.config), {}).setdefault(digest, []).append(cell.title)
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
    report: dict[str, Any]

    def cells(self, logs: Path, only: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Cell]:
        """The runs of the table in `logs`/NAME, in the table's order, each after the runs that it needs.

        `only` are names of methods; () selects all, as it does of `seeds`. Raises UsageError: one of them is not there.
        """
        if unknown := set(only) - {method.name for method in self.methods}:
            raise UsageError(f"--only: {self.name} has no method {', '.join(sorted(unknown))}")
        if absent := set(seeds) - {seed for method in self.methods for seed in method.seeds}:
            raise UsageError(f"--seeds: {self.name} has no seed {', '.join(map(str, sorted(absent)))}")
        sources, named = self._sources(), {method.name: method for method in self.methods}

        def cell(method: Method, seed: int) -> Cell:
            start = sources.get(method.name)
            source = cell(start, seed) if start and seed in start.seeds else None
            pairs = [(named[name], further) for name, further in map(named_teacher, method.teachers)]
            teachers = tuple(cell(m, m.seeds[(m.seeds.index(seed) + further) % len(m.seeds)]) for m, further in pairs)
            return Cell(method, seed, self.threads, logs / self.name / method.name / str(seed), source, teachers)

        def with_needs(cell: Cell) -> list[Cell]:
            return [*(need for before in cell.needs for need in with_needs(before)), cell]

        chosen = [method for method in self.methods if not only or method.name in only]
        cells = [cell(method, seed) for method in chosen for seed in method.seeds if not seeds or seed in seeds]
        return list(dict.fromkeys(need for each in cells for need in with_needs(each)))

    def _sources(self) -> dict[str, Method]:
        """The method whose pretraining other methods start from, by the names of these.

        Methods that differ only in what follows the pretraining of the generator share it. They start from a method
        that does nothing else or, if there is none, from an additional one in the folder PRETRAINED.
        """
        groups: dict[Config, list[Method]] = {}
        for method in self.methods:  # those that are evaluated at other epochs have curves of other points
            alike = pretraining_part(method.config, UNRELATED_TO_PRETRAINING - {"eval_every"})
            groups.setdefault(alike, []).append(method)
        sources: dict[str, Method] = {}
        for config, methods in groups.items():
            if len(methods) == 1 or not config.pretrain_g_epochs:
                continue
            enough = [method for method in methods if len(Schedule(method.config)) == config.pretrain_g_epochs]
            if not enough:
                flags = {n: v for n, v in vars(config).items() if v != FIELDS[n].default and not lacking(config, n)}
                words = words_of(flags | {"total_epochs": 0, "reward": "constant"})  # without a discriminator
                seeds = tuple({seed for method in methods for seed in method.seeds})
                name, label = f"{PRETRAINED}/{methods[0].name}", f"pretraining of {methods[0].label}"
                enough = [Method(name, label, tuple(words), seeds)]
            sources |= {method.name: enough[0] for method in methods if method not in enough}
        return sources


def read(path: Path) -> Experiment:
    """Reads a table of experiments.

    The file is TOML. `title` is a text, `seeds` a list, and `flags` are flags of main.py for all methods. `threads`
    are those of one run; its numbers depend on them, so the default is 1. Each of `[[methods]]` has `name`, `label`,
    `flags` and, if not the table's, `seeds`. Its `teachers` are methods above it, whose runs of the same seed --teacher
    gets; "mle+1" is the run with the next seed of `mle`, after the last the first. `[report]` has the options of
    tools/report.py, which checks their values. Raises UsageError: the table can't be used; the message names the file,
    the method and the key. Raises OSError: the file can't be read.
    """
    try:
        return _experiment(tomllib.loads(path.read_text(encoding="utf-8-sig")), path.stem)  # perhaps a byte-order mark
    except ValueError as error:  # of bytes that are no text, of TOML, or a UsageError
        raise UsageError(f"{path}: {error}") from None


def _experiment(content: dict[str, Any], name: str) -> Experiment:
    if not NAME.fullmatch(name):
        raise UsageError("the file's name, which the runs' folder gets, must be letters, digits, - and _")
    content = checked({"title": name, "threads": 1} | content, TABLE)
    if not 0 < content["threads"] <= 1024:
        raise UsageError(f"threads is {content['threads']}, not 1 to 1024")
    tables, report = content["methods"], content["report"]
    methods: list[Method] = []
    if not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError("there must be at least one [[methods]]")
    for number, table in enumerate(tables, 1):
        try:
            methods.append(_method(checked({"seeds": content["seeds"]} | table, METHOD), content["flags"], methods))
        except ValueError as error:  # a UsageError is one
            raise UsageError(f"method {table.get('name', number)}: {error}") from None
    for key in ("name", "label"):
        values = [getattr(method, key) for method in methods]
        if twice := [value for value in values if values.count(value) > 1]:
            raise UsageError(f"there are two methods with the {key} {twice[0]!r}")
    if isinstance(report.get("against"), str):
        report["against"] = [report["against"]]
    report = checked(report, REPORT)
    for key in ("against", "collapsed"):
        if unknown := [each for each in report[key] if each not in [method.name for method in methods]]:
            raise UsageError(f"report.{key}: there is no method {unknown[0]!r}")
    return Experiment(name, content["title"], tuple(methods), content["threads"], report)


def _method(table: dict[str, Any], common: str, above: Sequence[Method]) -> Method:
    """The method of a table, with the flags that all have; raises ValueError."""
    name, seeds = table["name"], table["seeds"]
    if not NAME.fullmatch(name) or name == PRETRAINED:
        raise UsageError(f"name is {name!r}; it must be letters, digits, - and _, and not {PRETRAINED}")
    if not all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds) or not 0 < len(seeds) == len(set(seeds)):
        raise UsageError(f"seeds is {seeds!r}, not a list of different numbers of 0 to {2**31 - 1}")
    words = shlex.split(common) + shlex.split(table["flags"])
    if reserved := [name for name in explicit_flags(words) if name in RESERVED]:
        raise UsageError(f"--{reserved[0]} is not for a table to give")
    teachers = tuple(map(str, table["teachers"]))
    for which, further in map(named_teacher, teachers):
        own = [method.seeds for method in above if method.name == which]
        if not own or not set(seeds) <= set(own[0]) or further >= len(own[0]):
            raise UsageError(f"teachers: no method {which!r} above it has these seeds, and {further} more")
    method = Method(name, table["label"] or name, tuple(words), tuple(seeds), teachers)
    _ = method.config  # which checks the flags
    return method


def checked(table: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A table with an empty value for each key that it lacks; raises UsageError: a key or value is none of `kinds`."""
    if not isinstance(table, dict):
        raise UsageError(f"{table!r} is no table")
    for key, value in table.items():
        if key not in kinds:
            raise UsageError(f"{key} is not among {', '.join(kinds)}")
        if type(value) is not kinds[key]:
            raise UsageError(f"{key} is {value!r}, no {kinds[key].__name__}")
    return {key: kind() for key, kind in kinds.items()} | table
