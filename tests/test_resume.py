"""Runs that are interrupted, starved or continued; tests/test_kills.py kills them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import cases
from fault_injection import ROOT, checkpoints, differing, flags, outcome, timeless_rows, until

STEPS = 23  # of a tiny run


@pytest.fixture(scope="module")
def toy(trainer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    assert trainer.run(flags(folder), toy=True).status == 0
    return folder


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def start(trainer, folder: Path, *more: str, **job):
    return trainer.run(flags(folder, *more), toy=True, **job)


def interrupted(trainer, folder: Path) -> None:
    assert start(trainer, folder, at=150, action="SIGTERM").status == 143


def refused(ended, *words: str) -> None:
    assert ended.status == 2 and ended.err.count("\n") == 1 and "Traceback" not in ended.err, ended
    assert all(word in ended.err for word in words), (words, ended.err)


def left_alone(trainer, folder: Path, argv: list[str], *words: str, **job) -> None:
    """The command is refused, and `folder` holds what it held."""
    before = snapshot(folder)
    refused(trainer.run(argv, toy=True, **job), *words)
    assert snapshot(folder) == before


def resumes(trainer, run: Path, toy: Path, *more: str) -> str:
    """The same command again ends as if nothing had happened; returns what it prints."""
    ended = start(trainer, run, *more)
    assert ended.status == 0 and not ended.err, ended
    assert not differing(outcome(run), outcome(toy))
    return ended.out


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_step_saves_and_says_where(trainer, toy, tmp_path, name, status):
    ended = start(trainer, tmp_path, at=100, action=name)
    assert ended.status == status
    taken = int(re.search(rf"interrupted after (\d+) of {STEPS} steps", ended.out)[1])
    newest = checkpoints(tmp_path)[-1]
    assert 0 < taken < STEPS and newest.name == f"step-{taken:09d}" and str(newest) in ended.out
    assert ended.err.startswith("interrupted:") and ended.err.count("\n") == 1
    assert f"resumed from {newest}, after {taken} of {STEPS} steps\n" in resumes(trainer, tmp_path, toy)


def test_under_nohup_a_hangup_changes_nothing_and_a_child_may_be_ended():
    program = (
        "import signal, os, time; from runs.signals import Interrupt\n"
        "with Interrupt() as interrupt:\n    if not (child := os.fork()): signal.pause()\n"
        "    time.sleep(0.3); os.kill(child, signal.SIGTERM)\n"  # as a pool ends its workers
        "    assert os.waitpid(child, 0)[1] == signal.SIGTERM and interrupt.signal is None\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with Interrupt() as interrupt: os.kill(os.getpid(), signal.SIGHUP)\n"
        "assert interrupt.signal is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_process_a_directory_and_a_second_sigint_exits_at_once(trainer, tmp_path):
    """Here a real run, as a user starts it, inside a step that never ends. The lock dies with its owner."""
    command = [sys.executable, ROOT / "main.py", *flags(tmp_path, "--pretrain_g_epochs", "1", "--d_epochs", "1000000")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: checkpoints(tmp_path) or process.poll() is not None)
        time.sleep(0.5)  # until it is inside the compiled loop
        assert process.poll() is None
        for more, flag in (([], "--log_dir"), (["--log_dir", str(tmp_path / "other")], "--eval_log_dir")):
            left_alone(trainer, tmp_path, flags(tmp_path, *more), flag, "another process is using it")
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("interrupted:")
        time.sleep(0.3)
        assert process.poll() is None  # the step is still under way
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=3) == 130
    finally:
        process.kill()
        process.wait()
    refused(start(trainer, tmp_path), "--d_epochs 1000000, not 2")  # it got past the lock


def test_a_finished_run_says_so_and_changes_nothing(trainer, toy):
    before, ended = snapshot(toy), start(trainer, toy, "--checkpoint_every", "7")
    assert (ended.status, ended.err) == (0, "") and re.search(r"nll +-?\d[^!]*finished before", ended.out)
    assert snapshot(toy) == before


def test_more_epochs_are_a_continuation_and_fewer_are_refused(trainer, toy, tmp_path):
    for total in ("1", "3", "5"):
        assert start(trainer, tmp_path, "--total_epochs", total).status == 0
        for kind in ("train", "eval"):
            described = json.loads((tmp_path / kind / "config.json").read_text())
            assert described["flags"]["total_epochs"] == int(total)
    left, expected = outcome(tmp_path), outcome(toy)
    # The shorter run's last epoch was evaluated; nothing else tells of it.
    extra = differing(left, expected)
    assert all(name.startswith("eval ") or "reward_at_step" in name for name in extra), extra
    assert left["train metrics.csv"] == expected["train metrics.csv"]
    assert set(expected["eval nll"]) < set(left["eval nll"])
    left_alone(trainer, tmp_path, flags(tmp_path, "--total_epochs", "4"), "--total_epochs")


def test_pretraining_may_grow_until_the_discriminator_is_trained(trainer, toy, tmp_path):
    assert start(trainer, tmp_path, at=45, action="SIGTERM").status == 143
    left_alone(trainer, tmp_path, flags(tmp_path, "--pretrain_g_epochs", "4"), "--pretrain_g_epochs 5, not 4")
    assert start(trainer, tmp_path, "--pretrain_g_epochs", "7").status == 0
    assert start(trainer, tmp_path / "whole", "--pretrain_g_epochs", "7").status == 0
    assert not differing(outcome(tmp_path), outcome(tmp_path / "whole"))
    left_alone(trainer, tmp_path, flags(tmp_path, "--pretrain_g_epochs", "8"), "--pretrain_g_epochs 7, not 8")


def test_another_configuration_and_directories_that_are_swapped_are_refused_by_name(trainer, toy):
    three = "--d_filter_sizes 1 3, not 1 2; --g_lr 0.01, not 0.5; --seed 1, not 9; choose"
    for more, *why in (
        ("--seed 9 --d_filter_sizes 1 2 --g_lr 0.5", f"holds a run with {three}"),
        ("--reward log_odds", "--reward discriminator, not log_odds", "--pretrained"),
        ("--discriminator pooled --d_lr 0.0001", "--discriminator cnn, not pooled"),
        ("--eval_log_dir elsewhere", "--eval_log_dir elsewhere"),
    ):
        left_alone(trainer, toy, flags(toy, *more.split()), *why, cwd=str(toy))
    swapped = ["--log_dir", str(toy / "eval"), "--eval_log_dir", str(toy / "train")]
    held = f"--log_dir {toy / 'eval'}: holds the evaluations of a run"
    for more in ([], ["--overwrite"], ["--no-evaluate"], ["--no-evaluate", "--overwrite"]):
        left_alone(trainer, toy, flags(toy, *swapped, *more), held, f"its --log_dir, {toy / 'train'};")
    left_alone(trainer, toy, ["--no-is_train", *swapped], held)


def test_where_a_run_lies_is_no_part_of_it(trainer, toy, tmp_path):
    interrupted(trainer, tmp_path / "old")
    for kind in ("train", "eval"):
        shutil.move(tmp_path / "old" / kind, tmp_path / kind)
    resumes(trainer, tmp_path, toy)
    assert json.loads((tmp_path / "eval" / "config.json").read_text())["flags"]["log_dir"] == str(tmp_path / "train")
    spelt = ["--log_dir", "./x/..//train/", "--eval_log_dir", "eval/."]
    (tmp_path / "x").mkdir()
    assert "finished before" in start(trainer, tmp_path, *spelt, cwd=str(tmp_path)).out


def test_how_often_a_run_is_looked_at_may_change(trainer, toy, tmp_path):
    assert start(trainer, tmp_path, "--total_epochs", "2").status == 0
    more = ["--eval_every", "1", "--eval_samples", "6", "--d_eval_samples", "8", "--log_generation"]
    assert start(trainer, tmp_path, *more).status == 0
    assert timeless_rows(tmp_path / "train") == timeless_rows(toy / "train")
    epochs = [row.split(",")[0] for row in (tmp_path / "eval" / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == ["0", "1", "3", "4", "4", "5", "6", "7", "8", "9"]  # 4: after G's pretraining and after D's


def test_overwrite_starts_afresh_and_removes_nothing_else(trainer, toy, tmp_path):
    run = tmp_path / "run"
    assert start(trainer, run, "--seed", "9", "--checkpoint_every", "1").status == 0
    foreign = [run / "train" / "notes.txt", run / "train" / "checkpoints" / "best.h5"]
    for path in foreign:
        path.write_text("mine")
    resumes(trainer, run, toy, "--overwrite")
    assert all(path.read_text() == "mine" for path in foreign) and len(checkpoints(run)) == len(checkpoints(toy))


def test_killed_while_it_overwrites(trainer, toy, tmp_path):
    """Whether the next command has the flag again or not."""
    assert start(trainer, tmp_path).status == 0
    for at in range(1, 37, 3):
        assert start(trainer, tmp_path, "--overwrite", at=at).status == -signal.SIGKILL
        resumes(trainer, tmp_path, toy)


def test_records_of_another_run_are_never_deleted(trainer, tmp_path):
    """Two runs with one --eval_log_dir whose --log_dir reads alike: told apart by the run's identifier."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    shared = ["--log_dir", "train", "--eval_log_dir", str(tmp_path / "shared")]
    assert start(trainer, tmp_path, *shared, cwd=str(first)).status == 0
    left_alone(trainer, tmp_path, flags(tmp_path, *shared), "--eval_log_dir", "another run", cwd=str(second))
    shutil.move(first / "train", first / "moved")
    left_alone(trainer, tmp_path, flags(tmp_path, *shared), "--eval_log_dir", "another run", cwd=str(first))


