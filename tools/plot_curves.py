"""Draws the evaluation curves of runs: python tools/plot_curves.py LOGDIR [LOGDIR ...] [-o FILE.png]."""

import csv
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from support.parser import Parser

METRICS, MAX_BYTES = "metrics.csv", 1 << 28
PANELS = {  # a column of metrics.csv, and its name in the picture
    "nll": "NLL_oracle",
    "nll_test": "NLL_test",
    "nll_valid": "NLL_valid",
    "g_entropy": "entropy of G",
}
FLOOR = "oracle_entropy"
OUTPUT = Path("logs/curves.png")
SIZE = (8.0, 3.2)  # inches, of a panel


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

    Raises:
        ValueError: the file is damaged; the message names it.
        OSError: it can't be read.
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


def draw(directories: Sequence[Path], output: Path) -> None:
    """Draws a panel for each of `PANELS` that a run has, over one axis of epochs; bands are two standard errors.

    The oracle's entropy is the floor of NLL_oracle and NLL_test, and the entropy to reach. It is one line where all
    runs have the same oracle; else each run that has one gets its own, in the run's colour and over its epochs.

    Raises:
        ValueError: a directory has nothing to draw, or the name of the picture has an unknown ending.
        OSError: a directory can't be read, or the picture can't be written.
    """
    directories = list({os.path.abspath(directory): directory for directory in directories}.values())
    runs = dict(zip(short_names(directories), map(read_run, directories), strict=True))
    for directory, run in zip(directories, runs.values(), strict=True):
        if not run.curves.keys() & PANELS.keys():
            raise ValueError(f"{directory}: nothing to draw; the curves are in a run's --eval_log_dir")
    shown = [name for name in PANELS if any(name in run.curves for run in runs.values())]
    size = SIZE[0], SIZE[1] * len(shown)
    figure, panels = plt.subplots(len(shown), 1, sharex=True, squeeze=False, figsize=size, layout="constrained")
    panels = panels[:, 0]
    colours = {name: f"C{i % 10}" for i, name in enumerate(runs)}
    floors = {name: run.curves[FLOOR] for name, run in runs.items() if FLOOR in run.curves}
    one_oracle = len(floors) == len(runs) and len({value for floor in floors.values() for value in floor.values}) == 1
    boundaries = {run.adversarial for run in runs.values() if run.adversarial is not None}
    for panel, column in zip(panels, shown, strict=True):
        for name, run in runs.items():
            if column in run.curves:
                epochs, values, errors = run.curves[column]
                band = 2 * np.nan_to_num(errors)
                panel.plot(epochs, values, ".-", label=name, color=colours[name], linewidth=1.2, markersize=3)
                panel.fill_between(epochs, values - band, values + band, color=colours[name], alpha=0.2, linewidth=0)
        for i, (name, floor) in enumerate(floors.items() if column != "nll_valid" else ()):
            style: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "label": None if i else "entropy of the oracle"}
            if not one_oracle:
                panel.plot(floor.epochs, floor.values, color=colours[name], **style)
            elif not i:
                panel.axhline(floor.values[0], color="black", **style)
        for i, boundary in enumerate(sorted(boundaries)):
            label = None if i else "adversarial training begins"
            panel.axvline(boundary, color="grey", linestyle=":", linewidth=1, label=label)
        panel.set_ylabel(f"{PANELS[column]} (nats a token)")
        panel.grid(alpha=0.3)
    labels: dict[str, Any] = {}  # of all that is drawn anywhere
    for panel in panels:
        labels |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    labels = dict(sorted(labels.items(), key=lambda pair: pair[0] not in runs))  # runs first
    panels[0].legend(labels.values(), labels.keys(), fontsize="small")
    panels[-1].set_xlabel("epoch")
    try:
        figure.savefig(output, dpi=120)
    finally:
        plt.close(figure)


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
    try:
        if output.is_dir():
            output /= OUTPUT.name
        if not output.suffix:
            raise ValueError(f"-o {output}: a name without an ending, such as {output.name}.png")
        if not arguments.output:
            output.parent.mkdir(exist_ok=True)
        draw(arguments.logdirs, output)
    except OSError as error:
        print(f"plot_curves.py: error: {error.filename or output}: {error.strerror or error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"plot_curves.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
