"""Objectives: scores of finished sequences by a user's own Python function, --objective FILE.py:FUNCTION."""

import contextlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from support.config import UsageError, check_name

LONGEST = 2**17  # bytes of a file, which is kept in config.json
KEPT = 2**17  # sequences whose scores are remembered
SHOWN = 80  # characters of a sequence in a message
# Of an evaluation: the mean score, that of real sequences, and how far the policy has gone for it.
FIGURES = ("objective", "real_objective", "kl_to_pretrained")


def read_source(name: str) -> dict[str, str]:
    """The `function` and the `text` of the file that FILE.py:FUNCTION names: what a run keeps on record.

    Raises UsageError: the name is none, or the file can't be read.
    """
    check_name(name)
    path, _, function = name.rpartition(":")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"--objective {path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"--objective {path}: not a text file in UTF-8") from None
    if len(text.encode()) > LONGEST:
        raise UsageError(f"--objective {path}: longer than {LONGEST:,} bytes; data belong in other files")
    return {"function": function, "text": text}


class Objective:
    """A function that scores finished sequences, with a memory: each different sequence is scored once."""

    def __init__(self, name: str, source: dict[str, str], decode: Callable[[np.ndarray], Sequence[Any]]):
        """Runs the file, which defines the function.

        `name` is FILE.py:FUNCTION, `source` what `read_source` has read of it; `decode` makes int32 [n, T] a list of n
        sequences for the function. Raises UsageError: the file raises an exception, or has no such function.
        """
        self.source, self.decode = source, decode
        self._path, _, function = name.rpartition(":")
        self._known: dict[bytes, float] = {}
        module = types.ModuleType("objective")
        module.__file__ = self._path
        sys.modules[module.__name__] = module  # where dataclasses look up their types
        with self._blamed():
            exec(compile(source["text"], self._path, "exec"), vars(module))
        found = getattr(module, function, None)
        if not callable(found):
            raise UsageError(f"--objective {self._path}: has no function {function!r}")
        self._function: Callable[[list[Any]], Any] = found

    @classmethod
    def read(cls, name: str, decode: Callable[[np.ndarray], Sequence[Any]]) -> "Objective":
        """The objective FILE.py:FUNCTION; raises UsageError as `read_source` and the constructor do."""
        return cls(name, read_source(name), decode)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """The scores of sequences, int32 [n, T] → float32 [n]; the function is given those that are new.

        Raises UsageError: the function raises an exception, or does not return as many finite numbers.
        """
        rows = np.ascontiguousarray(rows, np.int32)
        keys = [row.tobytes() for row in rows]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            scores = self._called(self.decode(rows[list(new.values())]))
            self._known.update(zip(new, scores.tolist(), strict=True))
        values = np.array([self._known[key] for key in keys], np.float32)
        if len(self._known) > KEPT:
            self._known = {}
        return values

    def check(self, rows: np.ndarray) -> None:
        """Scores sequences, int32 [n, T], and two of them once more without the others, in the opposite order.

        Raises UsageError: as `score`; or their scores depend on the others, or on chance.
        """
        scores = self.score(rows)
        if len(rows) > 2:
            before, again = scores[1::-1], self._called(self.decode(rows[1::-1]))
            if (differ := ~np.isclose(again, before, rtol=1e-3, atol=1e-6)).any():
                both = f"{before[differ][0]:g} and {again[differ][0]:g}"
                raise self._unfit(f"{both} for one sequence; a score may depend on that sequence alone")

    def _called(self, sequences: Sequence[Any]) -> np.ndarray:
        """The scores of sequences: float32 [n]."""
        count = len(sequences)
        with self._blamed():
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
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if (wrong := np.flatnonzero(~np.isfinite(values))).size:
            shown = " ".join(repr(sequences[wrong[0]]).split())
            shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
            raise self._unfit(f"{values[wrong[0]]} for {shown}")
        return values

    def _unfit(self, what: str) -> UsageError:
        return UsageError(f"--objective {self._path}: {self.source['function']} returned {what}")

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Makes an exception of the file's code a UsageError with its type, its message and its line in the file.

        What the code prints goes to stderr, as stdout may be a tool's table.
        """
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except (Exception, SystemExit) as error:
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self._path]
            if isinstance(error, SyntaxError) and error.filename == self._path:
                lines.append(error.lineno)
            where = f"line {lines[-1]}: " if lines else ""
            message = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
            what = type(error).__name__ + (f": {message}" if message else "")
            raise UsageError(f"--objective {self._path}: {where}{what}") from error
