"""Draws the README's figure from two reports: python tools/front_page.py [-o results/figure/front.png].

MLE, SeqGAN as printed and a constant reward come from results/figure, guidance by an additive discriminator from
results/guided. All begin with the same 1,000 epochs of MLE.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from runs.experiment import read
from support.parser import Parser
from tools.outcomes import Results
from tools.plot_curves import FLOOR, NAMES, SIZE, axis_title, colours, legend, save, style

METHODS = {
    "mle": "MLE",
    "seqgan": "SeqGAN as printed",
    "constant": "constant reward of 1 (median and range)",
    "guided": "MLE, then guided by an additive discriminator",
}
LIMITS = {"nll": (7.6, 8.9), "nll_test": (7.6, 8.9)}
START, END = 1000, 2000  # epochs: all methods are the same until the first


def draw(path: Path) -> None:
    """Draws NLL_oracle above NLL_test; bands are 95 % intervals over seeds; raises OSError, ValueError."""
    folders = {name: ROOT / "results" / name for name in ("figure", "guided")}
    results = Results.of(read(ROOT / "experiments" / "figure.toml"), folders["figure"] / "none", folders["figure"])
    bands, color, floor = results.bands(), colours(METHODS.values()), results.floor()
    with open(folders["guided"] / "guided_means.csv", newline="", encoding="utf-8") as file:
        guided = {row["metric"]: row for row in csv.DictReader(file) if row["method"] == "bigram"}
    with style():
        figure, panels = plt.subplots(2, 1, sharex=True, figsize=(SIZE[0], 2 * SIZE[1]), layout="constrained")
        for panel, (metric, limits) in zip(panels, LIMITS.items(), strict=True):
            for name, label in METHODS.items():
                look = {"color": color[label], "linewidth": 0, "alpha": 0.2}
                if name == "guided":
                    row = guided[f"{metric}_guided"]
                    mean, low, high = (float(row[column]) for column in ("mean", "low", "high"))
                    panel.plot([START, END], [mean] * 2, color=color[label], label=label)
                    panel.fill_between([START, END], low, high, **look)
                    continue
                epochs, intervals = bands[name, metric]
                panel.plot(epochs, [pair.mean for pair in intervals], color=color[label], label=label)
                panel.fill_between(epochs, *zip(*(pair[1:3] for pair in intervals), strict=True), **look)
            panel.axhline(floor, color="black", linestyle="--", linewidth=1, label=NAMES[FLOOR])
            panel.axvline(START, color="grey", linestyle=":", linewidth=1, label="MLE pretraining ends")
            panel.set(ylabel=axis_title(metric, "\n"), ylim=limits, xlim=(700, END))
            panel.grid(alpha=0.3)
        panels[-1].set_xlabel("epoch")
        legend(figure, "upper")
        save(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, or 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="front_page.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    default = ROOT / "results" / "figure" / "front.png"
    parser.add_argument("-o", "--output", type=Path, default=default, metavar="FILE.png", help="the picture")
    arguments = parser.parse_args(argv)
    try:
        draw(arguments.output)
    except OSError as error:
        parser.error(f"{error.filename or arguments.output}: {error.strerror or error}")
    except ValueError as error:
        parser.error(" ".join(str(error).split()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
