"""Tables and figures of a table of experiments: python tools/report.py experiments/NAME.toml -o FOLDER."""

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from runs.directories import write_whole
from runs.experiment import Experiment, read
from support.errors import UsageError
from support.parser import Parser, read_flags
from support.streams import keep_writing
from tools.measured import REAL, Point, apart, best, columns, curve_parts, read_points, table
from tools.outcomes import BEFORE, CLOSED, COMPILING, Closed, Interval, Results, write_tables
from tools.plot_curves import NAMES, SIZE, Line, colours, draw_panels, legend, markdown, save, style

BANDED = 3  # seeds at least for a band: the interval of two is 13 standard errors wide
BEGIN, END = "<!-- report -->", "<!-- /report -->"  # what is between them is written anew, all else by hand
README = "README.md"
NEW = """# {title}

(The question. The answer, in two sentences.)

{begin}
{end}

## What is not known
"""


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def title_of(metric: str) -> str:
    """A metric's name for people."""
    if metric.startswith(CLOSED):
        return f"{title_of(metric.removeprefix(CLOSED))}, share removed"
    if metric.startswith(BEFORE):
        return f"{title_of(metric.removeprefix(BEFORE))}, before"
    for way in ("guided", "resampled"):
        if metric.endswith(f"_{way}"):
            return f"{title_of(metric.removesuffix(f'_{way}'))}, {way}"
    return NAMES.get(metric, metric.removeprefix("real_") + " (real)" if metric.startswith("real_") else metric)


def made_where(results: Results) -> str:
    """Which runs were made when, where and by what code, in sentences."""
    groups: dict[str, list[dict[str, str]]] = {}
    for found in results.outcomes.values():
        groups.setdefault(found.records.get("machine", ""), []).append(found.records)
    lines = []
    for machine, records in groups.items():
        count = f"{len(records)} run{'s' if len(records) > 1 else ''}"
        if not machine:
            lines.append(f"{count} without a record of machine and commit.")
            continue
        days, commits = (sorted({of[name] for of in records if of.get(name)}) for name in ("date", "commit"))
        when = " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "unknown days"
        lines.append(f"{count} of {when}: {machine}; commit {', '.join(commits) or 'unknown'}.")
    return " ".join(lines)


def measured(experiment: Experiment, folder: Path) -> list[Point]:
    """What temperatures.py, controls.py and molecules.py have measured of the runs, in files that the table names."""
    return [p for file in experiment.report.get("measured", []) for p in read_points(folder / file)]


