"""What the runs of a table of experiments ended with, from their logs or an earlier report, and its statistics."""

import csv
import datetime
import io
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from runs.directories import CHECKPOINTS, METRICS, write_whole
from runs.experiment import CURVES, Cell, Closed, Experiment, Method, mixed
from runs.manifest import CHECKSUM, read_manifest, sizes_at
from runs.schedule import Schedule
from support.config import FIELDS, Config, UsageError
from support.config_file import CONFIG, FREE_TO_CHANGE, READ_FROM, differences, read_config
from support.parser import explicit_flags, read_flags, words_of
from tools.plot_curves import FLOOR, Curve, Run, read_rows, read_run

CONFIDENCE = 0.95
CLOSED = "closed_"  # and the name of a divergence
BEFORE = "before_"  # and the name of a figure: its last value before the adversarial phase
ORACLE = (  # what its entropy depends on
    *("vocab_size", "seq_len", "oracle_seed", "oracle_emb_dim", "oracle_hidden_dim", "oracle_init", "oracle_params"),
)
DATA = "data"  # the column of what tells a run's data from others
RECORDS = ("commit", "date", "machine", DATA)  # columns of _runs.csv that are no numbers
OF = re.compile("_(guided|resampled)$")  # ends the name of a figure of these generators
SAME = ("kl_forward", "nll_test")  # they differ by a constant: one test
SECONDS, COMPILING = "seconds_per_epoch", "compile_seconds"  # columns of the training log
LIBRARIES = {"Python": "Python", "Tensorflow": "TensorFlow", "Numpy": "NumPy"}
TIMES = ("seconds", COMPILING)  # figures of a run that are no results
NOT_THE_METHODS = FREE_TO_CHANGE | {"seed", "threads"}  # flags that differ from run to run of a method


class Interval(NamedTuple):
    """The mean over so many seeds and its 95 % interval by Student's t; NaN where one seed gives none.

    Of runs that have collapsed the median and the range: kind is "median".
    """

    mean: float
    low: float
    high: float
    seeds: int
    kind: str = "mean"

    def __str__(self) -> str:
        if self.kind == "median":
            digits = 1 if self.high >= 10 else 2 if self.high - self.low >= 0.1 else 4
            return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*self[:3], d=digits)
        half = "" if math.isnan(self.low) else f" ± {self.high - self.mean:.{self.digits}f}"
        return f"{self.mean:.{self.digits}f}{half}"

    @property
    def digits(self) -> int:
        """Decimals worth showing: two of the interval's half width, or, where there is none, three below 100."""
        half = self.high - self.mean
        if math.isnan(half) or half <= 0:
            return 0 if abs(self.mean) >= 100 else 3
        return min(max(1 - math.floor(math.log10(half)), 0), 6)


