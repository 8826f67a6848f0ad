"""SeqGAN from the command line: flags, data, networks, Algorithm 1, the last table."""

import signal

from support import streams

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until training has something to save
    streams.open_all()

import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import support.quiet  # noqa: F401 - before TensorFlow

import tensorflow as tf

from data.music.songs import check_songs, make_folder
from data.real import Dataset, read_data
from data.training_set import spread
from evaluation.metrics import described, report, told
from evaluation.run import Evaluation, Measures, evaluator_of, measures_of
from model import SeqGAN, build
from runs.checkpoints import Checkpoints
from runs.console import where
from runs.directories import CHECKPOINTS, FILES, SAVED, SONGS, WRITTEN_SONGS, RunDirectory, claim, write_whole
from runs.identity import changed_since, description
from runs.pretrained import Pretraining
from runs.records import Records
from runs.schedule import Schedule
from runs.training import Diverged, Interrupted, Training, take_up
from support import own_code
from support.config import Config, own_names, own_sources
from support.device import configure_tensorflow, of_cache
from support.errors import UsageError, first_line
from support.objective import Objective
from support.parser import parse
from tools.restored import teacher_of


class Makers(NamedTuple):
    """What makes the parts of a run; tests give others, which share what is compiled."""

    data: Callable[..., Dataset] = read_data
    seqgan: Callable[..., SeqGAN] = build
    measures: Callable[[Config, SeqGAN], Measures] = measures_of


MAKERS = Makers()


def algorithm_1(config: Config, data: Dataset, seqgan: SeqGAN, run: Training) -> None:
    """SeqGAN's training, with the lines of the paper's Algorithm 1; `run` leaves out what a resumed run has done."""
    phases = run.schedule
    # Line 1: G_θ and D_φ have their random initial weights. Line 2: pre-train G_θ by maximum likelihood on S.
    for epoch in run.epochs(phases.pretrain_g):
        for step in run.steps("mle"):  # one, the number of the epoch
            run.record(g_pretrain_loss=seqgan.mle_epoch(data.mle_batches(epoch), step))
        if config.average and run.last:
            seqgan.adopt_average()
    # Lines 4 and 5: pre-train D_φ on S and on samples of G_θ, by cross-entropy.
    for _ in run.epochs(phases.pretrain_d):
        for step in run.steps("d"):
            loss, accuracy = seqgan.d_step(data.real(int(step)), step)
            run.record(d_pretrain_loss=loss, d_pretrain_acc=accuracy)
        if seqgan.guidance and run.last:
            seqgan.guidance.choose_eta()
    # Lines 6 and 19: repeat.
    for _ in run.epochs(phases.adversarial):
        # Lines 7 to 13: g-steps. Each draws sequences, estimates Q by rollouts of G_β and ascends the policy gradient.
        for step in run.steps("g"):
            if step == 0:
                seqgan.begin_adversarial()  # line 3: β ← θ, which the pretraining of D left as it was
            update = seqgan.g_step(step)
            run.record(g_loss=update.loss, g_reward=update.reward)
            run.record_rewards(update.rewards, update.mask)
        for step in run.steps("mle"):  # not in the paper: --mle_steps on the batches after those of pretraining
            passes, place = divmod(int(step), config.mle_batches)
            epoch = config.pretrain_g_epochs + passes
            batch = data.mle_batches(epoch)[place]
            run.record(g_mle_loss=seqgan.mle_step(batch, tf.constant(epoch), tf.constant(place)))
        # Line 18: β ← θ. It stands before the d-steps, which leave both as they are.
        if run.moved:  # not where a resumed run had done it
            seqgan.follow_policy(lag=config.rollout_lag)
        # Lines 14 to 17: d-steps. Each draws fresh samples of G_θ and trains D_φ for k epochs.
        for step in run.steps("d"):
            loss, accuracy = seqgan.d_step(data.real(int(step)), step)
            run.record(d_loss=loss, d_acc=accuracy)
        if seqgan.guidance and config.d_steps and (run.due or seqgan.guidance.copy):
            seqgan.guidance.choose_eta()


