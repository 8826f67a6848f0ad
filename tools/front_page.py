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

from runs.experiment import read
from support.parser import Parser
from tools.outcomes import Results
from tools.plot_curves import Line, draw_panels, picture

METHODS = {
    "mle": "MLE",
    "seqgan": "SeqGAN as printed",
    "constant": "constant reward of 1 (median and range)",
    "guided": "MLE, then guided by an additive discriminator",
}
METRICS = ("nll", "nll_test")
START, END = 1000, 2000  # epochs: all methods are the same until the first
LIMITS = {"nll": (7.6, 8.9), "nll_test": (7.6, 8.9), "epoch": (700, END)}


def draw(path: Path) -> None:
    """Draws NLL_oracle above NLL_test; bands are 95 % intervals over seeds; raises OSError, ValueError."""
    folder = ROOT / "results" / "figure"
    results = Results.of(read(ROOT / "experiments" / "figure.toml"), folder / "none", folder)
    with open(ROOT / "results" / "guided" / "guided_means.csv", newline="", encoding="utf-8") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file) if row["method"] == "bigram"}
    lines = []
    for name, label in METHODS.items():
        line = Line(label, {})
        for metric in METRICS:
            if name == "guided":
                before = dict(zip(*results.bands()["mle", metric], strict=True))[START - 1]
                ends = {of: float(rows[f"{metric}_guided"][of]) for of in ("mean", "low", "high")}
                mean, low, high = ([getattr(before, of), end, end] for of, end in ends.items())
                line.means[metric] = (START, START, END), mean, low, high
            else:
                epochs, pairs = results.bands()[name, metric]
                low, high = [pair.low for pair in pairs], [pair.high for pair in pairs]
                line.means[metric] = epochs, [pair.mean for pair in pairs], low, high
        lines.append(line)
    draw_panels(path, METRICS, lines, results.floor(), [START], LIMITS)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, or 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="front_page.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    default = ROOT / "results" / "figure" / "front.png"
    parser.add_argument("-o", "--output", type=picture, default=default, metavar="FILE.png", help="the picture")
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.output):
        draw(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
