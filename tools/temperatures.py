"""Quality against diversity: python tools/temperatures.py LOGDIR... [--checkpoints] [-o FIGURE.png] [--csv FILE.csv].

Measures each run's generator with its logits divided by temperatures, on the run's own data. Lower temperatures give
likelier and less varied samples, for nothing: so a method is better than another one only where it lies beyond the
other's whole curve. Beside the curves, the path that adversarial training took, and what is kept of candidates among
which the run's discriminator chooses.
"""

import csv
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data import Dataset, Due
from data.texygen import TexygenData
from data.training_set import spread
from main import DATASETS
from model import SeqGAN
from oracle import OracleData
from runs.console import GUIDED, RESAMPLED
from runs.directories import PRETRAINED, evaluations_of, steps_taken
from runs.logs import with_errors
from runs.schedule import Schedule
from support.config import Config
from support.errors import UsageError
from support.config_file import CONFIG, read_config
from support.device import configure_tensorflow
from support.metrics import distinct, mean_and_error
from support.objective import Objective
from support.parser import Parser, new_file, number
from support.streams import escape_unprintable, keep_writing
from tools.measured import REAL, Figures, Point, table
from tools.planes import draw
from tools.plot_curves import markdown, picture, read_run, short_names
from tools.sample import check_knows

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)


def data_of(logdir: Path, config: Config, kind: Callable[[Config], Dataset] | None = None) -> Dataset:
    """The data of the run in a --log_dir; `kind` reads them in another way than `DATASETS`.

    Raises UsageError: they are not what they were. Raises OSError: a file can't be read.
    """
    data = (kind or DATASETS[config.dataset])(config)
    recorded, digests = read_config(logdir / CONFIG), data.digests()
    kept = all((logdir / name).read_bytes() == content.encode() for name, content in data.files().items())
    if not kept or recorded.get("data", digests) != digests:
        raise UsageError(f"{logdir}: the run has read other data than {data.origin} has now")
    return data


class Subject:
    """A run, its data, and the states of its generator that are measured."""

    def __init__(self, logdir: Path, samples: int, pretraining: bool, guide: bool = False, texygen: bool = False):
        """Loads the run of a --log_dir; `samples` are what an evaluation draws; `guide`: the guided generator's.

        `texygen` adds Texygen's figures. Raises UsageError: there is no such run, no such checkpoint, its data are not
        what they were, or not text. Raises OSError: a file can't be read.
        """
        self.logdir, self.model = logdir, SeqGAN.restored(logdir)
        tf.config.experimental.enable_tensor_float_32_execution(self.model.config.tf32)  # as in its evaluations
        self.evaluated = self.model.choice(guide)
        self.states = {"guided" if guide else "": [weight.numpy() for weight in self.evaluated.policy.weights]}
        if pretraining:
            before = SeqGAN.restored(logdir, PRETRAINED).choice(guide)
            self.states = {"pretrained": [weight.numpy() for weight in before.policy.weights]} | self.states
        config = dataclasses.replace(self.model.config, eval_samples=samples)
        if texygen and config.dataset != "text":
            raise UsageError(f"--texygen: {logdir} is a run of --dataset {config.dataset}, not of text")
        self.data: Any = data_of(logdir, config, TexygenData if texygen else None)
        recorded = read_config(logdir / CONFIG)
        self.samples, self.objective = samples, None
        if source := recorded.get("objective"):
            self.objective = Objective(config.objective, source, self.data.decode)
        self.adversarial = steps_taken(logdir) > Schedule(config).pretraining

    def truth(self) -> tuple[object, ...]:
        """What tells the data of two runs apart: the oracle's entropy, or checksums of all but the training set."""
        if isinstance(self.data, OracleData):
            return tuple(np.ravel(self.data.entropy))
        held_out = {name: digest for name, digest in self.data.digests().items() if not name.endswith(" train")}
        return self.data.config.seq_len, held_out

    def measure(self, name: str, temperatures: Sequence[float]) -> Iterator[Point]:
        """A point for each state and temperature, in their order; all of them with the same random numbers."""
        policy = self.evaluated.policy
        for state, values in self.states.items():
            for weight, value in zip(policy.weights, values, strict=True):
                weight.assign(value)
            for temperature in temperatures:
                with policy.at_temperature(temperature), np.errstate(all="ignore"):
                    figures = self.data.evaluate(self.evaluated, 0, Due(True, True, True))
                    if self.objective:
                        of_it = self.evaluated.towards(self.objective, self.model.pretrained, self.samples, 0)
                        figures |= of_it if self.adversarial else {"objective": of_it["objective"]}
                        if len(real := spread(self.data.validation(), self.samples)):
                            figures["real_objective"] = mean_and_error(self.objective.score(real))
                yield Point(" ".join([name, state]).strip(), temperature, figures)

    def choose(self, name: str, numbers: Sequence[int]) -> Iterator[Point]:
        """A point for each number of candidates, at temperature 1, with the weights that were loaded last.

        NLLs, entropy and divergences are those of q_n, and what compares samples is of samples of it. η is chosen on
        the validation set. With an oracle also what D*, the optimal discriminator, would reach, with η = 1. Raises
        UsageError: the discriminator was not found to know anything, or now it can't be measured.
        """
        config, oracle = self.data.config, isinstance(self.data, OracleData)
        plain = self.data.evaluate(self.model, 0, Due(True, True, True))
        for n in numbers if oracle else ():
            figures = self.data.choose_optimally(self.model, 0, plain, n)
            measured = {name.removesuffix(RESAMPLED): pair for name, pair in figures.items()}
            yield Point(f"{name}, candidates by D*", 1.0, measured, candidates=n)
        try:
            check_knows(self.model, self.logdir, "--candidates")
        except UsageError as error:
            if not oracle:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            return
        for n in numbers:
            self.data.config = dataclasses.replace(config, candidates=n)
            figures = self.data.evaluate_discriminator(self.model, 0, plain)
            if "d_eta" not in figures:
                raise UsageError(f"--candidates: {name} has too few sequences to choose η on, or to measure")
            eta = tf.constant(figures["d_eta"][0], tf.float32)
            drawn = self.model.resample(config.eval_samples, tf.constant(n), eta, tf.constant(0)).numpy()
            compared = {"distinct2": distinct(drawn)} if oracle else self.data.compare(drawn)
            if self.objective:
                compared |= {"objective": mean_and_error(self.objective.score(drawn))}
            measured = {name: figures[f"{name}{RESAMPLED}"] for name in plain if f"{name}{RESAMPLED}" in figures}
            yield Point(f"{name}, candidates", 1.0, measured | compared, candidates=n)


