"""Runs that are interrupted, starved or continued; tests/test_kills.py kills them."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_injection import ROOT, differing, flags, outcome, timeless_rows

STEPS = 23  # of a tiny run


@pytest.fixture(scope="module")
def toy(trainer, tmp_path_factory) -> Path:
    """A finished toy run."""
    folder = tmp_path_factory.mktemp("toy")
    assert trainer.run(flags(folder), toy=True).status == 0
    return folder


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file's content and time of change."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "train" / "checkpoints").glob("step-*"))


def refused(ended, *words: str) -> None:
    """One line with all the words."""
    assert ended.status == 2 and ended.err.count("\n") == 1 and "Traceback" not in ended.err, ended
    assert all(word in ended.err for word in words), (words, ended.err)


def resumes(trainer, run: Path, toy: Path, **job) -> None:
    """The same command again ends as if nothing had happened."""
    ended = trainer.run(flags(run), toy=True, **job)
    assert ended.status == 0 and not ended.err, ended
    assert not differing(outcome(run), outcome(toy))


# ---- signals


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_step_saves_and_says_where(trainer, toy, tmp_path, name, status):
    ended = trainer.run(flags(tmp_path), toy=True, at=100, action=name)
    assert ended.status == status
    taken = int(re.search(rf"interrupted after (\d+) of {STEPS} steps", ended.out)[1])
    assert 0 < taken < STEPS and checkpoints(tmp_path)[-1].name == f"step-{taken:09d}"
    assert str(checkpoints(tmp_path)[-1]) in ended.out
    assert ended.err.startswith("interrupted:") and ended.err.count("\n") == 1
    resumes(trainer, tmp_path, toy)


def test_under_nohup_a_hangup_changes_nothing():
    program = (
        "import signal, os; from runs.signals import Interrupt\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with Interrupt() as interrupt: os.kill(os.getpid(), signal.SIGHUP)\n"
        "assert interrupt.signal is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_resumed_run_says_where_it_goes_on(trainer, tmp_path):
    assert trainer.run(flags(tmp_path), toy=True, at=150, action="SIGTERM").status == 143
    newest, taken = checkpoints(tmp_path)[-1], int(checkpoints(tmp_path)[-1].name[5:])
    assert f"resumed from {newest}, after {taken} of {STEPS} steps\n" in trainer.run(flags(tmp_path), toy=True).out


@pytest.fixture
def endless(tmp_path):
    """A real run, as a user starts it, inside a step that never ends."""
    command = [sys.executable, ROOT / "main.py", *flags(tmp_path, "--pretrain_g_epochs", "1", "--d_epochs", "1000000")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if checkpoints(tmp_path) or process.poll() is not None:
            break
        time.sleep(0.1)
    time.sleep(0.5)  # until it is inside the compiled loop
    assert process.poll() is None
    yield process
    process.kill()
    process.wait()


def test_a_second_sigint_exits_at_once(endless):
    endless.send_signal(signal.SIGINT)
    assert endless.stderr.readline().startswith("interrupted:")
    time.sleep(0.3)
    assert endless.poll() is None  # the step is still under way
    endless.send_signal(signal.SIGINT)
    assert endless.wait(timeout=3) == 130


def test_one_process_a_directory_and_the_lock_dies_with_its_owner(endless, trainer, tmp_path):
    before = snapshot(tmp_path)
    for more, flag in (([], "--log_dir"), (["--log_dir", str(tmp_path / "other")], "--eval_log_dir")):
        refused(trainer.run(flags(tmp_path, *more), toy=True), flag, "another process is training there")
    assert {path: before[path] for path in before} == {path: snapshot(tmp_path)[path] for path in before}
    endless.kill()
    endless.wait()
    refused(trainer.run(flags(tmp_path), toy=True), "--d_epochs 1000000, not 2")  # it got past the lock


# ---- going on, and not


def test_a_finished_run_says_so_and_changes_nothing(trainer, toy):
    before = snapshot(toy)
    ended = trainer.run(flags(toy, "--checkpoint_every", "7", "--debug"), toy=True)
    assert (ended.status, ended.err) == (0, "") and re.search(r"nll +-?\d[^!]*finished before", ended.out)
    assert snapshot(toy) == before


def test_more_epochs_are_a_continuation_and_fewer_are_refused(trainer, toy, tmp_path):
    for total in ("0", "3", "5"):
        assert trainer.run(flags(tmp_path, "--total_epochs", total), toy=True).status == 0
        for kind in ("train", "eval"):
            described = json.loads((tmp_path / kind / "config.json").read_text())
            assert described["flags"]["total_epochs"] == int(total)
    left, expected = outcome(tmp_path), outcome(toy)
    # The shorter run's last epoch was evaluated; nothing else tells of it.
    extra = differing(left, expected)
    assert all(name.startswith("eval ") or "reward_at_step" in name for name in extra), extra
    assert left["train metrics.csv"] == expected["train metrics.csv"]
    assert set(expected["eval nll"]) < set(left["eval nll"])
    before = snapshot(tmp_path)
    refused(trainer.run(flags(tmp_path, "--total_epochs", "4"), toy=True), "--total_epochs")
    assert snapshot(tmp_path) == before


def test_another_configuration_is_refused_by_name(trainer, toy):
    before = snapshot(toy)
    ended = trainer.run(flags(toy, "--seed", "9", "--d_filter_sizes", "1", "2", "--g_lr", "0.5"), toy=True)
    refused(ended, "holds a run with --d_filter_sizes 1 3, not 1 2; --g_lr 0.01, not 0.5; --seed 1, not 9; choose")
    refused(trainer.run(flags(toy, "--eval_log_dir", "elsewhere"), toy=True, cwd=str(toy)), "--eval_log_dir elsewhere")
    assert snapshot(toy) == before


def test_a_run_that_was_moved_goes_on(trainer, toy, tmp_path):
    """Where a run lies is no part of it, nor is how often it is looked at."""
    assert trainer.run(flags(tmp_path / "old"), toy=True, at=150, action="SIGTERM").status == 143
    shutil.move(tmp_path / "old" / "train", tmp_path / "train")
    shutil.move(tmp_path / "old" / "eval", tmp_path / "eval")
    resumes(trainer, tmp_path, toy)
    assert json.loads((tmp_path / "eval" / "config.json").read_text())["flags"]["log_dir"] == str(tmp_path / "train")


def test_how_often_a_run_is_looked_at_may_change(trainer, toy, tmp_path):
    assert trainer.run(flags(tmp_path, "--total_epochs", "2"), toy=True).status == 0
    more = ["--eval_every", "1", "--eval_samples", "6", "--d_eval_samples", "8", "--log_generation"]
    assert trainer.run(flags(tmp_path, *more), toy=True).status == 0
    assert timeless_rows(tmp_path / "train") == timeless_rows(toy / "train")
    epochs = [row.split(",")[0] for row in (tmp_path / "eval" / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == ["0", "1", "3", "4", "4", "5", "6", "7", "8", "9"]  # 4: after G's pretraining and after D's


def test_pretraining_may_grow_until_the_discriminator_is_trained(trainer, toy, tmp_path):
    assert trainer.run(flags(tmp_path, "--pretrain_g_epochs", "3", "--total_epochs", "0"), toy=True).status == 0
    refused(trainer.run(flags(tmp_path, "--pretrain_g_epochs", "2"), toy=True), "--pretrain_g_epochs 3, not 2")
    assert trainer.run(flags(tmp_path), toy=True).status == 0
    left, expected = outcome(tmp_path), outcome(toy)
    assert left["train metrics.csv"] == expected["train metrics.csv"]  # the shorter run's last epoch was evaluated
    assert all(left[name] == expected[name] for name in left if name.startswith("weights "))
    before = snapshot(tmp_path)
    refused(trainer.run(flags(tmp_path, "--pretrain_g_epochs", "6"), toy=True), "--pretrain_g_epochs 5, not 6")
    assert snapshot(tmp_path) == before


def test_two_spellings_of_one_directory(trainer, toy, tmp_path):
    shutil.copytree(toy, tmp_path / "copy")
    job = {"toy": True, "cwd": str(tmp_path)}
    logs = ["--log_dir", "run/train", "--eval_log_dir", "run/eval"]
    assert trainer.run(flags(tmp_path, *logs), **job).status == 0
    ended = trainer.run(flags(tmp_path, "--log_dir", "./run//train/", "--eval_log_dir", "run/x/../eval/"), **job)
    assert ended.status == 0 and "finished before" in ended.out


def test_overwrite_starts_afresh_and_removes_nothing_else(trainer, toy, tmp_path):
    run = tmp_path / "run"
    assert trainer.run(flags(run, "--seed", "9", "--checkpoint_every", "1"), toy=True).status == 0
    foreign = [run / "train" / "notes.txt", run / "train" / "checkpoints" / "best.h5"]
    for path in foreign:
        path.write_text("mine")
    assert trainer.run(flags(run, "--overwrite"), toy=True).status == 0
    assert not differing(outcome(run), outcome(toy))
    assert all(path.read_text() == "mine" for path in foreign)
    assert len(checkpoints(run)) == 3


def test_killed_while_it_overwrites(trainer, toy, tmp_path):
    """Whether the next command has the flag again or not."""
    assert trainer.run(flags(tmp_path), toy=True).status == 0
    for at in range(1, 35):
        ended = trainer.run(flags(tmp_path, "--overwrite"), toy=True, at=at)
        assert ended.status == -signal.SIGKILL
        resumes(trainer, tmp_path, toy)


def test_records_of_another_run_are_never_deleted(trainer, toy, tmp_path):
    """Two runs with one --eval_log_dir: told apart by path, and where the paths read alike by the run's identifier."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    shared = ["--log_dir", "train", "--eval_log_dir", str(tmp_path / "shared")]
    assert trainer.run(flags(tmp_path, *shared), toy=True, cwd=str(first)).status == 0
    before = snapshot(tmp_path)
    refused(trainer.run(flags(tmp_path, *shared, "--log_dir", "other"), toy=True, cwd=str(first)), "--log_dir")
    refused(trainer.run(flags(tmp_path, *shared), toy=True, cwd=str(second)), "--eval_log_dir", "another run")
    shutil.move(first / "train", first / "moved")
    refused(trainer.run(flags(tmp_path, *shared), toy=True, cwd=str(first)), "--eval_log_dir", "another run")
    shutil.move(first / "moved", first / "train")
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before


