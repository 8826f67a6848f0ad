"""What a run is, as config.json tells it: its flags, and the versions, device and commit that it runs with."""

import dataclasses
import platform
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from support.config import Config
from support.config_file import FORMAT


def description(config: Config) -> dict[str, Any]:
    """The whole configuration of a run: flags, versions, device and git commit."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return {
        "format": FORMAT,
        "flags": dataclasses.asdict(config),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "device": [device.device_type for device in devices],
        "git_commit": git_commit(),
    }


def other_versions(recorded: dict[str, Any], described: dict[str, Any]) -> str:
    """What a later run `description` has of other versions than an earlier one and would draw otherwise, or ""."""
    before, now, flags = recorded.get("versions", {}), described["versions"], described["flags"]
    names = [name for name in ("tensorflow", "keras") if before.get(name) != now[name]]
    changed = [f"{name} {before.get(name, 'unknown')} is now {now[name]}" for name in names]
    if recorded.get("format", 1) < 3:
        if flags["train_size"]:
            changed.append("the passes over --train_size have another order than in the version that began this run")
        if flags["average"] and flags["d_steps"]:
            changed.append("with --average the discriminator now learns from samples of the average")
    return ", ".join(changed)


def git_commit() -> str:
    """The commit of the code that runs, with a + where tracked files differ from it; "" outside a repository."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