def interval(values: Sequence[float], collapsed: bool = False) -> Interval:
    """The mean and its interval, or median and range; the values are independent, one at least."""
    numbers, count = np.asarray(values, float), len(values)
    mean = float(numbers.mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan, count)
    if collapsed:
        return Interval(float(np.median(numbers)), float(numbers.min()), float(numbers.max()), count, "median")
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * numbers.std(ddof=1) / math.sqrt(count))
    return Interval(mean, mean - half, mean + half, count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979) for as many tests as there are p-values that are not NaN, which stay as they are."""
    corrected, tests = [math.nan] * len(p_values), [i for i, p in enumerate(p_values) if not math.isnan(p)]
    largest = 0.0
    for rank, i in enumerate(sorted(tests, key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(tests) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class Outcome:
    """What a finished cell left.

    `final`: the figures of its last evaluation, the last ones before the adversarial phase, and the seconds of its
    epochs, in which D's pretraining and evaluations are not counted; `curves`: {figure: its curve}; `records`: of
    `RECORDS`, "" where they are not known: what tells the data that it read from others, commit, date, and processor
    with versions.
    """

    final: dict[str, float]
    curves: dict[str, Curve]
    records: dict[str, str] = field(default_factory=dict)


@dataclass
class Results:
    """The outcomes of a table; `missing` says what it lacks.

    `earlier` has the seeds, by method, of the outcomes that an earlier report has given, and `kept` its bands, where
    it has no curves of single runs.
    """

    experiment: Experiment
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict)
    earlier: dict[str, list[int]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    kept: dict[tuple[str, str], tuple[np.ndarray, list[Interval]]] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, logs: Path, earlier: Path | None = None) -> "Results":
        """Reads the runs under `logs`, and, of those that have not finished there, what the report in `earlier` has.

        A run whose records are not what it has written is missing, too. Raises UsageError: a run has other flags than
        the table, or cells of one table have read different data. Raises OSError: the earlier report can't be read.
        """
        results, reported = cls(experiment), read_report(experiment, earlier) if earlier else {}
        methods = {method.name for method in experiment.methods}
        not_started: dict[str, list[str]] = {}
        data: dict[Cell, str] = {}
        for cell in experiment.cells(logs):
            if cell.method.name not in methods:
                continue  # it only pretrains
            key = cell.method.name, cell.seed
            if cell.finished:
                try:
                    results.outcomes[key] = outcome(cell)
                except OSError as error:
                    results.missing.append(f"{cell.title}: {error.filename}: {error.strerror}")
                except ValueError as error:  # a UsageError is one
                    results.missing.append(f"{cell.title}: {error}")
            elif found := reported.get(key):
                before, results.outcomes[key] = found
                now = read_flags(cell.method.flags)
                if differing := differences(before, now, NOT_THE_METHODS | READ_FROM):
                    raise UsageError(f"{earlier}: {cell.method.name} had {'; '.join(differing)}")
                results.earlier.setdefault(cell.method.name, []).append(cell.seed)
            elif not cell.log_dir.exists():
                not_started.setdefault(cell.method.name, []).append(str(cell.seed))
            else:
                results.missing.append(f"{cell.title}: unfinished, after {cell.epochs_done} of {cell.epochs} epochs")
            if key in results.outcomes:
                data[cell] = results.outcomes[key].records.get(DATA, "")
        if earlier:
            results.kept = read_bands(experiment, earlier)
        if why := mixed(data):
            raise UsageError(f"{experiment.name}: {why}")
        results.missing += [f"{name}, seed {', '.join(seeds)}: not started" for name, seeds in not_started.items()]
        if experiment.closed:
            results._close(experiment.closed)
        shown = {*results.metrics, *results.drawn} if results.outcomes else set()
        for kind in ("metrics", "curves", "table", "primary"):
            names = [named] if isinstance(named := experiment.report.get(kind, []), str) else named
            absent = [name for name in names if name not in shown]
            results.missing += [f"{name}, which report.{kind} names: no run has it" for name in absent if shown]
        return results

    def _close(self, what: Closed) -> None:
        """Adds to the final figures what has been closed of each divergence, and what D's pretraining has `known`."""
        for found in self.outcomes.values():
            end = found.final
            end |= {CLOSED + m: 1 - end[m] / end[BEFORE + m] for m in what.metrics if m in end and end.get(BEFORE + m)}
            if BEFORE + "d_gain" in end and end.get(BEFORE + "kl_forward"):
                end["known"] = end[BEFORE + "d_gain"] / end[BEFORE + "kl_forward"]
        for metric in what.metrics:
            if self.outcomes and not any(CLOSED + metric in found.final for found in self.outcomes.values()):
                raise UsageError(f"report.closed: no run has {metric} before and after its adversarial phase")

    def floor(self) -> float | None:
        """The oracle's entropy, nats per token: the mean of the runs' estimates, where all have the same oracle."""
        by_method = {method.name: read_flags(method.flags) for method in self.experiment.methods}
        found = {key: o.final[FLOOR] for key, o in self.outcomes.items() if FLOOR in o.final}
        oracles = {tuple(getattr(by_method[name], field) for field in ORACLE) for name, _ in found}
        return float(np.mean(list(found.values()))) if len(oracles) == 1 else None

    def values(self, method: Method, metric: str) -> dict[int, float]:
        """The final values of a method, {seed: value}."""
        found = {seed: self.outcomes.get((method.name, seed)) for seed in method.seeds}
        return {seed: o.final[metric] for seed, o in found.items() if o and metric in o.final}

    @property
    def metrics(self) -> list[str]:
        """What is compared: what the table names, or all that its runs end with; the primary first, the times last."""
        known = {metric: None for o in self.outcomes.values() for metric in o.final}
        named = self.experiment.report.get("metrics")
        ends = [metric for metric in known if metric != FLOOR and not metric.startswith(BEFORE)]
        chosen = [metric for metric in named if metric in known] if named else ends
        if (first := self.experiment.report.get("primary")) in chosen:
            chosen = list(dict.fromkeys([first, *chosen]))
        return [*(m for m in chosen if m not in TIMES), "seconds", *([COMPILING] if COMPILING in known else [])]

    @property
    def drawn(self) -> list[str]:
        """The figures whose curves are shown: those that the table names and its runs have."""
        known = {name for o in self.outcomes.values() for name in o.curves} | {name for _, name in self.kept}
        return [name for name in self.experiment.report.get("curves", CURVES) if name in known]

    def curves(self, method: Method, metric: str) -> list[Curve]:
        """The curves of a method, one a seed."""
        found = (self.outcomes.get((method.name, seed)) for seed in method.seeds)
        return [o.curves[metric] for o in found if o and metric in o.curves]

    def collapsed(self, method: str) -> bool:
        """Whether the table says that runs of the method collapse, so that their mean means nothing."""
        return method in self.experiment.report.get("collapsed", [])

    def bands(self) -> dict[tuple[str, str], tuple[np.ndarray, list[Interval]]]:
        """What is drawn of each method and figure: epochs, and the mean and interval at each."""
        extra = ["seconds"] if "seconds" in self.experiment.axes else []
        pairs = [(method, metric) for metric in [*self.drawn, *extra] for method in self.experiment.methods]
        found = {
            (m.name, metric): band(c, self.collapsed(m.name)) for m, metric in pairs if (c := self.curves(m, metric))
        }
        names = [(method.name, metric) for method, metric in pairs]
        return {
            key: found[key] if key in found else self.kept[key] for key in names if key in found or key in self.kept
        }

    @property
    def columns(self) -> list[str]:
        """The curves that are written of every run: those that are drawn, and the clock."""
        clock = any("seconds" in o.curves for o in self.outcomes.values())
        return list(dict.fromkeys([*self.drawn, *(["seconds"] if clock else [])]))

    def evaluations(self) -> list[list[object]]:
        """The curves that are drawn, of every run: method, seed, epoch, and its figures, "" where there is none."""
        rows: list[list[object]] = []
        for key, found in self.outcomes.items():
            tables = [points(found.curves[name]) if name in found.curves else {} for name in self.columns]
            rows += [
                [*key, epoch, *(table.get(epoch, "") for table in tables)] for epoch in sorted(set().union(*tables))
            ]
        return rows

    def means(self) -> dict[tuple[str, str], Interval]:
        """The mean of each method and metric over its seeds; of what has collapsed the median."""
        pairs = ((method, metric) for method in self.experiment.methods for metric in self.metrics)
        values = {(method.name, metric): list(self.values(method, metric).values()) for method, metric in pairs}
        return {pair: interval(numbers, self.collapsed(pair[0])) for pair, numbers in values.items() if numbers}

    def differences(self) -> list["Difference"]:
        """Each method less the one that the table compares with, seed by seed; [] where it names none.

        Figures of a guided generator, or of one of several candidates, are compared with that one's generator alone,
        its own too. What is the same with every seed, as methods share a generator, is left out.
        """
        methods = {method.name: method for method in self.experiment.methods}
        base = methods.get(self.experiment.report.get("against", ""))
        if not base:
            return []
        found = []
        tested = [m for m in self.metrics if m not in TIMES and not m.startswith(BEFORE)]
        tested = [m for m in tested if m.replace(*SAME) == m or m.replace(*SAME) not in tested]
        for metric in tested:
            for method in methods.values():
                ours, alone = self.values(method, metric), OF.sub("", metric)
                theirs = self.values(base, metric if alone == "d_gain" else alone) or self.values(base, metric)
                paired = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
                collapsed = self.collapsed(method.name) or self.collapsed(base.name)
                if any(paired):
                    p = math.nan if collapsed else p_value(paired)
                    found.append((method.name, metric, interval(paired, collapsed), p))
        corrected = holm([p for *_, p in found])
        return [Difference(*entry, p) for entry, p in zip(found, corrected, strict=True)]


