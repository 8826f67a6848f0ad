"""Runs on text beside a trigram model: python -m experiments.kneser_ney LOGDIR... -o FILE.csv.

Of each run it measures the generator, the guided one where there is one, and both mixed with a trigram model of the
same training set by interpolated Kneser-Ney smoothing (Chen and Goodman, 1999). The mixture's weight is the best on the
validation set. `change` is NLL_test less that of the generator alone; `low` and `high` are its 95 % interval by a
paired bootstrap over test sequences (scipy.stats.bootstrap, 9,999 resamples).
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.stats import bootstrap

from generator import Policy
from support.streams import run_tool
from tools.restored import restore


class KneserNey:
    """A trigram model: p(c | a, b), from the counts of (a, b, c), interpolated with those of (b, c) and of c."""

    def __init__(self, tokens: np.ndarray, start: int, padding: int):
        """Counts sequences, int32 [n, T], with two `start` tokens before each; `padding` is no token.

        The discount of an order is n₁ / (n₁ + 2 n₂), where n_k n-grams have the count k.
        """
        self.start, self.padding = start, padding
        grams, counts = np.unique(self._grams(tokens), axis=0, return_counts=True)
        self.vocab_size = padding
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
        before = np.full([len(tokens), 2], self.start, tokens.dtype)
        padded = np.concatenate([before, tokens], axis=1)
        grams = np.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], axis=2).reshape(-1, 3)
        return grams[grams[:, 2] != self.padding]

    def prob(self, gram: Sequence[int], order: int = 0) -> float:
        """p(the last token | those before it)."""
        if order == 3:
            return 1 / self.vocab_size
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
    found = np.concatenate(
        [score(tf.constant(rows)).numpy() for rows in np.array_split(tokens, len(tokens) // 250 + 1)]
    )
    return np.exp(found[tokens != policy.vocab_size].astype(np.float64))


def rows_of(logdir: Path) -> Iterator[dict[str, object]]:
    """The rows of a run."""
    run = restore(logdir)
    data = run.data()
    spec = data.spec
    model = KneserNey(data.references(), spec.start_token, spec.vocab_size)
    valid, test = data.validation(), data.test  # type: ignore[attr-defined]
    lengths = (test != spec.vocab_size).sum(axis=1)
    ends = np.concatenate([[0], lengths.cumsum()[:-1]])
    trigram = {"valid": model.probs(valid), "test": model.probs(test)}
    policies = {"G": run.policy()} | ({"guided": run.policy(guide=True)} if run.guided() else {})
    plain = None
    for name, policy in [*policies.items(), ("Kneser-Ney", None)]:
        own = trigram if policy is None else {"valid": probs(policy, valid), "test": probs(policy, test)}

        def nll(weight: float, split: str = "valid", own=own) -> np.ndarray:
            return -np.log(weight * trigram[split] + (1 - weight) * own[split])

        best = minimize_scalar(lambda weight: nll(weight).mean(), bounds=(0, 1), method="bounded").x
        for weight in [0.0] if policy is None else [0.0, best]:
            sums = np.add.reduceat(nll(weight, "test"), ends)
            plain = sums if plain is None else plain
            row = {"run": logdir.parent.name + " " + logdir.name, "policy": name, "weight": round(weight, 4)}
            row |= {"nll_valid": nll(weight).mean(), "nll_test": sums.sum() / lengths.sum()}

            def change(mixed, before, count):
                return (mixed.sum(axis=-1) - before.sum(axis=-1)) / count.sum(axis=-1)

            interval = [0.0, 0.0]
            if sums is not plain:
                arguments = {"paired": True, "method": "percentile", "batch": 500, "rng": 0}
                interval = bootstrap((sums, plain, lengths), change, **arguments).confidence_interval
            yield row | {"change": change(sums, plain, lengths), "low": interval[0], "high": interval[1]}


def main() -> int:
    """The program; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdirs", nargs="+", type=Path, metavar="LOGDIR")
    parser.add_argument("-o", type=Path, required=True, metavar="FILE.csv")
    asked = parser.parse_args()
    rows = [row for logdir in asked.logdirs for row in rows_of(logdir)]
    with open(asked.o, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{v:.4f}" if isinstance(v, float) else v for name, v in row.items()} for row in rows)
    return 0


if __name__ == "__main__":
    run_tool(main)
