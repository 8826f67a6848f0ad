"""Tables and figures of a table of experiments: python tools/report.py experiments/NAME.toml -o FOLDER."""

import csv
import math
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from scipy import stats

from support.config import (
    FIELDS,
    FREE_TO_CHANGE,
    READ_FROM,
    Config,
    Parser,
    UsageError,
    differences,
    explicit_flags,
    read_flags,
    words_of,
)
from support.experiment import Cell, Experiment, Method, read
from tools.plot_curves import FLOOR, Curve, read_rows, read_run

CONFIDENCE = 0.95
BANDED = 3  # seeds at least for a band: the interval of two is 13 standard errors wide
CLOSED = "closed_"  # and the name of a divergence
BEFORE = "before_"  # and the name of a figure: its last value before the adversarial phase
ORACLE = (  # what its entropy depends on
    *("vocab_size", "seq_len", "oracle_seed", "oracle_emb_dim", "oracle_hidden_dim", "oracle_init", "oracle_params"),
)
CURVES = ("nll", "nll_test", "g_entropy")  # that are drawn where the table names none
SECONDS = "seconds_per_epoch"  # the column of the training log
NOT_THE_METHODS = FREE_TO_CHANGE | {"seed", "threads"}  # flags that differ from run to run of a method
SIZE = (8.0, 3.2)  # inches, of a panel
NAMES = {
    "nll": "NLL_oracle",
    "nll_test": "NLL_test",
    "nll_valid": "NLL_valid",
    "g_entropy": "entropy of G",
    "oracle_entropy": "entropy of the oracle",
    "kl_forward": "KL(oracle‖G)",
    "kl_reverse": "KL(G‖oracle)",
    "d_test_acc": "D's accuracy",
    "d_optimal_acc": "accuracy of D*",
    "d_gain": "d_gain",
    "distinct2": "distinct bigrams",
    "mse": "MSE",
    "copied_share": "copied",
    "known": "known to D",
    "seconds": "seconds",
} | {
    f"{kind}{n}": f"{title}-{n}" for kind, title in (("bleu", "BLEU"), ("self_bleu", "self-BLEU")) for n in range(2, 6)
}


class Interval(NamedTuple):
    """The mean over so many seeds and its 95 % interval by Student's t; NaN where one seed gives none."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        half = "" if math.isnan(self.low) else f" ± {self.high - self.mean:.{self.digits}f}"
        return f"{self.mean:.{self.digits}f}{half}"

    @property
    def digits(self) -> int:
        """Decimals worth showing: two of the interval's half width, or three."""
        half = self.high - self.mean
        return 3 if math.isnan(half) or half <= 0 else min(max(1 - math.floor(math.log10(half)), 0), 6)


