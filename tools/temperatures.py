"""Quality against diversity: python tools/temperatures.py LOGDIR... [--checkpoints] [-o FIGURE.png] [--csv FILE.csv].

Measures each run's generator with its logits divided by temperatures, on the run's own data. Lower temperatures give
likelier and less varied samples, for nothing: a method is better only where it lies beyond another's whole curve.
Beside the curves: the path of adversarial training; samples that the discriminator has chosen, and controls of its
choice; averages of generators; and the best that an objective allows without any training.
"""

import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

import numpy as np
import tensorflow as tf
from scipy.special import xlogy
from tqdm import tqdm

from evaluation.discriminator import MeasuredDiscriminator
from evaluation.evaluator import Due, nats
from evaluation.metrics import column, parse
from evaluation.oracle import OracleEvaluator
from evaluation.policy import MeasuredPolicy
from evaluation.run import Evaluation, Measures, evaluator_of
from evaluation.text import TexygenEvaluator
from generator import Averaged, Policy, Tempered
from guidance.choosing import GROUPS, Groups
from runs.directories import PRETRAINED, evaluations_of, spare, write_whole
from runs.logs import with_errors
from runs.schedule import Schedule
from support.config_file import CONFIG, read_config
from support.device import configure_tensorflow
from support.errors import NoGain, UsageError
from support.objective import Objective
from support.parser import Parser, new_file, number
from support.seeds import Purpose, numpy_rng
from support.statistics import Figures, mean_and_error, ratio_and_error
from support.streams import run_tool
from tools.plot_curves import picture, read_run, short_names
from tools.report import REAL, draw_samples, samples
from tools.restored import restore
from tools.study import POINT, points_text, read_table

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
OBJECTIVE_PAIRS = [("kl_to_pretrained", "objective"), ("nll_test", "objective")]
FEW_DRAWS = 10  # effective ones, of which a figure may be far off
ALL = Due(True, True, True)
Row = dict[str, Any]  # of the CSV file: `POINT`, figures and their standard errors


def row(run: str, figures: Figures, temperature: float = 1.0, **at: float) -> Row:
    """A row of a generator's own figures; `at` has its candidates or its epoch."""
    own = {name: pair for name, pair in figures.items() if name != "oracle_entropy" and parse(name)[1] == ""}
    return {"run": run, "temperature": temperature, **at, **with_errors(own)}


