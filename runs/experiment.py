"""A table of experiments, methods × seeds: read from a TOML file and checked with the program's own parser."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from runs.directories import CHECKPOINTS, METRICS, changeable
from runs.schedule import Schedule
from support.config import FIELDS, Config, UsageError
from support.config_file import (
    AFTER_PRETRAINING,
    CONFIG,
    READ_FROM,
    UNRELATED_TO_PRETRAINING,
    differences,
    from_flags,
    read_config,
)
from support.parser import explicit_flags, read_flags, words_of

# What the sweep itself gives to main.py, or what would make the cells something else than runs.
OWN = ("seed", "threads", "log_dir", "eval_log_dir", "pretrained", "is_train", "overwrite", "debug")
PRETRAINED = "pretrained"  # the folder of runs that only pretrain, for the methods that start from them
DATA_FLAGS = {  # what the data of a data set depend on
    "LSTM": ("oracle_params",),
    "Nottingham": ("data_dir", "frame_seconds", "frame_beats", "onsets"),
    "text": ("data_dir", "seq_len", "vocab_size", "tokens", "min_count", "long_lines", "split_seed"),
}
CURVES = ("nll", "nll_test", "g_entropy")  # that a report draws where the table names none
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a folder


@dataclass(frozen=True)
class Method:
    """A row of the table: its folder's `name`, a `label` for people, `flags` of main.py, and its `seeds`."""

    name: str
    label: str
    flags: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One run: a method with a seed, in `directory`; its pretraining is that of the cell `source`, if there is one."""

    method: Method
    seed: int
    threads: int
    directory: Path
    source: "Cell | None" = None

    @property
    def log_dir(self) -> Path:
        """Where it trains."""
        return self.directory / "train"

    @property
    def eval_log_dir(self) -> Path:
        """Where its evaluations are."""
        return self.directory / "eval"

    @property
    def argv(self) -> list[str]:
        """The flags of main.py."""
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
        """Epochs of all its phases."""
        return Schedule(read_flags(self.argv)).all_epochs

    @property
    def epochs_done(self) -> int:
        """Epochs that its metrics.csv has."""
        path = self.log_dir / METRICS
        return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0

    @property
    def data(self) -> str:
        """What tells what it has read from others; "" where it read nothing, or none is on record."""
        path = self.log_dir / CONFIG
        content = read_config(path) if path.exists() else {}
        return fingerprint(content.get("data", {}), content.get("objective"))

    @property
    def finished(self) -> bool:
        """Whether its last step is saved.

        Raises UsageError: the directory holds a run with other flags than main.py could go on with.
        """
        if not (self.log_dir / CONFIG).exists():
            return False
        config = read_flags(self.argv)
        content = read_config(self.log_dir / CONFIG)
        recorded = from_flags(content["flags"])
        if differing := differences(recorded, config, changeable(self.log_dir, content, recorded, config)):
            raise UsageError(f"{self.log_dir}: holds a run with {'; '.join(differing)}")
        return (self.log_dir / CHECKPOINTS / f"step-{len(Schedule(config)):09d}").is_dir()


def fingerprint(digests: dict[str, str], objective: dict[str, str] | None) -> str:
    """What tells data from others, by the checksums of their parts, and an objective, by its source, if there is one.

    "" where nothing is read from files.
    """
    read = digests | ({"objective": objective} if objective else {})
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16] if read else ""


def data_flags(cell: Cell) -> tuple[Any, ...]:
    """The values of the flags that say what data a cell reads: where they are equal the data should be, too."""
    config = read_flags(cell.method.flags)
    values = {name: getattr(config, name) for name in (*DATA_FLAGS[config.dataset], "objective")}
    return config.dataset, *(os.path.normpath(v) if name in READ_FROM else v for name, v in values.items())


def mixed(data: dict[Cell, str]) -> str:
    """Which cells have read other data than others of the same flags, in words, or "".

    `data` has fingerprints, "" where one is not known.
    """
    groups: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    for cell, known in data.items():
        if known:
            groups.setdefault(data_flags(cell), {}).setdefault(known, []).append(cell.title)
    for group in groups.values():
        most, *others = sorted(group.values(), key=len, reverse=True)
        if others:
            odd = "; ".join(title for titles in others for title in titles)
            return f"{odd}: read other data than {'; '.join(most)}"
    return ""


class Closed(NamedTuple):
    """What `[report.closed]` asks for: which share of some divergences the adversarial phase has closed.

    That is 1 - end / start of each of the `metrics`. `along` is the flag of the figure's axis, `by` the one that tells
    its lines apart, `panels` its columns, or None.
    """

    metrics: list[str]
    along: str
    by: str
    panels: str | None = None


@dataclass(frozen=True)
class Experiment:
    """The content of a table's file; `report` is what it tells tools/report.py."""

    name: str
    title: str
    methods: tuple[Method, ...]
    threads: int
    report: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def closed(self) -> Closed | None:
        """What `[report.closed]` asks for, if there is one; raises UsageError."""
        if "closed" not in self.report:
            return None
        asked, names = self.report["closed"], set(Closed._fields)
        if not isinstance(asked, dict) or not names - {"panels"} <= asked.keys() <= names:
            raise UsageError("report.closed has metrics, along, by and, if there are any, panels")
        metrics = asked["metrics"]
        if not isinstance(metrics, list) or not metrics or not all(isinstance(metric, str) for metric in metrics):
            raise UsageError("report.closed: metrics is no list of figures")
        for flag in (value for name, value in asked.items() if name != "metrics"):
            if not isinstance(flag, str) or flag not in FIELDS:
                raise UsageError(f"report.closed: {flag!r} is no flag")
        closed = Closed(**asked)
        places: dict[tuple[Any, ...], Method] = {}
        for method in self.methods:
            config = read_flags(method.flags)
            if not config.total_epochs:
                continue  # it closes nothing and is not drawn
            place = tuple(getattr(config, flag) for flag in (closed.along, closed.by, closed.panels) if flag)
            if (other := places.setdefault(place, method)) is not method:
                raise UsageError(f"report.closed: {other.name} and {method.name} have the same place in the figure")
        return closed

    @property
    def axes(self) -> list[str]:
        """What curves are drawn over, a picture each: "epoch", "seconds"."""
        return self.report.get("x", ["epoch"])

    @functools.cached_property
    def limits(self) -> dict[str, tuple[float, float]]:
        """The ends of axes that `[report.limits]` gives, by the names of curves and of `axes`; raises UsageError."""
        limits = self.report.get("limits", {})
        pairs = limits.values() if isinstance(limits, dict) else [None]
        if not all(isinstance(p, list) and len(p) == 2 and all(type(x) in (int, float) for x in p) for p in pairs):
            raise UsageError("report.limits has two numbers for each axis")
        if not all(-math.inf < low < high < math.inf for low, high in limits.values()):
            raise UsageError("report.limits has the lower end of an axis first")
        if unknown := limits.keys() - {*self.axes, *self.report.get("curves", CURVES)}:
            raise UsageError(f"report.limits has {', '.join(sorted(unknown))}, which is not drawn")
        return {name: (low, high) for name, (low, high) in limits.items()}

    def cells(self, logs: Path, only: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Cell]:
        """The runs of the table under `logs`/NAME, in its order, each after the one that it starts from.

        Methods that differ only in what follows the generator's pretraining share it, seed by seed: they start from a
        method that does nothing else, if there is one, or from a run of its own in NAME/pretrained.

        `only` are names of methods, () for all, as of `seeds`. Raises UsageError: there is no such method or seed.
        """
        if unknown := set(only) - {method.name for method in self.methods}:
            raise UsageError(f"--only: {self.name} has no method {', '.join(sorted(unknown))}")
        if absent := set(seeds) - {seed for method in self.methods for seed in method.seeds}:
            raise UsageError(f"--seeds: {self.name} has no seed {', '.join(map(str, sorted(absent)))}")
        sources = self._sources()
        cells: dict[Path, Cell] = {}

        def cell(method: Method, seed: int, source: Cell | None = None) -> Cell:
            made = Cell(method, seed, self.threads, logs / self.name / method.name / str(seed), source)
            return cells.setdefault(made.directory, made)

        for method in self.methods:
            for seed in method.seeds:
                if (only and method.name not in only) or (seeds and seed not in seeds):
                    continue
                source = sources[method.name]
                shared = source is not method and seed in source.seeds
                cell(method, seed, cell(source, seed) if shared else None)
        return list(cells.values())

    def _sources(self) -> dict[str, Method]:
        """For each method's name the one whose pretraining it starts from: itself where it shares none."""
        configs = {method.name: read_flags(method.flags) for method in self.methods}
        keys = {name: pretraining(config) for name, config in configs.items()}
        alone = {name for name, config in configs.items() if len(Schedule(config)) == config.pretrain_g_epochs}
        sources: dict[str, Method] = {}
        for method in self.methods:
            alike = [other for other in self.methods if keys[other.name] == keys[method.name]]
            pure = [other for other in alike if other.name in alone]  # no discriminator either
            if len(alike) == 1 or not keys[method.name].pretrain_g_epochs:
                sources[method.name] = method
            elif pure:
                sources[method.name] = pure[0] if method not in pure else method
            else:
                first, seeds = alike[0], tuple(sorted({seed for other in alike for seed in other.seeds}))
                sources[method.name] = Method(
                    f"{PRETRAINED}/{first.name}", f"pretraining of {first.label}", pretraining_words(first.flags), seeds
                )
        return sources


