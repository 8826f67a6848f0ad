"""What is measured of a policy and a discriminator on a data set, and what is shown of its samples."""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from data.real import Dataset
from data.training_set import spread
from evaluation.discriminator import MeasuredDiscriminator, what_d_knows
from evaluation.metrics import D_FIGURES, METRICS, column
from evaluation.policy import MeasuredPolicy
from runs.logs import RunLog
from support.config import Config
from support.errors import UsageError
from support.seeds import Purpose
from support.statistics import Figures, mean_and_error, ratio_and_error

OF_NUMBER = ("self_bleu", "interval_divergence", "rhythm_divergence")  # that change with the number of sequences
NLL_ROWS = 64  # sequences whose likelihoods are computed at once: their logits are the largest tensor


class Due(NamedTuple):
    """What an epoch is due for: an `evaluation`, `samples` to look at; and whether it is the `last` of its phase."""

    evaluation: bool
    samples: bool
    last: bool


class Evaluator:
    """Measures on the validation and the test set of any data; a subclass adds what its kind of data allows."""

    compared: tuple[str, ...] = ()  # the figures of `compare`
    compares_at = "samples"  # what an evaluation is `Due` for if it asks for them, which takes longer
    generator_figures: tuple[str, ...] = ("nll_test", "nll_valid", "g_entropy")

    def __init__(self, data: Dataset, config: Config):
        """`data` are what is measured on; the flags `config` say how much is drawn, and where samples go."""
        self.data: Any = data
        self.config = config
        self._own = [metric for metric in METRICS.values() if metric.of and data.kind in (metric.data or (data.kind,))]

    @property
    def columns(self) -> tuple[str, ...]:
        """All figures that `of_policy` and `of_discriminator` may return."""
        compared = (*self.compared, *(metric.name for metric in self._own))
        return (*self.generator_figures, *compared, *(column(name, "real") for name in compared), *D_FIGURES)

    def of_policy(self, policy: MeasuredPolicy, epoch: int, due: Due) -> Figures:
        """(value, standard error) of the figures of `likelihoods`; `epoch` picks the random numbers of the samples.

        Where samples are due as well, also the figures of `compare` for the generated sequences and, as `real_...`, for
        as many of the validation set.
        """
        generated = policy.sample(self.config.eval_samples, Purpose.EVALUATE, tf.constant(epoch)).numpy()
        figures = self.likelihoods(policy, generated)
        return figures | self.compare(generated) | self._of_real if getattr(due, self.compares_at) else figures

    def likelihoods(self, policy: MeasuredPolicy, generated: np.ndarray) -> Figures:
        """NLL of test, validation and generated sequences, int32 [n, T], if any: all nats over all tokens, ends too."""
        parts = {"g_entropy": generated, "nll_valid": self.data.valid, "nll_test": self.data.test}
        lengths = {name: (rows != policy.policy.vocab_size).sum(axis=1) for name, rows in parts.items()}
        return {name: ratio_and_error(nats(policy, rows), lengths[name]) for name, rows in parts.items() if len(rows)}

    def compare(self, rows: np.ndarray) -> Figures:
        """Compares sequences, int32 [n, T], with real ones: (mean, standard error) of each figure where it is not NaN.

        Raises UsageError: a metric returns values of another shape than [n], or none that are numbers.
        """
        found = {each.name: np.asarray(each.of(rows.copy(), self.data)) for each in self._own if each.of and len(rows)}
        for name, values in found.items():
            if values.shape != (len(rows),):
                raise UsageError(f"metric {name}: values of shape {values.shape} for {len(rows)} sequences")
            if values.dtype.kind not in "biuf":
                raise UsageError(f"metric {name}: values of type {values.dtype}, not real numbers")
        defined = {name: values[~np.isnan(values)] for name, values in found.items()}
        return {name: mean_and_error(values) for name, values in defined.items() if len(values)}

    @cached_property
    def _of_real(self) -> Figures:
        """The figures of `compare`, as `real_...`, of as many validation sequences; of fewer not those `OF_NUMBER`."""
        rows = spread(self.data.valid, self.config.eval_samples)
        out = OF_NUMBER if len(rows) < self.config.eval_samples else ()
        found = self.compare(rows).items()
        return {column(n, "real"): pair for n, pair in found if not n.removeprefix("texygen_").startswith(out)}

    def of_discriminator(self, discriminator: MeasuredDiscriminator, epoch: int, own: Figures | None = None) -> Figures:
        """What a discriminator knows of held-out sequences: the figures of `what_d_knows`.

        At most --d_eval_samples validation sequences choose η, and as many of test are measured; too few are not.
        With `own`, what `of_policy` has returned, also what comes of the candidates.
        """
        choosing, measuring = (spread(rows, self.config.d_eval_samples) for rows in (self.data.valid, self.data.test))
        candidates = self.config.candidates if own else 0
        known = what_d_knows(discriminator, choosing, measuring, epoch, self.data.spec.vocab_size, candidates)
        return known.on_test(own or {})

    def show(self, policy: MeasuredPolicy, epoch: int, due: Due, log: RunLog) -> None:
        """Shows or saves what a policy generates, after an epoch of a generator's phase; here nothing."""


def nats(policy: MeasuredPolicy, rows: np.ndarray) -> np.ndarray:
    """-log G of each sequence, int32 [n, T] → float32 [n], nats; NLL_ROWS at a time."""
    whole = np.pad(rows, [(0, -len(rows) % NLL_ROWS), (0, 0)])  # one shape for all; by token 0, which all data have
    parts = [policy.nll(tf.constant(whole[i : i + NLL_ROWS])).numpy() for i in range(0, len(whole), NLL_ROWS)]
    return np.concatenate(parts)[: len(rows)]
