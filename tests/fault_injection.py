"""Tiny trainings that are killed, starved or signalled at chosen moments; as a program, what they are forked from."""

import builtins
import csv
import errno
import gc
import io
import itertools
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py
ROOT = Path(__file__).resolve().parent.parent
SIZES = shlex.split(
    "--no-jit --seq_len 3 --batch_size 2 --g_emb_dim 2 --g_hidden_dim 3 --rollout_num 2 --d_emb_dim 2 "
    "--d_filter_sizes 1 3 --d_num_filters 2 2 --d_batch_size 4 --pretrain_g_epochs 5 --pretrain_d_epochs 3 "
    "--total_epochs 5 --d_steps 2 --d_epochs 2 --eval_samples 4 --eval_every 2 --checkpoint_every 2"
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


def logs_in(folder: Path) -> list[str]:
    """The flags of a run's directories."""
    return ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]


def flags(folder: Path, *more: str) -> list[str]:
    """The command line of a tiny run in `folder`."""
    return fitting(TINY, [*logs_in(folder), *more])


def fitting(sizes: list[str], more: list[str]) -> list[str]:
    """A command line of sizes and of `more`, without those of the sizes that the others leave without effect."""
    from support.config import Config, UsageError, lacking
    from support.parser import defaults_of, explicit_flags, words_of

    try:
        own, given = explicit_flags(more), explicit_flags([*sizes, *more])
        config = Config(**defaults_of(given) | given)
    except UsageError:  # which the program shall find
        return [*sizes, *more]
    kept = {name: value for name, value in given.items() if name not in own and not lacking(config, name)}
    return [*words_of(kept), *more]


class Trainer:
    """Starts trainings as processes that are forked from one which has imported TensorFlow, to save seconds each."""

    def __init__(self):
        """Starts the parent of the trainings; `close` ends it."""
        command = [sys.executable, __file__]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._outputs = Path(tempfile.mkdtemp())

    def run(self, argv: list[str], **job: Any) -> Ended:
        """Runs main.main(argv) in a process of its own, with the working directory `cwd`, and waits for its end.

        `toy=True`: a model without tensors to speak of; with `valid=True` its epoch 4 is the best. `eager=True`: the
        real model, its steps not traced. `send=[(seconds, signal), ...]`: signals, each so long after the one before.
        `at=n, action="SIGKILL"`, or another: what happens at the n-th call that changes a file, see `Fault`.
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


def until(condition: Callable[[], Any], seconds: float = 240) -> None:
    """Waits until a condition is met."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


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
    import tensorflow as tf

    import main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(outputs / name, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(job.get("cwd", "."))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the tests themselves may have been told to ignore
    tf.config.run_functions_eagerly(job.get("eager", False))
    makers = main.MAKERS
    if job.get("toy"):
        import toy

        makers = toy.makers(valid=job.get("valid", False))
    fault = Fault(job.get("at"), job.get("action", "SIGKILL"))
    fault.install()
    try:
        status = main.main(job["argv"], makers)
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

        for name in FILE_CALLS:
            setattr(os, name, self._wrapped(getattr(os, name)))
        tf.train.Checkpoint.write = self._wrapped(tf.train.Checkpoint.write)
        opened = open

        def open_file(path, mode="r", *args, **kwargs):
            if "w" not in mode and "a" not in mode:
                return opened(path, mode, *args, **kwargs)
            self._count()
            file = opened(path, mode, *args, **kwargs)
            if "w" in mode:  # it is empty now
                self._count()
            file.flush = self._wrapped(file.flush)
            return file

        builtins.open = io.open = open_file

    def _wrapped(self, function):
        def call(*args, **kwargs):
            self._count()
            return function(*args, **kwargs)

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


def change(path: Path, **changed) -> None:
    """Changes entries of a config.json, those of `flags` one by one."""
    content = json.loads(path.read_text())
    for name, value in changed.items():
        content[name] = content[name] | value if name == "flags" else value
    path.write_text(json.dumps(content))


def checkpoints(folder: Path) -> list[Path]:
    """Those of a run in `folder`, the newest last."""
    return sorted((folder / "train" / "checkpoints").glob("step-*"))


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def timeless_rows(directory: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the time they took."""
    rows = rows_of(directory / "metrics.csv")
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


def events_of(directory: Path) -> Any:
    """What TensorBoard reads of a directory's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return events


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run in `folder` leaves but times: events, metrics.csv, the newest and the best weights."""
    import tensorflow as tf

    left: dict[str, Any] = {}
    for kind in ("train", "eval"):
        directory = folder / kind
        events = events_of(directory)
        for tag in events.Tags()["tensors"]:
            if tag.endswith(CLOCKS[1:]):
                continue  # each process compiles for itself, and knows a time once it has taken it
            timeless = not tag.endswith(CLOCKS[0])
            kept = [(event.step, event.tensor_proto) for event in events.Tensors(tag)]
            left[f"{kind} {tag}"] = [(n, timeless and it.SerializeToString(deterministic=True)) for n, it in kept]
        left[f"{kind} metrics.csv"] = timeless_rows(directory)
        left[f"{kind} event files"] = len(list(directory.glob("*.tfevents.*")))
    newest = checkpoints(folder)[-1]
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


def kill_at_random(trainer: Trainer, folder: Path, kills: int, seed: int, number=signal.SIGKILL, toy=False) -> int:
    """Sends signal `number` to trainings at random moments until `kills` have hit; returns how many runs these were."""
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


def fault_at_each_call(trainer: Trainer, folder: Path, *actions: str, first: int = 1, stride: int = 1) -> int:
    """Has one of `actions`, in turn, happen at calls of a toy run that change a file, and resumes; returns how many."""
    # These are each `first`-th of the calls in which the directories become the run's, then each `stride`-th.
    folder.mkdir(parents=True, exist_ok=True)
    whole = trainer.run(flags(folder / "whole"), toy=True)
    assert whole.status == 0 and whole.calls > 50, whole
    expected = outcome(folder / "whole")
    places = [*range(1, 30, first), *range(30, whole.calls + 1, stride)]
    for at, action in zip(places, itertools.cycle(actions)):  # noqa: B905
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


if __name__ == "__main__":
    sys.exit(serve())