def interval(values: Sequence[float]) -> Interval:
    """The mean and its interval; the values are independent, one at least."""
    numbers, count = np.asarray(values, float), len(values)
    mean = float(numbers.mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan, count)
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

    Attributes:
        final: the figures of its last evaluation, the last ones before the adversarial phase, and the seconds of its
            epochs, in which D's pretraining and evaluations are not counted.
        curves: {figure: its curve}.
    """

    final: dict[str, float]
    curves: dict[str, Curve]


@dataclass
class Results:
    """The outcomes of a table; `missing` says what it lacks.

    `earlier` has the seeds, by method, of the outcomes that an earlier report has given.
    """

    experiment: Experiment
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict)
    earlier: dict[str, list[int]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, experiment: Experiment, logs: Path, earlier: Path | None = None) -> "Results":
        """Reads the runs under `logs`, and, of those that have not finished there, what the report in `earlier` has.

        Raises:
            UsageError, ValueError: a run has other flags than the table, or a damaged file.
            OSError: one can't be read.
        """
        results, reported = cls(experiment), read_report(experiment, earlier) if earlier else {}
        methods = {method.name for method in experiment.methods}
        for cell in experiment.cells(logs):
            if cell.method.name not in methods:
                continue  # it only pretrains
            if cell.finished:
                results.outcomes[cell.method.name, cell.seed] = outcome(cell)
            elif found := reported.get((cell.method.name, cell.seed)):
                results.outcomes[cell.method.name, cell.seed] = found
                results.earlier.setdefault(cell.method.name, []).append(cell.seed)
            elif not cell.log_dir.exists():
                results.missing.append(f"{cell.title}: not started")
            else:
                results.missing.append(f"{cell.title}: unfinished, after {cell.epochs_done} of {cell.epochs} epochs")
        if "closed" in experiment.report:
            results._close(Closed.of(experiment))
        shown = {*results.metrics, *results.drawn} if results.outcomes else set()
        for kind in ("metrics", "curves"):
            absent = [name for name in experiment.report.get(kind, []) if name not in shown]
            results.missing += [f"{name}, which report.{kind} names: no run has it" for name in absent if shown]
        return results

    def _close(self, what: "Closed") -> None:
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
        """The oracle's entropy, nats a token: the mean of the runs' estimates, where all have the same oracle."""
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
        """What is compared: what the table names, or all that its runs end with; `seconds` last."""
        known = {metric: None for o in self.outcomes.values() for metric in o.final}
        named = self.experiment.report.get("metrics")
        ends = [metric for metric in known if metric != FLOOR and not metric.startswith(BEFORE)]
        chosen = [metric for metric in named if metric in known] if named else ends
        return [*(metric for metric in chosen if metric != "seconds"), "seconds"]

    @property
    def drawn(self) -> list[str]:
        """The figures whose curves are shown: those that the table names and its runs have."""
        known = {name for o in self.outcomes.values() for name in o.curves}
        return [name for name in self.experiment.report.get("curves", CURVES) if name in known]

    def curves(self, method: Method, metric: str) -> list[Curve]:
        """The curves of a method, one a seed."""
        found = (self.outcomes.get((method.name, seed)) for seed in method.seeds)
        return [o.curves[metric] for o in found if o and metric in o.curves]

    def bands(self) -> dict[tuple[str, str], tuple[np.ndarray, list[Interval]]]:
        """What is drawn of each method and figure: epochs, and the mean and interval at each."""
        pairs = [(method, metric) for metric in self.drawn for method in self.experiment.methods]
        return {(method.name, metric): band(c) for method, metric in pairs if (c := self.curves(method, metric))}

    def evaluations(self) -> list[list[object]]:
        """The curves that are drawn, of every run: method, seed, epoch, and its figures, "" where there is none."""
        rows: list[list[object]] = []
        for key, found in self.outcomes.items():
            tables = [points(found.curves[name]) if name in found.curves else {} for name in self.drawn]
            rows += [
                [*key, epoch, *(table.get(epoch, "") for table in tables)] for epoch in sorted(set().union(*tables))
            ]
        return rows

    def means(self) -> dict[tuple[str, str], Interval]:
        """The mean of each method and metric over its seeds."""
        pairs = ((method, metric) for method in self.experiment.methods for metric in self.metrics)
        values = {(method.name, metric): list(self.values(method, metric).values()) for method, metric in pairs}
        return {pair: interval(numbers) for pair, numbers in values.items() if numbers}

    def differences(self) -> list["Difference"]:
        """Each method less the one that the table compares with, seed by seed; [] where it names none."""
        methods = {method.name: method for method in self.experiment.methods}
        base = methods.pop(self.experiment.report.get("against", ""), None)
        if not base:
            return []
        found = []
        for method in methods.values():
            for metric in (m for m in self.metrics if m != "seconds" and not m.startswith(BEFORE)):
                ours, theirs = self.values(method, metric), self.values(base, metric)
                paired = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
                if paired:
                    found.append((method.name, metric, interval(paired), p_value(paired)))
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
    """What a finished cell left; the figures are those of its last epoch, and no others."""
    evaluated, trained = read_run(cell.eval_log_dir), read_run(cell.log_dir)
    last = max((int(curve.epochs[-1]) for curve in evaluated.curves.values()), default=0)
    final = {name: float(c.values[-1]) for name, c in evaluated.curves.items() if int(c.epochs[-1]) == last}
    if SECONDS in trained.curves:
        final["seconds"] = float(trained.curves[SECONDS].values.sum())
    first = 0 if evaluated.adversarial is None else evaluated.adversarial
    before = {name: c.values[c.epochs < first] for name, c in evaluated.curves.items()}
    final |= {BEFORE + name: float(values[-1]) for name, values in before.items() if len(values)}
    return Outcome(final, evaluated.curves)


def files(experiment: Experiment, folder: Path) -> dict[str, Path]:
    """The CSV files of a report, by what they hold."""
    kinds = ("flags", "runs", "evaluations", "means", "differences", "curves")
    return {kind: folder / f"{experiment.name}_{kind}.csv" for kind in kinds}


def read_report(experiment: Experiment, folder: Path) -> dict[tuple[str, int], Outcome]:
    """What `write` left in a folder, perhaps on another machine: {(method, seed): its outcome}.

    Raises:
        UsageError: it is damaged, or a method of the table had other flags then.
        OSError: it can't be read.
    """
    paths = files(experiment, folder)
    tables = {kind: paths[kind].read_text(encoding="utf-8") for kind in ("flags", "runs", "evaluations")}
    final: dict[tuple[str, int], dict[str, float]] = {}
    evaluations: dict[tuple[str, int], dict[str, list[tuple[int, float]]]] = {}
    try:
        before = {row["method"]: from_text(row["flags"]) for row in read_rows(tables["flags"])}
        for row in read_rows(tables["runs"]):
            key = row.pop("method"), int(row.pop("seed"))
            final[key] = {name: float(value) for name, value in row.items() if value}
        for row in read_rows(tables["evaluations"]):
            key, epoch = (row.pop("method"), int(row.pop("seed"))), int(row.pop("epoch"))
            for name, value in ((name, float(value)) for name, value in row.items() if value):
                evaluations.setdefault(key, {}).setdefault(name, []).append((epoch, value))
        if not {name for name, _ in final} <= before.keys():
            raise ValueError("a method has no flags")
    except (ValueError, KeyError) as error:
        raise UsageError(f"{folder}: not a report of {experiment.name} ({error})") from None
    for method in experiment.methods:
        now = read_flags(method.flags)
        if differing := differences(before.get(method.name, now), now, NOT_THE_METHODS | READ_FROM):
            raise UsageError(f"{paths['flags']}: {method.name} had {'; '.join(differing)}")
    outcomes: dict[tuple[str, int], Outcome] = {}
    for key, end in final.items():
        curves = {name: np.array(of) for name, of in evaluations.get(key, {}).items()}
        unknown = {name: np.full(len(of), math.nan) for name, of in curves.items()}
        outcomes[key] = Outcome(end, {n: Curve(of[:, 0].astype(int), of[:, 1], unknown[n]) for n, of in curves.items()})
    return outcomes


def to_text(config: Config) -> str:
    """The flags that are a method's, all of them, as one types them."""
    return shlex.join(words_of({name: getattr(config, name) for name in FIELDS if name not in NOT_THE_METHODS}))


