"""Draws the evaluation curves of runs: python tools/plot_curves.py LOGDIR [LOGDIR ...] [-o FILE.png]."""

import argparse
import io
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
import pandas as pd
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from evaluation.metrics import axis_title, title
from runs.directories import METRICS, write_whole
from support.parser import Parser, new_file
from support.streams import run_tool

PANELS = ("nll", "nll_test", "nll_valid", "g_entropy")
SHOWN = (*PANELS, "objective", "kl_to_pretrained")
CURVES = ("nll", "nll_test", "g_entropy")  # of a study, where its table does not say; and the panels with a floor
CLOCKS = {"epoch": "epoch", "sequences": "real sequences read", "seconds": "seconds"}  # axes, and metrics are
FLOOR = "oracle_entropy"
OUTPUT = Path("logs/curves.png")
# Okabe and Ito's colours, which the colour-blind can tell apart, and what a label has that gets one.
REST = ("#CC79A7", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000", "#0072B2", "#999999", "#F0E442")
PURPLE, SKY, ORANGE, GREEN, RED, BLACK, BLUE, GREY, _ = REST
FAMILIES = {"MLE pretraining": BLUE, "guid": GREEN, "learnt": SKY, "SeqGAN": RED, "constant": ORANGE, "random": PURPLE}
FAMILIES |= {"KL penalty": SKY, "MLE": BLUE, "best of n": GREY, "least KL": BLACK}
matplotlib.rcParams.update({"font.size": 11, "legend.fontsize": 10, "lines.linewidth": 1.6, "figure.dpi": 100})
matplotlib.rcParams["text.parse_math"] = False  # a label's $ is a dollar


def read_run(directory: str | Path) -> pd.DataFrame:
    """Reads the metrics.csv of a directory, whose run may be under way.

    A row an evaluation: `epoch` int64, `phase` str, and the figures as float64, NaN where there is none. Raises
    ValueError: the file is damaged; the message names it. Raises OSError: it can't be read.
    """
    path = Path(directory) / METRICS
    whole = path.read_bytes().rpartition(b"\n")[0]  # the last row may be half written
    try:
        if len({line.count(b",") for line in whole.splitlines()}) > 1:  # pandas fills or cuts such a row
            raise ValueError
        frame = pd.read_csv(io.BytesIO(whole or b"epoch,phase"), dtype=str)
        return frame.astype(dict.fromkeys(frame.columns, float) | {"epoch": int, "phase": str})
    except (ValueError, KeyError, OverflowError):
        raise ValueError(f"{path}: not a table of epoch, phase and figures") from None


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
    parts = (["/".join(path[-count:]) for path in paths] for count in itertools.count(1))
    return next(names for names in parts if len(set(names)) == len(set(paths)))


def picture(text: str) -> Path:
    """Reads the name of a picture; raises ArgumentTypeError: none is written in what its ending says."""
    path, kinds = new_file(text), FigureCanvasBase.get_supported_filetypes().keys() - {"pgf"}  # needs LaTeX
    if path.suffix[1:].lower() not in kinds:
        raise argparse.ArgumentTypeError(f"{text}: a picture's name ends in .{', .'.join(sorted(kinds))}")
    return path


def legend(figure: Any, where: str) -> None:
    """One legend for all panels, outside of them."""
    shown: dict[str, Any] = {}
    for panel in figure.axes:
        shown |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(shown.values(), shown, loc=f"outside {where} center", ncols=1 if max(map(len, shown)) > 40 else 2)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture whole or not at all; raises OSError."""
    figure.savefig(content := io.BytesIO(), format=path.suffix[1:].lower())
    write_whole(path, content.getvalue())


def listed(label: str) -> str:
    """A label as a legend has it: Matplotlib leaves out those that begin with _."""
    return f"\u200b{label}" if label.startswith("_") else label


def colours(labels: Iterable[str]) -> dict[str, Any]:
    """A colour for each label: that of its method wherever it is free, so that figures agree; then another one."""
    names, found = list(dict.fromkeys(labels)), dict[str, Any]()
    for name in names:
        own = next((colour for word, colour in FAMILIES.items() if word in name), None)
        if own and own not in found.values():
            found[name] = own
    spare = [*REST, *matplotlib.colormaps["tab20"].colors]  # type: ignore[attr-defined]
    more = itertools.cycle([colour for colour in spare if colour not in found.values()])
    return {name: found.get(name) or next(more) for name in names}


class Line(NamedTuple):
    """A curve of a figure: the values `y` [n] of a column over `x` [n], perhaps with the ends of a band.

    `thin` is for one seed of several; `floor` is the entropy of the oracle, where there is one; `axis` is what `x` is.
    """

    label: str
    column: str
    x: Any
    y: Any
    low: Any = None
    high: Any = None
    thin: bool = False
    floor: float | None = None
    axis: str = "epoch"


def draw_panels(path: Path, lines: Sequence[Line], starts: Iterable[float], limits: Mapping[str, Any] = {}) -> None:
    """Draws a row of panels for each column, a panel for each axis, with the oracle's entropy; raises OSError.

    `starts` are epochs in which adversarial training begins, and `limits` has the ends of axes, by column or axis.
    Where the floors of lines differ, each has its line's colour.
    """
    shown, axes = list(dict.fromkeys(line.column for line in lines)), list(dict.fromkeys(line.axis for line in lines))
    color = colours(line.label for line in lines)
    several = len({line.floor for line in lines if line.column in CURVES}) > 1
    figure = Figure(figsize=(8.0, 3.2 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), len(axes), sharex="col", sharey="row", squeeze=False)
    panels = dict(zip(itertools.product(shown, axes), grid.flat, strict=True))
    for label, column, x, y, low, high, thin, floor, axis in lines:
        panel = panels[column, axis]
        panel.plot(x, y, label=None if thin else listed(label), color=color[label], linewidth=0.5 if thin else None)
        if low is not None:
            panel.fill_between(x, low, high, color=color[label], alpha=0.2, linewidth=0)
        if floor is not None and column in CURVES:
            panel.axhline(floor, ls="--", lw=1, color=color[label] if several else "black", label=title(FLOOR))
    for (column, axis), panel in panels.items():
        for start in sorted(starts) if axis == "epoch" else ():
            panel.axvline(start, color="grey", linestyle=":", linewidth=1, label="adversarial training begins")
        panel.set(ylabel=axis_title(column, "\n"), ylim=limits.get(column))
        panel.set(xlabel=CLOCKS.get(axis) or axis_title(axis), xlim=limits.get(axis))
        panel.locator_params(axis="x", nbins=8 // len(axes))
        panel.label_outer()
        panel.grid(alpha=0.3)
    legend(figure, "upper")
    save(figure, path)


def draw_finals(path: Path, finals: pd.DataFrame) -> None:
    """Draws a panel a column with a row a method; raises OSError.

    `finals` has a row for the `middle` of a `column` and the `label` of a method with the ends of its interval, `low`
    and `high`, or, for few seeds, a row for each value.
    """
    rows = finals.label.unique().tolist()
    figure = Figure(figsize=(10.0, 1.2 + 0.3 * len(rows)), layout="constrained")
    panels = figure.subplots(1, finals.column.nunique(), sharey=True, squeeze=False)[0]
    for panel, (column, found) in zip(panels, finals.groupby("column", sort=False), strict=True):
        for _, label, middle, low, high in found.itertuples(index=False):
            ends = [[middle - low], [high - middle]]
            panel.errorbar(middle, rows.index(label), xerr=ends, fmt="o", color="tab:blue", capsize=3)
        panel.set(xlabel=axis_title(column, "\n"), yticks=range(len(rows)), yticklabels=rows)
        panel.grid(alpha=0.3)
    panels[0].invert_yaxis()
    save(figure, path)


def draw(directories: Sequence[Path], output: Path) -> None:
    """Draws a panel for each of `SHOWN` that a run has, over one axis of epochs; bands are two standard errors.

    What a discriminator guides has a line of its own. Raises ValueError: a directory has nothing to draw. Raises
    OSError: a directory can't be read, or the picture can't be written.
    """
    directories = list({os.path.abspath(directory): directory for directory in directories}.values())
    lines: list[Line] = []
    starts: set[int] = set()
    for name, directory in zip(short_names(directories), directories, strict=True):
        run = read_run(directory)
        starts |= set(run.epoch[run.phase == "adversarial"].head(1))
        floor = float(run[FLOOR].mean()) if FLOOR in run else None
        forms = {panel: (name, panel) for panel in SHOWN} | {f"{p}_guided": (f"{name}, guided", p) for p in SHOWN}
        if not (columns := [column for column in forms if column in run and run[column].notna().any()]):
            raise ValueError(f"{directory}: nothing to draw; the curves are in a run's --eval_log_dir")
        for column in columns:
            known = run.dropna(subset=[column])
            band = 2 * known.get(f"{column}_se", pd.Series(0.0, known.index)).fillna(0)
            y = known[column]
            lines.append(Line(*forms[column], known.epoch, y, y - band, y + band, floor=floor))
    draw_panels(output, sorted(lines, key=lambda line: SHOWN.index(line.column)), starts)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where an argument can't be used."""

    def file(text: str) -> Path:
        return picture(os.path.join(text, OUTPUT.name) if os.path.isdir(text) else text)

    parser = Parser(prog="plot_curves.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("logdirs", nargs="+", type=Path, metavar="LOGDIR", help="evaluation directories, one a run")
    text = f"the picture, or a folder for {OUTPUT.name} (default: {OUTPUT})"
    parser.add_argument("-o", "--output", type=file, default=OUTPUT, metavar="FILE.png", help=text)
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.output):
        arguments.output.parent.mkdir(exist_ok=True)
        draw(arguments.logdirs, arguments.output)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_tool(main)
