"""A run's way through the loops of Algorithm 1: it counts steps, skips those that were taken, records and saves."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from runs.checkpoints import Checkpoints
from runs.console import Progress
from runs.directories import PRETRAINED, RunDirectory
from runs.logs import RunLog
from runs.pretrained import Pretraining
from runs.records import Records
from runs.schedule import Phase, Schedule
from runs.signals import Interrupt
from support.config import Config
from support.errors import UsageError
from support.statistics import Figures

RISE = 0.01  # of nll_valid above its least, nats per token, that is worth a word
HALF = "half_copied"  # in a checkpoint that `Training.start_from` has left behind: the logs are further than it is


class Diverged(RuntimeError):
    """A loss or a weight is no longer a finite number."""


class Interrupted(Exception):
    """A signal asks the run to save and end."""


@dataclass
class Training:
    """The steps that a run has taken, and what happens between them.

    The loops of main.py ask it for epochs and steps. It leaves out those that a resumed run has behind it. A step is
    taken when the loop asks for the next one, so that what a loop does after its last step belongs to that step. At
    the end of an epoch it writes a row, evaluates and saves where they are due.
    """

    schedule: Schedule
    checkpoints: Checkpoints
    records: Records
    directories: Sequence[RunDirectory]  # which all note the first checkpoint
    seqgan: Any  # a `model.SeqGAN`, after `taken` steps
    taken: int
    evaluate: Callable[[Schedule, Phase, int, int, RunLog], Figures | None]  # `Evaluation.after_epoch`
    told: Callable[[Figures], dict[str, float]]  # picks what a line of progress has of an evaluation

    def __post_init__(self) -> None:
        self.interrupt = Interrupt()
        self.evaluation_seconds = 0.0
        self.moved = False  # whether this process has taken a step of the epoch
        self._phase, self._epoch = self.schedule.pretrain_g, 0
        self._compiled: set[str] = set()  # kinds of steps that this process has taken
        self._compiling = 0.0  # seconds of this epoch's steps that were the first of their kind

    @property
    def due(self) -> bool:
        """Whether the epoch under way is evaluated or saved at its end."""
        at, every = (self._phase, self._epoch), self.schedule.config.checkpoint_every
        return self.schedule.evaluation_due(*at) or self.schedule.due(every, *at)

    @property
    def last(self) -> bool:
        """Whether the epoch under way is the last of its phase."""
        return self.schedule.ends(self._phase, self._epoch)

    @property
    def passed(self) -> str:
        """Where nll_valid was least, and the share of copies, in words; "" where it has hardly risen since."""
        best, newest = self.records.best, self.records.evaluation
        if not best or newest.get("nll_valid", (-math.inf, 0.0))[0] < best["nll_valid"] + RISE:
            return ""
        place = self.schedule.place(int(best["step"]))
        words = f"nll_valid was least, {best['nll_valid']:.3f}, at {place}: tools/sample.py --checkpoint best"
        return words + (f"; copied_share {newest['copied_share'][0]:.3f}" if "copied_share" in newest else "")

    def epochs(self, phase: Phase) -> Iterator[int]:
        """The epochs of a phase that are not over; after each its row, evaluation and checkpoint.

        Raises Diverged, OSError: as `save`. Warns where what follows pretraining begins from an overfitted generator.
        """
        if self.taken >= phase.end:
            return
        if self.taken == self.schedule.pretrain_g.end > 0 and self.passed:
            flag = "--best_pretraining begins it from there"
            print(f"warning: {phase.name} begins from an overfitted generator: {self.passed}; {flag}", file=sys.stderr)
        first = max(self.taken - phase.begin, 0) // phase.per_epoch
        with Progress(phase.name, phase.epochs, first, self.told) as progress:
            for epoch in range(first, phase.epochs):
                self._phase, self._epoch, self.moved = phase, epoch, False
                started, self._compiling = time.perf_counter(), 0.0
                yield epoch
                figures, evaluation = self._end_epoch(time.perf_counter() - started)
                progress.update(epoch, figures, evaluation, self.passed)
                best, every = self.records.best, self.schedule.config.checkpoint_every
                if self.schedule.due(every, phase, epoch) or (best and best["step"] == self.taken):
                    self.save()

    def steps(self, kind: str) -> Iterator[tf.Tensor]:
        """The steps of a kind that are left of the epoch: the number of each within its kind, int32 scalars.

        The numbers of D's steps go on from those of its pretraining, all others begin at 0 with the phase. Raises
        Interrupted, before a step, where a signal has come. Raises Diverged: a weight is not finite.
        """
        phase, name = self._phase, f"{self._phase.name} {kind}"
        before = self.schedule.pretrain_d.epochs if kind == "d" and phase is self.schedule.adversarial else 0
        for turn, number in enumerate(phase.numbers(self._epoch, kind)):
            if number < self.taken:
                continue
            if self.interrupt.signal is not None:
                raise Interrupted
            started = time.perf_counter()
            yield tf.constant(before + self._epoch * phase.steps[kind] + turn)
            # In pretraining the next loss would tell. Here it may be the other network's, which need not.
            if phase is self.schedule.adversarial and not self.seqgan.is_finite():
                raise self._diverged("a weight is not finite")
            self.taken, self.moved = self.taken + 1, True
            spent, new = time.perf_counter() - started, name not in self._compiled
            self._compiled.add(name)
            self._compiling += spent if new else 0.0
            self.records.clock(name, spent, new)

    def record(self, **figures: tf.Tensor) -> None:
        """Takes down figures of a step, float32 scalars. Raises Diverged: one is not finite."""
        values = {name: float(value) for name, value in figures.items()}
        if wrong := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
            raise self._diverged(", ".join(wrong))
        self.records.results.append(values)

    def record_rewards(self, rewards: tf.Tensor, mask: tf.Tensor) -> None:
        """Writes a histogram of the rewards of each time step where an evaluation is due: float32 [B, T] both."""
        if not self.schedule.evaluation_due(self._phase, self._epoch):
            return
        axis, values, chosen = self.schedule.axis(self._phase, self._epoch), rewards.numpy(), mask.numpy() > 0
        for t in range(values.shape[1]):  # no token was chosen once a sequence was finished
            self.records.logs[0].histogram(axis, f"reward_at_step/{t + 1:02d}", values[chosen[:, t], t])

    def _diverged(self, what: str) -> Diverged:
        newest = self.checkpoints.newest
        kept = f"the last good checkpoint is {newest}" if newest else "no checkpoint yet"
        return Diverged(f"{what} in {self._phase.name} {self._epoch + 1}/{self._phase.epochs}; {kept}")

    def _end_epoch(self, seconds: float) -> tuple[dict[str, float], Figures | None]:
        """Writes an epoch's row, evaluates where due; returns the means of its figures, and the evaluation's."""
        phase, epoch, records = self._phase, self._epoch, self.records
        clock = {"seconds_per_epoch": seconds - self._compiling}
        clock |= {"compile_seconds": self._compiling} if self._compiling else {}
        # D's pretraining has an axis of its own.
        clock = {} if phase is self.schedule.pretrain_d else clock
        figures = records.end_epoch(self.schedule.axis(phase, epoch), phase.name, clock)
        started = time.perf_counter()
        at = self.schedule, phase, epoch, self.taken, records.logs[-1]
        evaluation, best = self.evaluate(*at), records.best
        back = self.schedule.config.best_pretraining and phase is self.schedule.pretrain_g and self.last
        if back and best and evaluation and evaluation["nll_valid"][0] > best["nll_valid"]:
            Checkpoints(self.checkpoints.directory, self.seqgan.pretrained_state(), whole=False).look(int(best["step"]))
            if self.schedule.config.average:
                self.seqgan.adopt_average()
            evaluation = self.evaluate(*at)
        self.evaluation_seconds += time.perf_counter() - started
        for name, (value, _) in (evaluation or {}).items():
            if not math.isfinite(value):  # weights too large, if finite
                raise self._diverged(f"{name} is {value}")
        if evaluation:
            seconds = records.seconds(*map(self.schedule.taken_of, (self.taken, len(self.schedule))))
            evaluation = {**evaluation, **({} if math.isnan(seconds) else {"seconds": (seconds, math.nan)})}
            records.evaluated(self.schedule.g_epoch(phase, epoch), phase.name, evaluation, self.taken)
        return figures, evaluation

    def save(self, **more: bool) -> None:
        """Saves the state after the steps taken so far, and `more` details.

        Raises Diverged: a weight is not finite; the last good checkpoint stays. Raises OSError: it can't be written.
        """
        if not self.seqgan.is_finite():
            raise self._diverged("a weight is not finite")
        first, pretrained = not self.checkpoints.newest, self.schedule.pretrain_g.end
        marks = {PRETRAINED: pretrained} if 0 < pretrained <= self.taken else {}
        self.checkpoints.save(self.taken, self.records.details(marks) | more)
        for directory in self.directories if first else ():
            directory.note_saved(True)

    def start_from(self, pretraining: Pretraining) -> None:
        """Takes the place at the end of another run's pretraining, with its records and its best checkpoint."""
        self.records.take_over(pretraining)
        best = int(pretraining.best["step"]) if pretraining.best else pretraining.taken
        for step in sorted({best, pretraining.taken}):
            self.taken, _ = pretraining.restore(step)
            self.save(**({HALF: True} if step < pretraining.taken else {}))


def take_up(
    config: Config, directories: Sequence[RunDirectory], checkpoints: Checkpoints
) -> tuple[int, dict[str, Any]]:
    """Loads the newest checkpoint, or with --overwrite removes an earlier run: (steps taken, details), (0, {}) of none.

    Raises UsageError: all checkpoints are damaged, or the first ones hold half of what --pretrained names.
    """
    first = directories[0]
    if config.overwrite:  # not earlier: what can't be used must cost nothing
        first.note_saved(False)  # else half of this, after a kill, would look like lost weights
        checkpoints.remove_all()
        for directory in reversed(directories):  # --log_dir last, as it tells whose the other's records are
            directory.wipe()
    taken, details = checkpoints.restore(tidy=config.is_train) or (0, {})
    if config.is_train and details.get(HALF):
        if not config.pretrained:
            raise UsageError(f"--log_dir {config.log_dir}: copying --pretrained was interrupted; give it once more")
        first.note_saved(False)
        checkpoints.remove_all()
        return 0, {}
    return taken, details