class MeasuredRun:
    """A run, its data, and what is measured of them; nothing of the run changes."""

    def __init__(self, logdir: Path, name: str, size: int, guide: bool = False, texygen: bool = False):
        """Loads the run of a --log_dir, which tables call `name`; `size` sequences are drawn for each point.

        `guide`: the policy is the guided one. `texygen` adds Texygen's figures. Raises UsageError: there is no such run
        or no guided policy, its data are not what they were, or not text. Raises OSError: a file can't be read.
        """
        self.run = restore(logdir)
        self.config, self.seqgan = self.run.config, self.run.seqgan
        self.policy = self.run.policy(guide)
        if texygen and self.config.dataset != "text":
            raise UsageError(f"--texygen: {logdir} is a run of --dataset {self.config.dataset}, not of text")
        self.run.as_in_its_evaluations()
        self.name, self.size, self.state = name, size, " guided" if guide else ""
        self.data: Any = self.run.data()
        self.test = getattr(self.data, "test", np.empty([0, self.data.spec.seq_len], np.int32))
        self.lengths = (self.test != self.data.spec.vocab_size).sum(axis=1)
        self.settings = dataclasses.replace(self.config, eval_samples=size)
        self.evaluator = (TexygenEvaluator if texygen else evaluator_of)(self.data, self.settings)
        source = self.run.content.get("objective")  # as the run has it on record
        self.objective = Objective(self.config.objective, self.data.decode, source) if source else None
        self.adversarial = self.run.taken > Schedule(self.config).pretrain_d.end  # whether that phase has begun
        self.policies: list[tuple[str, Policy]] = [(name + self.state, self.policy)]  # measured at temperatures
        self.real: Figures = {}  # of real data, once an evaluation has told them

    def check_same_data(self, first: "MeasuredRun", flag: str = "") -> None:
        """Raises UsageError: this run has other data than the first, training sets aside."""

        def truth(run: MeasuredRun) -> object:
            if run.data.oracle is not None:
                return run.data.entropy
            digests = run.data.digests()
            code = None if digests else run.run.content.get("dataset")  # of a user's own
            return run.data.spec.seq_len, code, {n: each for n, each in digests.items() if not n.endswith(" train")}

        if truth(self) != truth(first):
            jit, other = self.config.jit, first.config.jit
            why = f" (--jit {jit}, not {other}, rounds the oracle's samples otherwise)" if jit != other else ""
            raise UsageError(f"{flag}{self.run.logdir}: a run with other data than {first.run.logdir}{why}")

    def measured(self, policy: Policy) -> MeasuredPolicy:
        """A policy with the seed of the run."""
        return MeasuredPolicy(policy, self.config.seed, self.config.jit)

    def tempered(self, policies: Iterable[tuple[str, Policy]], temperatures: Sequence[float]) -> Iterator[Row]:
        """A row for each policy, with its name, at each temperature; the random numbers are always the same."""
        pretrained = self.seqgan.pretrained
        for name, policy in policies:
            temperature = tf.Variable(1.0, trainable=False)
            measures = Measures(self.measured(Tempered(policy, temperature)), None, None)
            evaluation = Evaluation(self.evaluator, measures, objective=self.objective, pretrained=pretrained)
            for value in temperatures:
                temperature.assign(value)
                found = evaluation.measure(0, ALL, of_discriminator=False, since_pretrained=self.adversarial)
                real = {parse(name)[0].name: pair for name, pair in found.items() if parse(name)[1] == "real"}
                if "oracle_entropy" in found:
                    real |= dict.fromkeys(("nll", "nll_test", "g_entropy"), found["oracle_entropy"])
                self.real = self.real or real
                yield row(name, found, value)

    def chosen(self, numbers: Sequence[int], controls: bool) -> Iterator[Row]:
        """A row for each number n of candidates of which the discriminator keeps one.

        NLLs, entropy and divergences are those of q_n, and what compares samples is of samples of it. With an oracle
        also what D*, the optimal discriminator, would reach, with η = 1. Raises UsageError: now it can't be measured.
        """
        network: Any = self.seqgan.discriminator  # perhaps None, which D* does without
        discriminator = MeasuredDiscriminator(network, self.measured(self.seqgan.policy))
        plain = self.evaluator.of_policy(discriminator.policy, 0, Due(True, False, False))
        evaluators = {n: evaluator_of(self.data, dataclasses.replace(self.settings, candidates=n)) for n in numbers}

        def of_candidates(figures: Figures) -> dict[str, tuple[float, float]]:
            return {name: figures[column(name, "resampled")] for name in plain if column(name, "resampled") in figures}

        for n, evaluator in evaluators.items():
            if isinstance(evaluator, OracleEvaluator):
                figures = evaluator.choose_optimally(discriminator, 0, plain, n)
                yield row(f"{self.name}, candidates by D*", of_candidates(figures), candidates=n)
        try:
            self.run.chooser("--candidates")
        except NoGain as error:  # the D* of an oracle has been measured
            print(f"{self.name}: {error}", file=sys.stderr)
            return
        for n, evaluator in evaluators.items():
            figures = evaluator.of_discriminator(discriminator, 0, plain)
            if "d_eta" not in figures:
                raise UsageError(f"--candidates: {self.name} has too few sequences to choose η on, or to measure")
            eta = tf.constant(figures["d_eta"][0], tf.float32)
            drawn = discriminator.resample(self.size, tf.constant(n), eta, tf.constant(0)).numpy()
            yield row(f"{self.name}, candidates", of_candidates(figures) | self.compared(drawn), candidates=n)
            if controls:
                yield from self.controls(discriminator, float(eta), n, plain)

    def compared(self, drawn: np.ndarray) -> dict[str, tuple[float, float]]:
        """What compares sequences, int32 [n, T], with real ones, and their objective."""
        found = self.evaluator.compare(drawn)
        return found | {"objective": mean_and_error(self.objective.score(drawn))} if self.objective else found

    def controls(self, discriminator: MeasuredDiscriminator, eta: float, n: int, plain: Figures) -> Iterator[Row]:
        """Rows of one of n samples, chosen by the generator's own likelihood, and by log-odds that are of others."""
        rng, (nll, error) = numpy_rng(self.config.seed, Purpose.RESAMPLE), plain["nll_test"]
        pool = discriminator.policy.sample(self.size * n, Purpose.RESAMPLE, tf.constant(0)).numpy()
        groups, noise = pool.reshape(self.size, n, -1), rng.gumbel(size=[self.size, n])
        likelihood = -nats(discriminator.policy, pool).reshape(self.size, n)
        log_odds = eta * discriminator.log_odds(tf.constant(pool)).numpy().reshape(self.size, n)
        gain, error_of_gain = Groups(likelihood[:GROUPS]).gain(-nats(discriminator.policy, self.test), self.lengths)
        chosen = nll - gain, math.hypot(error, error_of_gain)
        permuted = rng.permuted(log_odds, axis=1)  # what these keep has the distribution of G
        for by, weights, pair in (("likelihood", likelihood, chosen), ("permuted log-odds", permuted, (nll, error))):
            kept = groups[np.arange(self.size), (weights + noise).argmax(axis=1)]  # with probabilities by the weights
            yield row(f"{self.name}, candidates by {by}", {"nll_test": pair, **self.compared(kept)}, candidates=n)

    def policy_to_average(self, logdir: Path) -> Policy:
        """That of another run; raises UsageError: it has other data, or its generator another size."""
        other = MeasuredRun(logdir, str(logdir), self.size, guide=bool(self.state))
        other.check_same_data(self, "--average ")
        sizes = [[p.shape for p in (*each.weights, *each.first_state(1))] for each in (self.policy, other.policy)]
        if sizes[0] != sizes[1]:
            raise UsageError(f"--average {logdir}: a generator of another size than that of {self.run.logdir}")
        return other.policy

    def by_objective(self, numbers: Sequence[int], betas: Sequence[float]) -> Iterator[Row]:
        """Rows of what an objective allows without training, from samples of the pretrained generator G₀.

        They are the best of n samples, and G₀·exp(objective / β) / Z: of all distributions of the same mean objective
        that of the least KL from G₀. A row has its β as `temperature`; 0 is rejection of all but the highest score.
        What rests on less than one effective draw is left out, as is an infinite NLL.
        """
        assert self.objective and self.seqgan.pretrained
        policy = self.measured(self.seqgan.pretrained)
        drawn = policy.sample(self.size, Purpose.EVALUATE, tf.constant(0)).numpy()
        scores, real = (self.objective.score(rows).astype(np.float64) for rows in (drawn, self.test))
        points = [("best of n", 1.0, {"candidates": n}, best_of(scores, real, n)) for n in numbers]
        points += [("least KL", beta, {}, least_kl(scores, real, beta)) for beta in betas]
        for name, beta, at, (weights, of_real) in points:
            draws = weights.sum() / np.append(weights, of_real).max()  # as many as weigh as much as the heaviest
            if draws < FEW_DRAWS:
                what = f"{name} {at['candidates']}" if at else f"--beta {beta:g}"
                says = f"{what}: rests on {draws:.2g} effective draws; draw more with -n"
                print(f"warning: {says}" if draws >= 1 else f"{says}; left out", file=sys.stderr)
            if draws < 1:
                continue
            weights, of_real = weights / weights.mean(), of_real / weights.mean()
            figures = {"objective": (np.mean(weights * scores), math.nan)}
            figures["kl_to_pretrained"] = np.mean(xlogy(weights, weights)), math.nan
            if len(self.test) and of_real.all():  # else it is infinite
                nll, error = ratio_and_error(nats(policy, self.test) - np.log(of_real), self.lengths)
                of_draws = mean_and_error(weights)[1] / self.lengths.mean()  # Z is estimated from them
                figures["nll_test"] = nll, math.nan if at else math.hypot(error, of_draws)
            yield row(f"{self.name}, {name}", figures, beta, **at)


