"""Tiny trainings that are killed, starved or signalled at chosen moments, and what is left of them.

Also a program: `python tests/fault_injection.py --kills 500` kills real trainings at random moments, and toy ones at
each call that changes a file, resumes them until they are finished, and compares them with one left alone.
"""

import argparse
import builtins
import csv
import errno
import gc
import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py
ROOT = Path(__file__).resolve().parent.parent
SIZES = shlex.split(
    "--no-jit --seq_len 3 --batch_size 2 --g_emb_dim 2 --g_hidden_dim 3 --rollout_num 2 --d_emb_dim 2 "
    "--d_filter_sizes 1 3 --d_num_filters 2 2 --d_batch_size 4 "
    "--pretrain_g_epochs 5 --pretrain_d_epochs 3 --total_epochs 5 --d_steps 2 --d_epochs 2 --eval_samples 4 "
    "--eval_every 2 --checkpoint_every 2 --keep_checkpoints 2"
)
TINY = [*SIZES, *shlex.split("--vocab_size 6 --oracle_emb_dim 2 --oracle_hidden_dim 3")]
CLOCKS = ("seconds_per_epoch", "compile_seconds", "seconds")  # the scalars that measure time
FILE_CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "truncate", "fsync")


class Ended(NamedTuple):
    """How a training ended."""

    status: int  # the exit status, or minus the signal that killed it
    out: str
    err: str
    seconds: float
    calls: int  # that change files, see `Fault`; 0 where it was killed


def flags(folder: Path, *more: str) -> list[str]:
    """The command line of a tiny run in `folder`."""
    return [*TINY, "--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval"), *more]


class Trainer:
    """Starts trainings as processes that are forked from one which has imported TensorFlow, to save seconds each."""

    def __init__(self):
        """Starts the parent of the trainings; `close` ends it."""
        command = [sys.executable, __file__, "--serve"]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._outputs = Path(tempfile.mkdtemp())

    def run(self, argv: list[str], **job: Any) -> Ended:
        """Runs main.main(argv) in a process of its own and waits for its end.

        Args:
            argv: the flags.
            **job: `toy=True`: a model without tensors to speak of; with `valid=True` its epoch 4 is the best.
                `eager=True`: the real model, its steps not traced, which takes longer than these few steps themselves.
                `send=[(seconds, signal), ...]`: signals, each so long after the one before, if it still runs. `at=n,
                action="SIGKILL"`, or another: what happens at the n-th call that changes a file, see `Fault`.
                `cwd=folder`: the working directory.
        """
        job |= {"argv": argv, "outputs": str(self._outputs)}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        status, seconds = json.loads(self._server.stdout.readline())
        out, err, calls = ((self._outputs / name).read_text() for name in ("out", "err", "calls"))
        return Ended(status, out, err, seconds, int(calls or 0))

    def close(self) -> None:
        """Ends the parent."""
        self._server.stdin.close()
        self._server.wait()
        shutil.rmtree(self._outputs)


# ---- in the forking parent and its children


def serve() -> int:
    """Reads jobs from stdin, a line of JSON each, and answers [status, seconds]."""
    sys.dont_write_bytecode = True  # these would be calls, too
    sys.path.insert(0, str(ROOT))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as main.py does where it is the program
    import main  # noqa: F401, the children need it

    gc.freeze()  # so that a child's collection is short
    for line in sys.stdin:
        job = json.loads(line)
        outputs = Path(job["outputs"])
        for name in ("out", "err", "calls"):
            (outputs / name).write_text("")
        started = time.perf_counter()
        child = os.fork()
        if not child:
            work(job, outputs)
        for delay, number in job.get("send", []):
            wait(child, delay)
            os.kill(child, number)  # it is there until it is waited for
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, time.perf_counter() - started]), flush=True)
    return 0


