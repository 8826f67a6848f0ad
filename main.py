"""SeqGAN from the command line: flags, building, the three phases, evaluation, saving."""

import signal

from support import streams

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until training has something to save
    streams.open_all()

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import contextlib
import math
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data import Dataset, Due
from data.music.dataset import NottinghamData
from data.text import TextData
from data.training_set import spread
from evaluation import Evaluated
from model import SeqGAN
from oracle import OracleData
from runs.checkpoints import Checkpoints
from runs.console import GUIDED, Figures, Progress, guided_names, in_one_line, report, resampled_names, where
from runs.directories import CHECKPOINTS, SAVED, SONGS, RunDirectory, claim
from runs.identity import changed_since, description
from runs.pretrained import Pretraining
from runs.records import Records
from runs.schedule import ADVERSARIAL, PRETRAIN_D, PRETRAIN_G, Schedule, Step
from runs.signals import Interrupt
from support import compile_cache
from support.config import Config, UsageError
from support.config_file import FREE_TO_CHANGE
from support.device import configure_tensorflow
from support.metrics import mean_and_error
from support.objective import FIGURES, Objective
from support.parser import parse

HALF = "half_copied"  # in a checkpoint that `Run.start_from` has left behind: the logs are further than it is
DATASETS: dict[str, Callable[[Config], Dataset]] = {"LSTM": OracleData, "Nottingham": NottinghamData, "text": TextData}


class Diverged(RuntimeError):
    """A loss or a weight is no longer a finite number."""