def best_of(scores: np.ndarray, real: np.ndarray, count: int) -> list[np.ndarray]:
    """How much likelier each sequence is as the best of `count` samples, a random one of equals, than as any sample.

    `scores` are those of samples, [n], and `real` of real sequences, [m]; both get weights.
    """
    ordered = np.sort(scores)
    below, upto = (np.searchsorted(ordered, np.append(scores, real), side) / len(scores) for side in ("left", "right"))
    density = count * upto ** (count - 1)  # of a score that no sample has
    weights = np.where(upto > below, (upto**count - below**count) / np.where(upto > below, upto - below, 1), density)
    return np.split(weights, [len(scores)])


def least_kl(scores: np.ndarray, real: np.ndarray, beta: float) -> list[np.ndarray]:
    """Weights ∝ exp(score / β) of samples, [n], and of real sequences, [m]; β = 0: the highest score alone."""
    less = np.append(scores, real) - max(scores.max(), real.max(initial=-np.inf))
    return np.split(np.exp(less / beta) if beta else (less == 0).astype(float), [len(scores)])


def path_of(logdir: Path, name: str, epochs: int, guide: bool) -> list[Row]:
    """A run's evaluations: the last one of its pretraining, and those of its first so many adversarial epochs, or [].

    With `guide` they are those of the guided generator. Raises ValueError, OSError: they can't be found or read.
    """
    frame = read_run(evaluations_of(logdir))
    first = frame.epoch[frame.phase == "adversarial"].min()  # NaN where there is none
    start = frame.epoch[frame.epoch < first].max()
    frame = frame[(frame.epoch >= np.fmin(start, first)) & (frame.epoch < first + epochs)]
    figures = frame.columns.drop(["epoch", "phase", "oracle_entropy", "oracle_entropy_se"], errors="ignore")
    try:
        parsed = {figure: parse(figure.removesuffix("_se")) for figure in figures}
    except KeyError as error:
        raise UsageError(f"{logdir}: {error.args[0]}") from None
    of = "guided" if guide else ""
    names = {name: metric.name + "_se" * name.endswith("_se") for name, (metric, form) in parsed.items() if form == of}
    rows = frame.groupby("epoch")[list(names)].last().dropna(how="all").rename(columns=names).reset_index()
    return rows.assign(run=f"{name}, training", temperature=1.0).to_dict("records")