class Difference(NamedTuple):
    """A method less another, paired by seed: its interval, the p-value of Student's test, and the same after Holm."""

    method: str
    metric: str
    interval: Interval
    p: float
    p_holm: float


def p_value(differences: Sequence[float]) -> float:
    """Two-sided, of Student's test that their mean is 0; NaN where they do not vary, or there is but one."""
    if len(differences) < 2 or np.ptp(differences) == 0:
        return math.nan
    return float(stats.ttest_1samp(differences, 0).pvalue)


def outcome(cell: Cell) -> Outcome:
    """What a finished cell left; the figures are those of its last epoch, and no others.

    Raises UsageError, ValueError: its records are not those that its last checkpoint tells of. Raises OSError: one
    can't be read.
    """
    config = read_flags(cell.argv)
    if not config.evaluate:
        raise UsageError("has no evaluations, as its flags have --no-evaluate")
    steps = Schedule(config)
    details = read_manifest(cell.log_dir / CHECKPOINTS / f"step-{len(steps):09d}")["details"]
    if read_config(cell.eval_log_dir / CONFIG)["run"] != read_config(cell.log_dir / CONFIG)["run"]:
        raise UsageError(f"{cell.eval_log_dir} has the evaluations of another run")
    for kind, directory in (("train", cell.log_dir), ("eval", cell.eval_log_dir)):
        position = {name: v for name, v in details["positions"].get(kind, {}).items() if name in (METRICS, CHECKSUM)}
        if METRICS not in position:
            raise UsageError(f"its last checkpoint knows no {directory / METRICS}")
        sizes_at(directory, position, advice="")
        if (directory / METRICS).stat().st_size > position[METRICS]:
            raise UsageError(f"{directory / METRICS} has more than the run has written")
    evaluated, trained = read_run(cell.eval_log_dir), read_run(cell.log_dir)
    last = max((int(curve.epochs[-1]) for curve in evaluated.curves.values()), default=0)
    if last != (end := steps.g_epoch(steps[len(steps) - 1])):
        raise UsageError(f"{cell.eval_log_dir} has no evaluation of the last epoch, {end}")
    final = {name: float(c.values[-1]) for name, c in evaluated.curves.items() if int(c.epochs[-1]) == last}
    if SECONDS in trained.curves:
        final = times(trained) | final  # which has the discriminator's pretraining in its seconds
    first = 0 if evaluated.adversarial is None else evaluated.adversarial
    before = {name: c.values[c.epochs < first] for name, c in evaluated.curves.items()}
    final |= {BEFORE + name: float(values[-1]) for name, values in before.items() if len(values)}
    described, curves = read_config(cell.log_dir / CONFIG), evaluated.curves
    if "seconds" in curves:  # of the two evaluations around D's pretraining, of one generator, when that was reached
        _, firsts = np.unique(curves["seconds"].epochs, return_index=True)
        curves["seconds"] = Curve(*(column[firsts] for column in curves["seconds"]))
    return Outcome(final, curves, {DATA: cell.data, **origin(described, cell.eval_log_dir / METRICS)})


