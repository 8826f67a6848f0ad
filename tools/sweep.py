"""Runs a table of experiments, each cell a process of its own: python tools/sweep.py experiments/NAME.toml."""

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from runs.directories import TAKEN
from runs.experiment import Cell, data_flags, fingerprint, mixed, read
from support.errors import UsageError
from support.cpus import cpus
from support.objective import read_source
from support.parser import Parser, number, read_flags
from support.streams import keep_writing

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


def start(argv: Sequence[str], directory: Path, folder: Path | None = None) -> subprocess.Popen:
    """Starts main.py with these flags; it goes on from its newest checkpoint, and what it prints goes to `directory`.

    Relative paths among the flags start from `folder`, or from the working directory. Raises OSError: the directory
    can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", WITH_PARENT, str(os.getpid()), str(MAIN), *argv]
    with open(directory / OUTPUT, "ab") as output:
        # A session of its own: Ctrl-C reaches the sweep alone, which hands it on once.
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=folder, start_new_session=True, **streams)


def busy(directory: Path) -> bool:
    """Whether a process trains there: another sweep's, or one whose sweep or worker was killed and which is saving."""
    try:
        with open(directory / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def check_data(cells: Sequence[Cell]) -> None:
    """Makes sure that cells of the same data have read the same, and that those to come would.

    Raises UsageError: they have not, or would not, or the data can't be read.
    """
    data = {cell: cell.data for cell in cells}
    known = {data_flags(cell): cell for cell in cells if data[cell]}
    to_come = {data_flags(cell): cell for cell in cells if not cell.finished}
    advice = "bring the data back, or remove the directories of the runs that do not count"
    if why := mixed(data):
        raise UsageError(f"{why}; {advice}")
    for flags in known.keys() & to_come.keys():
        # A process of its own, as TensorFlow would keep memory, that of a GPU included.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            now = pool.submit(data_now, to_come[flags].argv).result()
        if now != data[known[flags]]:
            raise UsageError(f"the data have changed since {known[flags].title}, in {known[flags].log_dir}; {advice}")


def data_now(argv: Sequence[str]) -> str:
    """The fingerprint of the data that main.py would read; raises UsageError where it can't."""
    from main import DATASETS

    config = read_flags(argv)
    objective = read_source(config.objective) if config.objective else None
    return fingerprint(DATASETS[config.dataset](config).digests(), objective)


def last_line(directory: Path) -> str:
    """The last line that the processes of a cell printed."""
    path = directory / OUTPUT
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


class Here:
    """This machine: at most `jobs` processes at a time."""

    def __init__(self, jobs: int):
        """`jobs` is how many cells run at once."""
        self.jobs = jobs

    def places(self) -> int:
        """How many cells can run at once."""
        return self.jobs

    def start(self, cell: Cell) -> subprocess.Popen:
        """Starts a cell."""
        return start(cell.argv, cell.directory)


def run_on_worker(argv: Sequence[str], directory: Path, folder: Path, stop: str) -> int:
    """Runs a cell on a worker of a cluster, whose file system is the sweep's; returns main.py's exit status.

    Should the worker die, the scheduler gives the cell to another, which goes on from the newest checkpoint.

    `directory` is the cell's, an absolute path; relative paths among the flags start from `folder`. The event named
    `stop` tells the cell to save and end.
    """
    from distributed import Event

    while busy(directory / "train"):
        time.sleep(POLL)
    process, event, told = start(argv, directory, folder), Event(stop), False
    while process.poll() is None:
        if not told and event.is_set():
            process.terminate()
            told = True
        time.sleep(POLL)
    return process.returncode


class Remote:
    """A cell on a cluster, as a `subprocess.Popen` is one here."""

    def __init__(self, future, event):
        """`future` is of `run_on_worker`, `event` the one that it looks at."""
        self.future, self.event = future, event

    def poll(self) -> int | None:
        """main.py's exit status, or None while it waits or runs; 1 where the cluster gave it up."""
        if not self.future.done():
            return None
        return self.future.result() if self.future.status == "finished" else 1

    def terminate(self) -> None:
        """Has it, and all the others, save and end."""
        self.event.set()

    def wait(self) -> None:
        """Returns once it has ended."""
        while self.poll() is None:
            time.sleep(POLL)


class Cluster:
    """A Dask cluster: as many cells at a time as its workers have threads."""

    def __init__(self, address: str):
        """Connects to the scheduler at `address`.

        Raises UsageError: dask.distributed is not installed, or no scheduler answers.
        """
        try:
            from distributed import Client, Event
        except ImportError:
            raise UsageError("--dask needs dask.distributed: pip install -r requirements-cluster.txt") from None
        try:
            self.client = Client(address, timeout=10, set_as_default=True)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(f"--dask {address}: no scheduler answers ({str(error).strip() or 'time-out'})") from None
        self.stop = f"stop-{secrets.token_hex(8)}"
        self.event = Event(self.stop, client=self.client)

    def places(self) -> int:
        """How many cells can run at once; workers may come and go."""
        return sum(self.client.nthreads().values())

    def start(self, cell: Cell) -> Remote:
        """Hands a cell to the scheduler."""
        where = (cell.directory.absolute(), Path.cwd(), self.stop)
        # Not pure: the same cell may be run again. A cell survives any number of workers, each of which may be killed.
        future = self.client.submit(run_on_worker, cell.argv, *where, pure=False, key=f"{cell.title}-{self.stop}")
        return Remote(future, self.event)


class Sweep:
    """The cells of a table: which wait, which run, which have failed."""

    def __init__(self, cells: Iterable[Cell], machine: Here | Cluster):
        """Those whose source has not finished wait for it."""
        self.cells, self.machine = list(cells), machine
        self.waiting = [cell for cell in self.cells if not cell.finished]
        self.running: dict[Cell, subprocess.Popen | Remote] = {}
        self.failed: dict[Cell, str] = {}
        self.stopped = 0  # the signal that ended it
        self._said: set[str] = set()
        self._lines: list[tqdm] = []

    def run(self) -> None:
        """Runs the cells until all have ended, or SIGINT or SIGTERM came, on which they save."""
        before = {n: signal.signal(n, self._stop) for n in (signal.SIGINT, signal.SIGTERM)}
        total, done = sum(cell.epochs for cell in self.cells), sum(cell.epochs_done for cell in self.cells)
        told = False
        try:
            with tqdm(total=total, initial=done, unit="epoch", disable=None) as bar:
                while self.waiting or self.running:
                    self._start_those_ready()
                    if self.stopped and not told:  # once: a second signal would end a cell before it has saved
                        told = True
                        self.waiting.clear()
                        for task in self.running.values():
                            task.terminate()
                    time.sleep(POLL)
                    self._collect()
                    bar.update(sum(cell.epochs_done for cell in self.cells) - bar.n)
                    self._show()
        finally:
            for line in self._lines:
                line.close()
            for task in self.running.values():  # none unless something went wrong here
                task.terminate()
            for task in self.running.values():
                task.wait()
            for which, handler in before.items():
                signal.signal(which, handler)

    def _stop(self, received: int, frame: object) -> None:
        self.stopped = self.stopped or received  # `run` does the rest: a cell may just be starting

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            tqdm.write(text)

    def _start_those_ready(self) -> None:
        places = self.machine.places()
        if not places:
            self._say_once("no worker has joined the scheduler: the cells wait for one")
        for cell in list(self.waiting):
            if self.stopped:
                break
            if cell.source in self.failed:
                self.waiting.remove(cell)
                self.failed[cell] = f"not started, as the run that it starts from failed: {cell.source.log_dir}"
            elif len(self.running) >= places:
                break
            elif cell.source and not cell.source.finished:
                continue
            elif busy(cell.log_dir) or busy(cell.eval_log_dir):
                self._say_once(f"{cell.title}: waits, as another process trains in {cell.directory}")
            elif cell.finished:
                self.waiting.remove(cell)
                tqdm.write(f"{cell.title}: finished by another process")
            else:
                self.waiting.remove(cell)
                tqdm.write(f"{cell.title}: {'goes on' if cell.epochs_done else 'starts'} in {cell.directory}")
                self.running[cell] = self.machine.start(cell)

    def _collect(self) -> None:
        for cell, task in list(self.running.items()):
            status = task.poll()
            if status is None:
                continue
            del self.running[cell]
            if status == 0:
                tqdm.write(f"{cell.title}: finished")
            elif self.stopped:
                tqdm.write(f"{cell.title}: saved after {cell.epochs_done} of {cell.epochs} epochs")
            elif TAKEN in last_line(cell.directory):  # by another sweep, in the same moment
                self.waiting.append(cell)
            else:
                self.failed[cell] = f"exit status {status}: {last_line(cell.directory)}"
                tqdm.write(f"{cell.title}: failed; {cell.directory / OUTPUT} has what it printed")

    def _show(self) -> None:
        """A line a running cell, on a terminal."""
        shown = [f"  {cell.title}: {cell.epochs_done} of {cell.epochs} epochs" for cell in self.running]
        while len(self._lines) < len(shown):
            place = len(self._lines) + 1
            self._lines.append(tqdm(bar_format="{desc}", position=place, leave=False, disable=None))
        for line, text in zip(self._lines, [*shown, *[""] * len(self._lines)], strict=False):
            line.set_description_str(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, 1 where a cell failed, 2 where the table can't be used, 128 + n after signal n."""
    parser = Parser(prog="sweep.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("experiment", type=Path, metavar="FILE.toml", help="the table, such as experiments/figure.toml")
    add, seed = parser.add_argument, number(int, 0, 2**31 - 1)
    text = "cells at once (default: the CPUs that the process may use, over the table's `threads`)"
    add("--jobs", type=number(int, 1, None), metavar="N", help=text)
    add("--only", nargs="+", default=(), metavar="METHOD", help="these methods alone")
    add("--seeds", nargs="+", type=seed, default=(), metavar="SEED", help="these seeds alone")
    add("--logs", type=Path, default=Path("logs"), metavar="DIR", help="(default: logs)")
    add("--dask", metavar="ADDRESS", help="run the cells on the cluster of this Dask scheduler")
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.logs):
        if arguments.dask and arguments.jobs:
            raise UsageError("--jobs is for this machine; with --dask the workers' threads say how many cells run")
        experiment = read(arguments.experiment)
        cells = experiment.cells(arguments.logs, arguments.only, arguments.seeds)
        check_data(cells)
        jobs = arguments.jobs or max(1, cpus() // experiment.threads)
        sweep = Sweep(cells, Cluster(arguments.dask) if arguments.dask else Here(jobs))
        print(f"{experiment.title}: {len(cells)} runs, {len(cells) - len(sweep.waiting)} of them finished before")
        sweep.run()
    for cell, why in sweep.failed.items():
        print(f"sweep.py: {cell.title}: {why}", file=sys.stderr)
    if sweep.stopped:
        print("interrupted; the same command goes on from there")
        return 128 + sweep.stopped
    if why := mixed({cell: cell.data for cell in cells}):  # the data have changed meanwhile
        print(f"sweep.py: {why}", file=sys.stderr)
    return 1 if sweep.failed or why else 0


if __name__ == "__main__":
    keep_writing()
    sys.exit(main())