def from_text(flags: str) -> Config:
    """The opposite; a flag that is not there has its default; raises UsageError where one is wrong."""
    return Config(**explicit_flags(shlex.split(flags)))


class Closed(NamedTuple):
    """What `[report.closed]` asks for: which share of some divergences the adversarial phase has closed.

    That is 1 - end / start of each of the `metrics`. `along` is the flag of the figure's axis, `by` the one that tells
    its lines apart, `panels` its columns, or None.
    """

    metrics: list[str]
    along: str
    by: str
    panels: str | None = None

    @classmethod
    def of(cls, experiment: Experiment) -> "Closed":
        """Reads it; raises UsageError."""
        asked = experiment.report["closed"]
        where, names = f"{experiment.name}: report.closed", set(cls._fields)
        if not isinstance(asked, dict) or not names - {"panels"} <= asked.keys() <= names:
            raise UsageError(f"{where} has metrics, along, by and, if there are any, panels")
        metrics = asked["metrics"]
        if not isinstance(metrics, list) or not metrics or not all(isinstance(metric, str) for metric in metrics):
            raise UsageError(f"{where}: metrics is no list of figures")
        for flag in (value for name, value in asked.items() if name != "metrics"):
            if not isinstance(flag, str) or flag not in FIELDS:
                raise UsageError(f"{where}: {flag!r} is no flag")
        closed = cls(**asked)
        places: dict[tuple[Any, ...], Method] = {}
        for method in experiment.methods:
            config = read_flags(method.flags)
            if not config.total_epochs:
                continue  # it closes nothing and is not drawn
            place = tuple(getattr(config, flag) for flag in (closed.along, closed.by, closed.panels) if flag)
            if (other := places.setdefault(place, method)) is not method:
                raise UsageError(f"{where}: {other.name} and {method.name} have the same place in the figure")
        return closed


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def title_of(metric: str) -> str:
    """A metric's name for people."""
    if metric.startswith(CLOSED):
        return f"{title_of(metric.removeprefix(CLOSED))}, share closed"
    if metric.startswith(BEFORE):
        return f"{title_of(metric.removeprefix(BEFORE))}, before"
    return NAMES.get(metric, metric.removeprefix("real_") + " (real)" if metric.startswith("real_") else metric)


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table, its first row the head."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def page(results: Results, figure: str) -> str:
    """The report as Markdown."""
    experiment, means, differences = results.experiment, results.means(), results.differences()
    parts = [f"# {experiment.title}"]
    if results.missing:
        parts.append("**Not all runs are here:**\n\n" + "\n".join(f"- {line}" for line in results.missing))
    if results.earlier:
        taken = (f"{name} with seed {', '.join(map(str, seeds))}" for name, seeds in results.earlier.items())
        parts.append(f"From an earlier report, perhaps of another machine: {'; '.join(taken)}.")
    rows = [["", *map(title_of, results.metrics), "seeds"]]
    for method in experiment.methods:
        found = [means.get((method.name, metric)) for metric in results.metrics]
        seeds = {str(pair.seeds) for pair in found if pair}
        rows.append([method.label, *(str(pair or "") for pair in found), ", ".join(sorted(seeds)) or "0"])
    floor = results.floor()
    known = "" if floor is None else f" The oracle's entropy is {floor:.3f} nats a token."
    parts.append(f"Final values, mean over seeds ± half of its 95 % interval (Student's t).{known}\n\n{markdown(rows)}")
    if differences:
        labels = {method.name: method.label for method in experiment.methods}
        rows = [["less " + labels[experiment.report["against"]], "", "difference", "p", "p (Holm)", "seeds"]]
        for d in differences:
            shown = ["" if math.isnan(p) else f"{p:.2g}" for p in (d.p, d.p_holm)]
            rows.append([labels[d.method], title_of(d.metric), str(d.interval), *shown, str(d.interval.seeds)])
        parts.append(
            "Differences seed by seed, with 95 % intervals; p of Student's paired test, then after Holm's correction "
            f"for all {sum(not math.isnan(d.p) for d in differences)} tests of this table.\n\n{markdown(rows)}"
        )
    if "closed" in experiment.report:
        parts.append(
            "A *share closed* is that of a divergence at the end of pretraining which the adversarial phase closed, "
            "negative where it grew; *known to D* is `d_gain` of the pretrained discriminator, as a share of "
            f"KL(oracle‖G).\n\n![Shares closed, and, dotted, known to D]({experiment.name}_closed.png)"
        )
    if figure:
        parts.append(f"![Curves: means over seeds, bands are 95 % intervals; of two seeds, thin, both]({figure})")
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Writes rows, the first of them the names of the columns; raises OSError."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write(results: Results, folder: Path) -> list[Path]:
    """Writes the report; returns its files, the page first.

    Raises:
        OSError: one can't be written.
    """
    name, paths = results.experiment.name, files(results.experiment, folder)
    folder.mkdir(parents=True, exist_ok=True)
    page_file = folder / f"{name}.md"
    columns = [*results.metrics, *([FLOOR] if any(FLOOR in o.final for o in results.outcomes.values()) else [])]
    rows = [[*key, *(o.final.get(column, "") for column in columns)] for key, o in results.outcomes.items()]
    flags = [[method.name, to_text(read_flags(method.flags))] for method in results.experiment.methods]
    means = [[*key, *pair] for key, pair in results.means().items()]
    found = [[d.method, d.metric, *d.interval, d.p, d.p_holm] for d in results.differences()]
    curves = [[*key, epoch, *pair] for key, c in results.bands().items() for epoch, pair in zip(*c, strict=True)]
    write_csv(paths["flags"], [["method", "flags"], *flags])
    write_csv(paths["runs"], [["method", "seed", *columns], *rows])
    write_csv(paths["evaluations"], [["method", "seed", "epoch", *results.drawn], *results.evaluations()])
    write_csv(paths["means"], [["method", "metric", *Interval._fields], *means])
    write_csv(paths["differences"], [["method", "metric", *Interval._fields, "p", "p_holm"], *found])
    write_csv(paths["curves"], [["method", "metric", "epoch", *Interval._fields], *curves])
    picture = folder / f"{name}.png"
    pictures = [picture] if draw(results, picture) else []
    page_file.write_text(page(results, picture.name if pictures else ""), encoding="utf-8")
    if "closed" in results.experiment.report:
        pictures.append(folder / f"{name}_closed.png")
        draw_closed(results, Closed.of(results.experiment), pictures[-1])
    return [page_file, *paths.values(), *pictures]


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def points(curve: Curve) -> dict[int, float]:
    """{epoch: value}."""
    return dict(zip(curve.epochs.tolist(), curve.values.tolist(), strict=True))