def test_overwrite_spares_the_evaluations_of_another_run(trainer, toy, tmp_path):
    """Nor is it recommended. The message names the other run, by its --log_dir, and the flag to change."""
    shutil.copytree(toy, tmp_path / "first")
    run_id = json.loads((toy / "eval" / "config.json").read_text())["run"]
    second = ["--log_dir", str(tmp_path / "second"), "--eval_log_dir", str(tmp_path / "first" / "eval")]
    own = ["--log_dir", str(tmp_path / "second"), "--eval_log_dir", str(tmp_path / "own")]
    for there in (False, True):  # another run, new or finished
        before = snapshot(tmp_path)
        for more in ([], ["--overwrite"]):
            ended = trainer.run(flags(tmp_path, *second, *more), toy=True)
            refused(
                ended, f"--eval_log_dir {second[3]}: holds records of another run", f"run {run_id[:6]} of --log_dir"
            )
            assert str(toy / "train") in ended.err and ended.err.endswith("; choose another --eval_log_dir\n")
            assert snapshot(tmp_path) == before
        if not there:
            assert trainer.run(flags(tmp_path, *own), toy=True).status == 0


def test_directories_that_are_swapped(trainer, toy):
    swapped = ["--log_dir", str(toy / "eval"), "--eval_log_dir", str(toy / "train")]
    before = snapshot(toy)
    for more in ([], ["--overwrite"], ["--no-evaluate"], ["--no-evaluate", "--overwrite"]):
        ended = trainer.run(flags(toy, *swapped, *more), toy=True)
        refused(ended, f"--log_dir {toy / 'eval'}: holds the evaluations of a run", f"its --log_dir, {toy / 'train'};")
        assert {path: content for path, content in snapshot(toy).items() if path in before} == before
    refused(trainer.run(["--no-is_train", *swapped], toy=True), f"--log_dir {toy / 'eval'}: holds the evaluations")


