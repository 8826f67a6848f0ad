"""What a run is, as config.json tells it: its flags, and the versions, machine and commit that it runs with."""

import dataclasses
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from support.config import Config, shown
from support.config_file import FORMAT
from support.parser import VERSION


def description(config: Config) -> dict[str, Any]:
    """The whole configuration of a run: flags, versions, machine and git commit."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    versions = {"seqgan": VERSION, "python": platform.python_version(), "tensorflow": tf.__version__}
    versions |= {"keras": keras.__version__, "numpy": np.__version__}
    described = {"format": FORMAT, "flags": dataclasses.asdict(config), "versions": versions}
    # TensorFlow takes as many threads as the process's affinity has CPUs.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    described |= {"device": [device.device_type for device in devices], "cpu": cpu_model(), "cores": cores}
    return described | {"git_commit": git_commit()}


def changed_since(recorded: dict[str, Any], described: dict[str, Any]) -> str:
    """What a later run `description` has otherwise than an earlier one and would round otherwise, or ""."""
    # XLA compiles for the kind of CPU; the cores are the threads where --threads is 0.
    machine = ("device", "cpu") if described["flags"]["threads"] else ("device", "cpu", "cores")
    before, now = recorded.get("versions", {}), described["versions"]
    pairs = [(name, before.get(name), now[name]) for name in ("tensorflow", "keras")]
    pairs += [(name, recorded.get(name), described[name]) for name in machine]
    return ", ".join(f"{name} {shown(old)} is now {shown(new)}" for name, old, new in pairs if old != new)


def cpu_model() -> str:
    """The kind of CPU, as the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return models[0] if models else platform.processor() or platform.machine()


def git_commit() -> str:
    """The commit of the code that runs, with a + where its Python files differ from it; "" outside a repository."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/*.py"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip() + "+" * bool(changed)