def band(curves: Sequence[Curve]) -> tuple[np.ndarray, list[Interval]]:
    """The epochs that all seeds' curves have, and the mean and interval at each."""
    tables = [points(curve) for curve in curves]
    epochs = sorted(set.intersection(*(set(table) for table in tables)))
    return np.array(epochs), [interval([table[epoch] for table in tables]) for epoch in epochs]


def draw(results: Results, path: Path) -> bool:
    """Draws a panel a metric, methods over epochs with bands over seeds, and the oracle's entropy; False: nothing to.

    Of fewer seeds than `BANDED` there is a thin line each instead of a band.

    Raises:
        OSError: the picture can't be written.
    """
    wanted, bands = results.drawn, results.bands()
    if not wanted:
        return False
    size = SIZE[0], SIZE[1] * len(wanted)
    figure, panels = plt.subplots(len(wanted), 1, sharex=True, squeeze=False, figsize=size, layout="constrained")
    for panel, metric in zip(panels[:, 0], wanted, strict=True):
        for i, method in enumerate(results.experiment.methods):
            if (method.name, metric) not in bands:
                continue
            epochs, intervals = bands[method.name, metric]
            panel.plot(epochs, [pair.mean for pair in intervals], color=f"C{i % 10}", label=method.label, linewidth=1.2)
            curves = results.curves(method, metric)
            if len(curves) < BANDED:
                for curve in curves:
                    panel.plot(curve.epochs, curve.values, color=f"C{i % 10}", linewidth=0.5)
                continue
            low, high = [pair.low for pair in intervals], [pair.high for pair in intervals]
            panel.fill_between(epochs, low, high, color=f"C{i % 10}", alpha=0.2, linewidth=0)
        floor = results.floor()
        if floor is not None and metric in ("nll", "nll_test", "g_entropy"):
            panel.axhline(floor, color="black", linestyle="--", linewidth=1, label="entropy of the oracle")
        panel.set_ylabel(title_of(metric))
        panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize="small")
    panels[-1, 0].set_xlabel("epoch")
    try:
        figure.savefig(path, dpi=120)
    finally:
        plt.close(figure)
    return True