def test_overwrite_spares_the_evaluations_of_another_run(trainer, toy, tmp_path):
    """Nor is it recommended. The message names the other run, by its --log_dir, and the flag to change."""
    shutil.copytree(toy, tmp_path / "first")
    run_id = json.loads((toy / "eval" / "config.json").read_text())["run"]
    second = ["--log_dir", str(tmp_path / "second"), "--eval_log_dir", str(tmp_path / "first" / "eval")]
    for there in (False, True):  # another run, new or finished
        held = f"--eval_log_dir {second[3]}: holds records of another run"
        other = f"run {run_id[:6]} of --log_dir {toy / 'train'}; choose another --eval_log_dir\n"
        for more in ([], ["--overwrite"]):
            left_alone(trainer, tmp_path, flags(tmp_path, *second, *more), held, other)
        if not there:
            assert start(trainer, tmp_path, *second[:2], "--eval_log_dir", str(tmp_path / "own")).status == 0


def test_weights_that_are_damaged_or_gone_are_neither_removed_nor_begun_anew(trainer, toy, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy, run)
    newest = checkpoints(run)[-1]
    (newest / "weights.index").write_bytes(b"")
    for _ in range(2):
        ended = start(trainer, run, "--no-is_train")
        assert "damaged checkpoint passed over" in ended.err and newest.is_dir()
    for checkpoint in (run / "train" / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    gone = f"--log_dir {run / 'train'}: holds a run whose weights are gone: no checkpoint is left in "
    for _ in ("an empty folder", "no folder"):
        left_alone(trainer, run, flags(run), gone, "or --overwrite")
        left_alone(trainer, run, flags(run, "--no-is_train"), gone)
        shutil.rmtree(run / "train" / "checkpoints", ignore_errors=True)
    resumes(trainer, run, toy, "--overwrite")


def test_a_run_killed_before_its_first_checkpoint_begins_anew(trainer, toy, tmp_path):
    ended = start(trainer, tmp_path, at=45)
    assert ended.status == -signal.SIGKILL and not checkpoints(tmp_path) and timeless_rows(tmp_path / "train")
    left_alone(trainer, tmp_path, flags(tmp_path, "--no-is_train"), "the run has no checkpoint yet")
    resumes(trainer, tmp_path, toy)


@cases(
    "name, flag",
    *(("train/metrics.csv", "--log_dir"), ("train/events.out.tfevents.1.x", "--log_dir")),
    *((f"train/checkpoints/{name}", "--log_dir") for name in ("partial", "step-1/x")),
    *(("train/config.json", "config.json"), ("eval/metrics.csv", "--eval_log_dir")),
)
def test_records_of_another_program_are_not_touched(trainer, tmp_path, name, flag):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text('{"model_type": "another"}')
    left_alone(trainer, tmp_path, flags(tmp_path), flag)
    left_alone(trainer, tmp_path, flags(tmp_path, "--overwrite"), flag)


def test_logs_that_were_cut_short_or_changed_are_not_appended_to(trainer, toy, tmp_path):
    """A position is a number of bytes: in a file that was converted or edited it would lie within a row."""
    interrupted(trainer, tmp_path)
    for name in ("train/metrics.csv", "eval/*.tfevents.*.seqgan"):
        path = next(tmp_path.glob(name))
        kept = path.read_bytes()
        path.write_bytes(kept[:-1])
        left_alone(trainer, tmp_path, flags(tmp_path), str(path), "cut short")
        path.write_bytes(kept)
    changes = {
        "line ends": lambda text: text.replace("\n", "\r\n"),
        "a cell less": lambda text: "0".join(text.rsplit(",", 1)),
        "digits": lambda text: text.replace("0", "1"),
    }
    for kind in ("eval", "train"):
        path = tmp_path / kind / "metrics.csv"
        kept = path.read_bytes()
        for change in changes.values():
            path.write_bytes(change(kept.decode()).encode())
            why = f"{path}: rows or line ends changed since the last checkpoint; restore"
            left_alone(trainer, tmp_path, flags(tmp_path), why)
        path.write_bytes(kept)
    resumes(trainer, tmp_path, toy)


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount program")
def test_a_full_disk(trainer, toy, tmp_path):
    """A tmpfs of one size after the other; skips where there are no rights to mount one."""
    disk, where, failures = tmp_path / "disk", set(), 0
    disk.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no rights to mount a tmpfs: {done.stderr.strip()}")

    mount("size=64k")
    try:
        for size in range(24, 200, 9):
            mount(f"remount,size={size}k")
            run = disk / "run"
            ended = start(trainer, run)
            if ended.status == 0:
                break
            failures += 1
            refused(ended, "No space left on device", str(disk))
            where.add(re.sub(r"[\d]+", "N", ended.err))
            mount("remount,size=1m")
            resumes(trainer, run, toy)
            shutil.rmtree(run)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert failures > 4 and len(where) > 2, where
    assert ended.status == 0


def damages(path: Path):
    """(name, what becomes of the file's content) of a file: cut short, and single bits flipped."""
    content = path.read_bytes()
    size = len(content)
    for length in {0, size - 1}:
        yield f"cut to {length}", content[:length]
    for place in {0, size // 2, size - 1}:
        yield f"bit flipped at {place}", content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def test_a_damaged_checkpoint_is_passed_over(trainer, toy, tmp_path):
    count = 0
    for name in sorted(path.name for path in checkpoints(toy)[-1].iterdir()):
        for what, damaged in damages(checkpoints(toy)[-1] / name):
            run = tmp_path / "run"
            shutil.copytree(toy, run)
            newest = checkpoints(run)[-1]
            (newest / name).write_bytes(damaged)
            ended = start(trainer, run)
            assert ended.status == 0 and "finished before" not in ended.out, (name, what, ended)
            warned = ended.err.startswith(f"warning: {newest}: damaged") and ended.err.count("\n") == 1
            assert warned, (name, what, ended)
            assert not differing(outcome(run), outcome(toy)), (name, what)
            assert len(checkpoints(run)) == len(checkpoints(toy))
            shutil.rmtree(run)
            count += 1
    assert count == 15


def test_all_checkpoints_damaged(trainer, tmp_path):
    assert start(trainer, tmp_path).status == 0
    before = checkpoints(tmp_path)
    shutil.rmtree(before[0])
    before[0].write_text("a file")
    for damaged in before[1:]:
        (damaged / "weights.index").unlink()
    for _ in range(2):  # the second time, too
        ended = start(trainer, tmp_path)
        *warnings, error = ended.err.splitlines()
        assert ended.status == 2 and [str(path) in line for path, line in zip(reversed(before), warnings, strict=True)]
        assert f"all {len(before)} checkpoints are damaged" in error and str(tmp_path) in error
    assert start(trainer, tmp_path, "--overwrite").status == 0


@cases(
    "more, what, kept",
    ("--g_pretrain_lr 3e38 --no-evaluate", r"g_pretrain_loss is (inf|nan) in pretrain_g 2/\d;", None),
    ("--g_pretrain_lr 1e38", r"nll\w* is (inf|nan) in pretrain_g 1/\d;", None),
    ("--d_lr 1e38 --d_eval_samples 0", r"d_pretrain_loss is (inf|nan) in pretrain_d \d/\d;", 5),
    ("--g_lr 1e38 --pretrain_d_epochs 1 --d_eval_samples 0", r"is (not finite|inf|nan) in adversarial \d/\d;", 6),
)
def test_what_diverges_stops(trainer, tmp_path, more, what, kept):
    few = "--d_steps 1 --d_epochs 1 --checkpoint_every 100"
    ended = trainer.run(flags(tmp_path, *few.split(), *more.split()), eager=True)
    refused(ended, f"the last good checkpoint is {checkpoints(tmp_path)[-1]}" if kept else "no checkpoint yet")
    assert re.search(what, ended.err), ended.err
    assert [path.name for path in checkpoints(tmp_path)[-1:]] == ([f"step-{kept:09d}"] if kept else [])


def test_a_weight_that_diverges_in_silence_stops_too(trainer, tmp_path):
    for _ in range(2):  # it resumes from the last good checkpoint, and ends there again
        ended = start(trainer, tmp_path, "--g_lr", "1e38")
        refused(ended, "a weight is not finite in adversarial 2/", str(checkpoints(tmp_path)[-1]))


def test_an_unexpected_error_keeps_its_traceback_and_names_the_log_directory(trainer, toy, tmp_path):
    ended = start(trainer, tmp_path, at=120, action="BUG")
    assert ended.status == 1 and "Traceback" in ended.err and "ZeroDivisionError: a bug" in ended.err
    assert f"log directory: {tmp_path / 'train'}" in ended.err
    resumes(trainer, tmp_path, toy)
