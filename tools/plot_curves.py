"""Draws the evaluation curves of runs: python tools/plot_curves.py LOGDIR [LOGDIR ...] [-o FILE.png]."""

import csv
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from support.parser import Parser

METRICS, MAX_BYTES = "metrics.csv", 1 << 28
PANELS = ("nll", "nll_test", "nll_valid", "g_entropy")
FLOOR = "oracle_entropy"
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
    "known": "known to D",
    "compile_seconds": "to compile",
} | {
    f"{kind}{n}": f"{title}-{n}" for kind, title in (("bleu", "BLEU"), ("self_bleu", "self-BLEU")) for n in range(2, 6)
}
NATS = re.compile(r"nll|g_entropy|kl_")  # figures in nats per token
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
}
REST = ("#CC79A7", "#56B4E9", "#000000", "#E69F00", "#009E73", "#D55E00", "#0072B2", "#999999", "#F0E442")


def style() -> AbstractContextManager[Any]:
    """How all figures look: letters that can be read at 800 pixels."""
    return plt.rc_context({"font.size": 11, "legend.fontsize": 10, "lines.linewidth": 1.6, "figure.dpi": 100})


def save(figure: Any, path: Path) -> None:
    """Writes a figure, and forgets it; raises OSError, or ValueError for an unknown ending."""
    try:
        figure.savefig(path)
    finally:
        plt.close(figure)


def axis_title(metric: str, apart: str = ", ") -> str:
    """A figure's name, where better is, and, after `apart`, its unit."""
    low = re.match(r"nll|kl_forward|kl_reverse|mse", metric)
    better = (
        " (↓ better)" if low else " (alike →)" if "self_bleu" in metric else " (↑ better)" if "bleu" in metric else ""
    )
    return NAMES.get(metric, metric) + better + (f"{apart}nats per token" if NATS.match(metric) else "")


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
    more = (colour for colour in (*REST, *map(plt.get_cmap("tab20"), range(20))) if colour not in found.values())
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
        if not run.curves.keys() & set(PANELS):
            raise ValueError(f"{directory}: nothing to draw; the curves are in a run's --eval_log_dir")
    shown = [name for name in PANELS if any(name in run.curves for run in runs.values())]
    size = SIZE[0], SIZE[1] * len(shown)
    color = colours(runs)
    floors = {name: run.curves[FLOOR] for name, run in runs.items() if FLOOR in run.curves}
    one_oracle = len(floors) == len(runs) and len({value for floor in floors.values() for value in floor.values}) == 1
    boundaries = {run.adversarial for run in runs.values() if run.adversarial is not None}
    with style():
        figure, panels = plt.subplots(len(shown), 1, sharex=True, squeeze=False, figsize=size, layout="constrained")
        for panel, column in zip(panels[:, 0], shown, strict=True):
            for name, run in runs.items():
                if column in run.curves:
                    epochs, values, errors = run.curves[column]
                    band = 2 * np.nan_to_num(errors)
                    panel.plot(epochs, values, ".-", label=name, color=color[name], markersize=3)
                    panel.fill_between(epochs, values - band, values + band, color=color[name], alpha=0.2, linewidth=0)
            for i, (name, floor) in enumerate(floors.items() if column != "nll_valid" else ()):
                dashed: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "label": None if i else NAMES[FLOOR]}
                if not one_oracle:
                    panel.plot(floor.epochs, floor.values, color=color[name], **dashed)
                elif not i:
                    panel.axhline(floor.values[0], color="black", **dashed)
            for i, boundary in enumerate(sorted(boundaries)):
                label = None if i else "adversarial training begins"
                panel.axvline(boundary, color="grey", linestyle=":", linewidth=1, label=label)
            panel.set_ylabel(axis_title(column, "\n"))
            panel.grid(alpha=0.3)
        labels: dict[str, Any] = {}  # of all that is drawn anywhere
        for panel in panels[:, 0]:
            labels |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
        labels = dict(sorted(labels.items(), key=lambda pair: pair[0] not in runs))  # runs first
        panels[0, 0].legend(labels.values(), labels.keys())
        panels[-1, 0].set_xlabel("epoch")
        save(figure, output)


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
