import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, TINY

import tools.sweep as program
from data.text import TextData
from runs.experiment import Cell, read
from support.config_file import CONFIG
from support.cpus import cpus
from support.parser import read_flags
from tools import report

TOY = Path(__file__).with_name("toy_main.py")
TABLE = """
title = "Toys"
seeds = [1, 2]
flags = "--vocab_size 10 --seq_len 5 --d_filter_sizes 2 --d_num_filters 3 --g_lr 0.01"
[[methods]]
name = "mle"
flags = "--pretrain_g_epochs 3 --total_epochs 0"
[[methods]]
name = "a"
flags = "--pretrain_g_epochs 2 --total_epochs 2 --pretrain_d_epochs 1"
[[methods]]
name = "b"
flags = "--pretrain_g_epochs 2 --total_epochs 3 --pretrain_d_epochs 1"
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread(tmp_path_factory):
    """What other tests have compiled is for more threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={tmp_path_factory.mktemp('compiled')}")
        yield


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A table whose cells are processes of `toy_main`, in a folder of its own."""
    monkeypatch.setattr(program, "MAIN", TOY)
    monkeypatch.setattr(program, "POLL", 0.05)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.toml").write_text(TABLE)
    return tmp_path


def rows(log_dir: Path) -> list[list[str]]:
    with open(log_dir / "metrics.csv", newline="") as file:
        return list(csv.reader(file))


def test_a_table_from_start_to_end(toys, capfd):
    assert program.main(["toys.toml", "--jobs", "3"]) == 0
    logs = toys / "logs" / "toys"
    assert sorted(path.name for path in logs.iterdir()) == ["a", "b", "mle", "pretrained"]
    assert len(rows(logs / "b" / "2" / "train")) == 1 + 2 + 1 + 3
    assert (logs / "pretrained" / "a" / "1" / "train" / "checkpoints" / "step-000000002").is_dir()
    out = capfd.readouterr().out
    assert "8 runs, 0 of them finished before" in out and out.count(": finished") == 8
    before = sorted((path, path.stat().st_mtime_ns) for path in logs.rglob("*"))
    assert program.main(["toys.toml"]) == 0
    assert "8 runs, 8 of them finished before" in capfd.readouterr().out
    assert before == sorted((path, path.stat().st_mtime_ns) for path in logs.rglob("*"))


def test_some_methods_and_seeds(toys):
    assert program.main(["toys.toml", "--only", "b", "--seeds", "2"]) == 0
    assert [str(path.relative_to(toys)) for path in toys.rglob("train")] == [
        *("logs/toys/b/2/train", "logs/toys/pretrained/a/2/train")
    ] or sorted(path.parent.name for path in toys.rglob("train")) == ["2", "2"]


def test_no_more_at_once_than_jobs(toys):
    running = []
    begin = program.start

    def counted(argv, directory):
        process = begin(argv, directory)
        running.append(process)
        assert sum(p.poll() is None for p in running) <= 2
        return process

    program.start = counted
    try:
        assert program.main(["toys.toml", "--jobs", "2"]) == 0
    finally:
        program.start = begin
    assert len(running) == 8


def test_a_failing_cell_stops_no_other_and_is_reported(toys, capfd):
    (toys / "toys.toml").write_text(TABLE.replace("seeds = [1, 2]", "seeds = [13, 2]"))
    assert program.main(["toys.toml", "--jobs", "2"]) == 1
    error = capfd.readouterr().err
    assert "sweep.py: mle, seed 13: exit status 3: toy: error: an unlucky seed" in error
    assert "a, seed 13: not started, as the run that it starts from failed" in error
    assert "an unlucky seed" in (toys / "logs/toys/mle/13/output.txt").read_text()
    for method in ("mle", "a", "b"):
        assert len(rows(toys / "logs" / "toys" / method / "2" / "train")) > 3
    # The next call tries it again.
    (toys / "toys.toml").write_text(TABLE.replace("seeds = [1, 2]", "seeds = [2]"))
    assert program.main(["toys.toml"]) == 0


def script(*arguments: str, cwd: Path, main: Path = TOY, **more) -> subprocess.Popen:
    """tools/sweep.py as a process, its cells being those of `main`."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; import tools.sweep as program; "
        f"program.MAIN = Path({str(main)!r}); program.POLL = .05; sys.exit(program.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def slow(toys: Path) -> None:
    text = TABLE.replace("--g_lr 0.01", "--g_lr 0.1").replace("--pretrain_g_epochs 3", "--pretrain_g_epochs 40")
    (toys / "toys.toml").write_text(text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_all_and_the_same_command_goes_on(toys, number):
    slow(toys)
    log_dir = toys / "logs/toys/mle/1/train"
    sweep = script("toys.toml", "--only", "mle", "--jobs", "2", cwd=toys)
    until(lambda: (log_dir / "metrics.csv").exists() and len(rows(log_dir)) > 3)
    sweep.send_signal(number)
    out, error = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + number, error
    assert "saved after" in out and "the same command goes on from there" in out
    done = len(rows(log_dir)) - 1
    assert 0 < done < 40 and (log_dir / "checkpoints" / f"step-{done:09d}").is_dir()
    assert script("toys.toml", "--only", "mle", "--jobs", "2", cwd=toys).wait(timeout=120) == 0
    assert [row[0] for row in rows(log_dir)[1:]] == [str(epoch) for epoch in range(40)]


def test_a_killed_sweep_takes_its_cells_with_it_and_goes_on(toys):
    slow(toys)
    log_dir = toys / "logs/toys/mle/1/train"
    sweep = script("toys.toml", "--only", "mle", "--jobs", "2", cwd=toys)
    until(lambda: (log_dir / "metrics.csv").exists() and len(rows(log_dir)) > 3)
    sweep.kill()
    sweep.wait()
    assert script("toys.toml", "--only", "mle", "--jobs", "2", cwd=toys).wait(timeout=120) == 0
    assert [row[0] for row in rows(log_dir)[1:]] == [str(epoch) for epoch in range(40)]  # none twice: never two at once


class Fake:
    """A machine whose cells run until they are told to end; and one such cell."""

    def __init__(self, on_start=lambda: None, places: int = 2):
        self.on_start, self.room, self.started, self.told = on_start, places, [], 0

    def places(self) -> int:
        return self.room

    def start(self, cell):
        task = Fake()
        self.started.append(task)
        self.on_start()
        return task

    def poll(self) -> int | None:
        return 143 if self.told else None

    def terminate(self) -> None:
        self.told += 1


def test_a_signal_that_comes_while_a_cell_is_being_started(toys):
    """That cell is told to end, once, and no other is started."""
    machine = Fake(lambda: os.kill(os.getpid(), signal.SIGINT))
    sweep = program.Sweep(read(Path("toys.toml")).cells(Path("logs")), machine)
    sweep.run()
    assert sweep.stopped == signal.SIGINT and not sweep.failed
    assert [task.told for task in machine.started] == [1]


def test_that_no_worker_is_there_is_said(toys, capsys):
    machine = Fake(places=0)
    sweep = program.Sweep(read(Path("toys.toml")).cells(Path("logs")), machine)
    signal.signal(signal.SIGALRM, lambda *_: setattr(sweep, "stopped", signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    sweep.run()
    assert not machine.started and capsys.readouterr().out.count("no worker has joined the scheduler") == 1


def test_two_sweeps_on_the_same_directories(toys):
    """The second waits for what the first is training, and fails nothing; each epoch is trained once."""
    slow(toys)
    first = script("toys.toml", "--jobs", "2", cwd=toys)
    log_dir = toys / "logs/toys/mle/1/train"
    until(lambda: (log_dir / "metrics.csv").exists() and len(rows(log_dir)) > 3)
    sweeps = [first, *(script("toys.toml", "--jobs", "4", cwd=toys) for _ in range(2))]
    printed = [sweep.communicate(timeout=120) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0, 0], printed
    out = printed[1][0]
    assert "mle, seed 1: waits, as another process trains in" in out and "mle, seed 1: finished" in out
    for seed in "12":
        assert [row[0] for row in rows(toys / "logs/toys/mle" / seed / "train")[1:]] == [str(n) for n in range(40)]


def test_a_cell_that_another_sweep_takes_in_the_same_moment_waits(toys, monkeypatch, capsys):
    """After the look at the directory, before the process has locked it."""
    slow(toys)
    looks, busy = iter([False, False]), program.busy
    monkeypatch.setattr(program, "busy", lambda directory: next(looks, True) and busy(directory))
    other = script("toys.toml", "--only", "mle", "--seeds", "1", cwd=toys)
    log_dir = toys / "logs/toys/mle/1/train"
    until(lambda: (log_dir / "metrics.csv").exists() and len(rows(log_dir)) > 3)
    assert program.main(["toys.toml", "--only", "mle", "--seeds", "1"]) == 0
    assert other.wait(timeout=60) == 0 and len(rows(log_dir)) == 1 + 40
    out = capsys.readouterr().out
    assert out.count("mle, seed 1: goes on") == 1 and "mle, seed 1: finished by another process" in out


def test_a_worker_stays_in_its_folder(toys, monkeypatch, tmp_path_factory):
    """Other cells of its process would change folders with it."""
    away = tmp_path_factory.mktemp("worker")
    monkeypatch.chdir(away)
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Event=lambda name: SimpleNamespace(is_set=bool)))
    folders: list[Path] = []
    monkeypatch.setattr(program.time, "sleep", lambda _: folders.append(Path.cwd()))
    (cell, *_) = read(toys / "toys.toml").cells(Path("logs"))
    assert program.run_on_worker(cell.argv, toys / cell.directory, toys, "stop") == 0
    assert set(folders) == {away} and not list(away.iterdir())
    assert len(rows(toys / cell.log_dir)) == 1 + 3 and (toys / cell.directory / "output.txt").exists()


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({}, 6),
        ({"": "max 100000"}, 6),
        ({"a/b": "250000 100000"}, 2),
        ({"": "400000 100000", "a": "max 100000", "a/b": "900000 100000"}, 4),
        ({"a": "50000 100000"}, 1),
        ({"c": "100000 100000"}, 6),
    ],
)
def test_cpus_are_those_that_the_process_may_use(tmp_path, monkeypatch, limits, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for group, text in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "cpu.max").write_text(text + "\n")
    groups = tmp_path / "cgroup"
    assert cpus(groups, tmp_path) == 6  # no such file, as on macOS
    groups.write_text("4:memory:/c\n0::/a/b\n")
    assert cpus(groups, tmp_path) == count


