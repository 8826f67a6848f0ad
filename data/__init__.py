"""Real data: what it is read from, and what training and evaluation ask of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from support.config import UsageError

if TYPE_CHECKING:  # reading files should not take TensorFlow's import
    import numpy as np
    import tensorflow as tf


class DataError(UsageError):
    """A user's data cannot be used; the message is one line that names the file or flag."""


class Due(NamedTuple):
    """What an epoch is due for: an `evaluation`, `samples` to look at; and whether it is the `last` of its phase."""

    evaluation: bool
    samples: bool
    last: bool


def checksum(arrays: Iterable[np.ndarray]) -> str:
    """The SHA-256 of arrays of numbers: of their values, shapes and order, whatever their type."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array, np.float64 if array.dtype.kind == "f" else np.int64).data)
    return digest.hexdigest()


class Dataset(Protocol):
    """What main.py asks of real data. `model` is a `model.SeqGAN`, a log a `runs.logs.RunLog`."""

    vocab_size: int  # V: tokens are 0..V-1
    start_token: int  # fed before the first token
    end_token: int | None  # ends a sequence early, what follows being the padding V; None: all have T tokens
    oracle: Any  # the distribution of the real data, a `generator.Generator`; None where it is not known
    evaluated: tuple[str, ...]  # all names that `evaluate` and `evaluate_discriminator` may return
    origin: str  # where it comes from, for messages: the flag and its value

    def digests(self) -> dict[str, str]:
        """Checksums of the parts of what is read from files, {name of the part: checksum}; recorded with the run."""

    def files(self) -> dict[str, str]:
        """What is kept in --log_dir beside the configuration: {file name: content}."""

    def decode(self, rows: np.ndarray) -> Sequence[Any]:
        """What an objective is given for sequences, int32 [n, T]: n times text, pitches or token ids."""

    def introduction(self) -> str:
        """The line a run begins with."""

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """What the generator learns from in an epoch of pretraining, int32 [n, B, T]."""

    def real(self, step: int) -> tf.Tensor:
        """The real sequences of a d-step, int32 [n, T]; always the same n."""

    def references(self) -> np.ndarray:
        """The training set, int32 [n, T]: what the reward BLEU compares with."""

    def validation(self) -> np.ndarray:
        """Real sequences that training never saw, and on which it may choose, int32 [n, T]."""

    def evaluate(self, model: Any, epoch: int, due: Due) -> dict[str, tuple[float, float]]:
        """Figures of the model after an epoch, {name: (value, standard error)}; called where an evaluation is due."""

    def evaluate_discriminator(
        self, model: Any, epoch: int, beside: Mapping[str, tuple[float, float]] | None = None
    ) -> dict[str, tuple[float, float]]:
        """What the discriminator knows of sequences it never saw, as `evaluate`; called once it is pretrained.

        With `beside`, what `evaluate` has returned, and --candidates also the figures of what is kept of these.
        """

    def log_samples(self, model: Any, epoch: int, due: Due, log: Any) -> None:
        """Shows or saves what the model generates, in the evaluation log or, with --no-evaluate, that of training.

        Called after each epoch of a generator's phase.
        """
