"""What choosing is compared with: python tools/controls.py LOGDIR [--average LOGDIR...] [--fresh] [--csv FILE.csv].

A run's discriminator chooses among samples of its generator G (tools/temperatures.py --candidates). The controls: G
itself; one of n by G's own likelihood; one of n by log-odds that are not its own; other generators averaged with G;
and a fresh discriminator, trained like the run's against what that one has chosen, which should know less.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from data import Due
from data.held_out import D_FIGURES, resampled, what_d_knows
from data.training_set import spread
from evaluation import Evaluated, in_chunks
from generator import Policy, State
from model import SeqGAN
from resampling import GROUPS, Groups
from support.errors import UsageError
from support.device import configure_tensorflow
from support.parser import Parser, new_file, number
from support.seeds import Purpose, numpy_rng
from support.streams import keep_writing
from tools.measured import Figures, Point, table
from tools.plot_curves import markdown
from tools.sample import check_knows
from tools.temperatures import Subject, real_apart, write_csv

POOL = 65_536  # samples of G of which the fakes of a fresh discriminator are chosen


class Average(Policy):
    """The mean of several generators' probabilities of the next token; by Jensen its NLL is at most their mean."""

    def __init__(self, generators: Sequence[Policy]):
        """`generators` are of one vocabulary, length and size."""
        first = generators[0]
        self.generators, self.weights = generators, [weight for each in generators for weight in each.weights]
        self.vocab_size, self.seq_len = first.vocab_size, first.seq_len
        self.start_token, self.end_token = first.start_token, first.end_token
        self.hidden_dim = first.hidden_dim * len(generators)

    def _parts(self, joined: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(joined, len(self.generators), axis=-1)

    def _joined(self, states: Sequence[State]) -> State:
        return State(*(tf.concat(parts, axis=-1) for parts in zip(*states, strict=True)))

    def first_state(self, batch_size: int) -> State:
        """As in `Policy`; the generators' states side by side."""
        return self._joined([each.first_state(batch_size) for each in self.generators])

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """As in `Policy`."""
        own = map(State, self._parts(state.hidden), self._parts(state.cell))
        return self._joined([each.next_state(tokens, s) for each, s in zip(self.generators, own, strict=True)])

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `Policy`."""
        return self._joined([each.states(tokens, dropout_seed) for each in self.generators])

    def projection(self) -> tf.Tensor:
        """Those of the generators, float32 [k, H + 1, V]."""
        return tf.stack([each.projection() for each in self.generators])

    def _mean(self, log_probs: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.reduce_logsumexp(tf.stack(log_probs), axis=0) - np.log(len(self.generators)).astype(np.float32)

    def logits(self, hidden: tf.Tensor, projection: tf.Tensor | None = None) -> tf.Tensor:
        """The logarithm of the mean probability of each next token: [..., k · H] → float32 [..., V]."""
        projections = tf.unstack(self.projection() if projection is None else projection)
        parts = zip(self.generators, self._parts(hidden), projections, strict=True)
        return self._mean([tf.nn.log_softmax(each.logits(*pair)) for each, *pair in parts])

    def _log_probs_after(self, hidden: tf.Tensor, tokens: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
        parts = zip(self.generators, self._parts(hidden), tf.unstack(projection), strict=True)
        return self._mean([each._log_probs_after(part, tokens, p) for each, part, p in parts])


class Chosen:
    """Sequences, int32 [n, T], that stand for a policy: drawn from with replacement."""

    def __init__(self, tokens: np.ndarray):
        """Draws from `tokens`."""
        self.tokens, self.seq_len = tf.constant(tokens), tokens.shape[1]

    def sample(self, uniforms: tf.Tensor) -> tf.Tensor:
        """As in `Policy`; the first row of the numbers decides."""
        return tf.gather(self.tokens, tf.cast(uniforms[0] * self.tokens.shape[0], tf.int32))


def controls(subject: Subject, others: Sequence[Path], count: int, fresh: bool) -> dict[str, Figures]:
    """The figures of each control, by its name; of the averages alone on the oracle, or where D is uninformative.

    Raises UsageError: another run has other data, or a generator of another size.
    """
    model, data, config, recorded = subject.model, subject.data, subject.data.config, subject.model.recorded
    found = {"generator": data.evaluate(model, 0, Due(True, True, True))}
    averaged = [model.averaged]
    for logdir in others:
        other = Subject(logdir, subject.samples, pretraining=False)
        if other.truth() != subject.truth():
            raise UsageError(f"--average {logdir}: a run with other data than {subject.logdir}")
        averaged.append(other.model.averaged)
        kinds = [(each.seq_len, [weight.shape for weight in each.weights]) for each in averaged]
        if kinds[0] != kinds[-1]:
            raise UsageError(f"--average {logdir}: a generator of another size than that of {subject.logdir}")
        average = Evaluated(config, Average(averaged[:]))
        found[f"average of {len(averaged)}"] = data.evaluate(average, 0, Due(True, True, True))
    if config.dataset == "LSTM" or not len(data.test):  # D* tells more there; nothing to measure a choice on
        return found
    try:
        check_knows(model, subject.logdir, "--candidates")
    except UsageError as error:
        print(error, file=sys.stderr)
        return found
    found["generator"] |= {name: tuple(recorded[name]) for name in D_FIGURES if name in recorded}
    eta, size, rng = recorded["d_eta"][0], config.eval_samples, numpy_rng(config.seed, Purpose.RESAMPLE)
    pool = model.sample(size * count, Purpose.RESAMPLE, tf.constant(0)).numpy()
    both = tf.constant(np.concatenate([pool, data.test]))
    odds, log_g = eta * model.log_odds(both).numpy(), log_likelihood(model)(both).numpy()
    of_pool, lengths = slice(len(pool)), (data.test != model.generator.vocab_size).sum(axis=1)
    noise = rng.gumbel(size=[size, count])  # the largest sum is that of each in proportion to its weight
    for name, values in (("", odds), (" by its likelihood", log_g), (" by permuted log-odds", odds)):
        weights = values[of_pool].reshape(size, count)
        change = Groups(weights[:GROUPS]).gain(values[len(pool) :], lengths)
        if "permuted" in name:  # what is kept has then the distribution of G
            weights, change = rng.permuted(weights, axis=1), (0.0, 0.0)
        kept = pool.reshape(size, count, -1)[np.arange(size), (weights + noise).argmax(axis=1)]
        nll = resampled(found["generator"], {"nll_test": (-change[0], change[1])}).values()
        found[f"one of {count}{name}"] = dict(zip(["nll_test"], nll, strict=True)) | data.compare(kept)
    if fresh:
        found[f"fresh discriminator, one of {count}"] = fresh_discriminator(subject, eta, count)
    return found


def log_likelihood(model: SeqGAN) -> Callable[[tf.Tensor], tf.Tensor]:
    """Log G of sequences, nats: int32 [n, T] → float32 [n]; compiled."""

    def of_part(tokens: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(model.averaged.log_probs(tokens), axis=1)

    return tf.function(lambda tokens: in_chunks(of_part, tokens), jit_compile=model.config.jit, autograph=False)


def chosen(log_weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Which draws of a pool stand for q_n, as many as it has: each is kept of a group that is drawn with replacement.

    `log_weights` are those of the draws, [m]; int [m].
    """
    groups = rng.integers(len(log_weights), size=[len(log_weights), count])
    values = log_weights[groups] + rng.gumbel(size=groups.shape)
    return groups[np.arange(len(groups)), values.argmax(axis=1)]


def fresh_discriminator(subject: Subject, eta: float, count: int) -> Figures:
    """What a discriminator of other first weights finds, trained as the run's but with samples of q_n as fakes.

    Those that it is trained with are chosen among groups of POOL samples of G, so that some of them repeat; those that
    it is measured on are fresh.
    """
    model, data, config = subject.model, subject.data, subject.model.config
    generator = model.generator
    own = dataclasses.replace(config, seed=config.seed + 1)
    another = SeqGAN(own, generator.vocab_size, generator.start_token, generator.end_token)
    pool = model.sample(POOL, Purpose.RESAMPLE, tf.constant(1)).numpy()
    log_weights = eta * model.log_odds(tf.constant(pool)).numpy()
    kept = chosen(log_weights, count, numpy_rng(config.seed, Purpose.RESAMPLE, 1))
    another.averaged = Chosen(pool[kept])  # type: ignore[assignment]
    for step in range(config.pretrain_d_epochs):
        another.d_step(data.real(step), tf.constant(step))

    def sample(size: int, purpose: Purpose, step: tf.Tensor) -> tf.Tensor:
        del purpose
        return model.resample(size, tf.constant(count), tf.constant(eta, tf.float32), step)

    known = SimpleNamespace(sample=sample, log_odds=another.log_odds)
    valid, test = (spread(rows, config.d_eval_samples) for rows in (data.valid, data.test))
    return what_d_knows(known, valid, test, 0, generator.vocab_size).figures


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="controls.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("logdir", type=Path, metavar="LOGDIR", help="--log_dir of a run")
    parser.add_argument("--average", nargs="+", type=Path, default=[], metavar="LOGDIR", help="runs of other seeds")
    parser.add_argument("--candidates", type=number(int, 2, 1024), metavar="INT", help="(default: 16)")
    parser.add_argument("--fresh", action="store_true", help="also train a fresh discriminator")
    parser.add_argument("-n", type=number(int, 2, None), default=1000, metavar="INT", help="samples (default: 1000)")
    parser.add_argument("--csv", type=new_file, metavar="FILE", help="all figures and their errors")
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.csv):
        configure_tensorflow()
        runs = [logdir.resolve() for logdir in (arguments.logdir, *arguments.average)]
        if len(set(runs)) < len(runs):
            raise UsageError("--average: a run is given twice")
        subject = Subject(arguments.logdir, arguments.n, pretraining=False)
        oracle = subject.model.config.dataset == "LSTM"
        if (oracle or not len(subject.data.test)) and (
            arguments.fresh or arguments.candidates or not arguments.average
        ):
            what = "on the oracle" if oracle else "without a test set"
            raise UsageError(f"{arguments.logdir}: a run {what} has the control --average alone")
        found = controls(subject, arguments.average, arguments.candidates or 16, arguments.fresh)
        points = [Point(f"{name}/{subject.model.config.seed}", 1.0, figures) for name, figures in found.items()]
        if arguments.csv:
            write_csv(real_apart(points), arguments.csv)
        print(markdown(table(points)))
    return 0


if __name__ == "__main__":
    keep_writing()
    sys.exit(main())
