"""What a run writes down beside its weights: its logs, its newest evaluation, which checkpoint is the best."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runs.checkpoints import BEST, MARKS
from runs.directories import sizes_at
from runs.logs import Meaning, RunLog, means, with_errors
from runs.pretrained import Pretraining
from support.statistics import Figures

TRAIN_COLUMNS = (
    *("g_pretrain_loss", "d_pretrain_loss", "d_pretrain_acc", "g_loss", "g_reward", "d_loss", "d_acc"),
    *("seconds_per_epoch", "compile_seconds"),
)
GROUPS = {"train": "training", "eval": "samples"}  # of the logs of training and of evaluation, in TensorBoard


class Records:
    """The records of a run as they are after its newest step; a checkpoint holds what it takes to go on with them."""

    def __init__(
        self,
        directories: Sequence[Path],  # of training and, unless nothing is evaluated, of evaluation
        evaluated: tuple[str, ...],  # the names of all figures that an evaluation may have
        details: dict[str, Any],  # of the checkpoint; {} for a new run
        mle: bool,  # adversarial epochs have maximum-likelihood steps
        meaning: Meaning,  # describes a figure to TensorBoard
    ):
        self._meaning = meaning
        self.directories = dict(zip(GROUPS, directories, strict=False))
        self.columns: dict[str, tuple[str, ...]] = {
            "train": (*TRAIN_COLUMNS, "g_mle_loss") if mle else TRAIN_COLUMNS,
            "eval": (*(column for name in evaluated for column in (name, f"{name}_se")), "seconds"),
        }
        # By kind of step: how many there were that did not compile, their seconds, and those of the first of all.
        self.clocks: dict[str, list[float]] = details.get("clocks", {})
        self.results: list[dict[str, float]] = details.get("results", [])  # of the epoch under way
        self.positions: dict[str, dict[str, Any]] = details.get("positions", {})  # of the logs
        self.evaluation: Figures = details.get("evaluation", {})  # the newest
        self.best: dict[str, float] | None = details.get("best")  # the step of least nll_valid, and that
        self.logs: list[RunLog] = []  # those open: of training, and of evaluation

    def check(self) -> None:
        """Raises UsageError: a log is not what it was at the checkpoint. Raises OSError: it can't be read."""
        for kind, directory in self.directories.items():
            sizes_at(directory, self.positions.get(kind, {}))

    def open(self) -> None:
        """Opens the logs where the checkpoint left them."""
        for kind, directory in self.directories.items():
            position = self.positions.get(kind, {})
            self.logs.append(RunLog(directory, self.columns[kind], position, GROUPS[kind], self._meaning))

    def close(self) -> None:
        """Closes the logs that are open."""
        for log in self.logs:
            log.close()

    def take_over(self, pretraining: Pretraining) -> None:
        """Copies the records of another run's pretraining. Raises UsageError: its logs are cut short."""
        for log, (kind, directory) in zip(self.logs, pretraining.directories.items(), strict=True):
            log.copy(directory, pretraining.details["positions"][kind], pretraining.left_out)
        self.evaluation, self.best = pretraining.evaluation, pretraining.best
        self.clocks = pretraining.details.get("clocks", {})

    def end_epoch(self, axis: int, phase: str, more: dict[str, float]) -> dict[str, float]:
        """Writes the row of an epoch of training, the means of its results and `more`; returns the means."""
        figures = means(self.results)
        self.results = []
        self.logs[0].row(axis, phase, figures | more)
        return figures

    def clock(self, kind: str, seconds: float, compiled: bool) -> None:
        """Takes down how long a step took; what compiled counts only as long as there is no other of its kind."""
        count, total, first = self.clocks.get(kind, (0, 0.0, seconds))
        self.clocks[kind] = [count, total, first] if compiled else [count + 1, total + seconds, first]

    def seconds(self, taken: Mapping[str, int], whole: Mapping[str, int]) -> float:
        """What so many steps of each kind take, without evaluation: each kind by its mean; NaN where one is unknown.

        Compilation is left out, but of a kind of which the `whole` run has one step, such as an additive D's
        pretraining.
        """
        spent = 0.0
        for kind, number in taken.items():
            count, total, first = self.clocks.get(kind, (0, 0.0, math.nan))
            spent += number * (total / count if count else first if whole[kind] == 1 else math.nan)
        return spent

    def evaluated(self, epoch: int, phase: str, figures: Figures, taken: int) -> None:
        """Writes the row of an evaluation after so many steps. Raises KeyError: a figure has no column."""
        if unknown := figures.keys() - set(self.columns["eval"]):
            raise KeyError(f"{', '.join(sorted(unknown))}: no column of metrics.csv, see evaluation/metrics.py")
        self.evaluation = figures
        nll_valid, _ = figures.get("nll_valid", (math.inf, 0))
        if nll_valid < (self.best["nll_valid"] if self.best else math.inf):
            self.best = {"step": taken, "nll_valid": nll_valid}
        self.logs[1].row(epoch, phase, with_errors(figures))

    def details(self, marks: dict[str, int]) -> dict[str, Any]:
        """What a checkpoint holds of them, once all that was written is on disk; `marks` are kept besides the best."""
        self.positions = {name: log.position() for name, log in zip(self.directories, self.logs, strict=True)}
        details: dict[str, Any] = {"results": self.results, "clocks": self.clocks, "positions": self.positions}
        details |= {"evaluation": self.evaluation, MARKS: marks}
        if self.best:
            details |= {"best": self.best, MARKS: marks | {BEST: int(self.best["step"])}}
        return details
