"""Stands in for main.py where a sweep is tested: leaves what a run leaves, a row an epoch, without training."""

import csv
import dataclasses
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runs.directories import CHECKPOINTS, METRICS, TAKEN, write_whole
from runs.schedule import Schedule
from support.config_file import CONFIG, FORMAT
from support.parser import parse


def main() -> int:
    """Goes on from the newest checkpoint; a seed of 13 fails; with --g_pretrain_lr X an epoch takes X seconds."""
    config, stopped = parse(), []

    def stop(received: int, _: object) -> None:
        if stopped and received == signal.SIGINT:
            os._exit(1)  # as main.py, which then saves nothing
        stopped.append(received)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    directory, source = Path(config.log_dir), Path(config.pretrained or config.log_dir)
    directory.mkdir(parents=True, exist_ok=True)
    Path(config.eval_log_dir).mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"toy: error: {TAKEN}")
            return 2
        if config.pretrained and not (source / CHECKPOINTS / f"step-{config.pretrain_g_epochs:09d}").is_dir():
            print("nothing to start from")
            return 2
        content = {"flags": dataclasses.asdict(config), "run": "toy", "format": FORMAT}
        write_whole(directory / CONFIG, json.dumps(content))  # the sweep reads it meanwhile
        checkpoints, epochs = directory / CHECKPOINTS, sum(phase.epochs for phase in Schedule(config).phases)
        taken = any(checkpoints.glob("step-*"))
        if config.seed == 13:
            print("toy: error: an unlucky seed")
            return 3
        with open(directory / METRICS, "a" if taken else "w", newline="") as file:
            writer = csv.writer(file)
            if not taken:
                writer.writerow(["epoch", "phase"])
            done = (directory / METRICS).read_bytes().count(b"\n") - 1 if taken else 0
            while done < epochs and not stopped:
                writer.writerow([done, "pretrain_g"])
                file.flush()
                print(f"epoch {done}", flush=True)
                done += 1
                time.sleep(config.g_pretrain_lr)
        time.sleep(0.3 * bool(stopped))  # saving takes time
        step = len(Schedule(config)) if done == epochs else done
        (checkpoints / f"step-{step:09d}").mkdir(parents=True, exist_ok=True)
    return 128 + stopped[0] if stopped and done < epochs else 0


if __name__ == "__main__":
    sys.exit(main())