def path_of(logdir: Path, name: str, epochs: int, guide: bool) -> list[Point]:
    """A run's evaluations: the last one of its pretraining, and those of its first so many adversarial epochs, or [].

    With `guide` they are those of the guided generator.

    Raises UsageError, ValueError, OSError: they can't be found or read.
    """
    curves, first = read_run(evaluations_of(logdir))
    if first is None:
        return []
    rows: dict[int, Figures] = {}
    if guide:
        curves = {figure.removesuffix(GUIDED): curve for figure, curve in curves.items() if figure.endswith(GUIDED)}
    for figure, curve in curves.items():
        for epoch, *pair in zip(*map(np.ndarray.tolist, curve), strict=True):
            rows.setdefault(epoch, {})[figure] = tuple(pair)
    start = max((epoch for epoch in rows if epoch < first), default=first)
    within = (epoch for epoch in sorted(rows) if start <= epoch < first + epochs)
    return [Point(f"{name}, training", 1.0, rows[epoch], epoch) for epoch in within]


def seed_of(logdir: Path, name: str) -> str:
    """The name of a run; of a seed alone, as where all runs are of one method of a sweep, with the folder above it."""
    above = [folder.parent.name for folder in logdir.absolute().parents if folder.name == name]
    return f"{above[0]}/{name}" if name.isdigit() and above and above[0] else name


def real_apart(points: Sequence[Point]) -> list[Point]:
    """The points with the figures of real data, where there are any, as a point of their own at the end."""
    first = points[0].figures
    real = {name.removeprefix("real_"): pair for name, pair in first.items() if name.startswith("real_")}
    if "oracle_entropy" in first:
        real |= dict.fromkeys(("nll", "nll_test", "g_entropy"), first["oracle_entropy"])
    left_out = ("oracle_entropy", *(f"real_{name}" for name in real))
    kept = [point._replace(figures={n: v for n, v in point.figures.items() if n not in left_out}) for point in points]
    return kept + ([Point(REAL, 0.0, real)] if real else [])


