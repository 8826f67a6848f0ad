"""What the runs of a table ended with, and statistics; a study has runs.csv, curves.csv, files of samples."""

import csv
import io
import itertools
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from evaluation.metrics import METRICS, column, parse
from evaluation.metrics import described as meaning
from runs.directories import CHECKSUM, in_vain, read_manifest, sha256_of
from runs.directories import METRICS as LOG
from support.config import Config, own_names
from support.config_file import CONFIG, FREE_TO_CHANGE, READ_FROM, differences, from_flags, read_config
from support.errors import UsageError
from support.parser import read_flags
from tools.experiment import MEASURING, Cell, Experiment, checked, fingerprint, mixed
from tools.plot_curves import CLOCKS, FLOOR, PANELS, read_run

RUN = ["method", "seed"]
FILES = {"runs.csv": RUN, "curves.csv": [*RUN, "epoch"]}  # and what tells their rows apart
RECORDS = ["flags", "commit", "date", "machine", "data"]  # columns of runs.csv that are no numbers; data: a fingerprint
POINT = ["run", "temperature", "candidates", "epoch"]  # what tells the rows of a file of measured samples apart
TIMES = ["seconds", "compile_seconds"]
ORACLE = ["vocab_size", "seq_len", "oracle_seed", "oracle_emb_dim", "oracle_hidden_dim", "oracle_init", "oracle_params"]
FEW = 4  # seeds for an interval or a band; of fewer each is shown


class Summary(NamedTuple):
    """Values of a method, a seed each: mean and 95 % interval by Student's t (NaN of one seed), or median and range."""

    middle: float
    low: float
    high: float
    values: tuple[float, ...]
    collapsed: bool = False

    def __str__(self) -> str:
        """As tables show it: two or three seeds have their values, and no interval."""
        half, digits = self.high - self.middle, 0 if max(map(abs, self.values)) >= 100 else 3
        if self.collapsed:
            digits = 1 if self.high >= 10 else 2 if self.high - self.low >= 0.1 else 4
            return f"{self.middle:z.{digits}f} ({self.low:z.{digits}f} to {self.high:z.{digits}f})"
        if len(self.values) < FEW:
            digits = max(digits, decimals(np.ptp(self.values), 1))
            return ", ".join(f"{value:z.{digits}f}" for value in self.values)
        digits = decimals(half, 2) if half > 0 else digits
        return f"{self.middle:z.{digits}f} ± {half:z.{digits}f}"


def decimals(number: float, digits: int) -> int:
    """How many decimals show so many significant digits of a number, 6 at most."""
    return min(max(digits - 1 - math.floor(math.log10(number)), 0), 6) if 0 < number < math.inf else 0


def summary(values: Iterable[float], collapsed: bool = False) -> Summary:
    """Mean and interval, or median and range, of independent values, one at least."""
    numbers = np.array(list(values), float)
    own = tuple(numbers.tolist())
    if collapsed and len(own) > 1:
        return Summary(float(np.median(numbers)), min(own), max(own), own, True)
    mean = float(numbers.mean())
    half = float(stats.t.ppf(0.975, len(own) - 1) * stats.sem(numbers)) if len(own) > 1 else math.nan
    return Summary(mean, mean - half, mean + half, own)