def wait(child: int, seconds: float) -> None:
    """Waits so long, or until the child has ended."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.002)


def work(job: dict[str, Any], outputs: Path) -> NoReturn:
    """One training, in the child."""
    import main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(outputs / name, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(job.get("cwd", "."))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the tests themselves may have been told to ignore
    if job.get("toy"):
        main.SeqGAN, main.DATASETS = ToyModel, {"LSTM": ToyData}
        if job.get("valid"):
            ToyData.evaluated = ("nll", "nll_valid")
    main.tf.config.run_functions_eagerly(job.get("eager", False))
    fault = Fault(job.get("at"), job.get("action", "SIGKILL"))
    fault.install()
    try:
        status = main.main(job["argv"])
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 1
    fault.at = None
    (outputs / "calls").write_text(str(fault.calls))
    gc.collect()  # complaints of what is torn down belong to stderr
    sys.stdout.flush()
    os._exit(status)  # the interpreter's own end takes TensorFlow a second


class Fault:
    """Counts the calls that change files, and has something happen just before one of them, or in its place."""

    def __init__(self, at: int | None, action: str):
        """At call number `at`, from 1: the signal or the error number (as an OSError) that `action` names, or a BUG."""
        self.at, self.action, self.calls = at, action, 0

    def install(self) -> None:
        """Replaces the calls, in this process for good."""
        import tensorflow as tf

        from runs.logs import RunLog

        for name in FILE_CALLS:
            setattr(os, name, self._wrapped(getattr(os, name)))
        builtins.open = io.open = self._wrapped(open, only_writing=True)
        RunLog.flush = self._wrapped(RunLog.flush)
        tf.train.Checkpoint.write = self._wrapped(tf.train.Checkpoint.write)

    def _wrapped(self, function, only_writing: bool = False):
        def call(*args, **kwargs):
            mode = kwargs.get("mode", args[1] if len(args) > 1 else "r")
            if not only_writing or "w" in mode or "a" in mode:
                self._count()
            result = function(*args, **kwargs)
            if only_writing and "w" in mode:  # the file is empty now
                self._count()
            return result

        return call

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self._act()

    def _act(self) -> None:
        if self.action == "BUG":
            raise ZeroDivisionError("a bug")
        if self.action.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.action))
        else:
            number = getattr(errno, self.action)
            raise OSError(number, os.strerror(number))


class ToyModel:
    """Stands for model.SeqGAN: every step, its number and its place change the only weights."""

    guided = None

    def __init__(self, config, vocab_size: int, start_token: int, end_token: int | None, **known):
        import tensorflow as tf

        self.weights = tf.Variable([0.1, 0.2, 0.3])
        self.diverges = config.g_lr > 1e37
        self._tf = tf

    def checkpoint(self):
        return self._tf.train.Checkpoint(weights=self.weights)

    def _step(self, number, scale: float):
        self.weights.assign(self._tf.sin(self.weights * scale + self._tf.cast(number, self._tf.float32)))
        return self._tf.reduce_sum(self.weights)

    def mle_epoch(self, batches, epoch):
        return self._step(batches[0], 1.1)

    def mle_step(self, tokens, epoch, place):
        return self._step(tokens, 1.2)

    def end_pretraining(self) -> None:
        self._step(0, 2.1)

    def g_step(self, number):
        from model import PolicyGradientStep

        loss, rewards = self._step(number, 1.3), self._tf.reshape(self.weights, [1, 3])
        if self.diverges and number == 1:
            self.weights.assign(self.weights * float("inf"))
        reward, mask = self._tf.reduce_mean(rewards), self._tf.ones_like(rewards)
        return PolicyGradientStep(loss, reward, rewards, self._tf.zeros([1, 3], self._tf.int32), mask)

    def d_step(self, real, number):
        return self._step(number, 1.7), self._step(number, 1.9)

    def follow_policy(self, lag: float) -> None:
        self._step(0, 2.3)

    def is_finite(self) -> bool:
        return bool(self._tf.reduce_all(self._tf.math.is_finite(self.weights)))


class ToyData:
    """Stands for a data.Dataset."""

    vocab_size, start_token, end_token, oracle = 2, 0, None, None
    evaluated, origin = ("nll", "d_gain"), "--toy"

    def __init__(self, config):
        pass

    def digests(self) -> dict[str, str]:
        return {"toys": "0"}

    def files(self) -> dict[str, str]:
        return {"vocabulary.json": "toy\n"}

    def introduction(self) -> str:
        return "toy"

    def mle_batches(self, epoch: int) -> list[int]:
        return [epoch]

    def real(self, step: int) -> None:
        return None

    def references(self) -> None:
        return None

    def validation(self) -> None:
        return None

    def evaluate(self, model, epoch: int, due) -> dict[str, tuple[float, float]]:
        figures = {"nll": (float(model.weights[0]), 0.5), "nll_valid": (float(abs(epoch - 6)), 0.5)}
        return {name: figures[name] for name in self.evaluated if name in figures}

    def evaluate_discriminator(self, model, epoch: int, beside=None) -> dict[str, tuple[float, float]]:
        return {"d_gain": (float(model.weights[1]), 0.5)}

    def log_samples(self, model, epoch: int, due, log) -> None:
        pass


# ---- what a run leaves


def timeless_rows(directory: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the time they took."""
    with open(directory / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in CLOCKS} for row in csv.DictReader(file)]


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run in `folder` leaves but times: events, metrics.csv, the newest and the best weights."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    left: dict[str, Any] = {}
    for kind in ("train", "eval"):
        directory = folder / kind
        events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            if tag.endswith(CLOCKS[1]):
                continue  # each process has its own
            # The hyper-parameters hold the directories' names.
            timeless = not tag.endswith((CLOCKS[0], CLOCKS[2])) and "hparams" not in tag
            left[f"{kind} {tag}"] = [
                (e.step, e.tensor_proto.SerializeToString(deterministic=True) if timeless else b"")
                for e in events.Tensors(tag)
            ]
        left[f"{kind} metrics.csv"] = timeless_rows(directory)
        left[f"{kind} event files"] = len(list(directory.glob("*.tfevents.*")))
    newest = max((folder / "train" / "checkpoints").glob("step-*"))
    best = json.loads((newest / "manifest.txt").read_text().partition("\n")[2])["details"].get("best")
    kept = {"weights": newest} | ({"best": newest.with_name(f"step-{best['step']:09d}")} if best else {})
    for kind, checkpoint in kept.items():
        reader = tf.train.load_checkpoint(str(checkpoint / "weights"))
        for name in reader.get_variable_to_shape_map():
            if "OBJECT_GRAPH" not in name:
                left[f"{kind} {name}"] = reader.get_tensor(name).tobytes()
        left[f"steps of {kind}"] = checkpoint.name
    return left


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The parts in which two outcomes differ."""
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


# ---- campaigns


def kill_at_random(
    trainer: Trainer, folder: Path, kills: int, seed: int, number: int = signal.SIGKILL, toy: bool = False
) -> int:
    """Sends signal `number` to trainings at random moments until `kills` have hit, resuming them.

    AssertionError where an outcome differs.

    Returns:
        how many runs these were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Real runs are taken step by step, which is slow where D learns much. Toys are asked what it knows.
    more = [] if toy else shlex.split("--d_eval_samples 0 --d_steps 1 --d_epochs 1")
    whole = trainer.run(flags(folder / "whole", *more), toy=toy, eager=not toy)
    assert whole.status == 0, whole
    expected, rng, hits, runs = outcome(folder / "whole"), random.Random(seed), 0, 0
    while hits < kills:
        runs += 1
        run = folder / f"run{runs}"
        while True:
            send = [(rng.uniform(0, whole.seconds), number)] if hits < kills else []
            ended = trainer.run(flags(run, *more), toy=toy, eager=not toy, send=send)
            if ended.status == 0:
                break
            assert ended.status in (-number, 128 + number), ended
            hits += 1
        assert not differing(outcome(run), expected), (run, differing(outcome(run), expected))
        shutil.rmtree(run)
    return runs


