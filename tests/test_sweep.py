import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, cases, refusal
from distributed import Client
from fault_injection import change, timeless_rows, until

import tools.sweep as program
from support.config_file import CONFIG
from support.errors import UsageError
from tools.experiment import read

TOY = Path(__file__).with_name("toy_main.py")
TABLE = """
title = "Toys"
seeds = [1, 2]
flags = "--vocab_size 10 --seq_len 5 --g_pretrain_lr 0.01"
methods = [
    { name = "mle", flags = "--pretrain_g_epochs 3 --total_epochs 0" },
    { name = "a", flags = "--pretrain_g_epochs 2 --total_epochs 2 --pretrain_d_epochs 1" },
    { name = "b", flags = "--pretrain_g_epochs 2 --total_epochs 3 --pretrain_d_epochs 1" },
]
"""
EPOCHS = 25
SLOW = TABLE.replace("lr 0.01", "lr 0.1").replace("--pretrain_g_epochs 3", f"--pretrain_g_epochs {EPOCHS}")
RUN, BUSY = program.run, program.busy
RUNNING, COUNTS = [], []  # and how many cells run, at each start of one


@pytest.fixture(scope="module", autouse=True)
def one_thread(tmp_path_factory):
    """What other tests have compiled is for more threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={tmp_path_factory.mktemp('compiled')}")
        yield


@pytest.fixture
def toys(here, monkeypatch):
    monkeypatch.setattr(program, "MAIN", TOY)
    monkeypatch.setattr(program, "POLL", 0.05)
    (here / "toys.toml").write_text(TABLE)
    return here


def rows(log_dir: Path) -> list[list[str]]:
    """The rows of metrics.csv after its header; [] where there is none."""
    path = log_dir / "metrics.csv"
    return [line.split(",") for line in path.read_text().splitlines()[1:]] if path.exists() else []


def script(*arguments: str, cwd: Path, main: Path = TOY) -> subprocess.Popen:
    """tools/sweep.py as a process, its cells being those of `main`."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; import tools.sweep as program; "
        f"program.MAIN, program.POLL = Path({str(main)!r}), .05; sys.exit(program.main())"
    )
    command, pipe = [sys.executable, "-c", code, *arguments], subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, text=True, start_new_session=True, stdout=pipe, stderr=pipe)


def test_a_table_from_start_to_end(toys, capfd):
    assert program.main(["toys.toml", "--only", "b", "--seeds", "2"]) == 0
    logs = toys / "logs" / "toys"
    assert {str(path.relative_to(logs)) for path in logs.glob("**/train")} == {"b/2/train", "pretrained/a/2/train"}
    assert program.main(["toys.toml", "--jobs", "3"]) == 0
    assert sorted(path.name for path in logs.iterdir()) == ["a", "b", "mle", "pretrained"]
    assert len(rows(logs / "b" / "2" / "train")) == 2 + 1 + 3
    assert (logs / "pretrained" / "a" / "1" / "train" / "checkpoints" / "step-000000002").is_dir()
    out = capfd.readouterr().out
    assert "8 runs, 2 of them finished before" in out and out.count(": finished\n") == 8
    before = sorted((path, path.stat().st_mtime_ns) for path in logs.rglob("*"))
    assert program.main(["toys.toml"]) == 0
    out, error = capfd.readouterr()
    assert "8 runs, 8 of them finished before" in out and not error
    assert before == sorted((path, path.stat().st_mtime_ns) for path in logs.rglob("*"))


def counted(*arguments):
    RUNNING.append(1)
    COUNTS.append(len(RUNNING))
    try:
        return RUN(*arguments)
    finally:
        RUNNING.pop()


@pytest.mark.parametrize(("arguments", "threads", "most"), [(["--jobs", "2"], 1, 2), ([], 2, 3)])
def test_as_many_at_once_as_jobs_or_cpus(toys, monkeypatch, arguments, threads, most):
    (toys / "toys.toml").write_text(f"threads = {threads}\n" + TABLE)
    COUNTS.clear()
    monkeypatch.setattr(program, "run", counted)
    monkeypatch.setattr(program, "CPU_COUNT", 7)
    assert program.main(["toys.toml", *arguments]) == 0 and len(COUNTS) == 8 and max(COUNTS) == most