def test_a_run_whose_weights_are_gone_is_not_begun_anew(trainer, toy, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy, run)
    shutil.rmtree(run / "train" / "checkpoints")
    for case in ("no folder", "an empty folder", "of an older version"):
        if case == "an empty folder":
            (run / "train" / "checkpoints").mkdir()
        if case == "of an older version":  # which has not written down whether there was one
            described = json.loads((run / "train" / "config.json").read_text())
            assert described.pop("saved") is True
            (run / "train" / "config.json").write_text(json.dumps(described))
        before = snapshot(run)
        gone = f"--log_dir {run / 'train'}: holds a run whose weights are gone: no checkpoint is left in "
        refused(trainer.run(flags(run), toy=True), gone, "or --overwrite")
        refused(trainer.run(["--no-is_train", *flags(run)], toy=True), gone)
        assert snapshot(run) == before, case
    assert trainer.run(flags(run, "--overwrite"), toy=True).status == 0
    assert not differing(outcome(run), outcome(toy))


def test_a_run_killed_before_its_first_checkpoint_begins_anew(trainer, toy, tmp_path):
    ended = trainer.run(flags(tmp_path), toy=True, at=45)
    assert ended.status == -signal.SIGKILL and not checkpoints(tmp_path) and timeless_rows(tmp_path / "train")
    refused(trainer.run(["--no-is_train", *flags(tmp_path)], toy=True), "the run has no checkpoint yet")
    resumes(trainer, tmp_path, toy)