def pretraining(config: Config) -> Config:
    """A configuration as far as the generator's pretraining and its curves depend on it; all else at its default."""
    unrelated = UNRELATED_TO_PRETRAINING - {"eval_every"}  # the curves of a method shall have the points it asks for
    rest: dict[str, Any] = {name: field.default for name, field in FIELDS.items() if name in unrelated}
    return dataclasses.replace(config, **rest)


def pretraining_words(flags: Sequence[str]) -> tuple[str, ...]:
    """A command line without what only the adversarial phase reads, and without that phase."""
    # Filters have to fit --seq_len, unless the reward does without a discriminator.
    dropped = AFTER_PRETRAINING - {"reward", "d_filter_sizes", "d_num_filters"}
    kept = {name: value for name, value in explicit_flags(flags).items() if name not in dropped}
    if (config := read_flags(flags)).objective and not config.trains_discriminator:
        kept["reward"] = "constant"
    try:
        read_flags(words_of(kept | {"total_epochs": 0}))
    except UsageError:  # the filters of the CNN, of which the methods have none
        kept["reward"] = "constant"
    return tuple(words_of(kept | {"total_epochs": 0}))


def read(path: Path) -> Experiment:
    """Reads a table of experiments.

    The file is TOML: `title`; `seeds`, a list; `flags`, those of main.py that all methods share, as one types them;
    `threads`, of one run (1: the results of a run depend on it, so it is the table's); `[[methods]]`, each with `name`,
    `label`, `flags` and, if not all, its own `seeds`. Raises UsageError: it can't be used; the message has the file and
    the line. Raises OSError: it can't be read.

    `[report]` says what tools/report.py shows. `metrics` are compared, the `primary` one first, with those of the
    method `against`; `table` has those that the page shows. `curves` are drawn of the methods in `draw`, over each of
    `x`, "epoch" and "seconds", within `limits`. Runs of the methods `collapsed` have medians and ranges. `measured` are
    files of tools/temperatures.py and tools/controls.py in the report's folder, and `caption` is what the figures show.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # with or without a byte-order mark
        content = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not NAME.fullmatch(path.stem):
        raise UsageError(f"{path}: the file's name, which the runs' folder gets, must be letters, digits, - and _")
    return Reader(path, text).experiment(content)


class Reader:
    """Checks the content of one file, and says in which line it is wrong."""

    def __init__(self, path: Path, text: str):
        """`text` is the content of `path`."""
        self.path, self.lines = path, text.split("\n")

    def experiment(self, content: dict[str, Any]) -> Experiment:
        """The table; raises UsageError."""
        self._keys(content, {"title", "seeds", "flags", "threads", "methods", "report"}, None)
        methods = content.get("methods", [])
        if not isinstance(methods, list) or not methods or not all(isinstance(m, dict) for m in methods):
            self._fail("methods", None, "there must be at least one [[methods]]")
        seeds = self._seeds(content, None) if "seeds" in content else None
        common, threads = self._words(content, None), content.get("threads", 1)
        if type(threads) is not int or not 1 <= threads <= 1024:
            self._fail("threads", None, f"threads is {threads!r}, not a number of 1 to 1024")
        table: list[Method] = []
        for index, method in enumerate(methods):
            self._keys(method, {"name", "label", "flags", "seeds"}, index)
            name = method.get("name")
            if not isinstance(name, str) or not NAME.fullmatch(name) or name == PRETRAINED:
                self._fail("name", index, f"name is {name!r}; it must be letters, digits, - and _, and names a folder")
            if name in {other.name for other in table}:
                self._fail("name", index, f"there are two methods {name}")
            label = method.get("label", name)
            if not isinstance(label, str) or not label.strip():
                self._fail("label", index, f"label is {label!r}, not a text")
            if label in {other.label for other in table}:
                self._fail("label", index, f"there are two methods with the label {label!r}")
            own = self._seeds(method, index) if "seeds" in method else seeds
            if own is None:
                self._fail("seeds", None, f"neither the table nor method {name} has seeds")
            flags = (*common, *self._words(method, index))
            try:
                read_flags(flags)
            except UsageError as error:
                self._fail("flags", index if "flags" in method else None, str(error))
            table.append(Method(name, label, flags, own))
        report = content.get("report", {})
        if not isinstance(report, dict):
            self._fail("report", None, "report is not a table")
        lists = ("metrics", "curves", "collapsed", "draw", "table", "measured", "x")
        words = ("against", "primary", "caption")
        self._keys(report, {*lists, *words, "limits", "closed"}, None)
        for key in lists:
            if not isinstance(names := report.get(key, []), list) or not all(isinstance(name, str) for name in names):
                self._fail(key, None, f"report.{key} is {names!r}, not a list of names")
        for key in words:
            if not isinstance(word := report.get(key, ""), str):
                self._fail(key, None, f"report.{key} is {word!r}, not a name")
        for key in ("against", "collapsed", "draw"):
            named = report.get(key, [])
            for name in [named] if isinstance(named, str) else named:
                if name not in {method.name for method in table}:
                    self._fail(key, None, f"report.{key} is {named!r}, which is no method")
        if (x := report.get("x", ["epoch"])) not in (["epoch"], ["seconds"], ["epoch", "seconds"]):
            self._fail("x", None, f"report.x is {x!r}; it may have 'epoch', then 'seconds'")
        title = content.get("title", self.path.stem)
        if not isinstance(title, str) or not title.strip():
            self._fail("title", None, f"title is {title!r}, not a text")
        experiment = Experiment(self.path.stem, title, tuple(table), threads, report)
        for key in ("limits", "closed"):
            try:
                getattr(experiment, key)
            except UsageError as error:
                self._fail(key, None, str(error))
        return experiment

    def _keys(self, table: dict[str, Any], known: set[str], index: int | None) -> None:
        for key in table:
            if key not in known:
                self._fail(key, index, f"{key} is not known here; there are {', '.join(sorted(known))}")

    def _seeds(self, table: dict[str, Any], index: int | None) -> tuple[int, ...]:
        seeds = table["seeds"]
        numbers = isinstance(seeds, list) and all(type(s) is int and 0 <= s < 2**31 for s in seeds)
        if not numbers or not 0 < len(seeds) == len(set(seeds)):
            self._fail("seeds", index, f"seeds is {seeds!r}, not a list of different numbers of 0 to {2**31 - 1}")
        return tuple(seeds)

    def _words(self, table: dict[str, Any], index: int | None) -> tuple[str, ...]:
        flags = table.get("flags", "")
        if not isinstance(flags, str):
            self._fail("flags", index, f"flags is {flags!r}, not a text")
        try:
            words = tuple(shlex.split(flags))
            own = [name for name in explicit_flags(words) if name in OWN]
        except ValueError as error:  # a UsageError is one
            self._fail("flags", index, f"flags: {error}")
        if own:
            self._fail("flags", index, f"--{own[0]} is not for a table to give")
        return words

    def _fail(self, key: str, index: int | None, what: str) -> NoReturn:
        """Raises UsageError with the line of `key`, in the method of number `index` or, None, outside of all."""
        methods, section, found = 0, None, 0
        for number, line in enumerate(self.lines, 1):
            if line.lstrip().startswith("["):
                section = methods if line.lstrip().startswith("[[") else None
                methods += section is not None
                found = number if section == index is not None else found  # where the key is missing: its method
            if section == index and re.match(rf"\s*\[*(report\.)?{re.escape(key)}\b", line):
                found = number
                break
        raise UsageError(f"{self.path}, line {found or 1}: {what}")
