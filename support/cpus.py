"""Which CPU this is, and how much of it this process may use."""

import os
import platform
from pathlib import Path


def cpu_model() -> str:
    """The kind of CPU, as the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def cores() -> int:
    """CPUs of this process's affinity, of which TensorFlow takes as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs of the machine that this process may use: those of its affinity, and no more than its group's quota.

    `groups` says which control group (Linux, version 2) the process is in; `root` has the groups' directories.
    """
    count = cores()
    lines = groups.read_text().splitlines() if groups.exists() else []
    for line in (line for line in lines if line.startswith("0::/")):
        group = root / line.removeprefix("0::/")
        for folder in (group, *group.parents):  # a quota counts for all groups within
            limit = folder / "cpu.max"  # such as `150000 100000`, microseconds of each period, or `max 100000`
            quota, _, period = limit.read_text().partition(" ") if limit.exists() else ("max", "", "")
            if quota != "max":
                count = min(count, int(quota) // int(period))
    return max(count, 1)