def test_records_without_a_configuration_are_not_touched(trainer, tmp_path):
    for name in (
        "train/metrics.csv",
        "train/events.out.tfevents.1.x",
        "eval/metrics.csv",
        "train/checkpoints/step-1/x",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
        flag = f"--{'eval_' if 'eval/' in name else ''}log_dir"
        refused(trainer.run(flags(tmp_path), toy=True), flag, "unknown run")
        assert path.read_text() == "precious"
        shutil.rmtree(tmp_path / name.split("/")[0])


def test_overwrite_removes_no_records_of_other_programs(trainer, tmp_path):
    for name in ("config.json", "metrics.csv", "events.out.tfevents.7.host"):
        path = tmp_path / "train" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"model_type": "another"}')
        refused(trainer.run(flags(tmp_path, "--overwrite"), toy=True), "--log_dir" if "config" not in name else name)
        assert path.read_text() == '{"model_type": "another"}'
        path.unlink()


def test_logs_cut_short_are_an_error(trainer, toy, tmp_path):
    for kind, pattern in (("train", "metrics.csv"), ("eval", "*.tfevents.*.seqgan")):
        run = tmp_path / kind
        assert trainer.run(flags(run), toy=True, at=150, action="SIGTERM").status == 143
        path = next((run / kind).glob(pattern))
        os.truncate(path, path.stat().st_size - 1)
        refused(trainer.run(flags(run), toy=True), str(path), "cut short")