def read_table(path: Path, keys: Sequence[str], text: str | None = None) -> pd.DataFrame:
    """The rows of a CSV file, or of its `text`, that differ in `keys`; rows that are given twice are one.

    Raises UsageError: it is not UTF-8, a column is no metric, a value no number, or two rows with the same keys have
    other figures. Raises OSError: it can't be read.
    """
    words = dict.fromkeys(["method", "run", *RECORDS], str)
    whole = dict.fromkeys(keys[1:], int) if keys is not POINT else {}
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
        if len({len(row) for row in csv.reader(io.StringIO(text)) if row}) > 1:
            raise UsageError("its rows have different numbers of values")
        own: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}  # a method may be called null
        frame = pd.read_csv(io.StringIO(text or ",".join(keys)), dtype=words, **own)
        for name in frame.columns.difference([*words, *POINT, *keys]):
            parse(name.removesuffix("_se") if keys is POINT else name)
        frame = frame.astype({name: float for name in frame.columns.difference(words)})
        if broken := [name for name in {*whole} & {*frame} if (frame[name] % 1 != 0).any()]:
            raise UsageError(f"{broken[0]} is not a whole number in every row")
        frame = frame.astype(whole)
        if frame.get(keys[0], pd.Series([""])).isna().any() or keys[0] not in frame:
            raise UsageError(f"a row has no {keys[0]}")
        return merged(frame.reindex(columns=[*keys, *frame.columns.difference(keys, sort=False)]), keys)
    except (KeyError, ValueError, OverflowError, csv.Error) as error:  # a UsageError is one
        why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.args[0]
        raise UsageError(f"{path}: {why}") from None


