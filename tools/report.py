"""Tables and figures of a study: python tools/report.py experiments/NAME.toml -o results/NAME.

Finished runs under --logs go into FOLDER's runs.csv, a row a run, and curves.csv, a row an evaluation; runs that are
there already stay. README.md, between its two marks, and the figures follow from these files alone.
"""

import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

import pandas as pd
from matplotlib.figure import Figure

from evaluation.metrics import METRICS, PER_TOKEN, axis_title, column, parse, title
from runs.directories import spare, write_whole
from support.errors import UsageError
from support.parser import Parser
from support.streams import run_tool
from tools.experiment import read
from tools.plot_curves import CLOCKS, CURVES, Line, colours, draw_finals, draw_panels, legend, listed, save
from tools.study import FEW, Study, best_rounds, compare, decimals, load, merged, read_points, sequences_read, summary

# Of a generator that was measured, as its row says and as pages say.
STATES = {"pretrained": "end of its MLE pretraining", "training": "during training", "guided": "guided"}
STATES |= {"candidates": "chosen by D", "best of n": "best of n by the objective"}
STATES |= {f"candidates by {what}": f"chosen by {what}" for what in ("D*", "likelihood", "permuted log-odds")}
STATES |= {"least KL": "reweighted by the objective (least KL)"}
REAL, SHARED = "real data", "average of "  # the run of real data; what has generators of several seeds
PAIRS = [("nll_test", "nll")]  # diversity and quality: what planes show where a table does not say
PAIRS += [(x, f"bleu{n}") for n in (2, 4) for x in (f"self_bleu{n}", "nll_test")]
PAIRS += [(f"texygen_self_bleu{n}", f"texygen_bleu{n}") for n in (2, 4)]
OTHERWISE = [("g_entropy", "nll_test")]  # of data that nothing but NLL measures
WIDEST = 9  # columns of a table beside its labels
README = "README.md"
BEGIN, END = "<!-- report -->", "<!-- /report -->"  # what is between them is written anew, all else by hand
NEW = f"""# {{title}}

(The question. The answer, in two sentences.)

{BEGIN}
{END}

## What is not known
"""


def escaped(label: str) -> str:
    """A cell of a Markdown table."""
    return label.replace("|", "\\|")


def markdown(frame: pd.DataFrame, corner: str = "") -> str:
    """A frame of texts as tables of 10 columns at most."""
    frame = frame.fillna("").rename(index=escaped, columns=escaped).rename_axis(corner)
    parts = [frame.iloc[:, i : i + WIDEST] for i in range(0, frame.shape[1], WIDEST)]
    return "\n\n".join(part.to_markdown(tablefmt="github", disable_numparse=True) for part in parts)


def finals(study: Study, shown: Sequence[str]) -> str:
    """The table of what the runs ended with, a row a method."""
    rows: dict[str, dict[str, str]] = {}
    seeds: dict[str, str] = {}
    best = study.report["best"] if {*study.report["best"][:1]} <= {*study.curves} else []
    at_best = study._replace(runs=best_rounds(study, best[0])) if best else study
    for method, label in study.labels.items():
        if method in study.cells:
            continue
        found = {title(name): study.values(method, name) for name in shown}
        seeds[label] = ", ".join(map(str, sorted({len(of) for of in found.values()} - {0}))) or "0"
        found |= {f"best: {title(name)}": at_best.values(method, name) for name in best}
        rows[label] = {head: str(study.summary(method, of)) if len(of) else "" for head, of in found.items()}
    less, compared = contrasts(study, shown)
    said = "Final means ± half of the 95 % interval, or each seed."
    said += " Of runs that collapse: median (range)." if study.report["collapsed"] else ""
    said += f" *Best*: at the evaluation of least {title(best[0])}, in rounds if there are any." if best else ""
    said += "" if study.floor is None else f" The oracle's entropy is {study.floor:.3f} nats per token."
    frame = pd.DataFrame(rows).T.join(less).assign(seeds=pd.Series(seeds, dtype=object))
    return f"{said}{compared}\n\n{markdown(frame)}"