def fault_at_each_call(trainer: Trainer, folder: Path, action: str = "SIGKILL", stride: int = 1) -> int:
    """Has `action` happen at calls of a toy run that change a file, in turn, and resumes.

    These are all of its first calls, in which the directories become the run's, and from then on each `stride`-th.

    AssertionError where it is not one clear line, or an outcome differs.

    Returns:
        how many faults there were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = trainer.run(flags(folder / "whole"), toy=True)
    assert whole.status == 0 and whole.calls > 50, whole
    expected = outcome(folder / "whole")
    places = [*range(1, 30), *range(30, whole.calls + 1, stride)]
    for at in places:
        run = folder / f"run{at}"
        ended = trainer.run(flags(run), toy=True, at=at, action=action)
        if action == "SIGKILL":
            assert ended.status == -signal.SIGKILL, (at, ended)
        else:
            assert ended.status == 2 and ended.err.count("\n") == 1, (at, ended)
            assert os.strerror(getattr(errno, action)) in ended.err and str(run) in ended.err, (at, ended)
        ended = trainer.run(flags(run), toy=True)
        assert ended.status == 0 and not ended.err, (at, ended)
        assert not differing(outcome(run), expected), (at, differing(outcome(run), expected))
        shutil.rmtree(run)
    return len(places)


def main_program() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--kills", type=int, default=30, help="at random moments of real trainings (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args()
    if args.serve:
        return serve()
    trainer, folder = Trainer(), Path(tempfile.mkdtemp())
    try:
        for action in ("SIGKILL", "ENOSPC", "EROFS"):
            print(f"{action} at each call: {fault_at_each_call(trainer, folder / action, action)} survived", flush=True)
        runs = kill_at_random(trainer, folder / "random", args.kills, args.seed)
        print(f"SIGKILL at random moments: {args.kills} survived, in {runs} runs")
    finally:
        trainer.close()
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main_program())