def origin(described: dict[str, Any], written: Path) -> dict[str, str]:
    """Commit, date and machine of a run, from its config.json and the last file that it wrote."""
    versions = {name.capitalize(): number for name, number in described.get("versions", {}).items()}
    words = [f"{described['cores']} cores of an {described['cpu']}"] if described.get("cpu") else []
    words += [f"{name} {versions[short]}" for short, name in LIBRARIES.items() if short in versions]
    day = datetime.datetime.fromtimestamp(written.stat().st_mtime, datetime.UTC).date().isoformat()
    return {"commit": described.get("git_commit", "")[:7], "date": day, "machine": ", ".join(words)}


def times(trained: Run) -> dict[str, float]:
    """`seconds` of all epochs that have a clock, and `compile_seconds`, which older runs have among the former.

    The steps that compiled are in the latter alone: such an epoch counts with the mean of the others of its phase, or
    where there is no other with all that it took.
    """
    clock, compiling = trained.curves[SECONDS], trained.curves.get(COMPILING)
    if compiling is None:
        return {"seconds": float(clock.values.sum())}
    apart = np.isin(clock.epochs, compiling.epochs)
    adversarial = clock.epochs >= (math.inf if trained.adversarial is None else trained.adversarial)
    seconds = clock.values.copy()
    seconds[apart] += compiling.values
    for phase in (adversarial, ~adversarial):
        if (others := phase & ~apart).any():
            seconds[phase & apart] = seconds[others].mean()
    return {"seconds": float(seconds.sum()), COMPILING: float(compiling.values.sum())}