def page(results: Results, figures: Iterable[str], points: Sequence[Point] = ()) -> str:
    """What the report says in numbers, as Markdown; `points` are what was measured of samples."""
    experiment, means, differences = results.experiment, results.means(), results.differences()
    run = f"python tools/{{}}.py experiments/{experiment.name}.toml"
    parts = [f"    {run.format('sweep')}\n    {run.format('report')} -o results/{experiment.name}"]
    if results.missing:
        parts.append("**Not all runs are here:**\n\n" + "\n".join(f"- {line}" for line in results.missing))
    wanted = {*experiment.report.get("table", results.metrics), "seconds"} - {COMPILING}
    shown = [metric for metric in results.metrics if metric in wanted]
    rows = [["", *map(title_of, shown), "seeds"]]
    for method in experiment.methods:
        found = [means.get((method.name, metric)) for metric in shown]
        seeds = {str(pair.seeds) for pair in found if pair}
        rows.append([method.label, *(str(pair or "") for pair in found), ", ".join(sorted(seeds)) or "0"])
    floor = results.floor()
    known = "" if floor is None else f" The oracle's entropy is {floor:.3f} nats per token."
    medians = " Of runs that collapse: median (range)." if experiment.report.get("collapsed") else ""
    final = "Final values: mean over seeds ± half of the 95 % interval."
    parts.append(f"{final}{medians}{known}\n\n{markdown(rows)}")
    if differences:
        labels = {method.name: method.label for method in experiment.methods}
        compared = [metric for metric in dict.fromkeys(d.metric for d in differences) if metric in wanted]
        cells = {(d.method, d.metric): f"**{d.interval}**" if d.p_holm < 0.05 else str(d.interval) for d in differences}
        rows = [["less " + labels[experiment.report["against"]], *map(title_of, compared)]]
        for name in (m.name for m in experiment.methods if m.name in {d.method for d in differences}):
            rows.append([labels[name], *(cells.get((name, metric), "") for metric in compared)])
        tests = sum(not math.isnan(d.p) for d in differences)
        bold = f" Bold: p < 0.05 (Student's test, Holm's correction for {tests})." if tests else ""
        parts.append(f"Differences, paired by seed.{bold}\n\n{markdown(rows)}")
    if experiment.closed:
        told = "A *share removed* is by how much the adversarial phase reduced a divergence, negative where it grew."
        if any(metric == "known" for _, metric in means):
            told += " *Known to D*, dotted, is `d_gain` of the pretrained discriminator, as a share of KL(oracle‖G)."
        parts.append(f"{told}\n\n![Shares of the divergences]({experiment.name}_closed.png)")
    parts += [f"![Means and 95 % bands]({figure})" for figure in figures]
    if caption := experiment.report.get("caption"):
        parts.append(f"*{caption}*")
    if points:
        labels = {method.name: method.label for method in experiment.methods}
        several = len({curve_parts(point.curve)[1] for point in points if point.temperature}) > 1
        spread = "mean over seeds ± half of the 95 % interval, or one run " if several else ""
        collapsed = experiment.report.get("collapsed", [])
        rows = table(points, labels, collapsed)
        parts.append(f"Samples, {spread}± standard error.{medians}\n\n{markdown(rows)}")
        if (measures := columns(points, labels, collapsed))[-1].title == REAL:
            less = (
                f"Each figure less that of real data, each NLL less that of *{best(measures).title}*. Last rows: how "
                "many measures are nearer to real data than that method's, and further beyond the interval."
            )
            parts.append(f"{less}\n\n{markdown(apart(points, labels, collapsed))}")
    parts.append(made_where(results))
    return "\n\n".join(parts)


def write(results: Results, folder: Path) -> list[Path]:
    """Writes the report; returns its files, the page first. Of a page that is there it keeps what is by hand.

    Raises UsageError: the page that is there does not say where the numbers go. Raises OSError: one can't be written.
    """
    name, readme = results.experiment.name, folder / README
    new = NEW.format(title=results.experiment.title, begin=BEGIN, end=END)
    text = readme.read_text(encoding="utf-8") if readme.exists() else new
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{readme}: no lines {BEGIN} and {END}, between which the numbers go")
    points = measured(results.experiment, folder)  # before anything is written, as a file may be missing
    folder.mkdir(parents=True, exist_ok=True)
    tables = write_tables(results, folder)
    pictures = [picture for axis, picture in curves_over(results.experiment, folder) if draw(results, picture, axis)]
    numbers = page(results, [picture.name for picture in pictures], points)
    write_whole(readme, f"{before}{BEGIN}\n\n{numbers}\n\n{END}{after}")
    if results.experiment.closed:
        pictures.append(folder / f"{name}_closed.png")
        draw_closed(results, results.experiment.closed, pictures[-1])
    return [readme, *tables, *pictures]


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def curves_over(experiment: Experiment, folder: Path) -> list[tuple[str, Path]]:
    """What the curves of a report are drawn over, and into which pictures."""
    return [(x, folder / f"{experiment.name}{'' if x == 'epoch' else '_' + x}.png") for x in experiment.axes]