class Run:
    """One run: takes the steps of the schedule, records epochs, evaluates and saves."""

    def __init__(
        self, config: Config, data: Dataset, model: SeqGAN, checkpoints: Checkpoints, directories: list[RunDirectory]
    ):
        """Resumes from the newest good checkpoint, if there is one."""
        self.config, self.data, self.model, self.checkpoints = config, data, model, checkpoints
        self.directories = directories
        self.steps = Schedule(config)
        self.taken, details = checkpoints.restore() or (0, {})
        self.half_copied = bool(details.get(HALF))
        self.objective = model.objective if config.objective else None
        evaluated = (*data.evaluated, *(FIGURES if self.objective else ()))
        guided = guided_names(evaluated) if model.guided else ()
        resampled = resampled_names(data.evaluated) if config.measures_discriminator and config.candidates else ()
        self.records = Records(config, (*evaluated, *guided, *resampled), details)
        self.evaluation_seconds = 0.0
        self._compiled: set[tuple[str, bool, bool, bool]] = set()  # kinds of steps
        self._of_real: tuple[float, float] | None = None
        if self.objective and len(real := spread(data.validation(), config.eval_samples)):
            self._of_real = mean_and_error(self.objective.score(real))

    def train(self, interrupt: Interrupt) -> None:
        """Takes the steps that are left, until the end or an interrupt, and saves.

        Raises Diverged: a loss or weight is not finite; the last good checkpoint stays. Raises OSError: a log or
        checkpoint can't be written; earlier checkpoints stay.
        """
        while not self.finished and interrupt.signal is None:
            self._phase(self.steps[self.taken].phase, interrupt)
        self.save()

    def _phase(self, phase: str, interrupt: Interrupt) -> None:
        """Takes the steps of one phase, with a progress bar of its epochs."""
        with Progress(phase, self.steps.epochs[phase], self.steps[self.taken].epoch) as progress:
            started, compiling = time.perf_counter(), 0.0
            while not self.finished and self.steps[self.taken].phase == phase and interrupt.signal is None:
                step, since = self.steps[self.taken], time.perf_counter()
                self.records.results.append(self._take(step))
                self.taken += 1
                spent, compiled = time.perf_counter() - since, self._compiles(step)
                compiling += spent if compiled else 0.0
                self.records.clock(f"{step.phase} {step.kind}", spent, compiled)
                if step.last:
                    figures, evaluation = self._end_epoch(step, time.perf_counter() - started, compiling)
                    progress.update(step.epoch, figures, evaluation)
                    best = self.records.best
                    if self.steps.checkpoint_due(step) or (best and best["step"] == self.taken):
                        self.save()
                    started, compiling = time.perf_counter(), 0.0
        if not self.finished and self.steps[self.taken].phase != phase:
            self.save()

    def _compiles(self, step: Step) -> bool:
        """Whether the step, asked about once, is the first of its kind in this process, which XLA compiles."""
        pretraining = step.phase == PRETRAIN_G
        averages = pretraining and self.config.average > 0 and self.steps.ends_phase(step)
        kind = (step.kind, pretraining, step.policy_done, averages)
        new = kind not in self._compiled
        self._compiled.add(kind)
        return new

    def _take(self, step: Step) -> dict[str, float]:
        """One update; returns its figures."""
        number = tf.constant(step.number)
        if step.phase == PRETRAIN_G:
            figures = {"g_pretrain_loss": self.model.mle_epoch(self.data.mle_batches(step.epoch), number)}
            if self.config.average and self.steps.ends_phase(step):
                self.model.end_pretraining()
        elif step.kind == "mle":
            passes, place = divmod(step.number, self.config.mle_batches)  # the batches after those of pretraining
            epoch = self.config.pretrain_g_epochs + passes
            batch = self.data.mle_batches(epoch)[place]
            figures = {"g_mle_loss": self.model.mle_step(batch, tf.constant(epoch), tf.constant(place))}
        elif step.kind == "g":
            if step.number == 0:
                self.model.follow_policy(lag=0.0)  # the rollouts begin with the pretrained policy
                if self.config.objective:
                    self.model.keep_pretrained()
            if self.steps.reference_due(step):
                self.model.keep_reference()
            result = self.model.g_step(number)
            figures = {"g_loss": result.loss, "g_reward": result.reward}
            if self.steps.evaluation_due(step):
                rewards, chosen = result.rewards.numpy(), result.mask.numpy() > 0
                for t in range(self.config.seq_len):
                    values = rewards[chosen[:, t], t]  # no token was chosen once a sequence was finished
                    self.records.logs[0].histogram(self.steps.axis(step), f"reward_at_step/{t + 1:02d}", values)
        else:
            loss, accuracy = self.model.d_step(self.data.real(step.number), number)
            prefix = "d_pretrain" if step.phase == PRETRAIN_D else "d"
            figures = {f"{prefix}_loss": loss, f"{prefix}_acc": accuracy}
        if step.policy_done:
            self.model.follow_policy(lag=self.config.rollout_lag)
        figures = {name: float(value) for name, value in figures.items()}
        for name, value in figures.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value} at {step}")
        # In pretraining the next loss would tell. Here it may be the other network's, which need not.
        if step.phase == ADVERSARIAL and not self.model.is_finite():
            raise self._diverged(f"a weight is not finite after {step}")
        return figures

    def _diverged(self, what: str) -> Diverged:
        kept = self.checkpoints.newest
        return Diverged(f"{what}; " + (f"the last good checkpoint is {kept}" if kept else "no checkpoint yet"))

    def _end_epoch(self, step: Step, seconds: float, compiling: float) -> tuple[dict[str, float], Figures | None]:
        """Writes the epoch's row and, where it is due, evaluates; returns its figures and those of the evaluation.

        The epoch took so many `seconds`, those of the steps that were `compiling` among them.
        """
        axis, evaluated, records = self.steps.axis(step), self.steps.evaluation_due(step), self.records
        clock = {"seconds_per_epoch": seconds - compiling} | ({"compile_seconds": compiling} if compiling else {})
        clock = {} if step.phase == PRETRAIN_D else clock  # which has its own axis
        figures = records.end_epoch(axis, step.phase, clock)
        due = Due(evaluated, self.steps.samples_due(step), self.steps.ends_phase(step))
        evaluation = self._evaluate(step, due) if self.config.evaluate and evaluated else {}
        if step.phase != PRETRAIN_D:  # which leaves the generator as it is
            self.data.log_samples(self.model, axis, due, records.logs[-1])
        return figures, evaluation if evaluated else None

    def _evaluate(self, step: Step, due: Due) -> Figures:
        """Measures and writes the row, if there is anything to measure; returns the figures."""
        started, epoch = time.perf_counter(), self.steps.g_epoch(step)
        with np.errstate(all="ignore"):
            figures = self.measure(step.phase, epoch, due)
        for name, (value, _) in figures.items():
            if not math.isfinite(value):  # weights too large, if finite
                raise self._diverged(f"{name} is {value} after {step}")
        self.evaluation_seconds += time.perf_counter() - started
        if figures:  # not where D alone has been trained, and what it knows is not measured
            seconds = self.records.seconds(self.steps, self.taken)
            figures |= {} if math.isnan(seconds) else {"seconds": (seconds, math.nan)}
            self.records.evaluated(epoch, step.phase, figures, self.taken)
        return figures

    def measure(self, phase: str, epoch: int, due: Due) -> dict[str, tuple[float, float]]:
        """The figures of the networks that a phase trains, {name: (value, standard error)}."""
        config = self.config
        of_d = phase != PRETRAIN_G and config.measures_discriminator
        new = phase != PRETRAIN_D or self.model.guided or config.pretrain_d  # or what it is shown beside
        figures: dict[str, tuple[float, float]] = {}
        if new:
            figures = self._measured(self.model, epoch, due)
        elif of_d and config.candidates:
            figures = self.data.evaluate(self.model, epoch, Due(True, False, False))
        if of_d:
            known = self.data.evaluate_discriminator(self.model, epoch, figures)
            figures = {**figures, **known} if new else known
        if phase != PRETRAIN_G and self.model.guided:
            figures["guide_eta"] = self.model.choose_eta(), math.nan
            of_guided = self._measured(self.model.guided, epoch, due)
            names = guided_names(of_guided)
            figures |= {f"{name}{GUIDED}": pair for name, pair in of_guided.items() if f"{name}{GUIDED}" in names}
        return figures

    def _measured(self, evaluated: SeqGAN | Evaluated, epoch: int, due: Due) -> dict[str, tuple[float, float]]:
        """The figures of a policy, those of an objective among them."""
        figures = self.data.evaluate(evaluated, epoch, due)
        if self.objective:
            figures |= evaluated.towards(self.objective, self.model.pretrained, self.config.eval_samples, epoch)
            if self.taken <= self.steps.pretraining:
                del figures["kl_to_pretrained"]
            if self._of_real:
                figures["real_objective"] = self._of_real
        return figures

    def save(self, **more: bool) -> None:
        """Saves the state after the steps taken so far, and `more` details. Raises Diverged: a weight is not finite."""
        if not self.model.is_finite():
            raise self._diverged(f"a weight is not finite after {self.steps[self.taken - 1]}")
        first = not self.checkpoints.newest
        if self.model.guided and self.taken > self.config.pretrain_g_epochs:
            self.model.choose_eta()  # that of these weights, whether they were evaluated or not
        self.checkpoints.save(self.taken, self.records.details(self.steps.marks(self.taken)) | more)
        if first:
            for directory in self.directories:
                directory.note_saved(True)
        compile_cache.keep()

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.taken >= len(self.steps)

    def start_from(self, pretraining: Pretraining) -> None:
        """Takes the place at the end of another run's pretraining, with the records and the best checkpoint of that."""
        self.records.take_over(pretraining)
        best = int(pretraining.best["step"]) if pretraining.best else pretraining.taken
        for step in sorted({best, pretraining.taken}):
            self.taken, _ = pretraining.restore(step)
            self.save(**({HALF: True} if step < pretraining.taken else {}))