def as_an_older_version(run: Path) -> None:
    """Takes the checksum of metrics.csv, which older versions did not write, out of the checkpoints."""
    for checkpoint in checkpoints(run):
        content = json.loads((checkpoint / "manifest.txt").read_text().partition("\n")[2])
        for position in content["details"]["positions"].values():
            del position["sha256"]
        text = json.dumps(content)
        (checkpoint / "manifest.txt").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


@pytest.mark.parametrize("older", [False, True])
def test_rows_that_were_changed_are_not_appended_to(trainer, toy, tmp_path, older):
    """A position is a number of bytes: in a file that was converted or edited it would lie within a row."""
    run = tmp_path / "run"
    assert trainer.run(flags(run), toy=True, at=150, action="SIGTERM").status == 143
    if older:
        as_an_older_version(run)
    changes = {
        "line ends": lambda rows: [row.replace("\n", "\r\n") for row in rows],
        "a row twice": lambda rows: [*rows[:2], *rows[1:]],
        "a cell less": lambda rows: [rows[0], rows[1].replace(",", "0", 1), *rows[2:]],
    }
    if not older:  # as it still looks like rows
        changes["digits"] = lambda rows: [rows[0], rows[1].translate(str.maketrans("12345", "51234")), *rows[2:]]
    for kind in ("eval", "train"):
        path = run / kind / "metrics.csv"
        kept = path.read_bytes()
        for what, change in changes.items():
            path.write_bytes("".join(change(kept.decode().splitlines(keepends=True))).encode())
            before = {file: content for file, content in snapshot(run).items() if file.name != "config.json"}
            ended = trainer.run(flags(run), toy=True)
            refused(ended, f"{path}: rows or line ends changed since the last checkpoint; restore it")
            assert before.items() <= snapshot(run).items(), what
        path.write_bytes(kept)
    resumes(trainer, run, toy)


# ---- full disks and read-only directories


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a tmpfs another size or mode, in KiB; skips where there are no rights to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", disk]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no rights to mount a tmpfs: {done.stderr.strip()}")

    if not shutil.which("mount"):
        pytest.skip("no mount program")
    mount("size=64k")
    yield disk, lambda options: mount("remount", options)
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(trainer, toy, small_disk):
    disk, remount = small_disk
    where, failures = set(), 0
    for size in range(24, 200, 4):
        remount(f"size={size}k")
        run = disk / "run"
        ended = trainer.run(flags(run), toy=True)
        if ended.status == 0:
            break
        failures += 1
        refused(ended, "No space left on device", str(disk))
        where.add(re.sub(r"[\d]+", "N", ended.err))
        remount("size=1m")
        resumes(trainer, run, toy)
        shutil.rmtree(run)
    assert failures > 10 and len(where) > 2, where
    assert ended.status == 0


def test_a_disk_that_turns_read_only(trainer, toy, small_disk):
    disk, remount = small_disk
    remount("size=1m")
    run = disk / "run"
    assert trainer.run(flags(run), toy=True, at=150, action="SIGTERM").status == 143
    kept = snapshot(run)
    remount("ro")
    refused(trainer.run(flags(run), toy=True), "Read-only file system", str(disk))
    refused(trainer.run(flags(disk / "new"), toy=True), "--log_dir", "Read-only file system")
    assert snapshot(run) == kept
    remount("rw")
    resumes(trainer, run, toy)


# ---- damaged checkpoints