def test_a_failing_cell_stops_no_other_and_is_reported(toys, capfd):
    (toys / "toys.toml").write_text(TABLE.replace("seeds = [1, 2]", "seeds = [13, 2]"))
    (toys / "logs/toys/a/2/eval/lock").mkdir(parents=True)  # no file: nobody holds it
    assert program.main(["toys.toml", "--jobs", "2"]) == 1
    error = capfd.readouterr().err
    assert "sweep.py: mle, seed 13: exit status 3: toy: error: an unlucky seed" in error
    assert "a, seed 13: not started, as a run that it needs failed" in error
    assert "an unlucky seed" in (toys / "logs/toys/mle/13/output.txt").read_text()
    assert all(len(rows(toys / "logs" / "toys" / method / "2" / "train")) > 2 for method in ("mle", "a", "b"))


def test_an_interrupted_or_killed_sweep_goes_on(toys, capsys):
    """A killed one takes its cells with it, so that no epoch is trained twice."""
    (toys / "toys.toml").write_text(SLOW)
    arguments, log_dir, done = ("toys.toml", "--only", "mle", "--jobs", "2"), toys / "logs/toys/mle/1/train", 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        sweep = script(*arguments, cwd=toys)
        until(lambda done=done: len(rows(log_dir)) > done + 2)
        os.killpg(sweep.pid, number)  # as Ctrl-C does
        out, error = sweep.communicate(timeout=60)
        if number != signal.SIGKILL:
            assert sweep.returncode == 128 + number, error
            assert "saved after" in out and "the same command goes on from there" in out
            done = len(rows(log_dir))
            assert done < EPOCHS and (log_dir / "checkpoints" / f"step-{done:09d}").is_dir()
    assert program.main(arguments) == 0 and "mle, seed 1: goes on" in capsys.readouterr().out
    assert [row[0] for row in rows(log_dir)] == [str(epoch) for epoch in range(EPOCHS)]


def test_a_signal_that_comes_while_a_cell_is_being_started(toys, monkeypatch, capfd):
    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return RUN(*arguments)

    (toys / "toys.toml").write_text(SLOW)
    monkeypatch.setattr(program, "run", interrupted)
    assert program.main(["toys.toml", "--jobs", "1"]) == 128 + signal.SIGINT
    assert "mle, seed 1: saved after" in capfd.readouterr().out
    assert [path.name for path in (toys / "logs/toys").iterdir()] == ["mle"]


