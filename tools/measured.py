"""What temperatures.py, controls.py and molecules.py measure, as tables: means over seeds, beside real data."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from support.errors import UsageError
from tools.outcomes import Interval, interval
from tools.plot_curves import NAMES, read_rows

REAL = "real data"
STATES = {
    "pretrained": "end of its MLE pretraining",
    "training": "during training",
    "guided": "guided",
    "candidates": "chosen by D",
    "candidates by D*": "chosen by D*",
}
SHOWN = (  # in the tables, where they are measured; the CSV file has all
    *("nll", "nll_valid", "nll_test", "g_entropy", "objective", "kl_to_pretrained", "kl_forward", "kl_reverse"),
    *("d_gain_valid", "d_gain", "distinct2", "bleu2", "bleu4", "self_bleu2", "self_bleu4"),
    *("mse", "pitch_range", "copied_share", "longest_copy", "scale_consistency", "pitch_class_entropy", "stepwise"),
    *("ends_on_tonic", "repeated_bars", "alike_after_2", "alike_after_4", "alike_after_8"),
    *("interval_divergence", "rhythm_divergence"),
    *("texygen_bleu2", "texygen_bleu3", "texygen_bleu4", "texygen_bleu5", "texygen_self_bleu2", "texygen_self_bleu4"),
    *("texygen_nll_gen", "valid", "unique", "novel", "diversity", "qed"),
)
Figures = dict[str, tuple[float, float]]  # {name: (value, standard error)}


class Point(NamedTuple):
    """What one state of a run's generator reaches at one temperature; 0 stands for none, that of real data."""

    curve: str  # the run, and the state where there are several
    temperature: float
    figures: Figures
    epoch: int | None = None  # of an evaluation that the run has made itself
    candidates: int | None = None  # of which one is kept


class Column(NamedTuple):
    """The points of a method at one temperature, or of one of so many candidates: a column of the tables."""

    title: str
    method: str
    seeds: dict[str, Figures]
    collapsed: bool = False  # its runs have medians and ranges


def read_points(path: Path) -> list[Point]:
    """The points of a file that tools/temperatures.py, controls.py or molecules.py has written.

    Raises UsageError: it is none. Raises OSError: it can't be read.
    """
    try:
        points = []
        for row in read_rows(path.read_text(encoding="utf-8")):
            curve, temperature = row.pop("run"), float(row.pop("temperature") or 0)
            when = [int(found) if (found := row.pop(name, "")) else None for name in ("epoch", "candidates")]
            values = {name: float(value) for name, value in row.items() if value}
            pairs = {n: (v, values.get(f"{n}_se", float("nan"))) for n, v in values.items() if not n.endswith("_se")}
            points.append(Point(curve, temperature, pairs, *when))
        return points
    except (ValueError, KeyError) as error:
        raise UsageError(f"{path}: no table of temperatures ({error})") from None


def curve_parts(curve: str) -> tuple[str, str, str | None]:
    """Method, seed ("" where there is none) and state (None: the run's last) of the name of a curve."""
    found = re.fullmatch(
        r"(?P<method>.*?)(/(?P<seed>[0-9]+))?(,? (?P<state>pretrained|training|guided|candidates( by D[*])?))?", curve
    )
    return (found["method"], found["seed"] or "", found["state"]) if found else (curve, "", None)


def title_of(curve: str, labels: Mapping[str, str]) -> str:
    """The name under which a curve is shown: its method's label, without the seed, and the state."""
    method, _, state = curve_parts(curve)
    name = labels.get(method.rpartition("/")[2], method)
    return f"{name}, {STATES[state]}" if state else name


def columns(points: Iterable[Point], labels: Mapping[str, str], collapsed: Sequence[str] = ()) -> list[Column]:
    """The columns in the order of the points, real data last; without evaluations that the runs made themselves.

    Runs of the methods `collapsed` have medians and ranges. Raises UsageError: a figure of one run has two values.
    """
    found: dict[str, Column] = {}
    for point in points:
        if point.epoch is None:
            title = method = title_of(point.curve, labels)
            if point.candidates:
                title += f", one of {point.candidates}"
            elif point.temperature not in (0, 1):
                title += f", temperature {point.temperature:g}"
            name, seed, _ = curve_parts(point.curve)
            column = Column(title, method, {}, name.rpartition("/")[2] in collapsed)
            figures = found.setdefault(title, column).seeds.setdefault(seed, {})
            if odd := [n for n in figures.keys() & point.figures.keys() if figures[n][0] != point.figures[n][0]]:
                raise UsageError(f"{point.curve}: was measured twice, with another {min(odd)}")
            figures.update(point.figures)
    return sorted(found.values(), key=lambda column: column.title == REAL)