def damages(path: Path):
    """(name, what becomes of the file's content) of a file: cut short, and single bits flipped."""
    size = path.stat().st_size
    for length in sorted({0, 1, size // 2, size - 1}):
        yield f"cut to {length}", lambda content, length=length: content[:length]
    for place in sorted({0, size // 3, size // 2, size - 2, size - 1}):
        flipped = lambda content, place=place: content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]  # noqa: E731
        yield f"bit flipped at {place}", flipped


def test_a_damaged_checkpoint_is_passed_over(trainer, toy, tmp_path):
    count = 0
    for name in sorted(path.name for path in checkpoints(toy)[-1].iterdir()):
        for what, damage in damages(checkpoints(toy)[-1] / name):
            run = tmp_path / "run"
            shutil.copytree(toy, run)
            described = (toy / "train" / "config.json").read_text().replace(str(toy), str(run))
            for kind in ("train", "eval"):
                (run / kind / "config.json").write_text(described)
            newest = checkpoints(run)[-1]
            (newest / name).write_bytes(damage((newest / name).read_bytes()))
            ended = trainer.run(flags(run), toy=True)
            assert ended.status == 0 and "finished before" not in ended.out, (name, what, ended)
            assert ended.err.startswith(f"warning: {newest}: damaged") and ended.err.count("\n") == 1, (
                name,
                what,
                ended,
            )
            assert not differing(outcome(run), outcome(toy)), (name, what)
            assert len(checkpoints(run)) == 3
            shutil.rmtree(run)
            count += 1
    assert count == 27


def test_all_checkpoints_damaged(trainer, tmp_path):
    assert trainer.run(flags(tmp_path), toy=True).status == 0
    before = checkpoints(tmp_path)
    shutil.rmtree(before[0])
    before[0].write_text("a file")
    for damaged in before[1:]:
        (damaged / "weights.index").unlink()
    for _ in range(2):  # the second time, too
        ended = trainer.run(flags(tmp_path), toy=True)
        *warnings, error = ended.err.splitlines()
        assert ended.status == 2 and [str(path) in line for path, line in zip(reversed(before), warnings, strict=True)]
        assert "all 3 checkpoints are damaged" in error and str(tmp_path) in error
    assert trainer.run(flags(tmp_path, "--overwrite"), toy=True).status == 0


# ---- numbers that are none, and bugs


@pytest.mark.parametrize(
    ("more", "what", "kept"),
    [
        ("--g_pretrain_lr 3e38 --no-evaluate", r"g_pretrain_loss is (inf|nan) at pretrain_g epoch 1, mle-step 1", None),
        ("--g_pretrain_lr 1e38", r"nll\w* is (inf|nan) after pretrain_g epoch 0, mle-step 0", None),
        ("--d_lr 1e38", r"d_pretrain_loss is (inf|nan) at pretrain_d epoch \d, d-step \d", 5),
        ("--g_lr 1e38", r"is (inf|nan) (after|at) adversarial epoch \d, [dg]-step \d", 8),
    ],
)
def test_what_diverges_stops(trainer, tmp_path, more, what, kept):
    argv = flags(tmp_path, *more.split(), "--checkpoint_every", "100")
    for _ in range(2):  # it resumes from the last good checkpoint, and ends there again
        ended = trainer.run(argv)
        refused(ended, str(checkpoints(tmp_path)[-1]) if kept else "no checkpoint yet")
        assert re.search(what, ended.err), ended.err
        assert [path.name for path in checkpoints(tmp_path)[-1:]] == ([f"step-{kept:09d}"] if kept else [])


def test_a_weight_that_diverges_in_silence_stops_too(trainer, tmp_path):
    ended = trainer.run(flags(tmp_path, "--g_lr", "1e38"), toy=True)
    refused(ended, "a weight is not finite after adversarial epoch 1, g-step 1", str(checkpoints(tmp_path)[-1]))


def test_an_unexpected_error_keeps_its_traceback_and_names_the_log_directory(trainer, toy, tmp_path):
    ended = trainer.run(flags(tmp_path), toy=True, at=120, action="BUG")
    assert ended.status == 1 and "Traceback" in ended.err and "ZeroDivisionError: a bug" in ended.err
    assert f"log directory: {tmp_path / 'train'}" in ended.err
    resumes(trainer, tmp_path, toy)


def test_debug_shows_the_traceback_of_a_users_error(trainer, toy):
    ended = trainer.run(flags(toy, "--seed", "9", "--debug"), toy=True)
    assert "Traceback" in ended.err and "UsageError" in ended.err and ended.status != 0