def names_of(logdirs: Sequence[Path]) -> list[str]:
    """The names of runs; of seeds alone, as where all runs are of one method of a sweep, with the folder above them."""
    names = short_names(logdirs)
    above = [[f.parent for f in d.absolute().parents if f.name == n] for d, n in zip(logdirs, names, strict=True)]
    if not all(name.isdigit() for name in names) or not all(above):
        return names
    parts = [(short, each[0].name) for short, each in zip(short_names([each[0] for each in above]), above, strict=True)]
    methods = [short if short.endswith(method) else f"{short}/{method}" for short, method in parts]
    return [f"{method}/{name}" for method, name in zip(methods, names, strict=True)]


def check_together(arguments: Any, logdirs: Sequence[Path]) -> None:
    """Raises UsageError: flags contradict each other, or runs of several objectives would be in one table."""
    if arguments.guide and arguments.candidates:
        raise UsageError("--candidates are drawn from the generators themselves: not with --guide")
    if arguments.guide and arguments.checkpoints:
        raise UsageError("--checkpoints measures the end of pretraining, when nothing guides yet: not with --guide")
    if arguments.controls and not arguments.candidates:
        raise UsageError("--controls has no effect without --candidates")
    if arguments.average and len(logdirs) > 1:
        raise UsageError("--average: one LOGDIR alone is averaged with others")
    averaged = [os.path.realpath(logdir) for logdir in (*logdirs, *arguments.average)]
    if arguments.average and len(set(averaged)) < len(averaged):
        raise UsageError("--average: a run is given twice")
    asked: dict[str, str] = {}  # the objective of the runs that have one
    for logdir in logdirs:
        if not (logdir / CONFIG).exists():
            raise UsageError(f"{logdir}: no run (there is no {CONFIG})")
        if (source := read_config(logdir / CONFIG).get("objective", asked)) != asked and asked:
            raise UsageError(f"{logdir}: another objective than that of the runs before")
        asked = source


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used, 3 for `NoGain`."""
    parser = Parser(prog="temperatures.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "default": ()}
    add("logdirs", nargs="+", type=Path, metavar="LOGDIR", help="--log_dir of runs with the same data")
    add("--guide", action="store_true", help="measure the guided generators of the runs")
    add("--checkpoints", action="store_true", help="also measure the end of each run's pretraining")
    text = "also show the evaluations of the first so many adversarial epochs"
    add("--path", type=number(int, 1, None), metavar="INT", help=text)
    text = f"divide the logits (default: {' '.join(f'{t:g}' for t in TEMPERATURES)})"
    add("--temperatures", nargs="+", type=number(float, 1e-3, 1e3), default=TEMPERATURES, metavar="FLOAT", help=text)
    text = "also measure one of so many samples, chosen by the discriminator"
    add("--candidates", **several, type=number(int, 1, 1024), metavar="INT", help=text)
    add("--controls", action="store_true", help="and chosen by the generator's likelihood, and by permuted log-odds")
    text = "runs of other seeds, whose generators are averaged with that of LOGDIR: the first, the first two, ..."
    add("--average", **several, type=Path, metavar="LOGDIR", help=text)
    text = "--objective: also measure the best of so many samples of the pretrained generator"
    add("--best_of", **several, type=number(int, 2, None), metavar="INT", help=text)
    text = "--objective: also measure exp(objective / FLOAT) times the pretrained generator; 0: the highest score alone"
    add("--beta", **several, type=number(float, 0, None), metavar="FLOAT", help=text)
    add("-n", type=number(int, 2, None), default=256, metavar="INT", help="sequences drawn for a point (default: 256)")
    add("--texygen", action="store_true", help="text: also BLEU and NLL_gen as Texygen has them; best with -n 10000")
    add("-o", "--output", type=picture, metavar="FIGURE", help="a picture of the planes")
    add("--csv", type=new_file, metavar="FILE", help="all figures and their errors")
    arguments = parser.parse_args(argv)
    lists = arguments.temperatures, arguments.candidates, arguments.best_of, arguments.beta
    temperatures, candidates, numbers, betas = (sorted(set(values)) for values in lists)
    with parser.failing_in_one_line(arguments.output):
        for output in (arguments.output, arguments.csv):
            spare(output)
        if arguments.csv and arguments.output and os.path.realpath(arguments.csv) == os.path.realpath(arguments.output):
            raise UsageError(f"--csv {arguments.csv}: is -o, too")
        logdirs = list(dict.fromkeys(arguments.logdirs))
        check_together(arguments, logdirs)
        configure_tensorflow(cache=True)
        tf.get_logger().setLevel("ERROR")  # it warns of retracing, which several runs in one process are bound to cause
        names = dict(zip(logdirs, names_of(logdirs), strict=True))
        epochs, guide = arguments.path, arguments.guide
        # First, lest what was measured is lost.
        paths = [point for logdir in logdirs if epochs for point in path_of(logdir, names[logdir], epochs, guide)]
        if epochs and not paths:
            raise UsageError("--path: no run has evaluations of an adversarial phase")
        subjects: list[MeasuredRun] = []
        for logdir, name in names.items():
            subjects.append(subject := MeasuredRun(logdir, name, arguments.n, guide, arguments.texygen))
            subject.check_same_data(subjects[0])
            subject.run.spare([arguments.output, arguments.csv])
            if arguments.checkpoints:
                subject.policies.insert(0, (f"{name} pretrained", restore(logdir, PRETRAINED).seqgan.policy))
            if arguments.controls and not len(subject.test):
                raise UsageError(f"--controls: {logdir} has no test set")
            if (numbers or betas) and not (subject.objective and subject.adversarial):
                raise UsageError(f"{logdir}: no run that has trained with --objective")
            if candidates and subject.data.oracle is None:
                subject.run.chooser("--candidates")
        first = subjects[0]
        alike = [first.policy, *map(first.policy_to_average, arguments.average)]
        counts = range(2, len(alike) + 1)  # the first two, the first three, ...
        averages = [(f"average of {n}/{first.config.seed}{first.state}", Averaged(alike[:n])) for n in counts]
        rows: list[Row] = []
        each = len(temperatures) * (len(first.policies) + len(averages)) + len(numbers) + len(betas)
        total = len(subjects) * (each + len(candidates) * (1 + 2 * arguments.controls))
        with tqdm(total=total, unit="point", disable=None) as bar:
            for subject in subjects:
                subject.run.as_in_its_evaluations()
                for point in itertools.chain(
                    subject.tempered(subject.policies, temperatures),
                    subject.chosen(candidates, arguments.controls) if candidates else (),
                    subject.tempered(averages, temperatures),
                    subject.by_objective(numbers, betas) if numbers or betas else (),
                ):
                    rows.append(point)
                    bar.update()
        real = subjects[0].real
        content = points_text([*rows, *paths, *([{"run": REAL, **with_errors(real)}] if real else [])])
        frame = read_table(arguments.csv or Path("points"), POINT, content)
        print(samples(frame))  # before what may fail
        if arguments.csv:
            write_whole(arguments.csv, content)
        if arguments.output:
            draw_samples(arguments.output, frame, pairs=OBJECTIVE_PAIRS if numbers or betas else ())
    return 0


if __name__ == "__main__":
    run_tool(main)