def points(curve: Curve) -> dict[int, float]:
    """{epoch: value}."""
    return dict(zip(curve.epochs.tolist(), curve.values.tolist(), strict=True))


def band(curves: Sequence[Curve], collapsed: bool = False) -> tuple[np.ndarray, list[Interval]]:
    """The epochs that all seeds' curves have, and the mean and interval at each."""
    tables = [points(curve) for curve in curves]
    epochs = sorted(set.intersection(*(set(table) for table in tables)))
    return np.array(epochs), [interval([table[epoch] for table in tables], collapsed) for epoch in epochs]


# ---------------------------------------------------------------------------------------------------------------------
# CSV files


def files(experiment: Experiment, folder: Path) -> dict[str, Path]:
    """The CSV files of a report, by what they hold."""
    kinds = ("flags", "runs", "evaluations", "means", "differences", "curves")
    return {kind: folder / f"{experiment.name}_{kind}.csv" for kind in kinds}


def read_report(experiment: Experiment, folder: Path) -> dict[tuple[str, int], tuple[Config, Outcome]]:
    """What `write_tables` left in a folder, perhaps on another machine: {(method, seed): (its flags, its outcome)}.

    Raises UsageError: it is damaged. Raises OSError: it can't be read.
    """
    paths = files(experiment, folder)
    tables = {kind: paths[kind].read_text(encoding="utf-8") for kind in ("flags", "runs")}
    # Of the oldest reports the curves of single runs are gone.
    curves_file = paths["evaluations"]
    tables["evaluations"] = curves_file.read_text(encoding="utf-8") if curves_file.exists() else ""
    final: dict[tuple[str, int], dict[str, float]] = {}
    records: dict[tuple[str, int], dict[str, str]] = {}
    evaluations: dict[tuple[str, int], dict[str, list[tuple[int, float]]]] = {}
    try:
        before = {row["method"]: from_text(row["flags"]) for row in read_rows(tables["flags"])}
        for row in read_rows(tables["runs"]):
            key = row.pop("method"), int(row.pop("seed"))
            records[key] = {name: row.pop(name, "") for name in RECORDS}
            final[key] = {name: float(value) for name, value in row.items() if value}
        for row in read_rows(tables["evaluations"]):
            key, epoch = (row.pop("method"), int(row.pop("seed"))), int(row.pop("epoch"))
            for name, value in ((name, float(value)) for name, value in row.items() if value):
                evaluations.setdefault(key, {}).setdefault(name, []).append((epoch, value))
        if not {name for name, _ in final} <= before.keys():
            raise ValueError("a method has no flags")
    except (ValueError, KeyError) as error:
        raise UsageError(f"{folder}: not a report of {experiment.name} ({error})") from None
    found: dict[tuple[str, int], tuple[Config, Outcome]] = {}
    for key, end in final.items():
        curves = {name: np.array(of) for name, of in evaluations.get(key, {}).items()}
        unknown = {name: np.full(len(of), math.nan) for name, of in curves.items()}
        drawn = {n: Curve(of[:, 0].astype(int), of[:, 1], unknown[n]) for n, of in curves.items()}
        found[key] = before[key[0]], Outcome(end, drawn, records[key])
    return found