def check(config: Config, data: Dataset, seqgan: SeqGAN, objective: Objective | None) -> None:
    """Raises UsageError: the data lack what a flag needs, or the objective fails on them."""
    chooses_eta = seqgan.guidance and (config.g_update == "fold" or not config.guide_eta)
    chooses_best = config.best_pretraining and config.pretrain_g_epochs
    if (chooses_eta or chooses_best) and not len(data.valid):
        which = "--g_update fold" if config.g_update == "fold" else "--guide_eta 0"
        which = "--best_pretraining" if chooses_best else which
        raise UsageError(f"{which} needs a validation set to choose on, and {data.origin} has none")
    if chooses_best and data.kind == "oracle":
        raise UsageError(f"--best_pretraining: nll_valid is not measured on {data.origin}, an oracle")
    if data.kind == "music" and config.songs_dir and config.is_train:
        check_songs(Path(config.songs_dir), SONGS)
    if objective:
        real = spread(data.valid, config.eval_samples)
        objective.check(real if len(real) else tf.convert_to_tensor(data.mle_batches(0)[0]).numpy())


def describe(
    config: Config, data: Dataset, directories: Sequence[RunDirectory], recorded: dict[str, Any], more: dict[str, Any]
) -> None:
    """Writes config.json, which has `more`, to each directory, and to the first one what the data set keeps there.

    `recorded` is the config.json of a run that goes on, {} for a new one.
    """
    content: dict[str, Any] = description(config) | {"data": data.digests(), "tokens": data.spec._asdict(), **more}
    content |= {FILES: [*data.files()], "run": recorded.get("run") or secrets.token_hex(8)}
    if content[SAVED]:  # what --pretrained names is not read
        content["flags"]["pretrained"] = recorded["flags"].get("pretrained", "")
        if changed := changed_since(recorded, content):
            print(f"warning: {changed}: the run will not be bitwise that of one machine and version", file=sys.stderr)
    if config.trains_discriminator and config.total_epochs and not config.updates.d:
        print("warning: D is never trained, as --pretrain_d_epochs and --d_steps are 0", file=sys.stderr)
    if data.kind == "music" and config.songs_dir:
        make_folder(Path(config.songs_dir))
    first = directories[0]
    for name, text in data.files().items():  # before config.json, which tells that they are complete
        write_whole(first.path / name, text)
    if data.kind == "music" and FILES in (recorded or content):  # version 1.0 kept no record of its songs
        (first.path / WRITTEN_SONGS).touch()  # before the first ones, as others that are there then are not ours
    for directory in directories:
        directory.describe(content)


