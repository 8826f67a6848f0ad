"""Runs on text beside a trigram model: python -m experiments.kneser_ney LOGDIR... -o FILE.csv [--updates N].

Of each run it measures the generator, guided where the run guides it, alone and mixed with a trigram model of the same
training set by interpolated Kneser-Ney smoothing (Chen and Goodman, 1999). The mixture's weight is the best on the
validation set. With --updates the run's generator, or with --fresh a new one, then learns from the mixture, as
--g_update distil does (rate 0.001 or 0.005, cosine decay). It is measured at temperature 1 and at the best one of 0.8
to 1.5. All runs must have the same data. `change` is NLL_test less that of the first run with the same seed; `low` and
`high` are its 95 % interval by a paired bootstrap over test sequences (scipy.stats.bootstrap, 9,999 draws).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import support.quiet  # noqa: F401 - before TensorFlow

import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.stats import bootstrap

from data.real import Dataset
from generator import Generator, Policy, PolicyWrapper, State, Tempered
from guidance.distilling import Distillation
from model import GRADIENT_NORM, adam, build
from runs.directories import spare, write_whole
from support.errors import UsageError
from support.parser import Parser, new_file, number
from support.streams import run_tool
from tools.restored import Restored, restore


class KneserNey:
    """A trigram model: p(c | a, b), from the counts of (a, b, c), interpolated with those of (b, c) and of c."""

    def __init__(self, tokens: np.ndarray, start: int, padding: int):
        """Counts sequences, int32 [n, T], with two `start` tokens before each; `padding`, V, is no token."""
        # The discount of an order is n₁ / (n₁ + 2 n₂), where n_k n-grams have the count k.
        self.start, self.padding, self.ids = start, padding, max(start, padding) + 1
        grams, counts = np.unique(self._grams(tokens), axis=0, return_counts=True)
        self.orders = []
        for _ in range(3):  # of (a, b, c), (b, c) and c; lower ones count what precedes them, not how often
            n1, n2 = (max(int((counts == k).sum()), 1) for k in (1, 2))
            discount = n1 / (n1 + 2 * n2)
            contexts, place = np.unique(self._number(grams[:, :-1]), return_inverse=True)
            totals = np.append(np.bincount(place, counts), 1)  # the last is that of a context never seen
            shares = (counts - discount) / totals[place]
            table = csr_array((shares, (place, grams[:, -1])), shape=(len(totals), padding))
            self.orders.append((contexts, table, np.append(discount * np.bincount(place), 1) / totals))
            grams, counts = np.unique(grams[:, 1:], axis=0, return_counts=True)

    def _number(self, contexts: np.ndarray) -> np.ndarray:
        """A number for each context, int [m, 0 to 2] -> int64 [m]."""
        return contexts.astype(np.int64) @ self.ids ** np.arange(contexts.shape[1])

    def _grams(self, tokens: np.ndarray) -> np.ndarray:
        """The trigrams of sequences, int [m, 3], those with padding left out; by rows, then by time."""
        padded = np.pad(tokens, [(0, 0), (2, 0)], constant_values=self.start)
        grams = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1).reshape(-1, 3)
        return grams[grams[:, 2] != self.padding]

    def rows(self, contexts: np.ndarray) -> np.ndarray:
        """p(· | the last two tokens): int [m, 2] → float64 [m, V]."""
        mixed = np.full([len(contexts), self.padding], 1 / self.padding)
        shorter_first = zip((contexts[:, :0], contexts[:, 1:], contexts), self.orders[::-1], strict=True)
        for used, (known, table, left) in shorter_first:
            number = self._number(used)
            place = np.minimum(known.searchsorted(number), len(known) - 1)
            place = np.where(known[place] == number, place, len(known))
            mixed = table[place].toarray() + left[place, None] * mixed
        return mixed

    def probs(self, tokens: np.ndarray) -> np.ndarray:
        """The probability of each token of sequences, float64 [m]; by rows, then by time, without padding."""
        parts = np.array_split(self._grams(tokens), len(tokens) // 250 + 1)
        return np.concatenate([self.rows(part[:, :2])[np.arange(len(part)), part[:, 2]] for part in parts])


class Mixture(PolicyWrapper):
    """w · p(y_t | y_{t-2}, y_{t-1}) + (1 - w) · G(y_t | y_<t), where p is a trigram model. Not for XLA."""

    def __init__(self, policy: Policy, model: KneserNey, weight: float):
        super().__init__(policy)
        self.model, self.weight, self.hidden_dim = model, weight, policy.hidden_dim + 2

    def _joined(self, state: State, past: tf.Tensor) -> State:
        """G's state with the last two tokens, [..., 2], as numbers, which are exact up to 2^24."""
        return State(tf.concat([state.hidden, tf.cast(past, tf.float32)], axis=-1), state.cell)

    def next_state(self, tokens: tf.Tensor, state: State) -> State:
        """As in `Policy`."""
        past = tf.stack([state.hidden[:, -1], tf.cast(tokens, tf.float32)], axis=1)
        return self._joined(self.policy.next_state(tokens, State(state.hidden[:, :-2], state.cell)), past)

    def states(self, tokens: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> State:
        """As in `Policy`."""
        padded = tf.transpose(tf.pad(tokens, [[0, 0], [2, 0]], constant_values=self.start_token))
        return self._joined(self.policy.states(tokens, dropout_seed), tf.stack([padded[:-2], padded[1:-1]], axis=-1))

    def logits(self, hidden: tf.Tensor, projection: tf.Tensor | None = None) -> tf.Tensor:
        """The logarithm of the mixture's probabilities: [..., H] → float32 [..., V]."""
        own = tf.nn.softmax(super().logits(hidden[..., :-2], projection))
        past = tf.reshape(tf.cast(hidden[..., -2:], tf.int32), [-1, 2])
        counted = tf.numpy_function(lambda each: self.model.rows(each).astype(np.float32), [past], tf.float32)
        return tf.math.log(self.weight * tf.reshape(counted, own.shape) + (1 - self.weight) * own)


def probs(policy: Policy, tokens: np.ndarray) -> np.ndarray:
    """What a policy gives each token of sequences, int32 [n, T]: float64 [m], as `KneserNey.probs`."""
    score = tf.function(policy.log_probs, autograph=False)
    parts = [score(tf.constant(rows)).numpy() for rows in np.array_split(tokens, len(tokens) // 250 + 1)]
    return np.exp(np.concatenate(parts)[tokens != policy.vocab_size].astype(np.float64))


def change(sums: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """NLL per token less that of the first generator, from nats and tokens per sequence, [..., n]."""
    return (sums - first).sum(axis=-1) / lengths.sum(axis=-1)


def student_of(run: Restored, teacher: Policy, data: Dataset, updates: int, fresh: bool) -> Generator:
    """The run's generator, or a fresh one, after so many updates of --g_update distil on the teacher."""
    student = build(run.config, data.spec).generator
    if not fresh:
        student.set_weights([kept.numpy() for kept in run.policy().weights])
    optimizer = adam(0.005 if fresh else 0.001, student, updates)

    def update(gradients: list) -> None:
        optimizer.apply(tf.clip_by_global_norm(gradients, GRADIENT_NORM)[0], student.trainable_variables)

    config = dataclasses.replace(run.config, jit=False)
    distillation = Distillation(config, student, teacher, batches=data.mle_batches, update=update)
    for step in range(updates):
        distillation.step(tf.constant(step))
    return student


def measured(runs: Sequence[Restored], updates: int, fresh: bool) -> Iterator[dict[str, object]]:
    """The rows of runs on the same data."""
    data: Any = runs[0].data()
    spec, splits = data.spec, {"valid": data.valid, "test": data.test}
    if not len(splits["valid"]) or not len(splits["test"]):
        raise UsageError(f"{runs[0].logdir}: its data lack a validation or a test set")
    model = KneserNey(data.references(), spec.start_token, spec.vocab_size)
    trigram = {name: model.probs(rows) for name, rows in splits.items()}
    lengths = (data.test != spec.vocab_size).sum(axis=1)
    begins = np.concatenate([[0], lengths.cumsum()[:-1]])
    first: dict[int, np.ndarray] = {}

    def row(method: str, seed: int, of: Callable[[str], np.ndarray], **settings: float) -> dict[str, object]:
        """The figures of what gives the tokens of a split the probabilities `of` it."""
        sums = np.add.reduceat(-np.log(of("test")), begins)
        before = first.setdefault(seed, sums)
        given: dict[str, Any] = {"paired": True, "method": "percentile", "batch": 500, "rng": 0}
        low, high = bootstrap((sums, before, lengths), change, **given).confidence_interval
        known = {"nll_valid": -np.log(of("valid")).mean(), "nll_test": sums.sum() / lengths.sum()}
        known |= {"change": float(change(sums, before, lengths)), "low": low, "high": high}
        return {"method": method, "seed": seed, "weight": 0.0, "temperature": 1.0} | settings | known

    for run in runs:
        policy, seed = run.teaches(), run.config.seed
        *_, method, folder, _ = ("", "", *run.logdir.parts)
        name = method if folder.isdecimal() else str(run.logdir)  # the folders of a sweep are METHOD/SEED/train
        own = {split: probs(policy, rows) for split, rows in splits.items()}
        yield row(name, seed, own.__getitem__)

        def mixed(split: str, weight: float, own=own) -> np.ndarray:
            return weight * trigram[split] + (1 - weight) * own[split]

        # The weight and the temperature with the least mean NLL of the validation set are found by Brent's method.
        weight = float(minimize_scalar(lambda w: -np.log(mixed("valid", w)).mean(), bounds=(0, 1)).x)  # noqa: B023
        yield row(f"{name}+kneser_ney", seed, lambda split: mixed(split, weight), weight=weight)  # noqa: B023
        if updates:
            student = student_of(run, Mixture(policy, model, weight), run.data(), updates, fresh)

            def at(temperature: float, split: str, student=student) -> np.ndarray:
                return probs(Tempered(student, temperature), splits[split])

            best = float(minimize_scalar(lambda t: -np.log(at(t, "valid")).mean(), bounds=(0.8, 1.5)).x)  # noqa: B023
            for word, temperature in (("student", 1.0), ("tempered_student", best)):
                of = functools.partial(at, temperature)
                yield row(f"{'fresh_' * fresh}{word}_of_{name}+kneser_ney", seed, of, temperature=temperature)
    yield row("kneser_ney", runs[0].config.seed, trigram.__getitem__)


def main() -> int:
    """The program; returns 0."""
    parser = Parser(prog="kneser_ney", description=__doc__)
    parser.add_argument("logdirs", nargs="+", type=Path, metavar="LOGDIR")
    parser.add_argument("-o", type=new_file, required=True, metavar="FILE.csv")
    parser.add_argument("--updates", type=number(int, 0, None), default=0, metavar="N")
    parser.add_argument("--fresh", action="store_true", help="students begin with new weights, at a rate of 0.005")
    asked = parser.parse_args()
    if asked.fresh and not asked.updates:
        parser.error("--fresh has no effect without --updates")
    with parser.failing_in_one_line(asked.o):
        spare(asked.o)
        runs = [restore(logdir) for logdir in asked.logdirs]
        if other := [str(run.logdir) for run in runs if run.config.dataset != "text"]:
            raise UsageError(f"{other[0]}: no run on text")
        if other := [str(run.logdir) for run in runs if run.content["data"] != runs[0].content["data"]]:
            raise UsageError(f"{other[0]}: has other data than {runs[0].logdir}")
        subsets = [run.config.train_size and (run.config.train_size, run.config.seed) for run in runs]
        if other := [str(run.logdir) for run, own in zip(runs, subsets, strict=True) if own != subsets[0]]:
            raise UsageError(f"{other[0]}: --train_size has chosen another training set than {runs[0].logdir} has")
        folded = [str(run.logdir) for run in runs if run.config.g_update == "fold"]
        if folded and asked.updates and not asked.fresh:
            raise UsageError(f"--updates: {folded[0]}: of --g_update fold; --fresh would do")
        rows = list(measured(runs, asked.updates, asked.fresh))
        write_whole(asked.o, pd.DataFrame(rows).to_csv(index=False, float_format="%.4f"))
    return 0


if __name__ == "__main__":
    run_tool(main)
