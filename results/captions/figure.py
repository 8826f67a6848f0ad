"""Draws plane.png from the files of tools/temperatures.py and published.csv, and prints the page's two tables."""

import csv
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
CURVES = (  # file, what its rows' `run` says after the seed, label; colours that the colour-blind can tell apart
    ("mle.csv", "", "MLE and its temperatures", "#0072B2", "o-"),
    ("mle.csv", "candidates", "one of 4, 16 chosen by D", "#009E73", "D-"),
    ("guided.csv", "", "guided by D", "#CC79A7", "^-"),
    ("kl.csv", "", "learnt from D, expected policy gradient", "#56B4E9", "v-"),
    ("seqgan.csv", "", "SeqGAN and its temperatures", "#D55E00", "s-"),
    ("mle.csv", "real data", "real captions", "black", "*"),
)
LEFT = {
    "training set": (-8, -18),
    "RankGAN": (4, -22),
    "SeqGAN": (-6, 9),
    "MLE": (-8, -12),
}  # where a label goes, points from its cross


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a CSV file that lies beside this one."""
    with open(HERE / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def means(name: str, what: str) -> list[dict[str, str]]:
    """The rows of a file that are of `what`, those of all seeds as one: their mean figures."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows(name):
        if (row["run"] if row["run"] == "real data" else row["run"].partition(", ")[2]) == what:
            found.setdefault((row["temperature"], row.get("candidates", "")), []).append(row)
    return [
        {k: str(np.mean([float(row[k]) for row in of])) if k != "run" and v else v for k, v in of[0].items()}
        for of in found.values()
    ]


plt.rcParams["font.size"] = 17
figure, panels = plt.subplots(1, 2, figsize=(13, 8), layout="constrained")
for panel, order in zip(panels, (2, 4), strict=True):
    x, y = f"texygen_self_bleu{order}", f"texygen_bleu{order}"
    for name, run, label, color, style in (curve for curve in CURVES if (HERE / curve[0]).exists()):
        there = means(name, run)
        xs, ys = ([float(row[column]) for row in there] for column in (x, y))
        panel.plot(xs, ys, style, label=label, color=color, linewidth=2, markersize=18 if style == "*" else 8)
        for row, *at in zip(there, xs, ys, strict=True):
            text = f"{float(row.get('candidates') or row['temperature'] or 0):g}" * (run != "real data")
            if name == "mle.csv":
                panel.annotate(text, at, (-6, 8), textcoords="offset points", color=color, ha="right", fontsize=14)
    for row in rows("published.csv"):
        if row[x]:
            at = float(row[x]), float(row[y])
            panel.plot(*at, "x", color="0.3", markersize=9, markeredgewidth=2)
            place, side = LEFT.get(row["method"]), "left" if row["method"] not in LEFT else "right"
            panel.annotate(row["method"], at, place or (7, -5), textcoords="offset points", fontsize=14, ha=side)
    panel.set_xlabel(f"self-BLEU-{order}, less diverse →")
    panel.set_ylabel(f"BLEU-{order}")
    panel.grid(alpha=0.3)
panels[0].plot([], [], "x", color="0.3", markersize=9, markeredgewidth=2, label="published by Texygen")
handles, labels = panels[0].get_legend_handles_labels()
figure.legend(handles, labels, loc="outside lower center", ncols=2)
figure.savefig(HERE / "plane.png", dpi=62)

FIGURES = [f"{kind}bleu{order}" for kind in ("", "self_") for order in (2, 3, 4, 5)]
curve = means("mle.csv", "")[::-1]  # self-BLEU rises as temperatures fall
for row in rows("published.csv"):
    cells = [row["method"]]
    for order in (2, 4) if row["texygen_self_bleu2"] else ():
        x, y = f"texygen_self_bleu{order}", f"texygen_bleu{order}"
        xs, ys = ([float(point[name]) for point in curve] for name in (x, y))
        cells += [row[x], row[y], f"{np.interp(float(row[x]), xs, ys, np.nan, np.nan):.3f}"]
    print("|", " | ".join(cells), "|")
(real,) = means("mle.csv", "real data")
for name, run, label, *_ in CURVES[:-1]:
    for row in means(name, run):
        away = [f"{float(row[f'texygen_{x}']) - float(real[f'texygen_{x}']):+.3f}" for x in FIGURES]
        at, copied = float(row.get("candidates") or row["temperature"]), float(row["copied_share"])
        print("|", " | ".join([label, f"{at:g}", *away, f"{copied:.3f}"]), "|")
