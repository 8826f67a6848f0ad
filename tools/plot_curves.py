"""Draws NLL curves from TensorBoard event files: python tools/plot_curves.py LOGDIR [LOGDIR ...] -o FILE.png."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import matplotlib
import tensorflow as tf

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from support.directories import METRICS
from support.logs import name_of
from support.schedule import ADVERSARIAL

PANELS = (("nll", "NLL_oracle"), ("nll_test", "NLL_test"))  # the tag of a scalar, and its name in the picture
SIZE = (8.0, 7.0)  # inches


class Curve(NamedTuple):
    """One scalar of one run: `epochs` ascending, `values` and their standard `errors` (0 where not logged)."""

    epochs: list[int]
    values: list[float]
    errors: list[float]


def read_scalars(directory: Path) -> dict[str, dict[int, float]]:
    """All scalars of a directory's event files: {name: {step: value}}.

    Raises:
        FileNotFoundError: it holds no event file.
    """
    if not directory.is_dir() or not any(".tfevents." in path.name for path in directory.iterdir()):
        raise FileNotFoundError(f"{directory}: no event files")
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    scalars = {}
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            scalars[name_of(tag)] = {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)}
    return scalars


def curve(scalars: dict[str, dict[int, float]], tag: str) -> Curve:
    """The curve of one tag with the errors logged beside it; empty where the tag is not logged."""
    values, errors = scalars.get(tag, {}), scalars.get(f"{tag}_se", {})
    epochs = sorted(values)
    return Curve(epochs, [values[e] for e in epochs], [errors.get(e, 0.0) for e in epochs])


def phase_line(directory: Path) -> int | None:
    """The first adversarial epoch that metrics.csv has a row of, or None where there was none."""
    if not (directory / METRICS).is_file():
        return None
    with open(directory / METRICS, newline="", encoding="utf-8") as file:
        return min((int(row["epoch"]) for row in csv.DictReader(file) if row["phase"] == ADVERSARIAL), default=None)


def draw(directories: Sequence[Path], output: Path) -> None:
    """Draws NLL_oracle with the oracle's entropy as floor, and NLL_test below, over the same axis of epochs.

    Raises:
        FileNotFoundError: a directory holds no event file.
        OSError: the picture can't be written.
    """
    runs = {directory.name or str(directory): read_scalars(directory) for directory in directories}
    figure, panels = plt.subplots(len(PANELS), 1, sharex=True, figsize=SIZE, layout="constrained")
    for panel, (tag, title) in zip(panels, PANELS, strict=True):
        for name, scalars in runs.items():
            epochs, values, errors = curve(scalars, tag)
            (line,) = panel.plot(epochs, values, label=name, linewidth=1.2)
            low, high = ([v + s * 2 * e for v, e in zip(values, errors, strict=True)] for s in (-1, 1))
            panel.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        floors = [v for scalars in runs.values() for v in scalars.get("oracle_entropy", {}).values()]
        for i, floor in enumerate(sorted(set(floors))):
            label = "entropy of the oracle (floor)" if i == 0 else None
            panel.axhline(floor, color="black", linestyle="--", linewidth=1, label=label)
        boundaries = {line for directory in directories if (line := phase_line(directory)) is not None}
        for i, boundary in enumerate(sorted(boundaries)):
            label = "adversarial training begins" if i == 0 else None
            panel.axvline(boundary, color="grey", linestyle=":", linewidth=1, label=label)
        panel.set_ylabel(f"{title} (nats a token)")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    panels[-1].set_xlabel("epoch")
    figure.savefig(output, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where an argument can't be used."""
    parser = argparse.ArgumentParser(prog="plot_curves.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("logdirs", nargs="+", type=Path, metavar="LOGDIR", help="evaluation directories, one a run")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.png", help="the picture")
    arguments = parser.parse_args(argv)
    try:
        draw(arguments.logdirs, arguments.output)
    except (OSError, ValueError) as error:
        print(f"plot_curves.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
