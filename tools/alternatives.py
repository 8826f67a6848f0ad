"""What else raises an objective, and at what KL from the pretrained policy: python tools/alternatives.py LOGDIR."""

import csv
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import matplotlib
import numpy as np
import tensorflow as tf

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from data.training_set import RandomDraws, spread
from evaluation import Evaluated
from generator import Policy
from model import adam
from runs.directories import evaluations_of
from runs.experiment import read
from support.errors import UsageError
from support.config_file import CONFIG, read_config
from support.device import configure_tensorflow
from support.parser import Parser, number
from tools.plot_curves import colours, legend, picture, read_run, save, short_names, style
from tools.sample import portions
from tools.temperatures import Subject

BETAS = [5.0, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.0]
ROWS = 64  # sequences whose NLL is measured at once


class Reweighted(NamedTuple):
    """The pretrained policy G0 reweighted by what an objective says of a sequence, w(score)·G0."""

    objective: float  # its mean
    kl: float  # KL(reweighted ‖ G0), nats per sequence
    nll: float  # by how much its NLL of real sequences is above that of G0, nats per sequence
    draws: float  # from G0 for each sequence


def best_of(scores: np.ndarray, real: np.ndarray, count: int) -> Reweighted:
    """The best of `count` samples, a random one of equals; by scores of samples and real sequences, [n] and [m]."""
    ordered = np.sort(scores)
    below, upto = (np.searchsorted(ordered, np.append(scores, real), side) / len(scores) for side in ("left", "right"))
    density = count * upto ** (count - 1)  # of a score that no sample has
    weights = np.where(upto > below, (upto**count - below**count) / np.where(upto > below, upto - below, 1), density)
    return reweighted(scores, weights[: len(scores)], weights[len(scores) :], count)


def tilted(scores: np.ndarray, real: np.ndarray, beta: float) -> Reweighted:
    """G0·exp(score / β) / Z: of all distributions of its mean objective the one of least KL.

    With β = 0 only the highest score is left. Drawn by rejection, as the highest score of all is known.
    """
    highest = max(scores.max(), real.max(initial=-np.inf))
    weights = [np.exp((s - highest) / beta) if beta else (s == highest).astype(float) for s in (scores, real)]
    if not (mean := weights[0].mean()):
        raise UsageError("no sample comes near the highest score; draw more with -n")
    return reweighted(scores, weights[0] / mean, weights[1] / mean, 1 / mean)


def reweighted(scores: np.ndarray, weights: np.ndarray, of_real: np.ndarray, draws: float) -> Reweighted:
    """By weights of mean 1 of samples, and by those of real sequences."""
    kept = weights[weights > 0]
    with np.errstate(divide="ignore"):
        nll = -np.log(of_real).mean()
    return Reweighted((weights * scores).mean(), (kept * np.log(kept)).sum() / len(scores), nll, draws)


def continued(
    subject: Subject, rows: np.ndarray, pretrained: Policy, steps: Sequence[int], rate: float
) -> Iterator[str]:
    """Goes on with maximum likelihood on sequences, int32 [n, T].

    Yields what to call the policy, after each so many updates at a constant rate.
    """
    model = subject.model
    for weight, before in zip(model.generator.weights, pretrained.weights, strict=True):
        weight.assign(before)
    model.config = dataclasses.replace(model.config, scheduled_sampling=0.0)  # this likelihood is of real tokens
    model.g_pretrain_optimizer = adam(rate, model.generator)
    batches = RandomDraws(rows, model.config.batch_size, 0, model.config.seed)
    for step in range(max(steps)):
        model.mle_epoch(batches.mle_batches(step), tf.constant(step))
        if step + 1 in steps:
            yield f"MLE on what meets it, {len(rows)} sequences, {step + 1} updates"


def trained(logdir: Path, tokens: float) -> list[float]:
    """Objective, KL and added NLL of a run's newest evaluation; `tokens` are those of a real sequence.

    Raises UsageError, ValueError, OSError: there is none of an adversarial phase, or it can't be read.
    """
    curves, first = read_run(evaluations_of(logdir))
    if first is None or not {"kl_to_pretrained", "nll_test"} <= curves.keys():
        raise UsageError(f"{logdir}: no run that has trained with --objective and has a test set")
    nll = curves["nll_test"]
    before = nll.values[nll.epochs < first]
    added = (nll.values[-1] - before[-1]) * tokens if len(before) else np.nan
    return [curves["objective"].values[-1], curves["kl_to_pretrained"].values[-1], added]