def run(config: Config, makers: Makers) -> int:
    """Trains, or evaluates what was trained; returns the exit status.

    Raises UsageError: the flags, the data or what the directories hold can't be used. Raises Diverged: a loss or weight
    is not finite. Raises OSError: a log or checkpoint can't be written or read.
    """
    started = time.perf_counter()
    if sys.stderr.isatty():
        print("compiling: the first steps come within half a minute", file=sys.stderr)
    configure_tensorflow(config.threads, config.deterministic, cache=config.jit)
    with contextlib.ExitStack() as held:
        directories = [held.enter_context(RunDirectory(config.log_dir, "--log_dir", make=config.is_train))]
        if config.evaluate and config.is_train:
            directories.append(held.enter_context(RunDirectory(config.eval_log_dir, "--eval_log_dir")))
        first = directories[0]
        recorded, config = claim(directories, config)
        sources, data = own_sources(config), makers.data(config, recorded.get("data"))
        print(data.introduction(), flush=True)
        objective = Objective(config.objective, data.decode, sources["objective"]) if config.objective else None
        given: dict[str, Any] = {"oracle": data.oracle, "references": data.references, "validation": lambda: data.valid}
        given["teacher"], taught = teacher_of(config, data.spec, data.digests(), recorded)
        seqgan = makers.seqgan(config, data.spec, sources, objective=objective, batches=data.mle_batches, **given)
        first.check(recorded, data.origin, data.digests(), data.files(), SONGS if data.kind == "music" else ())
        first.check_code(recorded, sources)
        check(config, data, seqgan, objective)
        checkpoints, own = Checkpoints(first.path / CHECKPOINTS, seqgan.checkpoint()), sources | taught
        pretraining = None
        if config.overwrite and config.pretrained:
            pretraining = Pretraining(config, data.digests(), seqgan.pretrained_state(), own)
        taken, details = take_up(config, directories, checkpoints)
        if config.is_train and checkpoints.newest and config.pretrained and not recorded["flags"].get("pretrained"):
            why = f"the run in --log_dir {config.log_dir} began without it"
            raise UsageError(f"--pretrained: {why}; choose another directory, or --overwrite")
        of: dict[str, Any] = {"guidance": seqgan.guidance, "objective": objective, "pretrained": seqgan.pretrained}
        evaluation = Evaluation(evaluator_of(data, config), makers.measures(config, seqgan), **of)
        schedule = Schedule(config)
        if not config.is_train:
            if not checkpoints.newest:
                raise UsageError(f"--log_dir {config.log_dir}: the run has no checkpoint yet")
            print(report(evaluation.after_steps(schedule, taken)))
            return 0
        paths, mle = [directory.path for directory in directories], config.mle_steps > 0
        records = Records(paths, evaluation.columns, details, mle, described)
        measure = evaluation.after_epoch
        training = Training(schedule, checkpoints, records, directories, seqgan, taken, evaluate=measure, told=told)
        if checkpoints.newest:
            records.check()  # before anything is written
        if taken >= len(schedule):
            print(report(records.evaluation, "finished before", where(config), first=training.passed))
            return 0
        if checkpoints.newest:
            print(f"resumed from {checkpoints.newest}, after {taken} of {len(schedule)} steps", flush=True)
        elif config.pretrained and not pretraining:
            pretraining = Pretraining(config, data.digests(), seqgan.pretrained_state(), own)
        describe(config, data, directories, recorded, own | {SAVED: bool(checkpoints.newest)})
        with training.interrupt:
            held.callback(records.close)
            records.open()
            if pretraining:
                training.start_from(pretraining)
            with contextlib.suppress(Interrupted):
                algorithm_1(config, data, seqgan, training)
            try:
                if seqgan.guidance and schedule.renews_guide(training.taken, bool(seqgan.guidance.copy)):
                    seqgan.guidance.choose_eta()  # else what is saved has that of an older discriminator
            finally:
                training.save()
        if training.taken < len(schedule) and training.interrupt.signal is not None:
            saved_in = f"{training.taken} of {len(schedule)} steps; saved in {checkpoints.newest}"
            again = "the same command, without --overwrite," if config.overwrite else "the same command"
            print(f"interrupted after {saved_in}; {again} goes on from there")
            return 128 + training.interrupt.signal
        took = f"{time.perf_counter() - started:.0f} s, {training.evaluation_seconds:.0f} s of them evaluation"
        print(report(records.evaluation, took, where(config), first=training.passed))
        return 0


def main(argv: Sequence[str] | None = None, makers: Makers = MAKERS) -> int:
    """The program: parses `argv` (None: the command line), runs, and returns the exit status.

    A user's error is one line on stderr and status 2; a signal ends with status 128 + its number.
    """
    config = parse(argv)
    try:
        return run(config, makers)
    except (UsageError, Diverged) as error:
        line = str(error)
    except OSError as error:
        line = f"{error.filename or config.log_dir}: {error.strerror or error}"
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        memory = f"out of memory ({first_line(error)}); --batch_size and --rollout_num are the first to reduce"
        line = of_cache(error) or memory
    except Exception as error:
        if not (line := of_cache(error) or own_code.blame(error, own_names(config))):
            error.add_note(f"log directory: {config.log_dir}")
            raise
    print(f"main.py: error: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    streams.keep_writing()
    sys.exit(main())