def test_as_many_at_once_as_there_are_cpus(toys, monkeypatch):
    jobs: list[int] = []
    monkeypatch.setattr(program, "cpus", lambda: 7)
    monkeypatch.setattr(program, "Here", lambda n: jobs.append(n) or Fake(places=n))
    monkeypatch.setattr(program.Sweep, "run", lambda self: None)
    (toys / "toys.toml").write_text("threads = 2\n" + TABLE)
    assert program.main(["toys.toml"]) == 0 and jobs == [3]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["absent.toml"], "absent.toml"),
        (["toys.toml", "--only", "gan"], "--only: toys has no method gan"),
        (["toys.toml", "--seeds", "3"], "--seeds: toys has no seed 3"),
        (["toys.toml", "--jobs", "0"], "--jobs"),
        (["toys.toml", "--logs", "toys.toml"], "toys.toml"),
        (["toys.toml", "--dask", "tcp://127.0.0.1:1", "--jobs", "2"], "--jobs is for this machine"),
        (["toys.toml", "--dask", "nonsense://x"], "--dask nonsense://x"),
        (["bad.toml"], "bad.toml, line 1: no is not known here"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_starts(toys, capsys, arguments, why):
    (toys / "bad.toml").write_text("no = 1\n")
    with pytest.raises(SystemExit) as stop:
        program.main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sweep.py: error: ")]
    assert stop.value.code == 2 and len(lines) == 1 and why in lines[0], lines
    assert not (toys / "logs").exists()


# ---- the data


LINES = """
seeds = [1, 2, 3]
flags = "--dataset text --data_dir lines.txt --pretrain_g_epochs 2 --total_epochs 0 --seq_len 5"
[[methods]]
name = "m"
"""


@pytest.fixture
def lines(toys):
    """A table of runs on a file, of which two have finished: (folder, cells)."""
    (toys / "lines.toml").write_text(LINES)
    (toys / "lines.txt").write_text("abc\nbca\ncab\nab\nba\n" * 5)
    assert program.main(["lines.toml", "--seeds", "1", "2"]) == 0
    cells = read(Path("lines.toml")).cells(Path("logs"))
    digests = TextData(read_flags(cells[0].argv)).digests()
    for cell in cells[:2]:
        record(cell, digests)
    return toys, cells


def record(cell: Cell, digests: dict[str, str]) -> None:
    """Has a cell have read such data."""
    path = cell.log_dir / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": digests}))


def test_data_that_have_changed_are_refused_before_anything_starts(lines, capsys):
    """What main.py would read now is not what the cells have read that have finished; but what comes back is."""
    toys, cells = lines
    assert program.data_now(cells[2].argv) == cells[0].data != ""
    before = (toys / "lines.txt").read_text()
    (toys / "lines.txt").write_text(before.replace("cab", "cba"))
    assert program.data_now(cells[2].argv) != cells[0].data
    with pytest.raises(SystemExit) as stop:
        program.main(["lines.toml"])
    assert stop.value.code == 2 and "the data have changed since m, seed" in capsys.readouterr().err
    (toys / "lines.txt").unlink()
    with pytest.raises(SystemExit) as stop:
        program.main(["lines.toml"])
    assert stop.value.code == 2 and "sweep.py: error: --data_dir lines.txt: neither a file" in capsys.readouterr().err
    assert not cells[2].directory.exists()
    assert program.main(["lines.toml", "--seeds", "1", "2"]) == 0  # nothing is left to read them


def test_cells_of_other_data_are_named(lines, monkeypatch, capsys):
    toys, cells = lines
    record(cells[1], {"lines": "others"})
    with pytest.raises(SystemExit) as stop:
        program.main(["lines.toml"])
    assert stop.value.code == 2 and "m, seed 2: read other data than m, seed 1" in capsys.readouterr().err
    assert not cells[2].directory.exists()
    # Or where they have changed while the sweep was under way.
    monkeypatch.setattr(program, "check_data", lambda cells: None)
    assert program.main(["lines.toml"]) == 1
    assert "sweep.py: m, seed 2: read other data than m, seed 1\n" in capsys.readouterr().err


def test_a_table_whose_epochs_grew_goes_on(toys, capsys):
    """As main.py does, which says no to fewer."""
    assert program.main(["toys.toml", "--only", "a", "--seeds", "1"]) == 0
    (toys / "toys.toml").write_text(TABLE.replace("--total_epochs 2", "--total_epochs 4"))
    assert program.main(["toys.toml", "--only", "a", "--seeds", "1"]) == 0
    assert "a, seed 1: goes on" in capsys.readouterr().out
    assert len(rows(toys / "logs/toys/a/1/train")) == 1 + 2 + 1 + 4
    (toys / "toys.toml").write_text(TABLE)
    with pytest.raises(SystemExit) as stop:
        program.main(["toys.toml", "--only", "a", "--seeds", "1"])
    assert stop.value.code == 2 and "holds a run with --total_epochs 4, not 2" in capsys.readouterr().err


# ---- the real program


REAL_FLAGS = [*TINY, "--no-jit"]
REAL = f"""
seeds = [1]
flags = "{" ".join(REAL_FLAGS)}"
[[methods]]
name = "one"
[[methods]]
name = "other"
flags = "--baseline batch"
"""


def test_cells_that_share_their_pretraining_are_those_that_do_not(tmp_path, capsys):
    (tmp_path / "real.toml").write_text(REAL)
    result = script("real.toml", "--jobs", "2", cwd=tmp_path, main=ROOT / "main.py")
    out, error = result.communicate(timeout=400)
    assert result.returncode == 0, (out, error)
    alone = [sys.executable, ROOT / "main.py", *REAL_FLAGS, "--baseline", "batch", "--seed", "1", "--threads", "1"]
    subprocess.run([*alone, "--log_dir", "t", "--eval_log_dir", "e"], cwd=tmp_path, check=True, capture_output=True)
    cell = tmp_path / "logs/real/other/1"
    for ours, theirs in ((tmp_path / "e", cell / "eval"), (tmp_path / "t", cell / "train")):
        assert without_seconds(ours) == without_seconds(theirs)
    reported = report.main([str(tmp_path / "real.toml"), "--logs", str(tmp_path / "logs"), "-o", str(tmp_path)])
    assert (reported, capsys.readouterr().err) == (0, "")


def test_a_discriminator_that_guides_starts_from_the_pretraining_alone(tmp_path):
    flags = "--seq_len 10 --pretrain_g_epochs 2 --total_epochs 0"
    path = tmp_path / "shared.toml"
    path.write_text(
        f'title = "t"\nseeds = [1]\nflags = "{flags}"\n[[methods]]\nname = "guided"\nlabel = "g"\n'
        'flags = "--discriminator bigram"\n[[methods]]\nname = "mle"\nlabel = "m"\n'
    )
    cells = {cell.method.name: cell for cell in read(path).cells(tmp_path)}
    assert cells["guided"].source is cells["mle"] and cells["mle"].source is None


def without_seconds(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return [{name: v for name, v in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_cluster_loses_a_worker_and_nothing_else(tmp_path):
    pytest.importorskip("distributed", reason="distributed, of requirements-cluster.txt, is not installed")
    table = REAL.replace('[[methods]]\nname = "other"\nflags = "--baseline batch"\n', "").replace(
        'name = "one"',
        'name = "one"\nflags = "--pretrain_g_epochs 1500 --total_epochs 0 --eval_every 500 --checkpoint_every 50"',
    )
    (tmp_path / "cluster.toml").write_text(table)
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5"}
    dask = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-dashboard",
    ]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    ]
    quiet = {"cwd": tmp_path, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(dask, **quiet)]
    try:
        processes += [subprocess.Popen([*worker, "--host", "127.0.0.1"], **quiet) for _ in range(2)]
        sweep = subprocess.Popen(
            [sys.executable, ROOT / "tools" / "sweep.py", "cluster.toml", "--dask", address],
            **{**quiet, "stderr": subprocess.PIPE},
        )
        processes.append(sweep)
        cell = tmp_path / "logs/cluster/one/1"
        until(lambda: len(list((cell / "train/checkpoints").glob("step-*"))) > 1, seconds=180)
        busy = subprocess.run(["pgrep", "-f", f"{cell.relative_to(tmp_path)}/train"], capture_output=True, text=True)
        child = int(busy.stdout.split()[0])
        parent = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[1])
        assert parent in {process.pid for process in processes}
        os.kill(parent, signal.SIGKILL)
        assert sweep.wait(timeout=240) == 0, sweep.stderr.read()
        output = (cell / "output.txt").read_text()
        assert "resumed from" in output
    finally:
        for process in processes:
            process.kill()
            process.wait()
    alone = [
        sys.executable,
        ROOT / "main.py",
        *REAL_FLAGS,
        "--pretrain_g_epochs",
        "1500",
        "--total_epochs",
        "0",
        "--threads",
        "1",
        "--eval_every",
        "500",
    ]
    subprocess.run([*alone, "--log_dir", "t", "--eval_log_dir", "e"], cwd=tmp_path, check=True, capture_output=True)
    assert without_seconds(tmp_path / "e") == without_seconds(cell / "eval")
