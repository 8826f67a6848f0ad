"""Draws quality against diversity: python tools/planes.py PLANE.csv [--table experiments/NAME.toml] -o FIGURE.png.

The file is what tools/temperatures.py --csv writes. The seeds of a method are one line, their mean at each temperature.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from runs.experiment import read
from support.errors import UsageError
from support.parser import Parser
from tools.measured import REAL, STATES, Figures, Point, read_points, title_of
from tools.plot_curves import axis_title, colours, legend, picture, save, style


def planes(figures: Figures) -> list[tuple[str, str]]:
    """The pairs (x, y) of figures that are drawn: diversity to the right, quality upwards."""
    orders = [n for n in (2, 4) if f"bleu{n}" in figures]
    pairs = [("nll_test", "nll")] if "nll" in figures else []
    pairs += [(x, f"bleu{n}") for n in orders for x in (f"self_bleu{n}", "nll_test")]
    pairs += [(f"texygen_self_bleu{n}", f"texygen_bleu{n}") for n in orders]
    return [pair for pair in pairs if set(pair) <= figures.keys()]


def deviation(values: np.ndarray) -> float:
    """The standard deviation over seeds; NaN, which draws no bar, of one."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def draw(points: Sequence[Point], path: Path, labels: Mapping[str, str] | None = None) -> None:
    """Draws a line a method through its temperatures, the mean of its seeds ± their standard deviation.

    A ring marks temperature 1. The evaluations of the runs themselves are a dotted line.

    Args:
        points: what was measured; real data are a star.
        path: of the picture.
        labels: {method: its name in the legend}.

    Raises:
        UsageError: there is nothing to compare quality with.
        OSError: the picture can't be written.
    """
    pairs = planes(points[0].figures) if points else []
    if not pairs:
        raise UsageError("no figure: there are no test sequences to compare with")
    lines: dict[str, dict[tuple[Any, ...], list[Figures]]] = {}
    for point in points:
        place = point.temperature, point.epoch, point.candidates
        lines.setdefault(title_of(point.curve, labels or {}), {}).setdefault(place, []).append(point.figures)
    training = f", {STATES['training']}"
    color = colours(sorted((name.removesuffix(training) for name in lines if name != REAL), key=len))
    color |= {name + training: found for name, found in color.items()}
    star = "the oracle itself" if "nll" in points[0].figures else "real data (validation set)"
    columns = min(len(pairs), 2)
    rows = -(-len(pairs) // columns)
    with style():
        size = (8.0 if columns == 2 else 6.5, (3.8 if columns == 2 else 5.0) * rows)
        figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        for spare in panels.flat[len(pairs) :]:
            spare.set_axis_off()
        for panel, (x, y) in zip(panels.flat, pairs, strict=False):
            for name, places in lines.items():
                along = sorted(places.items(), key=lambda item: [number or 0 for number in item[0]])
                there = {at: found for at, of in along if (found := [f for f in of if {x, y} <= f.keys()])}
                if not there:
                    continue
                values = [[np.array([f[axis][0] for f in of]) for of in there.values()] for axis in (x, y)]
                (xs, ys), (dx, dy) = ([[f(v) for v in axis] for axis in values] for f in (np.mean, deviation))
                if name == REAL:
                    panel.plot(xs, ys, "*", markersize=14, color="black", label=star)
                    continue
                if next(iter(there))[1] is not None:
                    panel.plot(xs, ys, ":", label=name, color=color[name], linewidth=1.5)
                    continue
                panel.errorbar(xs, ys, dy, dx, marker=".", label=name, color=color[name], elinewidth=0.8)
                for i, (temperature, _, candidates) in enumerate(there):
                    if temperature == 1 and candidates in (None, 1):
                        panel.plot(xs[i], ys[i], "o", markersize=10, markerfacecolor="none", color=color[name])
                    if temperature and i in (0, len(there) - 1):
                        text, at = f"{candidates or temperature:g}", (xs[i], ys[i])
                        panel.annotate(text, at, (5, 5), textcoords="offset points", color=color[name], fontsize=9)
            panel.set(xlabel=axis_title(x), ylabel=axis_title(y, "\n"))
            panel.grid(alpha=0.3)
        # Below all panels: inside one it hides points, and the star of real data lies in a corner.
        legend(figure, "lower")
        counted = "temperatures, or candidates" if any(point.candidates for point in points) else "temperatures"
        title = f"numbers: {counted}; a ring at temperature 1; bars: standard deviation over seeds"
        figure.suptitle(title, fontsize=10)
        save(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, or 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="planes.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    text = "what tools/temperatures.py --csv has written"
    parser.add_argument("csv", nargs="+", type=Path, metavar="PLANE.csv", help=text)
    parser.add_argument("--table", type=Path, metavar="FILE.toml", help="the table of experiments, for its labels")
    parser.add_argument("-o", "--output", type=picture, required=True, metavar="FIGURE", help="the picture")
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.output):
        methods = read(arguments.table).methods if arguments.table else ()
        points = [point for path in arguments.csv for point in read_points(path)]
        draw(points, arguments.output, {method.name: method.label for method in methods})
    return 0


if __name__ == "__main__":
    sys.exit(main())