def draw(points: Sequence[tuple[str, Sequence[float]]], path: Path, labels: Mapping[str, str]) -> None:
    """The objective against KL and against the added NLL; what has one name before a comma is of one colour.

    `labels` has the names of methods, {method: label}.
    """
    named = [(name, labels.get(name, name).split(",")[0], row) for name, row in points]
    palette = colours(kind for _, kind, _ in named)
    with style():
        figure, panels = plt.subplots(1, 2, figsize=(8, 6), sharey=True, layout="constrained")
        for kind, colour in palette.items():
            rows = [row for _, of, row in named if of == kind]
            computed = any(" " in name for name, of, _ in named if of == kind)  # and no method's seeds
            look = {"linestyle": "-", "marker": "."} if computed else {"linestyle": "none", "marker": "o"}
            for panel, x in zip(panels, (1, 2), strict=True):
                panel.plot([row[x] for row in rows], [row[0] for row in rows], label=kind, color=colour, **look)
        panels[0].set(xlabel="KL(G‖pretrained) (← better)\nnats per sequence", ylabel="objective (↑ better)")
        panels[1].set(xlabel="NLL_test added (← better)\nnats per sequence")
        legend(figure, "lower")
        save(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="alternatives.py", description=__doc__, allow_abbrev=False)
    add, several = parser.add_argument, number(int, 2, None)
    text = "--log_dir of runs with an --objective: the first's"
    add("logdirs", nargs="+", type=Path, metavar="LOGDIR", help=text)
    add("-n", type=several, default=8192, metavar="INT", help="samples (default: 8192)")
    add("--best_of", nargs="*", type=several, default=[2, 4, 8, 16], metavar="INT", help="best of so many samples")
    text = "of the least KL; 0: rejection"
    add("--beta", nargs="*", type=number(float, 0, None), default=BETAS, metavar="FLOAT", help=text)
    text = "updates of maximum likelihood where the objective is --least or more"
    add("--mle_steps", nargs="*", type=number(int, 1, None), default=[], metavar="INT", help=text)
    text = "training sequences to score for it, evenly spread (default: all)"
    add("--mle_rows", type=number(int, 1, None), metavar="INT", help=text)
    add("--mle_lr", type=number(float, 1e-9, 1), metavar="FLOAT", help="(default: 0.001)")
    add("--least", type=float, metavar="FLOAT", help="(default: 1)")
    add("-o", "--output", type=picture, metavar="FIGURE", help="a picture")
    add("--table", type=Path, metavar="FILE.toml", help="the table of experiments, for its labels")
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.logdirs[0]):
        for flag in ("mle_rows", "mle_lr", "least"):
            if getattr(arguments, flag) is not None and not arguments.mle_steps:
                raise UsageError(f"--{flag} has no effect without --mle_steps")
        if arguments.table and not arguments.output:
            raise UsageError("--table has no effect without -o FIGURE")
        labels = {method.name: method.label for method in read(arguments.table).methods} if arguments.table else {}
        configure_tensorflow()
        subject = Subject(arguments.logdirs[0], arguments.n, False)
        model, objective, pretrained = subject.model, subject.objective, subject.model.pretrained
        if not (objective and pretrained and subject.adversarial):
            raise UsageError(f"{arguments.logdirs[0]}: no run that has trained with --objective")
        test, before = getattr(subject.data, "test", np.array([])), Evaluated(model.config, pretrained)
        if not len(test):
            raise UsageError(f"{arguments.logdirs[0]}: no test set")
        asked = read_config(arguments.logdirs[0] / CONFIG)
        for logdir in arguments.logdirs:
            found = read_config(logdir / CONFIG)
            if any(found.get(what) != asked.get(what) for what in ("objective", "data")):
                raise UsageError(f"{logdir}: another objective, or other data, than {arguments.logdirs[0]}")
        points: list[tuple[str, Sequence[float]]] = []
        tokens = model.generator.mask(tf.constant(test)).numpy().sum(axis=1).mean()
        names = [re.sub("/[0-9]+$", "", name) for name in short_names(arguments.logdirs)]
        above = [logdir.absolute().parent for logdir in arguments.logdirs]  # METHOD/SEED of a sweep
        names = [of.parent.name if of.name.isdigit() else name for of, name in zip(above, names, strict=True)]
        for logdir, name in zip(arguments.logdirs, names, strict=True):
            points.append((name, trained(logdir, tokens)))
        drawn = np.concatenate(list(portions(before, arguments.n, [], 1.0, 1)))
        scores, real = (objective.score(rows).astype(np.float64) for rows in (drawn, test))
        points.append(("pretrained policy", (scores.mean(), 0, 0, 1)))
        points += [(f"best of n, n = {n}", best_of(scores, real, n)) for n in arguments.best_of]
        for beta in arguments.beta:
            try:
                points.append((f"least KL, beta = {beta:g}", tilted(scores, real, beta)))
            except UsageError as error:
                print(f"--beta {beta:g} is left out: {error}", file=sys.stderr)
        if arguments.mle_steps:

            def nll(policy: Evaluated) -> float:
                parts = [policy.nll(tf.constant(test[i : i + ROWS])) for i in range(0, len(test), ROWS)]
                return float(np.concatenate(parts).mean())

            evaluated = Evaluated(model.config, model.generator)
            steps, rate = arguments.mle_steps, arguments.mle_lr or 0.001
            least = 1.0 if arguments.least is None else arguments.least
            rows = subject.data.references()
            rows = spread(rows, arguments.mle_rows or len(rows))
            meets = objective.score(rows) >= least
            if not meets.any():
                print(f"--mle_steps is left out: no training sequence has an objective of {least:g}", file=sys.stderr)
            for name in continued(subject, rows[meets], pretrained, steps, rate) if meets.any() else ():
                figures = evaluated.towards(objective, pretrained, arguments.n, 0)
                added = nll(evaluated) - nll(before)
                points.append((name, (figures["objective"][0], figures["kl_to_pretrained"][0], added, 1)))
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(["policy", *Reweighted._fields])
        out.writerows([name, *(f"{value:.5g}" for value in row)] for name, row in points)
        out.writerow(["test set", f"{real.mean():.5g}"])
        if arguments.output:
            draw(points, arguments.output, labels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
