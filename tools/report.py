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

from runs.experiment import read
from support.config import UsageError
from support.parser import Parser, read_flags
from support.streams import keep_writing
from tools.outcomes import BEFORE, CLOSED, Closed, Interval, Results, write_tables

BANDED = 3  # seeds at least for a band: the interval of two is 13 standard errors wide
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
    "guide_eta": "η of the guide",
    "d_gain_valid": "d_gain_valid",
    "d_eta": "η",
    "distinct2": "distinct bigrams",
    "objective": "objective",
    "kl_to_pretrained": "KL(G‖pretrained)",
    "mse": "MSE",
    "copied_share": "copied",
    "known": "known to D",
    "seconds": "seconds",
    "compile_seconds": "to compile",
} | {
    f"{kind}{n}": f"{title}-{n}" for kind, title in (("bleu", "BLEU"), ("self_bleu", "self-BLEU")) for n in range(2, 6)
}


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def title_of(metric: str) -> str:
    """A metric's name for people."""
    if metric.startswith(CLOSED):
        return f"{title_of(metric.removeprefix(CLOSED))}, share closed"
    if metric.startswith(BEFORE):
        return f"{title_of(metric.removeprefix(BEFORE))}, before"
    for way in ("guided", "resampled"):
        if metric.endswith(f"_{way}"):
            return f"{title_of(metric.removesuffix(f'_{way}'))}, {way}"
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
    if experiment.closed:
        parts.append(
            "A *share closed* is that of a divergence at the end of pretraining which the adversarial phase closed, "
            "negative where it grew; *known to D* is `d_gain` of the pretrained discriminator, as a share of "
            f"KL(oracle‖G).\n\n![Shares closed, and, dotted, known to D]({experiment.name}_closed.png)"
        )
    if figure:
        kind = "bands are 95 % intervals; of two seeds" if experiment.report.get("bands", True) else "of each seed"
        parts.append(f"![Curves: means over seeds, {kind}, thin lines]({figure})")
    return "\n\n".join(parts) + "\n"


def write(results: Results, folder: Path) -> list[Path]:
    """Writes the report; returns its files, the page first.

    Raises:
        OSError: one can't be written.
    """
    name = results.experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    page_file, picture = folder / f"{name}.md", folder / f"{name}.png"
    tables = write_tables(results, folder)
    pictures = [picture] if draw(results, picture) else []
    page_file.write_text(page(results, picture.name if pictures else ""), encoding="utf-8")
    if results.experiment.closed:
        pictures.append(folder / f"{name}_closed.png")
        draw_closed(results, results.experiment.closed, pictures[-1])
    return [page_file, *tables, *pictures]


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def draw(results: Results, path: Path) -> bool:
    """Draws a panel a metric, methods over epochs with bands over seeds, and the oracle's entropy; False: nothing to.

    Of fewer seeds than `BANDED`, and where the table has `bands = false`, there is a thin line each instead of a band.

    Raises:
        OSError: the picture can't be written.
    """
    wanted, bands, limits = results.drawn, results.bands(), results.experiment.limits
    banded = results.experiment.report.get("bands", True)
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
            if len(curves) < BANDED or not banded:
                for curve in curves:
                    panel.plot(curve.epochs, curve.values, color=f"C{i % 10}", linewidth=0.5)
                continue
            low, high = [pair.low for pair in intervals], [pair.high for pair in intervals]
            panel.fill_between(epochs, low, high, color=f"C{i % 10}", alpha=0.2, linewidth=0)
        floor = results.floor()
        if floor is not None and metric in ("nll", "nll_test", "g_entropy"):
            panel.axhline(floor, color="black", linestyle="--", linewidth=1, label="entropy of the oracle")
        panel.set(ylabel=title_of(metric), ylim=limits.get(metric))
        panel.grid(alpha=0.3)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small")
    panels[-1, 0].set(xlabel="epoch", xlim=limits.get("epoch"))
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
    keep_writing()
    sys.exit(main())