def merged(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One row of those with the same keys; raises UsageError: they have different values in a column."""
    rows = frame.groupby(list(keys), sort=False, dropna=False)
    if (twice := (rows.nunique() > 1).any(axis=1)).any():
        where = ", ".join(str(key) for key in twice.idxmax() if key == key)  # not NaN
        raise UsageError(f"{where} is there twice, with other figures")
    return rows.first().reset_index() if len(frame) else frame


def read_runs(folder: Path) -> list[pd.DataFrame]:
    """The runs.csv and curves.csv of a study, empty where there is none; raises UsageError: one is damaged."""
    paths = ((folder / file, keys) for file, keys in FILES.items())
    return [read_table(path, keys, None if path.exists() else "") for path, keys in paths]


def read_points(*paths: Path) -> pd.DataFrame:
    """What tools have measured of samples: files with columns `POINT`, figures, and standard errors such as `nll_se`.

    Raises UsageError: one is damaged. Raises OSError: one can't be read.
    """
    frames = [read_table(path, POINT) for path in paths]
    if not all(map(len, frames)):
        raise UsageError(f"{[path for path, frame in zip(paths, frames, strict=True) if not len(frame)][0]}: no rows")
    return pd.concat(frames, ignore_index=True)


def points_text(points: Iterable[Mapping[str, Any]]) -> str:
    """The content of such a file, {column: value} a row; columns without a value are left out."""
    frame = pd.DataFrame(points).dropna(axis=1, how="all")
    whole = {name: "Int64" for name in ("candidates", "epoch") if name in frame}
    return frame.astype(whole).to_csv(index=False, lineterminator="\n")


def outcome(cell: Cell) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The row of a finished cell in runs.csv, with the figures of its last epoch, and its rows in curves.csv.

    Raises UsageError, ValueError: its records are not those that its last checkpoint tells of. Raises OSError: one
    can't be read.
    """
    config, described = cell.method.config, read_config(cell.log_dir / CONFIG)
    if not config.evaluate:
        raise UsageError("has no evaluations, as its flags have --no-evaluate")
    positions = read_manifest(cell.checkpoint)["details"]["positions"]
    if read_config(cell.eval_log_dir / CONFIG)["run"] != described["run"]:
        raise UsageError(f"{cell.eval_log_dir} has the evaluations of another run")
    for kind, directory in (("train", cell.log_dir), ("eval", cell.eval_log_dir)):
        if sha256_of((directory / LOG).read_bytes()) != positions[kind][CHECKSUM]:
            raise UsageError(f"{directory / LOG} is not as the last checkpoint has it")
    evaluated, trained = read_run(cell.eval_log_dir), read_run(cell.log_dir)
    names = [name for name in evaluated if meaning(name) and not name.endswith("_se")]
    end = config.pretrain_g_epochs + config.total_epochs - 1
    if evaluated.epoch.max() != end:
        raise UsageError(f"{cell.eval_log_dir} has no evaluation of the last epoch, {end}")
    row = {"method": cell.method.name, "seed": cell.seed}
    row |= evaluated.loc[evaluated.epoch == end, names].ffill().iloc[-1].dropna().to_dict()
    before = evaluated[evaluated.epoch < evaluated.epoch[evaluated.phase == "adversarial"].min()][names].ffill()
    for _, last in before.tail(1).iterrows():
        row |= {column(name, "before"): value for name, value in last.dropna().items() if name in METRICS}
    if "compile_seconds" in trained:
        row["compile_seconds"] = trained.compile_seconds.sum()
    day = pd.Timestamp((cell.eval_log_dir / LOG).stat().st_mtime, unit="s").date()
    versions = {name.lower(): number for name, number in described.get("versions", {}).items()}
    cores = f"{described['cores']} core{'s' * (described['cores'] != 1)}" if described.get("cpu") else ""
    machine = [f"{cores} of an {described['cpu']}"] if cores else []
    machine += [f"{n} {versions[n.lower()]}" for n in ("Python", "TensorFlow", "NumPy") if n.lower() in versions]
    read, now = from_flags(described["flags"]), cell.method.config
    moved = [(name, getattr(read, name)) for name in ("data_dir", "oracle_params") if getattr(read, name)]
    words = [word for name, value in moved if value != getattr(now, name) for word in (f"--{name}", value)]
    commit = re.sub(r"(?<=^.{7})\w+", "", described.get("git_commit", ""))
    row |= {"flags": shlex.join([*cell.method.words, *words]), "commit": commit or None}
    row |= {"date": day.isoformat(), "machine": ", ".join(machine) or None, "data": fingerprint(described) or None}
    # Around D's pretraining there are two evaluations of one generator: when that was reached is the first one's.
    curves = evaluated.groupby("epoch", as_index=False)[names].first()
    return pd.DataFrame([row]), curves.assign(method=cell.method.name, seed=cell.seed)


def collect(experiment: Experiment, logs: Path, folder: Path) -> tuple[list[pd.DataFrame], list[str]]:
    """Runs and curves, those under `logs` and of its folder those that are not there; and what could not be used.

    Raises UsageError: a run has other flags than the table, runs of one table have read different data, or a file is
    damaged. Raises OSError: a file of the folder can't be read.
    """
    methods = {method.name: method for method in experiment.methods}
    cells = {(c.method.name, c.seed): c for c in experiment.cells(logs) if c.method.name in methods}
    new: dict[tuple[str, int], tuple[pd.DataFrame, pd.DataFrame]] = {}
    problems = []
    for key, cell in cells.items():
        finished = cell.finished
        try:
            if finished and cell.recoded:
                problems.append(f"{cell.title}: it ran with other code than the file has now that the table names")
            elif finished:
                new[key] = outcome(cell)
            elif cell.log_dir.exists():
                problems.append(f"{cell.title}: unfinished, after {cell.epochs_done} of {cell.epochs} epochs")
        except (OSError, ValueError) as error:  # a UsageError is one
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
            problems.append(f"{cell.title}: {why}")
    both = []
    for i, old in enumerate(read_runs(folder)):
        gone = [key not in new for key in zip(old.method, old.seed, strict=True)]
        both.append(pd.concat([old.loc[gone], *(frames[i] for frames in new.values())], ignore_index=True))
    runs = both[0] = both[0].reindex(columns=both[0].columns.union(RECORDS, sort=False))
    for name, words in dict.fromkeys(zip(runs.method, runs["flags"].fillna(""), strict=True)):
        if name in methods and words != shlex.join(methods[name].words):
            try:
                before = read_flags(shlex.split(words))
            except ValueError as error:  # a UsageError is one
                raise UsageError(f"{folder / 'runs.csv'}: {name}: {error}") from None
            free = FREE_TO_CHANGE | READ_FROM | {"seed", "threads"}
            free -= MEASURING - in_vain(before, methods[name].config)
            free -= {"candidates"} if before.best_of_candidates else set()
            differing = differences(before, methods[name].config, free)
            differing += ["other teachers"] * (before.teacher != methods[name].config.teacher)
            code = [[Path(each).name for each in own_names(c).values()] for c in (before, methods[name].config)]
            differing += ["other code"] * (code[0] != code[1])
            if differing:
                raise UsageError(f"{folder / 'runs.csv'}: {name} had {'; '.join(differing)}")
    if why := mixed({cells[key]: text for key, text in runs.set_index(RUN)["data"].dropna().items() if key in cells}):
        raise UsageError(f"{experiment.name}: {why}")
    return both, problems


FIGURE = {"name": str, "curves": list, "draw": list, "seeds": list, "x": str, "limits": dict, "caption": str}
PLANE = {"name": str, "files": list, "pairs": list, "draw": list, "crosses": str, "caption": str}


def settings(experiment: Experiment) -> dict[str, Any]:
    """What `[report]` says, with defaults for what it leaves out.

    `metrics` are compared with those of the methods `against`; `table` has those that the page shows. For each column
    or difference `A - B` in `pivot` the methods labelled `ROW; COLUMN` have a table of their own instead. Runs of the
    methods `collapsed` have medians and ranges. `best` are columns of the evaluation at which the first of them is
    least. `measured` are files of samples in the study's folder, and `measures` the columns of their table.
    `[[report.figures]]` have a `name`, the columns `curves` of the methods in `draw` over each of `x`, words such as
    "epoch seconds" or a metric's name, within `limits`, and a `caption`; with "method" they show final values. Curves
    may be those of some `seeds` alone.
    `[[report.planes]]` have a `name`, `files` of samples, `pairs` of columns, the methods to `draw`, a `caption`, and
    `crosses`, a file of others' figures. Raises UsageError: something is unknown, or of another kind.
    """
    report, methods = dict(experiment.report), [method.name for method in experiment.methods]
    seeds = [seed for method in experiment.methods for seed in method.seeds]
    try:
        report["figures"] = [checked(figure, FIGURE) for figure in report["figures"] or [{}]]
        report["planes"] = [checked(plane, PLANE) for plane in report["planes"]]
        columns = [*report["metrics"], *report["table"], *report["best"], *report["measures"]]
        columns += [name for said in report["pivot"] for name in str(said).split(" - ")]
        if wrong := [said for said in report["pivot"] if str(said).count(" - ") > 1]:
            raise UsageError(f"pivot: {wrong[0]!r} is no column, nor a difference of two")
        for pair in (pair for plane in report["planes"] for pair in plane["pairs"]):
            if not isinstance(pair, list) or len(pair) != 2:
                raise UsageError(f"pairs: {pair!r} is no pair of columns")
            columns += pair
        for figure in report["figures"]:
            columns += figure["curves"]
            columns += [x for x in figure["x"].split() if x not in CLOCKS and figure["x"] != "method"]
            if unknown := [name for name in figure["draw"] if name not in methods]:
                raise UsageError(f"draw has {unknown[0]!r}, which is no method")
            if unknown := [seed for seed in figure["seeds"] if seed not in seeds]:
                raise UsageError(f"seeds has {unknown[0]!r}, which no method has")
            columns += [name for name in figure["limits"] if name not in CLOCKS]
            for name, ends in figure["limits"].items():
                if not isinstance(ends, list) or [type(end) in (int, float) for end in ends] != [True, True]:
                    raise UsageError(f"limits of {name}: {ends!r} is no pair of numbers")
        for name in columns:
            parse(str(name))
        files = [figure["name"] or experiment.name for figure in report["figures"]]
        files += [plane["name"] or Path(str(plane["files"][0])).stem for plane in report["planes"] if plane["files"]]
        if wrong := [name for name in files if files.count(name) > 1 or "/" in name]:
            raise UsageError(f"{wrong[0]!r} names two figures, or a file elsewhere")
        if not all(plane["files"] for plane in report["planes"]):
            raise UsageError("a plane has no files")
    except (UsageError, KeyError) as error:
        raise UsageError(f"{experiment.name}.toml: [report]: {error.args[0]}") from None
    return report


class Study(NamedTuple):
    """A table of experiments, what it says of its report, and what its runs gave."""

    experiment: Experiment
    report: dict[str, Any]
    runs: pd.DataFrame
    curves: pd.DataFrame

    def summary(self, method: str, numbers: Iterable[float]) -> Summary:
        """The summary of values of a method."""
        return summary(numbers, method in self.report["collapsed"])

    def values(self, method: str, name: str) -> pd.Series:
        """A column of the runs of a method, by seed, without those that lack it."""
        rows = self.runs[self.runs.method == method].set_index("seed")
        return rows[name].dropna() if name in rows else pd.Series(dtype=float)

    @property
    def labels(self) -> dict[str, str]:
        """The methods' names for people."""
        return {method.name: method.label for method in self.experiment.methods}

    @property
    def cells(self) -> dict[str, list[str]]:
        """The row and the column, in tables of `pivot`, of the methods whose labels name both: `ROW; COLUMN`."""
        pivoted = {method: label.split("; ", 1) for method, label in self.labels.items() if "; " in label}
        return pivoted if self.report["pivot"] else {}

    @property
    def metrics(self) -> list[str]:
        """The columns that are compared: those that the table names, or all of the generator that its runs have."""
        own = [name for name in self.runs if name not in (*RUN, *RECORDS, *TIMES, FLOOR)]
        return self.report["metrics"] or [name for name in own if parse(name)[1] not in ("before", "real")]

    @property
    def floor(self) -> float | None:
        """The oracle's entropy, nats per token: the mean of the runs' estimates, where all have the same oracle."""
        known = {method: self.values(method.name, FLOOR) for method in self.experiment.methods}
        oracles = {tuple(getattr(m.config, name) for name in ORACLE) for m, found in known.items() if len(found)}
        return float(pd.concat(known.values()).mean()) if len(oracles) == 1 else None

    def made_where(self) -> str:
        """When, by what code and where the runs were made, in sentences; `runs.csv` has it of each."""
        records = self.runs.reindex(columns=RECORDS).astype(object).fillna("")
        known = records[records.machine != ""]
        days, commits = (sorted({*known[name]} - {""}) for name in ("date", "commit"))
        machines, versions = (sorted({*part} - {""}) for _, part in records.machine.str.partition(", ")[[0, 2]].items())
        processors = ", ".join(sorted({machine.partition(" of an ")[2] or machine for machine in machines}))
        when = " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "unknown days"
        made = f" of {when}: commit {', '.join(commits) or 'unknown'}; {'; '.join([processors, *versions])}."
        lines = [f"{len(known)} run{'s' * (len(known) > 1)}{made}"] if len(known) else []
        if unknown := len(records) - len(known):
            lines.append(f"{unknown} run{'s' * (unknown > 1)} without a record of machine and commit.")
        return " ".join(lines)


def best_rounds(study: Study, by: str) -> pd.DataFrame:
    """The evaluation of each run at which a column is least, of its rounds if it has any, as authors' programs do."""
    configs = {method.name: method.config for method in study.experiment.methods}
    starts = {name: config.pretrain_g_epochs if config.total_epochs else 0 for name, config in configs.items()}
    known = study.curves[study.curves.epoch >= study.curves.method.map(starts)].dropna(subset=[by])
    return known.loc[known.groupby(RUN, sort=False)[by].idxmin()]


def sequences_read(config: Config, epoch: int, trained: bool = False) -> int:
    """Real sequences that training has read by the end of an epoch of the generator; those of a d-step count once.

    Where `trained`, D's pretraining has ended as well, even if no adversarial epoch has. Students read some, too.
    """
    rounds = max(epoch + 1 - config.pretrain_g_epochs, 0)
    batches = min(epoch + 1, config.pretrain_g_epochs) * config.mle_batches + rounds * config.mle_steps
    d_steps = config.pretrain_d_epochs + rounds * config.d_steps if rounds or trained else 0
    learnt = round(config.distil_real * config.batch_size) * config.g_steps * rounds * (config.g_update == "distil")
    return batches * config.batch_size + d_steps * config.real_draws * config.trains_discriminator + learnt


def tables(study: Study) -> dict[str, str]:
    """The contents of runs.csv and curves.csv, if they have rows, in the table's order, with seven digits."""
    report = study.report
    asked = {*report["metrics"], *report["table"], *(name for said in report["pivot"] for name in said.split(" - "))}
    asked |= {name for figure in report["figures"] for name in figure["curves"]}
    drawn = {*PANELS, "seconds", *report["best"]}
    drawn |= {name for figure in report["figures"] for name in figure["curves"] + figure["x"].split()}
    runs = [name for name in study.runs if name in asked or name not in RUN + RECORDS and parse(name)[1] != "before"]
    runs.sort(key=lambda name: (list(METRICS).index(parse(name)[0].name), name))
    curves = [name for name in study.curves if name in drawn and name not in FILES["curves.csv"]]
    place = {name: number for number, name in enumerate(dict.fromkeys([*study.labels, *study.runs.method]))}
    texts = {}
    for file, frame, names in (("runs.csv", study.runs, runs + RECORDS), ("curves.csv", study.curves, curves)):
        frame = frame.sort_values(FILES[file], key=lambda of: of.map(place) if of.name == "method" else of)
        frame = frame[FILES[file] + names].dropna(axis=1, how="all")
        if len(frame):
            texts[file] = frame.to_csv(index=False, lineterminator="\n", float_format="%.7g")
    return texts


def load(experiment: Experiment, logs: Path, folder: Path) -> tuple[Study, dict[str, str], list[str]]:
    """A study with the runs under `logs` and those of its folder; its CSV files; and what could not be used.

    The study has the runs of the table, with the numbers that are in the files. Raises UsageError, OSError: as
    `collect` and `settings`.
    """
    report = settings(experiment)
    frames, problems = collect(experiment, logs, folder)
    texts = tables(Study(experiment, report, *frames))
    asked = pd.DataFrame([(method.name, seed) for method in experiment.methods for seed in method.seeds], columns=RUN)
    numbers = (read_table(folder / file, keys, texts.get(file, "")).merge(asked) for file, keys in FILES.items())
    return Study(experiment, report, *numbers), texts, problems


class Difference(NamedTuple):
    """A method less another, paired by seed, and the p-value of Student's test, alone and after Holm's correction."""

    against: str
    method: str
    column: str
    summary: Summary
    p: float
    p_holm: float = math.nan


def compare(study: Study) -> list[Difference]:
    """Each method less those that the table compares with; three seeds or more are tested.

    Figures of a guided generator, or of samples that D has chosen, are compared with the other's generator alone, its
    own too. What is the same with every seed, as methods share a generator, is left out, and so is KL(oracle‖G) beside
    NLL_test, from which it differs by a constant.
    """
    found: list[Difference] = []
    for base, name in itertools.product(study.report["against"], study.metrics):
        metric, form = parse(name)
        same = metric.name == "kl_forward" and column("nll_test", form) in study.metrics
        if form == "before" or metric.name in TIMES or same:
            continue
        theirs = study.values(base, metric.name if metric.name != "d_gain" else name)
        theirs = theirs if len(theirs) else study.values(base, name)
        for method in (each for each in study.labels if each not in study.cells):
            paired = (study.values(method, name) - theirs).dropna()
            others = [each for each in found if each.column == name]
            told = method != base and any((e.method, e.summary.values) == (method, tuple(paired)) for e in others)
            told |= form == "" and any((each.against, each.method) == (method, base) for each in others)
            if paired.any() and not told:
                collapsed = bool({method, base} & {*study.report["collapsed"]})
                varies = np.ptp(paired) > 1e-5 * paired.abs().max()  # not by rounding alone
                p = stats.ttest_1samp(paired, 0).pvalue if len(paired) > 2 and varies and not collapsed else math.nan
                found.append(Difference(base, method, name, summary(paired, collapsed), p))
    tested = [i for i, each in enumerate(found) if not math.isnan(each.p)]
    corrected = multipletests([found[i].p for i in tested], method="holm")[1] if tested else ()
    for i, p_holm in zip(tested, corrected, strict=True):
        found[i] = found[i]._replace(p_holm=float(p_holm))
    return found
