"""Objectives: scores of finished sequences by a user's own Python function, --objective FILE.py:FUNCTION."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from support import own_code
from support.errors import UsageError

FLAG = "--objective"
KEPT = 2**17  # sequences whose scores are remembered
LARGEST = 1e15  # of a score: the squares of more would be infinite in float32
SHOWN = 80  # characters of a sequence in a message


class Objective:
    """A function that scores finished sequences, with a memory: each different sequence is scored once."""

    def __init__(self, name: str, decode: Callable[[np.ndarray], Sequence[Any]], source: dict[str, str] | None = None):
        """Runs the file, which defines the function.

        `name` is FILE.py:FUNCTION; `decode` makes int32 [n, T] a list of n sequences for the function; `source` is what
        a run has on record, None reads the file. Raises UsageError: as `own_code.load`.
        """
        self.source, self.decode = source or own_code.read_source(FLAG, name), decode
        self._path = name.rpartition(":")[0]
        self._known: dict[bytes, float] = {}
        self._function: Callable[[list[Any]], Any] = own_code.load(FLAG, name, self.source)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """The scores of sequences, int32 [n, T] → float32 [n]; the function is given those that are new.

        Raises UsageError: the function raises an exception, or does not return as many finite numbers.
        """
        rows = np.ascontiguousarray(rows, np.int32)
        keys = [row.tobytes() for row in rows]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            sequences = list(self.decode(rows[list(new.values())]))
            if len(sequences) != len(new):
                raise UsageError(f"--dataset: decode returns {len(sequences)} sequences for {len(new)}")
            scores = self._called(sequences)
            self._known.update(zip(new, scores.tolist(), strict=True))
        values = np.array([self._known[key] for key in keys], np.float32)
        if len(self._known) > KEPT:
            self._known = {}
        return values

    def check(self, rows: np.ndarray) -> np.ndarray:
        """As `score`, and scores two of the sequences once more without the others, in the opposite order.

        Raises UsageError: as `score`; or the scores depend on the others, or on chance.
        """
        scores = self.score(rows)
        if len(rows) > 2:
            before, again = scores[1::-1], self._called(self.decode(rows[[1, 0]]))  # copies
            if (differ := ~np.isclose(again, before, rtol=1e-3, atol=1e-6)).any():
                both = f"{before[differ][0]:g} and {again[differ][0]:g}"
                raise self._unfit(f"{both} for one sequence; a score may depend on that sequence alone")
        return scores

    def _called(self, sequences: Sequence[Any]) -> np.ndarray:
        """The scores of sequences: float32 [n]."""
        count = len(sequences)
        with own_code.blamed(FLAG, self._path):
            returned = self._function(list(sequences))
        try:
            values = np.asarray(returned)
            if values.dtype.kind not in "biufO":  # a text that reads as a number is none, nor is a complex number
                raise TypeError
            values = values.astype(np.float64)
        except Exception:  # whatever a user's class raises
            raise self._unfit(f"a {type(returned).__name__} that is not a list of {count} numbers") from None
        if values.shape != (count,):
            found = f"{len(values)} values" if values.ndim == 1 else f"values of shape {list(values.shape)}"
            raise self._unfit(f"{found} for {count} sequences")
        if (wrong := np.flatnonzero(~(np.abs(values) <= LARGEST))).size:
            shown = " ".join(repr(sequences[wrong[0]]).split())
            shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
            raise self._unfit(f"{values[wrong[0]]:g} for {shown}, not a number within ±{LARGEST:g}")
        return values.astype(np.float32)

    def _unfit(self, what: str) -> UsageError:
        return UsageError(f"--objective {self._path}: {self.source['function']} returned {what}")