def test_that_no_worker_is_there_is_said(toys, monkeypatch, capsys):
    monkeypatch.setattr(program, "connect", lambda *_: Client(processes=False, n_workers=0, dashboard_address=":0"))
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 2)
    assert program.main(["toys.toml"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().out.count("no worker has joined the scheduler") == 1 and not (toys / "logs").exists()


def test_sweeps_that_begin_at_once(toys):
    """None reports a failure or leaves a cell out; each epoch is trained once."""
    (toys / "toys.toml").write_text(SLOW)
    sweeps = [script("toys.toml", "--jobs", jobs, cwd=toys) for jobs in "24"]
    printed = [sweep.communicate(timeout=120) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], printed
    assert not any(error for _, error in printed)
    for seed in "12":
        assert [row[0] for row in rows(toys / "logs/toys/mle" / seed / "train")] == [str(n) for n in range(EPOCHS)]
        assert len(rows(toys / "logs/toys/b" / seed / "train")) == 2 + 1 + 3


def test_a_cell_that_another_sweep_takes_in_the_same_moment_waits(toys, monkeypatch, capsys):
    """After the look at the directory, before the process has locked it; the other's output follows the refusal."""
    (toys / "toys.toml").write_text(SLOW)
    looks = iter([False, False])  # of the sweep and of its worker
    monkeypatch.setattr(program, "busy", lambda directory: next(looks, True) and BUSY(directory))
    arguments = ("toys.toml", "--only", "mle", "--seeds", "1")
    other, log_dir = script(*arguments, cwd=toys), toys / "logs/toys/mle/1/train"
    until(lambda: len(rows(log_dir)) > 2)
    assert program.main([*arguments]) == 0 and other.wait(timeout=60) == 0 and len(rows(log_dir)) == EPOCHS
    out = capsys.readouterr().out
    assert out.count("mle, seed 1: goes on") == 1 and "mle, seed 1: finished by another process" in out
    assert "mle, seed 1: waits, as another process trains in" in out


def test_a_cell_that_another_sweep_has_finished_has_not_failed(toys, monkeypatch, capsys):
    def finished_by_another(argv, *_):
        assert subprocess.run([sys.executable, TOY, *argv], stdout=subprocess.DEVNULL).returncode == 0
        return "exit status 2: epoch 2"

    monkeypatch.setattr(program, "run", finished_by_another)
    assert program.main(["toys.toml", "--jobs", "4"]) == 0
    assert not capsys.readouterr().err and len(list((toys / "logs/toys").glob("[ab]/*/train"))) == 4


@cases(
    "arguments, why",
    *((["absent.toml"], "absent.toml"), (["toys.toml", "--only", "gan"], "--only: toys has no method gan")),
    *((["toys.toml", "--seeds", "3"], "--seeds: toys has no seed 3"), (["toys.toml", "--jobs", "0"], "--jobs")),
    *((["toys.toml", "--logs", "toys.toml"], "toys.toml"), (["bad.toml"], "bad.toml: no is not among title")),
    (["toys.toml", "--dask", "tcp://127.0.0.1:1", "--jobs", "2"], "--jobs is for this machine"),
    (["toys.toml", "--dask", "nonsense://x"], "--dask nonsense://x: no scheduler answers"),
    (["toys.toml", "--dask", ""], "--dask : no scheduler answers"),
)
def test_bad_arguments_are_one_line_before_anything_starts(toys, capsys, arguments, why):
    (toys / "bad.toml").write_text("no = 1\n")
    assert why in refusal(capsys, program.main, arguments, alone=False) and not (toys / "logs").exists()
    gc.collect()  # Dask's half-made client, which closes under a lock that the next client's start holds: a deadlock


def test_data_that_differ_or_have_changed_are_refused_before_anything_starts(toys, monkeypatch, capsys):
    """What main.py would read now is not what the cells have read that have finished; but what comes back is."""
    flags = "--dataset text --data_dir lines.txt --pretrain_g_epochs 2 --total_epochs 0 --seq_len 5"
    (toys / "lines.toml").write_text(f'seeds = [1, 2, 3]\nflags = "{flags}"\n[[methods]]\nname = "m"\n')
    (toys / "lines.txt").write_text("abc\nbca\ncab\nab\nba\n" * 5)
    assert program.main(["lines.toml", "--seeds", "1", "2"]) == 0
    cells = read(Path("lines.toml")).cells(Path("logs"))
    for cell in cells[:2]:
        change(cell.log_dir / CONFIG, **program.data_now(cells[2].argv, None))
    before = (toys / "lines.txt").read_text()
    (toys / "lines.txt").write_text(before.replace("cab", "cba"))
    assert "the data have changed since m, seed" in refusal(capsys, program.main, ["lines.toml"], alone=False)
    assert not cells[2].directory.exists()
    (toys / "lines.txt").unlink()
    with pytest.raises(UsageError, match="--data_dir lines.txt: neither a file"):  # in a process of its own
        program.data_now(cells[2].argv, None)
    assert program.main(["lines.toml", "--seeds", "1", "2"]) == 0  # nothing is left to read them
    (toys / "lines.txt").write_text(before)
    config, read_before = cells[1].log_dir / CONFIG, cells[1].recorded["data"]
    change(config, data={"lines": "others"})
    assert "m, seed 2: read other data than m, seed 1" in refusal(capsys, program.main, ["lines.toml"], alone=False)
    assert not cells[2].directory.exists()
    change(config, data=read_before)
    assert program.main(["lines.toml"]) == 0 and cells[2].finished
    for new, why in (("--eval_samples 9", "--eval_samples 256, not 9"), ("--data_dir others.txt", "data have changed")):
        (toys / "lines.toml").write_text(f'seeds = [1, 2, 3]\nflags = "{flags} {new}"\n[[methods]]\nname = "m"\n')
        (toys / "others.txt").write_text(before.replace("cab", "cba"))
        assert why in refusal(capsys, program.main, ["lines.toml"], alone=False)
    (toys / "lines.toml").write_text(f'seeds = [1, 2, 3]\nflags = "{flags}"\n[[methods]]\nname = "m"\n')
    shutil.rmtree(cells[2].directory)  # to train again
    change(config, data={"lines": "others"})
    # Or where they have changed while the sweep was under way.
    monkeypatch.setattr(program, "check_data", lambda cells: None)
    assert program.main(["lines.toml"]) == 1
    assert "sweep.py: m, seed 2: read other data than m, seed 1\n" in capsys.readouterr().err


def test_a_table_whose_epochs_grew_goes_on(toys, capsys):
    """As main.py does, which says no to fewer. A directory that starts with a hyphen is not taken for a flag."""
    arguments = ["toys.toml", "--only", "a", "--seeds", "1", "--logs=-x"]
    assert program.main(arguments) == 0
    (toys / "toys.toml").write_text(TABLE.replace("--total_epochs 2", "--total_epochs 4"))
    assert program.main(arguments) == 0
    assert "a, seed 1: goes on" in capsys.readouterr().out and len(rows(toys / "-x/toys/a/1/train")) == 2 + 1 + 4
    (toys / "toys.toml").write_text(TABLE)
    assert "holds a run with --total_epochs 4, not 2" in refusal(capsys, program.main, arguments, alone=False)


def test_a_cluster_loses_a_worker_and_nothing_else(toys):
    """The program is not among what the workers can import, nor are its relative paths theirs."""
    (toys / "toys.toml").write_text(SLOW)
    (toys / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "sweep.py", toys / "tools")
    (toys / "main.py").symlink_to(TOY)
    processes, away, scheduler = [], toys / "away", toys / "scheduler.json"
    away.mkdir()

    def begin(*words, cwd=away, **more) -> subprocess.Popen:
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
        processes.append(subprocess.Popen([sys.executable, *words], cwd=cwd, **streams))
        return processes[-1]

    local = ("--host", "127.0.0.1", "--no-dashboard")
    try:
        begin("-m", "distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", scheduler, *local)
        until(lambda: scheduler.exists() and scheduler.read_text().endswith("}"))
        address = json.loads(scheduler.read_text())["address"]
        for _ in range(2):
            begin("-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", *local)
        command = ("tools/sweep.py", "toys.toml", "--only", "mle", "--seeds", "1", "--dask", address)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        sweep = begin(*command, cwd=toys, env=os.environ | {"PYTHONPATH": str(ROOT)}, **streams)
        log_dir = toys / "logs/toys/mle/1/train"
        until(lambda: len(rows(log_dir)) > 2 or sweep.poll() is not None)
        assert sweep.poll() is None, sweep.communicate()
        busy = subprocess.run(["pgrep", "-f", log_dir.relative_to(toys)], capture_output=True, text=True)
        parent = int(Path(f"/proc/{busy.stdout.split()[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
        assert parent in {process.pid for process in processes[:3]}
        os.kill(parent, signal.SIGKILL)
        out, error = sweep.communicate(timeout=120)
        assert sweep.returncode == 0 and "mle, seed 1: finished" in out, error
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(list((log_dir / "checkpoints").iterdir())) == 2  # the first process saved when its worker was gone
    assert [row[0] for row in rows(log_dir)] == [str(epoch) for epoch in range(EPOCHS)]
    assert not list(away.rglob("*.csv"))


def test_cells_that_share_their_pretraining_are_those_that_do_not(tmp_path):
    """One has the curves of main.py run by itself."""
    few = ["--total_epochs", "1", "--pretrain_d_epochs", "1"]
    table = f'seeds = [1]\nflags = "{" ".join([*TINY, *few])}"\n[[methods]]\nname = "one"\n'
    (tmp_path / "real.toml").write_text(f'{table}[[methods]]\nname = "other"\nflags = "--baseline batch"\n')
    result = script("real.toml", "--only", "other", cwd=tmp_path, main=ROOT / "main.py")
    out, error = result.communicate(timeout=400)
    assert result.returncode == 0, (out, error)
    assert (tmp_path / "logs/real/pretrained/one/1").is_dir()
    cell, alone = tmp_path / "logs/real/other/1", tmp_path / "alone"
    own = ["--baseline", "batch", "--seed", "1", "--threads", "1"]
    own += ["--log_dir", alone / "train", "--eval_log_dir", alone / "eval"]
    command = [sys.executable, ROOT / "main.py", *TINY, *few, *own]
    subprocess.run(command, check=True, capture_output=True)
    for kind in ("train", "eval"):
        assert timeless_rows(alone / kind) == timeless_rows(cell / kind)
