"""Runs on text beside a trigram model: python -m experiments.kneser_ney LOGDIR... -o FILE.csv.

Of each run it measures the generator, guided where the run guides it, alone and mixed with a trigram model of the same
training set by interpolated Kneser-Ney smoothing (Chen and Goodman, 1999). The mixture's weight is the best on the
validation set. All runs must have the same data. `change` is NLL_test less that of the first run with the same seed;
`low` and `high` are its 95 % interval by a paired bootstrap over test sequences (scipy.stats.bootstrap, 9,999 draws).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import support.quiet  # noqa: F401 - before TensorFlow

import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.stats import bootstrap

from generator import Policy
from support.errors import UsageError
from support.parser import Parser, new_file
from support.streams import run_tool
from tools.restored import Restored, restore


class KneserNey:
    """A trigram model: p(c | a, b), from the counts of (a, b, c), interpolated with those of (b, c) and of c."""

    def __init__(self, tokens: np.ndarray, start: int, padding: int):
        """Counts sequences, int32 [n, T], with two `start` tokens before each; `padding` is no token."""
        # The discount of an order is n₁ / (n₁ + 2 n₂), where n_k n-grams have the count k.
        self.start, self.padding = start, padding
        grams, counts = np.unique(self._grams(tokens), axis=0, return_counts=True)
        self.orders = []
        for _ in range(3):  # of (a, b, c), (b, c) and c; lower ones count what precedes them, not how often
            n1, n2 = (max(int((counts == k).sum()), 1) for k in (1, 2))
            contexts, place = np.unique(grams[:, :-1], axis=0, return_inverse=True)
            totals = np.bincount(place.ravel(), counts)
            kinds = np.bincount(place.ravel())
            of = {tuple(context): (totals[i], kinds[i]) for i, context in enumerate(contexts.tolist())}
            self.orders.append((dict(zip(map(tuple, grams.tolist()), counts, strict=True)), of, n1 / (n1 + 2 * n2)))
            grams, counts = np.unique(grams[:, 1:], axis=0, return_counts=True)

    def _grams(self, tokens: np.ndarray) -> np.ndarray:
        """The trigrams of sequences, int [m, 3], those with padding left out; by rows, then by time."""
        padded = np.pad(tokens, [(0, 0), (2, 0)], constant_values=self.start)
        grams = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1).reshape(-1, 3)
        return grams[grams[:, 2] != self.padding]

    def prob(self, gram: Sequence[int], order: int = 0) -> float:
        """p(the last token | those before it)."""
        if order == 3:
            return 1 / self.padding  # tokens are below it
        counts, contexts, discount = self.orders[order]
        total, kinds = contexts.get(tuple(gram[:-1]), (0, 0))
        lower = self.prob(gram[1:] if order < 2 else gram, order + 1)
        if not total:
            return lower
        return (max(counts.get(tuple(gram), 0) - discount, 0) + discount * kinds * lower) / total

    def probs(self, tokens: np.ndarray) -> np.ndarray:
        """The probability of each token of sequences, float64 [m]; by rows, then by time, without padding."""
        return np.array([self.prob(gram) for gram in self._grams(tokens).tolist()])


def probs(policy: Policy, tokens: np.ndarray) -> np.ndarray:
    """What a policy gives each token of sequences, int32 [n, T]: float64 [m], as `KneserNey.probs`."""
    score = tf.function(policy.log_probs, autograph=False)
    parts = [score(tf.constant(rows)).numpy() for rows in np.array_split(tokens, len(tokens) // 250 + 1)]
    return np.exp(np.concatenate(parts)[tokens != policy.vocab_size].astype(np.float64))


def change(sums: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """NLL per token less that of the first generator, from nats and tokens per sequence, [..., n]."""
    return (sums - first).sum(axis=-1) / lengths.sum(axis=-1)


def measured(runs: Sequence[Restored]) -> Iterator[dict[str, object]]:
    """The rows of runs on the same data."""
    data: Any = runs[0].data()
    spec, splits = data.spec, {"valid": data.validation(), "test": data.test}
    if not len(splits["valid"]):
        raise UsageError(f"{runs[0].logdir}: its data have no validation set")
    model = KneserNey(data.references(), spec.start_token, spec.vocab_size)
    trigram = {name: model.probs(rows) for name, rows in splits.items()}
    lengths = (data.test != spec.vocab_size).sum(axis=1)
    begins = np.concatenate([[0], lengths.cumsum()[:-1]])
    policies = []
    for run in runs:
        policy = run.teaches()
        *_, method, seed, _ = ("", "", *run.logdir.parts)
        name = method if seed.isdecimal() else str(run.logdir)  # the folders of a sweep are METHOD/SEED/train
        policies.append((name, run.config.seed, {of: probs(policy, rows) for of, rows in splits.items()}))
    first: dict[int, np.ndarray] = {}
    for name, seed, own in [*policies, ("kneser_ney", policies[0][1], trigram)]:

        def nll(weight: float, split: str, own=own) -> np.ndarray:
            return -np.log(weight * trigram[split] + (1 - weight) * own[split])

        best = minimize_scalar(lambda weight: nll(weight, "valid").mean(), bounds=(0, 1), method="bounded").x  # noqa: B023
        for weight in [0.0] if own is trigram else [0.0, best]:
            sums = np.add.reduceat(nll(weight, "test"), begins)
            given: dict[str, Any] = {"paired": True, "method": "percentile", "batch": 500, "rng": 0}
            before = first.setdefault(seed, sums)
            low, high = bootstrap((sums, before, lengths), change, **given).confidence_interval
            row = {"method": f"{name}+kneser_ney" if weight else name, "seed": seed, "weight": weight}
            row |= {"nll_valid": nll(weight, "valid").mean(), "nll_test": sums.sum() / lengths.sum()}
            yield row | {"change": float(change(sums, before, lengths)), "low": low, "high": high}


def main() -> int:
    """The program; returns 0."""
    parser = Parser(prog="kneser_ney", description=__doc__)
    parser.add_argument("logdirs", nargs="+", type=Path, metavar="LOGDIR")
    parser.add_argument("-o", type=new_file, required=True, metavar="FILE.csv")
    asked = parser.parse_args()
    with parser.failing_in_one_line():
        runs = [restore(logdir) for logdir in asked.logdirs]
        if other := [str(run.logdir) for run in runs if run.config.dataset != "text"]:
            raise UsageError(f"{other[0]}: no run on text")
        if other := [str(run.logdir) for run in runs if run.content["data"] != runs[0].content["data"]]:
            raise UsageError(f"{other[0]}: has other data than {runs[0].logdir}")
        rows = list(measured(runs))
    pd.DataFrame(rows).to_csv(asked.o, index=False, float_format="%.4f")
    return 0


if __name__ == "__main__":
    run_tool(main)
