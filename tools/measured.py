"""What tools/temperatures.py and tools/controls.py measure, as tables: means over seeds, beside real data."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from support.config import UsageError
from tools.outcomes import Interval, interval
from tools.plot_curves import NAMES, read_rows

REAL = "real data"
STATES = {"pretrained": "end of its MLE pretraining", "training": "during training", "candidates": "chosen by D"}
SHOWN = (  # in the tables, where they are measured; the CSV file has all
    *("nll", "nll_valid", "nll_test", "g_entropy", "objective", "kl_to_pretrained", "kl_forward", "kl_reverse"),
    *("d_gain_valid", "d_gain", "distinct2", "bleu2", "bleu4", "self_bleu2", "self_bleu4"),
    *("mse", "pitch_range", "copied_share", "longest_copy", "scale_consistency", "pitch_class_entropy", "stepwise"),
    *("ends_on_tonic", "repeated_bars", "alike_after_2", "alike_after_4", "alike_after_8"),
    *("interval_divergence", "rhythm_divergence"),
    *("texygen_bleu2", "texygen_bleu3", "texygen_bleu4", "texygen_bleu5", "texygen_self_bleu2", "texygen_self_bleu4"),
    "texygen_nll_gen",
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
    seeds: dict[str, Figures]


def read_points(path: Path) -> list[Point]:
    """The points of a file that tools/temperatures.py has written.

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
    found = re.fullmatch(r"(?P<method>.*?)(/(?P<seed>[0-9]+))?(,? (?P<state>pretrained|training|candidates))?", curve)
    return (found["method"], found["seed"] or "", found["state"]) if found else (curve, "", None)


def title_of(curve: str, labels: Mapping[str, str]) -> str:
    """The name under which a curve is shown: its method's label, without the seed, and the state."""
    method, _, state = curve_parts(curve)
    name = labels.get(method.rpartition("/")[2], method)
    return f"{name}, {STATES[state]}" if state else name


def columns(points: Iterable[Point], labels: Mapping[str, str]) -> list[Column]:
    """The columns in the order of the points; without evaluations that the runs have made themselves."""
    found: dict[str, Column] = {}
    for point in points:
        if point.epoch is None:
            title = title_of(point.curve, labels)
            if point.candidates:
                title += f", one of {point.candidates}"
            elif point.temperature not in (0, 1):
                title += f", temperature {point.temperature:g}"
            found.setdefault(title, Column(title, {})).seeds[curve_parts(point.curve)[1]] = point.figures
    return list(found.values())


def shown(column: Column, name: str) -> str:
    """A figure of one run ± its standard error; of several their mean ± half of its 95 % interval."""
    pairs = [figures[name] for figures in column.seeds.values() if name in figures]
    if len(pairs) == 1:
        value, error = pairs[0]
        return str(Interval(value, value - error, value + error, 1))
    return str(interval([value for value, _ in pairs])) if pairs else ""


def differences(column: Column, other: Column, name: str) -> dict[str, float]:
    """A figure of each seed less that of the same seed of another column, or of real data, which have no seed."""
    pairs = {seed: (f, other.seeds.get(seed, other.seeds.get("", {}))) for seed, f in column.seeds.items()}
    return {
        s: ours[name][0] - theirs[name][0]
        for s, (ours, theirs) in pairs.items()
        if {name} <= ours.keys() & theirs.keys()
    }


def table(points: Sequence[Point], labels: Mapping[str, str] | None = None) -> list[list[str]]:
    """A row a figure, a column a method: means over seeds, or of one run ± standard error."""
    found = columns(points, labels or {})
    names = [name for name in SHOWN if any(name in figures for column in found for figures in column.seeds.values())]
    rows = [[NAMES.get(name, name), *(shown(column, name) for column in found)] for name in names]
    return [["", *(column.title for column in found)], *rows]


def apart(points: Sequence[Point], labels: Mapping[str, str] | None = None) -> list[list[str]]:
    """How far each figure is from real data's; likelihoods, which those lack, from the first column's, seed by seed.

    The last two rows count the figures that are nearer to real data than the first column's are, and those that are
    further away by more than half of the 95 % interval of that change.
    """
    *found, real = columns(points, labels or {})
    rows, nearer, further = [], [0] * len(found), [0] * len(found)
    for name in SHOWN:
        base = real if name in real.seeds[""] else found[0] if "nll" in name else None
        changes = [differences(column, base, name) if base else {} for column in found]
        if not any(changes):
            continue
        means = [str(interval(list(change.values()))) if change else "" for change in changes]
        rows.append([NAMES.get(name, name), *(means if base is real else ["", *means[1:]])])
        for i, change in enumerate(changes):
            if base is real and i and (both := change.keys() & changes[0].keys()):
                moved = interval([abs(change[seed]) - abs(changes[0][seed]) for seed in both])
                nearer[i] += moved.mean < 0
                further[i] += moved.low > 0
    counts = (("nearer to real data", nearer), ("further, beyond the error", further))
    rows += [[text, "", *map(str, numbers[1:])] for text, numbers in counts if len(found) > 1]
    return [["", *(column.title for column in found)], *rows]