def write_csv(points: Sequence[Point], path: Path) -> None:
    """A row a point, with all figures and errors; real data have no temperature. Raises OSError."""
    names = list(dict.fromkeys(name for point in points for name in point.figures))
    with open(path, "w", newline="", encoding="utf-8") as file:
        when = [name for name in ("epoch", "candidates") if any(getattr(point, name) is not None for point in points)]
        columns = ["run", "temperature", *when, *(column for name in names for column in (name, f"{name}_se"))]
        rows = csv.DictWriter(file, columns, lineterminator="\n")
        rows.writeheader()
        for point in points:
            numbers = {name: repr(float(value)) for name, value in with_errors(point.figures).items()}
            at = {name: getattr(point, name) for name in when}
            rows.writerow({"run": point.curve, "temperature": point.temperature or "", **at, **numbers})


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="temperatures.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("logdirs", nargs="+", type=Path, metavar="LOGDIR", help="--log_dir of runs with the same data")
    add("--guide", action="store_true", help="measure the guided generators of the runs")
    add("--checkpoints", action="store_true", help="also measure the end of each run's pretraining")
    text = "also show the evaluations of the first so many adversarial epochs"
    add("--path", type=number(int, 1, None), metavar="INT", help=text)
    text = f"divide the logits (default: {' '.join(f'{t:g}' for t in TEMPERATURES)})"
    add("--temperatures", nargs="+", type=number(float, 1e-3, 1e3), default=TEMPERATURES, metavar="FLOAT", help=text)
    text = "also measure what is kept of so many samples, chosen by the discriminator"
    add("--candidates", nargs="+", type=number(int, 1, 1024), default=(), metavar="INT", help=text)
    text = "sequences drawn at each temperature (default: 256)"
    add("-n", type=number(int, 2, None), default=256, metavar="INT", help=text)
    text = "text: also measure BLEU and NLL_gen as Texygen defines them; papers take some thousand sequences (-n)"
    add("--texygen", action="store_true", help=text)
    add("-o", "--output", type=picture, metavar="FIGURE", help="a picture of the planes")
    add("--csv", type=new_file, metavar="FILE", help="all figures and their errors")
    text = "compile afresh, and keep nothing"
    add("--no-compile_cache", dest="compile_cache", action="store_false", help=text)
    arguments = parser.parse_args(argv)
    temperatures, candidates = sorted(set(arguments.temperatures)), sorted(set(arguments.candidates))
    with parser.failing_in_one_line(arguments.output):
        if arguments.guide and candidates:
            raise UsageError("--candidates are drawn from the generators themselves: not with --guide")
        if arguments.guide and arguments.checkpoints:
            raise UsageError("--checkpoints measures the end of pretraining, when nothing guides yet: not with --guide")
        configure_tensorflow(keep_compiled=("temperatures.py",) if arguments.compile_cache else ())
        tf.get_logger().setLevel("ERROR")  # it warns of retracing, which several runs in one process are bound to cause
        logdirs = list(dict.fromkeys(arguments.logdirs))
        names = [seed_of(logdir, name) for logdir, name in zip(logdirs, short_names(logdirs), strict=True)]
        points: list[Point] = []
        first: Subject | None = None
        paths: list[list[Point]] = []
        if arguments.path:  # first, as what is missing would cost all that was measured
            runs = zip(logdirs, names, strict=True)
            paths = [path_of(logdir, name, arguments.path, arguments.guide) for logdir, name in runs]
            if not any(paths):
                raise UsageError("--path: no run has evaluations of an adversarial phase")
        asked: dict[str, str] = {}  # the objective of the runs that have one
        for logdir in (each for each in logdirs if (each / CONFIG).exists()):
            if (source := read_config(logdir / CONFIG).get("objective", asked)) != asked and asked:
                raise UsageError(f"{logdir}: another objective than that of the runs before")
            asked = source
        states = len(names) * (1 + arguments.checkpoints)
        with tqdm(total=states * len(temperatures) + len(names) * len(candidates), unit="point", disable=None) as bar:
            for logdir, name in zip(logdirs, names, strict=True):
                subject = Subject(logdir, arguments.n, arguments.checkpoints, arguments.guide, arguments.texygen)
                first = first or subject
                if subject.truth() != first.truth():
                    jit, other = subject.model.config.jit, first.model.config.jit
                    why = f" (--jit {jit}, not {other}, rounds the oracle's samples otherwise)" if jit != other else ""
                    raise UsageError(f"{logdir}: a run with other data than {logdirs[0]}{why}")
                for point in subject.measure(name, temperatures):
                    points.append(point)
                    bar.update()
                for point in subject.choose(name, candidates) if candidates else ():
                    points.append(point)
                    bar.update()
        points = real_apart([*points, *(point for path in paths for point in path)])
        escape_unprintable()
        print(markdown(table(points)))
        if arguments.csv:
            write_csv(points, arguments.csv)
        if arguments.output:
            draw(points, arguments.output)
    return 0


if __name__ == "__main__":
    keep_writing()
    sys.exit(main())