def shown(column: Column, name: str) -> str:
    """A figure of one run ± its standard error; of several their mean ± half of its 95 % interval."""
    pairs = [figures[name] for figures in column.seeds.values() if name in figures]
    if len(pairs) == 1:
        value, error = pairs[0]
        return str(Interval(value, value - error, value + error, 1))
    return over_seeds(column, [value for value, _ in pairs])


def over_seeds(column: Column, values: Sequence[float]) -> str:
    """The mean over seeds and its interval; without that of averages, which share generators between seeds."""
    if not values:
        return ""
    found = interval(values, column.collapsed)
    return f"{found.mean:.{found.digits}f}" if shares(column) else str(found)


def shares(column: Column) -> bool:
    """Whether the seeds of a column are not independent: averages of the generators of several of them."""
    return column.title.startswith("average of ")


def differences(column: Column, other: Column, name: str) -> dict[str, float]:
    """A figure of each seed less that of the same seed of another column, or of real data, which have no seed."""
    pairs = {seed: (f, other.seeds.get(seed, other.seeds.get("", {}))) for seed, f in column.seeds.items()}
    return {
        s: ours[name][0] - theirs[name][0]
        for s, (ours, theirs) in pairs.items()
        if {name} <= ours.keys() & theirs.keys()
    }


def table(
    points: Sequence[Point], labels: Mapping[str, str] | None = None, collapsed: Sequence[str] = ()
) -> list[list[str]]:
    """A row a figure, a column a method: means over seeds, or of one run ± standard error; see `columns`."""
    found = columns(points, labels or {}, collapsed)
    names = [name for name in SHOWN if any(name in figures for column in found for figures in column.seeds.values())]
    rows = [[NAMES.get(name, name), *(shown(column, name) for column in found)] for name in names]
    return [["", *(column.title for column in found)], *rows]


def best(found: Sequence[Column]) -> Column:
    """The first method at the temperature of its least NLL on the validation set, where that is known."""
    own = [column for column in found if column.method == found[0].method]
    nll = [[figures["nll_valid"][0] for figures in column.seeds.values() if "nll_valid" in figures] for column in own]
    return own[int(np.argmin([np.mean(values) for values in nll]))] if all(nll) else found[0]


def apart(
    points: Sequence[Point], labels: Mapping[str, str] | None = None, collapsed: Sequence[str] = ()
) -> list[list[str]]:
    """How far each figure is from that of real data; a likelihood, which those lack, from that of `best`, seed by seed.

    The last two rows count the figures that are nearer to real data than those of `best`, and those that are further
    away by more than half of the 95 % interval of that change.
    """
    found = columns(points, labels or {}, collapsed)
    real = found.pop() if found[-1].title == REAL else Column(REAL, REAL, {"": {}})
    first = best(found)
    rows, nearer, further = [], [0] * len(found), [0] * len(found)
    compared, known = [False] * len(found), [False] * len(found)  # whether it is, and whether with an interval
    for name in SHOWN:
        base = real if name in real.seeds[""] else first if "nll" in name else None
        changes = [differences(column, base, name) if base and column is not base else {} for column in found]
        if not any(changes):
            continue
        means = (over_seeds(column, [*of.values()]) for column, of in zip(found, changes, strict=True))
        rows.append([NAMES.get(name, name), *means])
        own = changes[found.index(first)]
        for i, change in enumerate(changes):
            if base is real and found[i] is not first and (both := change.keys() & own.keys()):
                moved = interval([abs(change[seed]) - abs(own[seed]) for seed in both])
                nearer[i] += moved.mean < 0
                further[i] += moved.low > 0
                compared[i], known[i] = True, known[i] or not (math.isnan(moved.low) or shares(found[i]))
    for text, counts, counted in (
        ("nearer to real data", nearer, compared),
        ("further, beyond the error", further, known),
    ):
        rows += [[text, *(str(n) if there else "" for n, there in zip(counts, counted, strict=True))]]
    return [["", *(column.title for column in found)], *rows]