def draw(results: Results, path: Path, axis: str) -> bool:
    """Draws a panel a metric, methods with bands over seeds, and the oracle's entropy; False: there is nothing to draw.

    `axis` is "epoch", or "seconds", those that the runs took until then. Of fewer seeds than `BANDED` there is a thin
    line each instead of a band. What a guided generator reached is where its line ends. Raises OSError: the picture
    can't be written.
    """
    report, bands, means = results.experiment.report, results.bands(), results.means()
    methods = [m for m in results.experiment.methods if m.name in report.get("draw", [m.name])]
    lines = []
    for method in methods:
        clock = dict(zip(*bands.get((method.name, "seconds"), ((), ())), strict=True))
        line = Line(method.label, {}, {})
        for metric in (metric for metric in results.drawn if (method.name, metric) in bands):
            epochs, pairs = bands[method.name, metric]
            banded, at = pairs[0].seeds >= BANDED, epochs.tolist()
            if axis == "seconds":
                at = [clock[epoch].mean if epoch in clock else math.nan for epoch in at]
            elif not banded:
                line.thin[metric] = [(curve.epochs, curve.values) for curve in results.curves(method, metric)]
            if guided := means.get((method.name, f"{metric}_guided")):  # after D's training, during which G stays
                end = means[method.name, "seconds"].mean if axis == "seconds" else at[-1]
                at, pairs = [*at, end, end], [*pairs, pairs[-1], guided]
            ends = ([pair.low for pair in pairs], [pair.high for pair in pairs]) if banded else (None, None)
            line.means[metric] = at, [pair.mean for pair in pairs], *ends
        lines += [line] if line.means else []
    if not lines:
        return False
    flags = [read_flags(method.flags) for method in methods]
    starts = {config.pretrain_g_epochs for config in flags if config.total_epochs}
    starts = starts if len(starts) == 1 and axis == "epoch" else set()
    draw_panels(path, results.drawn, lines, results.floor(), starts, results.experiment.limits, axis)
    return True


def draw_closed(results: Results, what: Closed, path: Path) -> None:
    """Draws the shares of the divergences that are closed and, dotted, of KL(oracle‖G) that is known to D.

    Raises OSError: the picture can't be written.
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
    size, color = (SIZE[0], SIZE[1] * len(what.metrics)), colours(map(str, rewards))
    with style():
        figure, grid = plt.subplots(
            len(what.metrics),
            len(columns),
            sharex=True,
            sharey="row",
            squeeze=False,
            figsize=size,
            layout="constrained",
        )
        for (metric, column), panel in lines.items():
            axes = grid[what.metrics.index(metric), columns.index(column)]
            for (by, known), line in panel.items():
                aside = 0.04 * (rewards.index(by) - (len(rewards) - 1) / 2)  # so that none hides another
                x, pairs = [places.index(place) + aside for place in line], line.values()
                error = [[p.mean - p.low for p in pairs], [p.high - p.mean for p in pairs]]
                look = {"linestyle": ":", "marker": "."} if known else {"marker": "o", "label": f"--{what.by} {by}"}
                axes.errorbar(x, [p.mean for p in pairs], error, color=color[str(by)], capsize=3, **look)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_xticks(range(len(places)), [f"{place:,}" if isinstance(place, int) else place for place in places])
            axes.set_title(f"--{what.panels} {column}" if what.panels else "")
            axes.grid(alpha=0.3)
        for row, metric in enumerate(what.metrics):
            grid[row, 0].set_ylabel(f"{title_of(metric)}:\nshare removed (↑ better)")
        for axes in grid[-1]:
            axes.set_xlabel(f"--{what.along}")
        legend(figure, "upper")
        save(figure, path)


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
    with parser.failing_in_one_line(arguments.output):
        results = Results.of(read(arguments.experiment), arguments.logs, arguments.earlier)
        for line in results.missing:
            print(f"report.py: {line}", file=sys.stderr)
        if not results.outcomes:
            raise UsageError(f"{arguments.experiment}: no run has finished under {arguments.logs}")
        print("\n".join(map(str, write(results, arguments.output))))
    return 0


if __name__ == "__main__":
    keep_writing()
    sys.exit(main())
