"""Draws the evaluation curves of runs: python tools/plot_curves.py LOGDIR [LOGDIR ...] [-o FILE.png]."""

import argparse
import csv
import itertools
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.backend_bases import FigureCanvasBase

from support.parser import Parser, new_file

METRICS, MAX_BYTES = "metrics.csv", 1 << 28
PANELS = ("nll", "nll_test", "nll_valid", "g_entropy")
FLOOR, FLOORED = "oracle_entropy", ("nll", "nll_test", "g_entropy")  # and the panels that show it
OUTPUT = Path("logs/curves.png")
SIZE = (8.0, 3.2)  # inches, of a panel
NAMES = {  # of figures, for people
    "nll": "NLL_oracle",
    "nll_test": "NLL_test",
    "nll_valid": "NLL_valid",
    "g_entropy": "entropy of G",
    "oracle_entropy": "entropy of the oracle",
    "kl_forward": "KL(oracle‖G)",
    "kl_reverse": "KL(G‖oracle)",
    "d_test_acc": "D's accuracy",
    "d_optimal_acc": "accuracy of D*",
    "guide_eta": "η of the guide",
    "d_eta": "η",
    "distinct2": "distinct bigrams",
    "kl_to_pretrained": "KL(G‖pretrained)",
    "mse": "MSE",
    "copied_share": "copied",
    "qed": "QED",
    "known": "known to D",
    "compile_seconds": "to compile",
} | {
    f"{kind}{n}": f"{title}-{n}" for kind, title in (("bleu", "BLEU"), ("self_bleu", "self-BLEU")) for n in range(2, 6)
}
NATS = re.compile(r"nll|g_entropy|kl_(?!to_)")  # figures in nats per token
# Okabe and Ito's colours, which the colour-blind can tell apart, and what a label has that gets one.
FAMILIES = {
    "MLE pretraining": "#0072B2",
    "guid": "#009E73",
    "learnt": "#56B4E9",
    "SeqGAN": "#D55E00",
    "constant": "#E69F00",
    "random": "#CC79A7",
    "KL penalty": "#56B4E9",
    "MLE": "#0072B2",
    "best of n": "#999999",
    "least KL": "#000000",
}
REST = ("#CC79A7", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000", "#0072B2", "#999999", "#F0E442")


def style() -> AbstractContextManager[Any]:
    """How all figures look: letters that can be read at 800 pixels."""
    return plt.rc_context({"font.size": 11, "legend.fontsize": 10, "lines.linewidth": 1.6, "figure.dpi": 100})


def picture(text: str) -> Path:
    """Reads the name of a picture; raises ArgumentTypeError: none is written in what its ending says."""
    path, kinds = new_file(text), FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise argparse.ArgumentTypeError(f"{text}: a picture's name ends in .{', .'.join(sorted(kinds))}")
    return path


def save(figure: Any, path: Path) -> None:
    """Writes a figure, and forgets it; raises OSError, or ValueError for an unknown ending."""
    try:
        figure.savefig(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    finally:
        plt.close(figure)


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table, its first row the head."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def axis_title(metric: str, apart: str = ", ") -> str:
    """A figure's name, where better is, and, after `apart`, its unit."""
    low = re.match(r"nll|kl_forward|kl_reverse|mse", metric)
    better = (
        " (↓ better)" if low else " (alike →)" if "self_bleu" in metric else " (↑ better)" if "bleu" in metric else ""
    )
    unit = "token" if NATS.match(metric) else "sequence" if metric.startswith("kl_to_") else ""
    return NAMES.get(metric, metric) + better + (f"{apart}nats per {unit}" if unit else "")


def legend(figure: Any, where: str) -> None:
    """One legend for all panels, outside of them."""
    shown: dict[str, Any] = {}
    for panel in figure.axes:
        shown |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(shown.values(), shown, loc=f"outside {where} center", ncols=1 if max(map(len, shown)) > 40 else 2)


def colours(labels: Iterable[str]) -> dict[str, Any]:
    """A colour for each label: that of its method wherever it is free, so that figures agree; then another one."""
    found: dict[str, Any] = {}
    names = list(dict.fromkeys(labels))
    for name in names:
        own = next((colour for word, colour in FAMILIES.items() if word in name), None)
        if own and own not in found.values():
            found[name] = own
    spare = [colour for colour in (*REST, *map(plt.get_cmap("tab20"), range(20))) if colour not in found.values()]
    more = itertools.cycle(spare)
    return {name: found.get(name) or next(more) for name in names}


class Curve(NamedTuple):
    """A figure over a run: `epochs` int [n], `values` and their standard `errors` float64 [n], NaN where unknown."""

    epochs: np.ndarray
    values: np.ndarray
    errors: np.ndarray


class Run(NamedTuple):
    """What a run's metrics.csv says.

    Attributes:
        curves: {column: its curve}, of the columns that have values; in the order of the file.
        adversarial: the first adversarial epoch that has a row, or None.
    """

    curves: dict[str, Curve]
    adversarial: int | None


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV file's text, whose first line names the columns; raises ValueError where it is damaged."""
    try:
        rows = list(csv.DictReader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a line has too many fields, or too few")
    return rows


def read_run(directory: str | Path) -> Run:
    """Reads the metrics.csv of a directory, whose run may be under way.

    Raises ValueError: the file is damaged; the message names it. Raises OSError: it can't be read.
    """
    path = Path(directory) / METRICS
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        whole = text[: text.rfind(b"\n") + 1].decode()  # the last row may be half written
        rows = read_rows(whole)
        columns = [name for name in rows[0] if name not in ("epoch", "phase")] if rows else []
        epochs = np.array([int(row["epoch"]) for row in rows], int)
        table = {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}
        first = min((int(row["epoch"]) for row in rows if row["phase"] == "adversarial"), default=None)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not a table of epoch, phase and figures") from None
    curves, unknown = {}, np.full(len(rows), math.nan)
    for name, values in table.items():
        known = ~np.isnan(values)
        if known.any() and not (name.endswith("_se") and name.removesuffix("_se") in table):
            curves[name] = Curve(epochs[known], values[known], table.get(f"{name}_se", unknown)[known])
    return Run(curves, first)


def short_names(directories: Sequence[str | Path]) -> list[str]:
    """A name for each run: the shortest part of its path that tells it from the others.

    That is the fewest last parts that differ, once those at the end that all paths share are left out: `exp1/eval` and
    `exp2/eval` are exp1 and exp2.
    """
    paths = [Path(os.path.abspath(directory)).parts for directory in directories]
    if len(set(paths)) == 1:
        return [paths[0][-1]] * len(paths)
    while min(map(len, paths)) > 1 and len({path[-1] for path in paths}) == 1:
        paths = [path[:-1] for path in paths]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-count:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


class Line(NamedTuple):
    """A method in a figure: {metric: its epochs or seconds, values, and the ends of a band or None}.

    `thin` has lines of single seeds, {metric: pairs of both axes}, and `floor` the entropy of an oracle of its own.
    """

    label: str
    means: dict[str, tuple[Any, Any, Any, Any]]
    thin: dict[str, list[tuple[Any, Any]]] = {}
    floor: tuple[Any, Any] | None = None


def draw_panels(
    path: Path,
    metrics: Iterable[str],
    lines: Sequence[Line],
    floor: float | None = None,
    starts: Iterable[float] = (),
    limits: Mapping[str, tuple[float, float]] = {},
    axis: str = "epoch",
) -> None:
    """Draws a panel a metric over one axis, with the oracle's entropy and where adversarial training begins.

    `limits` has the ends of axes, by metric and of the one that the panels share. Raises OSError: the picture can't be
    written; ValueError: its name has an unknown ending.
    """
    shown, color = list(metrics), colours(line.label for line in lines)
    dashed: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "label": NAMES[FLOOR]}
    with style():
        size = SIZE[0], SIZE[1] * len(shown)
        figure, panels = plt.subplots(len(shown), 1, sharex=True, squeeze=False, figsize=size, layout="constrained")
        for panel, metric in zip(panels[:, 0], shown, strict=True):
            for line in lines:
                if metric in line.means:
                    x, mean, low, high = line.means[metric]
                    panel.plot(x, mean, label=line.label, color=color[line.label])
                    if low is not None:
                        panel.fill_between(x, low, high, color=color[line.label], alpha=0.2, linewidth=0)
                for x, values in line.thin.get(metric, []):
                    panel.plot(x, values, color=color[line.label], linewidth=0.5)
                if line.floor and metric in FLOORED:
                    panel.plot(*line.floor, color=color[line.label], **dashed)
            if floor is not None and metric in FLOORED:
                panel.axhline(floor, color="black", **dashed)
            for start in sorted(starts):
                panel.axvline(start, color="grey", linestyle=":", linewidth=1, label="adversarial training begins")
            panel.set(ylabel=axis_title(metric, "\n"), ylim=limits.get(metric))
            panel.grid(alpha=0.3)
        panels[-1, 0].set(xlabel=axis, xlim=limits.get(axis))
        legend(figure, "upper")
        save(figure, path)


def draw(directories: Sequence[Path], output: Path) -> None:
    """Draws a panel for each of `PANELS` that a run has, over one axis of epochs; bands are two standard errors.

    The oracle's entropy is the floor of NLL_oracle and NLL_test, and the entropy to reach. It is one line where all
    runs have the same oracle; else each run that has one gets its own, in the run's colour and over its epochs. Raises
    ValueError: a directory has nothing to draw, or the name of the picture has an unknown ending. Raises OSError: a
    directory can't be read, or the picture can't be written.
    """
    directories = list({os.path.abspath(directory): directory for directory in directories}.values())
    runs = dict(zip(short_names(directories), map(read_run, directories), strict=True))
    for directory, run in zip(directories, runs.values(), strict=True):
        if not run.curves.keys() & set(PANELS):
            raise ValueError(f"{directory}: nothing to draw; the curves are in a run's --eval_log_dir")
    floors = [run.curves.get(FLOOR) for run in runs.values()]
    values = {value for floor in floors if floor for value in floor.values}
    one = values.pop() if None not in floors and len(values) == 1 else None
    lines = []
    for (name, run), floor in zip(runs.items(), floors, strict=True):
        means = {}
        for metric in (metric for metric in PANELS if metric in run.curves):
            epochs, mean, errors = run.curves[metric]
            band = 2 * np.nan_to_num(errors)
            means[metric] = epochs, mean, mean - band, mean + band
        own = (floor.epochs, floor.values) if floor and one is None else None
        lines.append(Line(name, means, floor=own))
    shown = [metric for metric in PANELS if any(metric in line.means for line in lines)]
    starts = {run.adversarial for run in runs.values() if run.adversarial is not None}
    draw_panels(output, shown, lines, one, starts)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where an argument can't be used."""
    parser = Parser(prog="plot_curves.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("logdirs", nargs="+", type=Path, metavar="LOGDIR", help="evaluation directories, one a run")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.png",
        help=f"the picture, or a folder for {OUTPUT.name} (default: {OUTPUT})",
    )
    arguments = parser.parse_args(argv)
    output = arguments.output or OUTPUT
    with parser.failing_in_one_line(output):
        if output.is_dir():
            output /= OUTPUT.name
        if not output.suffix:
            raise ValueError(f"-o {output}: a name without an ending, such as {output.name}.png")
        if not arguments.output:
            output.parent.mkdir(exist_ok=True)
        draw(arguments.logdirs, output)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