def run(config: Config) -> int:
    """Trains, or evaluates what was trained; returns the exit status.

    Raises UsageError: the flags, the data or what the directories hold can't be used. Raises Diverged: a loss or weight
    is not finite. Raises OSError: a log or checkpoint can't be written or read.
    """
    started = time.perf_counter()
    if sys.stderr.isatty():
        print("compiling: the first steps come within half a minute", file=sys.stderr)
    compiled_from = vars(config).keys() - FREE_TO_CHANGE - {"seed", "total_epochs"}
    compiled = ("main.py", {name: getattr(config, name) for name in compiled_from})
    keep_compiled = compiled if config.jit and config.compile_cache else ()
    configure_tensorflow(config.threads, config.deterministic, config.tf32, keep_compiled)
    with contextlib.ExitStack() as held:
        directories = [held.enter_context(RunDirectory(config.log_dir, "--log_dir", make=config.is_train))]
        if config.evaluate and config.is_train:
            directories.append(held.enter_context(RunDirectory(config.eval_log_dir, "--eval_log_dir")))
        recorded = claim(directories, config)
        data: Dataset = DATASETS[config.dataset](config)
        print(data.introduction(), flush=True)
        if (config.g_update == "fold" or (config.guides and not config.guide_eta)) and not len(data.validation()):
            which = "--g_update fold" if config.g_update == "fold" else "--guide_eta 0"
            raise UsageError(f"{which} needs a validation set to choose η on, and {data.origin} has none")
        objective = Objective.read(config.objective, data.decode) if config.objective else None
        tokens: dict[str, Any] = {n: getattr(data, n) for n in ("vocab_size", "start_token", "end_token")}
        more: dict[str, Any] = {n: getattr(data, n) for n in ("oracle", "references", "validation")}
        model = SeqGAN(config, **tokens, **more, objective=objective)
        checkpoints = Checkpoints(directories[0].path / CHECKPOINTS, model.checkpoint(), config.keep_checkpoints)
        files, digests = data.files(), data.digests()
        songs = SONGS if config.dataset == "Nottingham" else ()
        directories[0].check(recorded, data.origin, digests, files, songs)
        source, pretraining = objective.source if objective else None, None
        if objective:
            if not config.overwrite:
                directories[0].check_objective(recorded, config, objective.source)
            real = spread(data.validation(), config.eval_samples)
            objective.check(real if len(real) else next(iter(data.mle_batches(0))).numpy())
        if config.overwrite and config.pretrained:
            if Path(config.pretrained).resolve() == Path(config.log_dir).resolve():
                raise UsageError(f"--pretrained {config.pretrained}: is the --log_dir that --overwrite empties")
            pretraining = Pretraining(config, digests, model.pretrained_state(), source)
        if config.overwrite:  # not earlier: what can't be used must cost nothing
            directories[0].note_saved(False)  # else half of this, after a kill, would look like lost weights
            checkpoints.remove_all()
            for directory in reversed(directories):  # --log_dir last, as it tells whose the other's records are
                directory.wipe()
        training = Run(config, data, model, checkpoints, directories)
        if config.is_train and training.half_copied:
            if not config.pretrained:
                raise UsageError(f"--log_dir {config.log_dir}: copying --pretrained was interrupted; give it once more")
            directories[0].note_saved(False)
            checkpoints.remove_all()
            training = Run(config, data, model, checkpoints, directories)
        if not config.is_train:
            if not checkpoints.newest:
                raise UsageError(f"--log_dir {config.log_dir}: the run has no checkpoint yet")
            phase = ADVERSARIAL if training.taken > config.pretrain_g_epochs else PRETRAIN_G
            print(report(training.measure(phase, epoch=0, due=Due(True, True, True))))
            return 0
        if training.finished:
            print(report(training.records.evaluation, "finished before", where(config)))
            return 0
        if checkpoints.newest:
            taken = f"{training.taken} of {len(training.steps)} steps"
            print(f"resumed from {checkpoints.newest}, after {taken}", flush=True)
        elif config.pretrained and not pretraining:
            pretraining = Pretraining(config, digests, model.pretrained_state(), source)
        described = description(config) | {"data": digests, "tokens": tokens}
        described |= {"objective": objective.source} if objective else {}
        described |= {"run": recorded.get("run") or secrets.token_hex(8), SAVED: bool(checkpoints.newest)}
        if checkpoints.newest and (changed := changed_since(recorded, described)):
            print(f"warning: {changed}: the run will not be bitwise that of one machine and version", file=sys.stderr)
        directories[0].keep(files)
        for directory in directories:
            directory.describe(described)
        with Interrupt() as interrupt:
            held.callback(training.records.close)
            training.records.open(described)
            if pretraining:
                training.start_from(pretraining)
            training.train(interrupt)
        if interrupt.signal is not None and not training.finished:
            saved = f"{training.taken} of {len(training.steps)} steps; saved in {checkpoints.newest}"
            again = "the same command, without --overwrite," if config.overwrite else "the same command"
            print(f"interrupted after {saved}; {again} goes on from there")
            return 128 + interrupt.signal
        seconds = time.perf_counter() - started
        took = f"{seconds:.0f} s, {training.evaluation_seconds:.0f} s of them evaluation"
        print(report(training.records.evaluation, took, where(config)))
        return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The program: parses `argv` (None: the command line), runs, and returns the exit status.

    A user's error is one line on stderr and status 2; a signal ends with status 128 + its number.
    """
    config = parse(argv)
    try:
        return run(config)
    except (UsageError, Diverged, OSError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        if config.debug:
            raise
        print(f"main.py: error: {in_one_line(error, config)}", file=sys.stderr)
        return 2
    except Exception as error:
        error.add_note(f"log directory: {config.log_dir}")
        raise


if __name__ == "__main__":
    streams.keep_writing()
    sys.exit(main())