def pivots(study: Study) -> list[str]:
    """A table for each of `pivot`: of the methods labelled `ROW; COLUMN`."""
    parts, cells = [], study.cells
    columns = list(dict.fromkeys(column for _, column in cells.values()))
    for said in study.report["pivot"]:
        name, *less = said.split(" - ")
        frame = pd.DataFrame(index=dict.fromkeys(row for row, _ in cells.values()), columns=columns, dtype=object)
        for method, (row, head) in cells.items():
            found = study.values(method, name)
            found = (found - study.values(method, less[0]) if less else found).dropna()
            frame.loc[row, head] = str(study.summary(method, found)) if len(found) else math.nan
        frame = frame.dropna(how="all").dropna(axis=1, how="all")
        parts.append(markdown(frame, " less ".join(map(title, [name, *less]))))
    return parts


def contrasts(study: Study, shown: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Columns of what is compared with the methods `against`, a row a label; and what is said of them, if any."""
    found, labels = compare(study), study.labels
    columns: dict[str, dict[str, str]] = {}
    for each in found:
        if each.column in shown:
            bold = "**" if each.p_holm < 0.05 else ""
            column = columns.setdefault(f"{title(each.column)} less {labels[each.against]}", {})
            column[labels[each.method]] = f"{bold}{each.summary}{bold}"
    tests = sum(not math.isnan(each.p) for each in found)
    bold = f" Bold: p < 0.05 (Student's test, Holm's correction for {tests})." if tests else ""
    return pd.DataFrame(columns), f" Differences are paired by seed.{bold}" if columns else ""


def page(study: Study, pictures: Mapping[str, str], points: pd.DataFrame | None = None) -> str:
    """The report in numbers, as Markdown, with pictures {file: caption} and `points` that were measured of samples."""
    experiment, report = study.experiment, study.report
    parts = [f"    python tools/sweep.py experiments/{experiment.name}.toml"]
    here = {*zip(study.runs.method, study.runs.seed, strict=True)}
    absent = [f"{m.name}, seed {seed}" for m in experiment.methods for seed in m.seeds if (m.name, seed) not in here]
    asked = dict.fromkeys([*report["metrics"], *report["table"]])
    absent += [f"{name}, which the table names" for name in asked if name not in study.runs]
    absent += [f"{name} of evaluations, for best" for name in report["best"] if name not in study.curves]
    if absent:
        parts.append("**Not all runs are here:**\n\n" + "\n".join(f"- {line}" for line in absent))
    shown = [name for name in report["table"] or [*study.metrics, "seconds"] if name in study.runs]
    parts += [finals(study, shown), *pivots(study)]
    for picture, caption in pictures.items():
        parts.append(f"![{Path(picture).stem}]({picture})" + f"\n\n*{' '.join(caption.split())}*" * bool(caption))
    if points is not None:
        parts.append(samples(points, study.labels, report["measures"], report["collapsed"]))
    return "\n\n".join([*parts, study.made_where()])


def named(points: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """The rows of `read_points` and, instead of `run`, what that says, such as logs/mle/1, guided.

    That is `method`, `seed` ("" where there is none), `label`, the method's name for people and the state that was
    measured, `head`, with the temperature or the number of candidates besides, and `family`, the label whose colour it
    has: during training that of its end. Raises UsageError: two rows of one are different.
    """
    form = rf"(?P<method>.*?)(?:/(?P<seed>[0-9]+))?(?:,? (?P<state>{'|'.join(map(re.escape, STATES))}))?$"
    parts = points.run.str.extract(form).fillna("")
    last = parts.method.str.rpartition("/")[2]  # of two experiments' methods of one name the whole
    parts["method"] = last.where(parts.method.groupby(last).transform("nunique") == 1, parts.method)
    own = parts.method.map(lambda name: labels.get(name, name))
    parts["label"] = own + parts.state.map(lambda state: f", {STATES[state]}" if state else "")
    parts["family"] = own.where(parts.state == "training", parts.label)
    reweighted = points.run.str.contains("least KL")  # whose numbers are β
    at = points.temperature.map(lambda t: "" if t == 1 or math.isnan(t) else f", temperature {t:g}")
    at = at.where(~reweighted, points.temperature.map(lambda beta: f", β = {beta:g}"))
    chosen = points.candidates.map(lambda n: "" if math.isnan(n) else f", one of {n:g}")
    parts["head"] = parts.label + chosen.where(points.candidates.notna(), at)
    return merged(points.drop(columns="run").join(parts), ["head", "seed", "epoch"])


def measured(rows: pd.DataFrame, name: str, collapsed: Sequence[str]) -> str:
    """A figure of a method's seeds, or of one run ± its standard error; averages share generators: no interval."""
    found = rows.dropna(subset=[name]) if name in rows else rows[:0]
    if not len(found):
        return ""
    method, error = found.method.iloc[0], found[f"{name}_se"].iloc[0] if f"{name}_se" in found else math.nan
    whole = summary(found[name], method in collapsed)
    if len(found) == 1 and error > 0:
        digits = decimals(error, 2)
        return f"{whole.middle:.{digits}f} ± {error:.{digits}f}"
    if method.startswith(SHARED) and len(found) > 1:
        return f"{whole.middle:.{decimals(whole.high - whole.middle, 2)}f}"
    return str(whole)


def samples(
    points: pd.DataFrame, labels: Mapping[str, str] = {}, measures: Sequence[str] = (), collapsed: Sequence[str] = ()
) -> str:
    """Tables of what was measured of samples: a row a method at a temperature, and how near each is to real data.

    `points` are rows of `read_points`; evaluations that runs made themselves, which have an epoch, are left out.
    `labels` are the methods' names for people, `measures` the columns that are shown, () for all, and `collapsed` the
    methods whose runs have medians and ranges.
    """
    points = named(points, labels)
    points = points[points.epoch.isna()].sort_values("method", key=lambda name: name == REAL, kind="stable")
    groups = {head: own.set_index("seed") for head, own in points.groupby("head", sort=False)}
    known = [name for name in METRICS if name in points and points[name].notna().any()]
    rows = {head: {title(n): measured(of, n, collapsed) for n in measures or known} for head, of in groups.items()}
    said = "Samples: mean over seeds ± half of the 95 % interval, or one run ± standard error."
    real = groups.pop(REAL).iloc[0] if REAL in groups else pd.Series()
    judged = [name for name in known if METRICS[name].unit != PER_TOKEN and not math.isnan(real.get(name, math.nan))]
    if judged and groups:  # compared with the first method, at its temperature of least NLL_valid
        label = next(iter(groups.values())).label.iloc[0]
        own = {head: of for head, of in groups.items() if of.label.iloc[0] == label}
        nll = {head: of.nll_valid.mean() if "nll_valid" in of else math.nan for head, of in own.items()}
        best = min(nll, key=lambda head: (math.isnan(nll[head]), nll[head], "temperature" in head))
        before = (groups.pop(best)[judged] - real[judged]).abs()
        for head, of in groups.items():
            change = ((of[judged] - real[judged]).abs() - before).dropna(how="all")
            moves = [summary(moved.dropna()) for _, moved in change.items() if moved.notna().any()]
            if moves:
                rows[head]["nearer"] = f"{sum(moved.middle < 0 for moved in moves)} of {len(moves)}"
            if len(change) > 1 and not head.startswith(SHARED):
                rows[head]["further"] = str(sum(moved.low > 0 for moved in moves))
        said += f" *Nearer*: how many measures are nearer to real data than those of *{best}*. *Further*: how many are "
        said += "further away, beyond the interval of that change."
    return f"{said}\n\n{markdown(pd.DataFrame({head: row for head, row in rows.items() if any(row.values())}).T)}"


def draw_samples(
    path: Path,
    points: pd.DataFrame,
    labels: Mapping[str, str] = {},
    pairs: Sequence[Sequence[str]] = (),
    crosses: Any = (),
    draw: Sequence[str] = (),
) -> None:
    """Draws quality against diversity, a panel a pair of columns (x, y): a line a method, seeds as means ± deviation.

    `points` are rows of `read_points`, joined in the order of temperatures, candidates and epochs; a line of epochs is
    dotted, and real data is a star. `labels` are the methods' names for people, `draw` those that are drawn, if not
    all; `crosses` has the figures of others by their names. Raises UsageError: there is nothing to compare with, or no
    samples of one in `draw`. Raises OSError: the picture can't be written.
    """
    points = named(points, labels)
    if missing := [name for name in draw if name not in {*points.method}]:
        raise UsageError(f"draw has {missing[0]!r}, of which there are no samples")
    points = points[points.method.isin([*draw, REAL])] if draw else points
    own, points = points[points.method == REAL], points[points.method != REAL]
    real = {} if own.empty else own.iloc[0].dropna().to_dict()
    asked = pairs or PAIRS
    pairs = [(x, y) for x, y in [*asked, *([] if pairs else OTHERWISE)] if {x, y} <= {*points}]
    if not pairs:
        raise UsageError(f"no figure: nothing has both {asked[0][0]} and {asked[0][1]}")
    pairs = [pair for pair in pairs if pair in asked] or pairs
    color = colours(sorted(points.family.unique(), key=len))
    color = dict(zip(points.label, points.family.map(color), strict=True))
    rows, columns = -(-len(pairs) // 2), min(len(pairs), 2)
    figure = Figure(figsize=(8.0, 3.6 * rows + 0.25 * (len(color) + 1)), layout="constrained")  # and the legend
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for unused in panels[len(pairs) :]:
        unused.set_axis_off()
    for panel, (x, y) in zip(panels, pairs, strict=False):
        for label, own in points.dropna(subset=[x, y]).groupby("label", sort=False):
            seeds = own.groupby(["temperature", "candidates", "epoch"], dropna=False)[[x, y]]  # which sorts them
            mean, deviation = seeds.mean().reset_index(), seeds.std()
            if mean.epoch.notna().any():
                panel.plot(mean[x], mean[y], ":", label=listed(label), color=color[label])
                continue
            errors = {"yerr": deviation[y], "xerr": deviation[x], "elinewidth": 0.8}
            panel.errorbar(mean[x], mean[y], marker=".", label=listed(label), color=color[label], **errors)
            ring = mean[(mean.temperature == 1) & ~(mean.candidates > 1) & ("least KL" not in label)]
            panel.plot(ring[x], ring[y], "o", markersize=10, markerfacecolor="none", color=color[label])
            for _, end in mean.iloc[[0, -1] if len(mean) > 1 else []].iterrows():
                text = f"{end.temperature if math.isnan(end.candidates) else end.candidates:g}"
                panel.annotate(text, (end[x], end[y]), (5, 5), textcoords="offset points", size=9, color=color[label])
        if {x, y} <= real.keys():
            panel.plot(real[x], real[y], "*", markersize=14, color="black", label="real data")
        for name, other in crosses.dropna(subset=[x, y]).iterrows() if {x, y} <= {*crosses} else ():
            panel.plot(other[x], other[y], "x", color="0.3", markersize=8)
            panel.annotate(name, (other[x], other[y]), (3, 3), textcoords="offset points", fontsize=8, rotation=30)
        panel.set(xlabel=axis_title(x), ylabel=axis_title(y, "\n"))
        panel.grid(alpha=0.3)
    legend(figure, "lower")  # inside a panel it hides points, and the star of real data lies in a corner
    kinds = "temperatures" + ", β" * ("objective" in points) + " or candidates" * bool(points.candidates.notna().any())
    figure.suptitle(f"numbers: {kinds}; a ring at temperature 1; bars: standard deviation over seeds", fontsize=10)
    save(figure, path)


def lines_of(study: Study, figure: Mapping[str, Any]) -> list[Line]:
    """The lines of a figure of `[[report.figures]]`.

    Of fewer seeds than `FEW`, and over another metric, each has a thin line, and none a band. A line ends at what the
    guided generator reached.
    """
    lines: list[Line] = []
    configs = {method.name: method.config for method in study.experiment.methods}
    curves = study.curves[study.curves.seed.isin(figure["seeds"] or study.curves.seed)]
    clocks = figure["x"].split() or ["epoch"]
    for name, method, clock in itertools.product(figure["curves"] or CURVES, figure["draw"] or study.labels, clocks):
        own, label = curves[curves.method == method], study.labels[method]
        own = own.assign(sequences=own.epoch.map(partial(sequences_read, configs[method])))
        if not {name, clock} <= {*own} or not own[name].notna().any():
            continue
        table = own.pivot(index="epoch", columns="seed", values=name).dropna(axis=1, how="all").dropna()
        times = own.pivot(index="epoch", columns="seed", values=clock).loc[table.index]
        x, found = times.mean(axis=1).to_list(), [study.summary(method, row) for row in table.to_numpy()]
        more: dict[str, Any] = {"floor": study.floor if clock in CLOCKS else None, "axis": clock}
        many = table.shape[1] >= FEW and clock in CLOCKS
        if not many:
            lines += [Line(label, name, times[seed], table[seed], thin=True, **more) for seed in table]
        own_form = not parse(name)[1]  # a guided column has no guided one
        guided = study.values(method, column(name, "guided") if own_form else "")  # of a student, its teacher's
        if len(guided) and clock in CLOCKS and configs[method].g_update != "distil":  # after D's training
            ends = {"seconds": study.values(method, "seconds").mean(), "epoch": x[-1]}
            ends["sequences"] = sequences_read(configs[method], int(own.epoch.max()), trained=True)
            x, found = [*x, *[ends[clock]] * 2], [*found, found[-1], study.summary(method, guided)]
        low, middle, high = ([getattr(each, end) for each in found] for end in ("low", "middle", "high"))
        lines.append(Line(label, name, x, middle, low if many else None, high if many else None, **more))
    return lines


def finals_of(study: Study, figure: Mapping[str, Any]) -> pd.DataFrame:
    """The final values of a figure's columns and methods, as `draw_finals` has them."""
    found: list[tuple[Any, ...]] = []
    for name, method in itertools.product(figure["curves"] or CURVES, figure["draw"] or study.labels):
        if len(numbers := study.values(method, name)):
            whole = study.summary(method, numbers)
            few = not whole.collapsed and len(numbers) < FEW
            points = [(v, v, v) for v in whole.values] if few else [(whole.middle, whole.low, whole.high)]
            found += [(name, study.labels[method], *point) for point in points]
    return pd.DataFrame(found, columns=["column", "label", "middle", "low", "high"])


def write(study: Study, texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Writes the report of a study and its CSV `texts`; returns its files, the page first.

    Of a page that is there it keeps what is by hand. Raises UsageError: that does not say where the numbers go, or a
    file of samples is damaged. Raises OSError: a file can't be read or written.
    """
    experiment, report, readme = study.experiment, study.report, folder / README
    text = readme.read_text(encoding="utf-8") if readme.exists() else NEW.format(title=experiment.title)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{readme}: no lines {BEGIN} and {END}, between which the numbers go")
    drawings: list[Callable[[], None]] = []  # all files are read before one is written
    pictures: dict[str, str] = {}
    for figure in report["figures"]:
        file = f"{figure['name'] or experiment.name}.png"
        drawn = [method.config for method in experiment.methods if method.name in (figure["draw"] or study.labels)]
        starts = {config.pretrain_g_epochs for config in drawn if config.total_epochs}  # shown where it is one
        if figure["x"] == "method" and len(ends := finals_of(study, figure)):
            drawings.append(partial(draw_finals, folder / file, ends))
        elif figure["x"] != "method" and (lines := lines_of(study, figure)):
            starts = starts if len(starts) == 1 else set()
            drawings.append(partial(draw_panels, folder / file, lines, starts, figure["limits"]))
        else:
            continue
        pictures[file] = figure["caption"]
    for plane in report["planes"]:
        points = read_points(*(folder / str(file) for file in plane["files"]))
        crosses = pd.read_csv(folder / plane["crosses"], index_col=0) if plane["crosses"] else ()
        pictures[file := f"{plane['name'] or Path(plane['files'][0]).stem}.png"] = plane["caption"]
        drawings.append(
            partial(draw_samples, folder / file, points, study.labels, plane["pairs"], crosses, plane["draw"])
        )
    found = read_points(*(folder / str(file) for file in report["measured"])) if report["measured"] else None
    whole = f"{before}{BEGIN}\n\n{page(study, pictures, found)}\n\n{END}{after}"
    folder.mkdir(parents=True, exist_ok=True)
    for draw in drawings:
        draw()
    for file, content in (*texts.items(), (README, whole)):
        write_whole(folder / file, content)
    return [readme, *(folder / file for file in (*texts, *pictures))]


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, or 2 with one line on stderr where something can't be used; names what is missing."""
    parser = Parser(prog="report.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("experiment", type=Path, metavar="FILE.toml", help="the table, such as experiments/figure.toml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the report goes")
    text = "where runs are; those of FOLDER's runs.csv that are not there stay (default: logs)"
    parser.add_argument("--logs", type=Path, default=Path("logs"), metavar="DIR", help=text)
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.output):
        spare(arguments.output)
        study, texts, problems = load(read(arguments.experiment), arguments.logs, arguments.output)
        for line in problems:
            print(f"report.py: {line}", file=sys.stderr)
        if not len(study.runs):
            raise UsageError(f"{arguments.experiment}: no run has finished under {arguments.logs}")
        print("\n".join(map(str, write(study, texts, arguments.output))))
    return 0


if __name__ == "__main__":
    run_tool(main)
