"""What else raises an objective, and at what KL from the pretrained policy: python tools/alternatives.py LOGDIR."""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from data.training_set import RandomDraws
from evaluation import Evaluated
from generator import Policy
from model import adam
from runs.checkpoints import first_line
from support.config import UsageError
from support.device import configure_tensorflow
from support.objective import Objective
from support.parser import Parser, number
from tools.sample import portions
from tools.temperatures import Subject


class Reweighted(NamedTuple):
    """The pretrained policy G0 reweighted by what an objective says of a sequence, w(score)·G0.

    Attributes:
        objective: its mean.
        kl: KL(reweighted ‖ G0), nats per sequence.
        nll: by how much its NLL of real sequences is above that of G0, nats per sequence.
        draws: from G0 for each sequence.
    """

    objective: float
    kl: float
    nll: float
    draws: float


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
        raise UsageError("no sample has the highest score; draw more with -n")
    return reweighted(scores, weights[0] / mean, weights[1] / mean, 1 / mean)


def reweighted(scores: np.ndarray, weights: np.ndarray, of_real: np.ndarray, draws: float) -> Reweighted:
    """By weights of mean 1 of samples, and by those of real sequences."""
    kept = weights[weights > 0]
    with np.errstate(divide="ignore"):
        nll = -np.log(of_real).mean()
    return Reweighted((weights * scores).mean(), (kept * np.log(kept)).sum() / len(scores), nll, draws)


def continued(
    subject: Subject, objective: Objective, pretrained: Policy, steps: Sequence[int], rate: float, least: float
) -> Iterator[str]:
    """Goes on with maximum likelihood on the training sequences whose objective is `least` or more.

    Yields:
        what to call the policy, after each so many updates at a constant rate.
    """
    model, rows = subject.model, subject.data.references()
    rows = rows[objective.score(rows) >= least]
    if not len(rows):
        raise UsageError(f"--mle_steps: no training sequence has an objective of {least:g}")
    for weight, before in zip(model.generator.weights, pretrained.weights, strict=True):
        weight.assign(before)
    model.g_pretrain_optimizer = adam(rate, model.generator)
    batches = RandomDraws(rows, model.config.batch_size, 0, model.config.seed)
    for step in range(max(steps)):
        model.mle_epoch(batches.mle_batches(step), tf.constant(step))
        if step + 1 in steps:
            yield f"MLE on {len(rows)} training sequences that meet it, {step + 1} updates"


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="alternatives.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("logdir", type=Path, metavar="LOGDIR", help="--log_dir of a run with --objective")
    parser.add_argument("-n", type=number(int, 2, None), default=8192, metavar="INT", help="samples (default: 8192)")
    parser.add_argument("--best_of", nargs="*", type=number(int, 2, None), default=[2, 4, 8, 16], metavar="INT")
    parser.add_argument("--beta", nargs="*", type=number(float, 0, None), default=[1, 0.5, 0.2, 0.05], metavar="FLOAT")
    parser.add_argument("--mle_steps", nargs="*", type=number(int, 1, None), default=[], metavar="INT")
    parser.add_argument("--mle_lr", type=number(float, 0, 1), default=0.001, metavar="FLOAT", help="(default: 0.001)")
    parser.add_argument("--least", type=float, default=1.0, metavar="FLOAT", help="score for --mle_steps (default: 1)")
    arguments = parser.parse_args(argv)
    try:
        configure_tensorflow()
        subject = Subject(arguments.logdir, arguments.n, False)
        model, objective, pretrained = subject.model, subject.objective, subject.model.pretrained
        if not (objective and pretrained and subject.adversarial):
            raise UsageError(f"{arguments.logdir}: no run that has trained with --objective")
        test, before = subject.truth(), Evaluated(model.config, pretrained)
        if test.ndim < 2:
            raise UsageError(f"{arguments.logdir}: its real data are an oracle's, and no test set")
        nll = before.nll(tf.constant(test)).numpy().mean()
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(["policy", *Reweighted._fields])

        def write(name: str, *values: float) -> None:
            out.writerow([name, *(f"{value:.5g}" for value in values)])
            sys.stdout.flush()

        def write_trained(name: str, evaluated: Evaluated) -> None:
            figures = evaluated.towards(objective, pretrained, arguments.n, 0)
            added = evaluated.nll(tf.constant(test)).numpy().mean() - nll
            write(name, figures["objective"][0], figures["kl_to_pretrained"][0], added, 1)

        write_trained("trained", subject.evaluated)
        drawn = np.concatenate(list(portions(before, arguments.n, [], 1.0, 1)))
        scores, real = (objective.score(rows).astype(np.float64) for rows in (drawn, test))
        write("pretrained", scores.mean(), 0, 0, 1)
        write("test set", real.mean(), np.nan, np.nan, np.nan)
        for count in arguments.best_of:
            write(f"best of {count}", *best_of(scores, real, count))
        for beta in arguments.beta:
            write(f"least KL, beta {beta:g}", *tilted(scores, real, beta))
        if arguments.mle_steps:
            more = continued(subject, objective, pretrained, arguments.mle_steps, arguments.mle_lr, arguments.least)
            for name in more:
                write_trained(name, Evaluated(model.config, model.generator))
    except OSError as error:
        parser.error(f"{error.filename or arguments.logdir}: {error.strerror or first_line(error)}")
    except UsageError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