def draw_closed(results: Results, what: Closed, path: Path) -> None:
    """Draws the shares of the divergences that are closed and, dotted, of KL(oracle‖G) that is known to D.

    Raises:
        OSError: the picture can't be written.
    """
    means = results.means()
    # {(metric, panel): {(by, whether it is known rather than closed): {along: share}}}
    lines: dict[tuple[str, Any], dict[tuple[Any, bool], dict[Any, Interval]]] = {}
    for method in results.experiment.methods:
        config = read_flags(method.flags)
        place, by = getattr(config, what.along), getattr(config, what.by)
        for metric in what.metrics:
            panel = lines.setdefault((metric, getattr(config, what.panels) if what.panels else None), {})
            for name in (CLOSED + metric, *(["known"] if metric == "kl_forward" else [])):
                if share := means.get((method.name, name)):
                    panel.setdefault((by, name == "known"), {})[place] = share
    lines = {key: panel for key, panel in lines.items() if panel}
    places = sorted({place for panel in lines.values() for line in panel.values() for place in line})
    rewards = list(dict.fromkeys(by for panel in lines.values() for by, _ in panel))
    columns = list(dict.fromkeys(column for _, column in lines)) or [None]
    size = SIZE[0], SIZE[1] * len(what.metrics)
    figure, grid = plt.subplots(
        len(what.metrics), len(columns), sharex=True, sharey="row", squeeze=False, figsize=size, layout="constrained"
    )
    for (metric, column), panel in lines.items():
        axes = grid[what.metrics.index(metric), columns.index(column)]
        for (by, known), line in panel.items():
            aside = 0.04 * (rewards.index(by) - (len(rewards) - 1) / 2)  # so that none hides another
            x, error = [places.index(place) + aside for place in line], [p.high - p.mean for p in line.values()]
            style = {"linestyle": ":", "marker": "."} if known else {"marker": "o", "label": by}
            color = f"C{rewards.index(by) % 10}"
            axes.errorbar(x, [p.mean for p in line.values()], error, color=color, capsize=3, **style)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(places)), [f"{place:,}" if isinstance(place, int) else place for place in places])
        axes.set_title(f"--{what.panels} {column}" if what.panels else "")
        axes.grid(alpha=0.3)
    for row, metric in enumerate(what.metrics):
        grid[row, 0].set_ylabel(title_of(CLOSED + metric))
    for axes in grid[-1]:
        axes.set_xlabel(f"--{what.along}")
    pairs = (pair for axes in grid.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    labelled = {label: line for line, label in pairs}
    figure.legend(labelled.values(), labelled, loc="outside right upper", fontsize="small", title=f"--{what.by}")
    try:
        figure.savefig(path, dpi=120)
    finally:
        plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, or 2 with one line on stderr where something can't be used; names what is missing."""
    parser = Parser(prog="report.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("experiment", type=Path, metavar="FILE.toml", help="the table, such as experiments/figure.toml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the report goes")
    parser.add_argument("--logs", type=Path, default=Path("logs"), metavar="DIR", help="(default: logs)")
    parser.add_argument(
        "--earlier", type=Path, metavar="FOLDER", help="a report whose runs stand for those that --logs lacks"
    )
    arguments = parser.parse_args(argv)
    try:
        results = Results.of(read(arguments.experiment), arguments.logs, arguments.earlier)
        for line in results.missing:
            print(f"report.py: {line}", file=sys.stderr)
        if not results.outcomes:
            raise UsageError(f"{arguments.experiment}: no run has finished under {arguments.logs}")
        print("\n".join(map(str, write(results, arguments.output))))
    except OSError as error:
        parser.error(f"{error.filename or arguments.output}: {error.strerror or error}")
    except ValueError as error:
        parser.error(" ".join(str(error).split()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
