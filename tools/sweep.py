"""Runs a table of experiments, each cell a process of its own: python tools/sweep.py experiments/NAME.toml."""

import ctypes
import fcntl
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

from dask.system import CPU_COUNT
from distributed import Client, Event, Future, wait
from tqdm import tqdm

from runs.directories import TAKEN
from support.config import own_sources
from support.errors import UsageError, first_line
from support.parser import Parser, number, read_flags
from support.streams import keep_writing
from tools.experiment import Cell, data_flags, fingerprint, mixed, read

MAIN = Path(__file__).resolve().parent.parent / "main.py"
OUTPUT = "output.txt"  # what the processes of a cell print
POLL = 0.5  # seconds between looks at the cells
# A cell whose sweep or worker is killed saves and ends, so that it does not train beside its successor.
WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "if sys.platform == 'linux':\n"
    "    ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"  # PR_SET_PDEATHSIG
    "    if os.getppid() != int(sys.argv[1]): sys.exit(143)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


def busy(directory: Path) -> bool:
    """Whether a process trains in a cell's directory: another sweep's, or one that is saving."""
    for path in (directory / "train" / "lock", directory / "eval" / "lock"):
        try:
            with open(path, "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            return True
        except OSError:  # no directory of a run, which main.py will tell
            continue
    return False


def run(argv: Sequence[str], directory: Path, cwd: Path, stop: str) -> str:
    """Runs main.py on a worker of Dask, from the newest checkpoint on; if the worker dies, another one continues.

    `directory` is the cell's, an absolute path; relative ones in `argv` start from `cwd`. After the event `stop`
    main.py saves and ends. Nothing of the program's other files is used, as workers can't import them; they get what
    is of this one by value. Returns "" if the run is complete, TAKEN if another process trains there, else why not.
    """
    event = Event(stop)
    if event.is_set() or busy(directory):
        return TAKEN
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", WITH_PARENT, str(os.getpid()), str(MAIN), *argv]
    with open(directory / OUTPUT, "ab") as output:
        start = output.tell()
        # A session of its own: Ctrl-C reaches the sweep alone, which hands it on once.
        process = Popen(command, cwd=cwd, start_new_session=True, stdin=DEVNULL, stdout=output, stderr=output)
    try:
        while process.poll() is None and not event.is_set():
            time.sleep(POLL)
    finally:  # it has ended, or the sweep was interrupted, or the scheduler is gone
        process.terminate()
        status = process.wait()
    # Another sweep may have started this cell in the same moment. Both processes print here, and one is refused.
    printed = (directory / OUTPUT).read_bytes()[start:].decode(errors="replace")
    *_, last = "it printed nothing", *filter(None, map(str.strip, printed.split("\n")))
    return "" if status == 0 else TAKEN if TAKEN in printed else f"exit status {status}: {last}"


def check_data(cells: Sequence[Cell]) -> None:
    """Raises UsageError: cells with equal data flags have read other data, or would now, or the data can't be read."""
    data = {cell: fingerprint(cell.recorded) for cell in cells}
    before = {data_flags(cell.method.config): cell for cell in cells if data[cell]}
    to_come = {data_flags(cell.method.config): cell for cell in cells if cell.moved or not cell.finished}
    advice = "bring the data back, or remove the directories of the runs that do not count"
    if why := mixed(data):
        raise UsageError(f"{why}; {advice}")
    for flags in before.keys() & to_come.keys():
        # A process of its own, as TensorFlow would keep memory, that of a GPU included.
        with ProcessPoolExecutor(1, get_context("spawn"), ends_with, (os.getpid(),)) as pool:
            now = pool.submit(data_now, to_come[flags].argv, before[flags].recorded.get("data")).result()
        if fingerprint(now) != data[before[flags]]:
            raise UsageError(f"the data have changed since {before[flags].title}, in {before[flags].log_dir}; {advice}")


def ends_with(parent: int) -> None:
    """Has this process end when its `parent` is killed, as it would wait for work for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(143)


def data_now(argv: Sequence[str], recorded: dict[str, str] | None) -> dict[str, Any]:
    """The data and code that main.py would have on record now, with `recorded` as in `read_data`; raises UsageError."""
    from data.real import read_data  # which imports TensorFlow

    config = read_flags(argv)
    return {"data": read_data(config, recorded).digests()} | own_sources(config)


def connect(address: str | None, jobs: int) -> Client:
    """A client of the Dask scheduler at `address`, or of one here with `jobs` threads; raises UsageError: no answer."""
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # errors are one line of the sweep's own
    if address is None:
        # Tasks go through memory: no port is open through which other users of the machine could run code. Dask's web
        # pages, which can't be turned off, are for this machine alone.
        web = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
        threads = {"processes": False, "n_workers": 1, "threads_per_worker": jobs, "memory_limit": 0}
        return Client(**threads, **web, silence_logs=logging.CRITICAL)
    try:
        if not address:
            raise ValueError("an empty address")
        return Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(f"--dask {address}: no scheduler answers ({str(error).strip() or 'time-out'})") from None


class Sweep:
    """The cells of a table: which wait, which run, which have failed and why, and the signal that stopped it."""

    def __init__(self, cells: Sequence[Cell], client: Client):
        """Raises UsageError: a cell's directory holds another run, or a finished student's teacher is gone."""
        self.cells, self.client = cells, client
        self.waiting = [cell for cell in cells if not cell.finished]
        for student, teacher in ((cell, each) for cell in cells if cell not in self.waiting for each in cell.teachers):
            if teacher in self.waiting:
                why = f"learnt from what was in {teacher.log_dir}: bring that back, or remove the student, too"
                raise UsageError(f"{student.log_dir}: {why}")
        self.running: dict[Cell, Future] = {}
        self.failed: dict[Cell, str] = {}
        self.stopped = 0
        self._event = Event(client=client)
        self._say_once = functools.cache(tqdm.write)

    def run(self) -> None:
        """Runs the cells until all have ended, or until SIGINT or SIGTERM, after which they save.

        Raises UsageError: the scheduler is gone, or the directory of a cell holds another run.
        """
        handlers = {which: signal.signal(which, self._stop) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            with tqdm(total=sum(cell.epochs for cell in self.cells), unit="epoch", disable=None) as bar:
                while self.waiting or self.running:
                    self._start_cells()
                    time.sleep(POLL)
                    if self.client.status != "running":
                        self.running.clear()
                        raise UsageError("the connection to the scheduler is lost; cells that it started save and end")
                    self._collect_ended()
                    bar.n = sum(cell.epochs_done for cell in self.cells)
                    bar.set_postfix_str(", ".join(f"{c.title}: {c.epochs_done} of {c.epochs}" for c in self.running))
        finally:
            if self.running:  # something went wrong here
                self._event.set()
                wait(list(self.running.values()))
            for which, handler in handlers.items():
                signal.signal(which, handler)

    def _stop(self, received: int, frame: object) -> None:
        self.stopped = self.stopped or received  # `run` does the rest: a cell may just be starting

    def _start_cells(self) -> None:
        """Starts waiting cells whose needs have finished, as many as the workers, which come and go, have threads."""
        if self.stopped:
            self._event.set()
            self.waiting.clear()
        if not (threads := sum(self.client.nthreads().values())):
            self._say_once("no worker has joined the scheduler: the cells wait for one")
            if self.stopped:
                self.running.clear()
        for cell in list(self.waiting):
            if failed := [need for need in cell.needs if need in self.failed]:
                self.failed[cell] = f"not started, as a run that it needs failed: {failed[0].log_dir}"
            elif len(self.running) >= threads or not all(need.finished for need in cell.needs):
                continue
            elif busy(cell.directory):
                self._say_once(f"{cell.title}: waits, as another process trains in {cell.directory}")
                continue
            elif cell.finished:
                tqdm.write(f"{cell.title}: finished by another process")
            else:
                tqdm.write(f"{cell.title}: {'goes on' if cell.epochs_done else 'starts'} in {cell.directory}")
                where = cell.directory.absolute(), Path.cwd(), self._event.name
                self.running[cell] = self.client.submit(run, cell.argv, *where, pure=False)  # it may have to run again
            self.waiting.remove(cell)

    def _collect_ended(self) -> None:
        for cell in [cell for cell, future in self.running.items() if future.done()]:
            future = self.running.pop(cell)
            error = TAKEN  # of a connection that was lost and is back: the process goes on
            if future.status not in ("cancelled", "lost"):
                error = future.result() if future.status == "finished" else first_line(future.exception())
            if cell.finished:  # whatever the process says: that of another sweep may have been quicker
                tqdm.write(f"{cell.title}: finished")
            elif self.stopped:
                tqdm.write(f"{cell.title}: saved after {cell.epochs_done} of {cell.epochs} epochs")
            elif error == TAKEN:
                self.waiting.append(cell)
            else:
                self.failed[cell] = error or "it ended before its last step"
                tqdm.write(f"{cell.title}: failed; {cell.directory / OUTPUT} has what it printed")


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, 1 if a cell failed, 2 if the table can't be used, 128 + n after signal n."""
    parser = Parser(prog="sweep.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("experiment", type=Path, metavar="FILE.toml", help="the table, such as experiments/figure.toml")
    add, seed = parser.add_argument, number(int, 0, 2**31 - 1)
    text = "cells at once (default: the CPUs that the process may use, divided by the table's `threads`)"
    add("--jobs", type=number(int, 1, None), metavar="N", help=text)
    add("--only", nargs="+", default=(), metavar="METHOD", help="these methods alone")
    add("--seeds", nargs="+", type=seed, default=(), metavar="SEED", help="these seeds alone")
    add("--logs", type=Path, default=Path("logs"), metavar="DIR", help="(default: logs)")
    add("--dask", metavar="ADDRESS", help="run the cells on the cluster of this Dask scheduler")
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.logs):
        if arguments.dask is not None and arguments.jobs:
            raise UsageError("--jobs is for this machine; with --dask the workers' threads say how many cells run")
        if arguments.logs.is_file():
            raise UsageError(f"--logs {arguments.logs}: a file, not a folder")
        experiment = read(arguments.experiment)
        cells = experiment.cells(arguments.logs, arguments.only, arguments.seeds)
        check_data(cells)
        with connect(arguments.dask, arguments.jobs or max(1, CPU_COUNT // experiment.threads)) as client:
            sweep = Sweep(cells, client)
            print(f"{experiment.title}: {len(cells)} runs, {len(cells) - len(sweep.waiting)} of them finished before")
            sweep.run()
    for cell, why in sweep.failed.items():
        print(f"sweep.py: {cell.title}: {why}", file=sys.stderr)
    if sweep.stopped:
        print("interrupted; the same command goes on from there")
        return 128 + sweep.stopped
    if why := mixed({cell: fingerprint(cell.recorded) for cell in cells}):  # the data have changed meanwhile
        print(f"sweep.py: {why}", file=sys.stderr)
    return 1 if sweep.failed or why else 0


if __name__ == "__main__":
    keep_writing()
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the cells start, or after they have ended
        sys.exit(130)