def read_bands(experiment: Experiment, folder: Path) -> dict[tuple[str, str], tuple[np.ndarray, list[Interval]]]:
    """What `Results.bands` gave when a report was written; {} where it is gone; raises UsageError: it is damaged."""
    path = files(experiment, folder)["curves"]
    found: dict[tuple[str, str], tuple[list[int], list[Interval]]] = {}
    try:
        for row in read_rows(path.read_text(encoding="utf-8")) if path.exists() else []:
            epochs, intervals = found.setdefault((row["method"], row["metric"]), ([], []))
            epochs.append(int(row["epoch"]))
            mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
            intervals.append(Interval(mean, low, high, int(row["seeds"])))
    except (ValueError, KeyError) as error:
        raise UsageError(f"{path}: not the curves of a report ({error})") from None
    return {key: (np.array(epochs), intervals) for key, (epochs, intervals) in found.items()}


def to_text(config: Config) -> str:
    """The flags that are a method's, all of them, as one types them."""
    return shlex.join(words_of({name: getattr(config, name) for name in FIELDS if name not in NOT_THE_METHODS}))


def from_text(flags: str) -> Config:
    """The opposite; a flag that is not there has its default; raises UsageError where one is wrong."""
    return Config(**explicit_flags(shlex.split(flags)))


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Writes rows, the first of them the names of the columns, whole or not at all; raises OSError."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue())


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Writes the numbers of a report into a folder that is there; returns the files; raises OSError."""
    paths, spread = files(results.experiment, folder), Interval._fields
    known = [name for name in RECORDS if any(o.records.get(name) for o in results.outcomes.values())]
    columns = [*results.metrics, *([FLOOR] if any(FLOOR in o.final for o in results.outcomes.values()) else [])]
    curves = [[*key, epoch, *pair[:4]] for key, c in results.bands().items() for epoch, pair in zip(*c, strict=True)]
    tables: dict[str, list[Sequence[object]]] = {
        "flags": [["method", "flags"], *([m.name, to_text(read_flags(m.flags))] for m in results.experiment.methods)],
        "runs": [
            ["method", "seed", *columns, *known],
            *(
                [*key, *(o.final.get(column, "") for column in columns), *(o.records.get(name, "") for name in known)]
                for key, o in results.outcomes.items()
            ),
        ],
        "evaluations": [["method", "seed", "epoch", *results.columns], *results.evaluations()],
        "means": [["method", "metric", *spread], *([*key, *pair] for key, pair in results.means().items())],
        "differences": [
            ["method", "metric", *spread, "p", "p_holm"],
            *([d.method, d.metric, *d.interval, d.p, d.p_holm] for d in results.differences()),
        ],
        "curves": [["method", "metric", "epoch", *spread[:4]], *curves],
    }
    for kind, path in paths.items():
        write_csv(path, tables[kind])
    return list(paths.values())
