"""What XLA has compiled, kept from one process to the next in the user's cache directory.

TensorFlow can keep compiled programs in a directory. It fails where an entry is damaged or half written, writes entries
in place, and takes no note of the machine or the threads that they are for. So its directory is one in memory, of this
process alone. Whole entries are copied into it at the start, and new ones from it into the user's directory.

Programs for a GPU are not kept, as that could not be tried. Neither is anything on macOS: there XLA of this age can run
out of its stack where it loads a large program (https://github.com/uwplasma/vmex/pull/142).
"""

import atexit
import contextlib
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

IN_MEMORY = "ram://compiled"
FLAG = f"--tf_xla_persistent_cache_directory={IN_MEMORY} --tf_xla_persistent_cache_device_types=CPU"
LARGEST = 64 * 2**20  # bytes of a folder: all of it is read at the start
TOTAL = 2**30  # bytes of all folders
DIGEST = hashlib.sha256().digest_size  # bytes before an entry in a file
FOLDER, ENTRY = re.compile("[0-9a-f]{32}"), re.compile(r"xla_compile_cache__\w+\.pb(\.\w+)?")  # no other is removed
CPU = re.compile(r"(vendor_id|cpu family|model|model name|stepping|flags|Features|CPU \w+)\s*:")  # of /proc/cpuinfo

_folder: Path | None = None  # of the programs that this process compiles
_kept: set[str] = set()  # their names, of those that are there


def enable() -> bool:
    """Has TensorFlow keep compiled programs in memory; before it looks for devices, which is when it reads its flags.

    Returns whether it will: not on macOS, nor where TF_XLA_FLAGS names another directory.
    """
    if sys.platform != "linux" or "persistent_cache" in _own_flags():
        return False
    os.environ["TF_XLA_FLAGS"] = f"{_own_flags()} {FLAG}".strip()
    return True


def begin(*what: Any) -> None:
    """Has this process take what earlier ones have compiled for `what`, and keep what it compiles, until it ends.

    To be called before TensorFlow's first operation, and after its settings were made. The cache directory is
    `$XDG_CACHE_HOME/seqgan` (`~/.cache/seqgan`); where it can't be used, nothing is taken or kept.

    `what`, such as flags, is whatever JSON can hold. TensorFlow compares each program with that of an entry, so this
    only tells which entries are worth reading.
    """
    global _folder
    keep()
    atexit.register(keep)
    for path in tf.io.gfile.glob(f"{IN_MEMORY}/*"):
        tf.io.gfile.remove(path)
    _kept.clear()
    try:
        key = hashlib.sha256(json.dumps([_environment(), *what], sort_keys=True).encode()).hexdigest()
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()  # RuntimeError: the user has no home
        _folder = Path(home, "seqgan", "compiled", key[:32])
        _folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(_folder)
        _remove_unused(_folder.parent)
    except (OSError, RuntimeError):
        _folder = None
        return
    tf.io.gfile.makedirs(IN_MEMORY)
    for name, content in _whole_entries(_folder):
        with tf.io.gfile.GFile(f"{IN_MEMORY}/{name}", "wb") as file:
            file.write(content)
        _kept.add(name)


def keep() -> None:
    """Keeps what has been compiled since; not while something is being compiled."""
    if not _folder:
        return
    for name in {os.path.basename(path) for path in tf.io.gfile.glob(f"{IN_MEMORY}/*")} - _kept:
        _kept.add(name)
        with tf.io.gfile.GFile(f"{IN_MEMORY}/{name}", "rb") as file:
            content = file.read()
        try:
            with tempfile.NamedTemporaryFile(dir=_folder, prefix=f"{name}.", delete=False) as written:
                written.write(hashlib.sha256(content).digest() + content)
            os.replace(written.name, _folder / name)
        except OSError:  # no space, say: it is compiled again
            return


def _whole_entries(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a folder's newest entries; older ones than LARGEST holds and damaged ones are removed.

    One that another process is writing is removed as well, which only has it compiled again.
    """
    size = 0
    for path, length in _newest_first(folder, ENTRY):
        try:
            size += length
            content = path.read_bytes() if size <= LARGEST else b""
            if path.suffix == ".pb" and hashlib.sha256(content[DIGEST:]).digest() == content[:DIGEST]:
                yield path.name, content[DIGEST:]
            else:
                path.unlink()
        except OSError:  # another process has removed it
            continue


def _newest_first(folder: Path, names: re.Pattern[str]) -> list[tuple[Path, int]]:
    """What of a folder has such a name, the latest changed first, with its size in bytes."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may remove it
            if names.fullmatch(path.name):
                found.append((path.stat().st_mtime_ns, path, path.stat().st_size))
    return [(path, size) for _, path, size in sorted(found, reverse=True)]


def _remove_unused(folders: Path) -> None:
    """Removes the entries of those folders that were used longest ago, until the others hold no more than TOTAL."""
    total = 0
    for folder, _ in _newest_first(folders, FOLDER):
        with contextlib.suppress(OSError):  # another user's folder, or a file in it that is no entry
            entries = _newest_first(folder, ENTRY)
            total += sum(size for _, size in entries)
            if total > TOTAL:
                for path, _ in entries:
                    path.unlink(missing_ok=True)
                folder.rmdir()


def _own_flags() -> str:
    """What the user has set TF_XLA_FLAGS to."""
    return os.environ.get("TF_XLA_FLAGS", "").replace(FLAG, "").strip()


def _environment() -> dict[str, Any]:
    """All that a compiled program depends on but the program: versions, CPU, threads and settings."""
    set_to = {name: value for name, value in os.environ.items() if name.startswith(("TF_", "XLA_"))}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "tensorflow": [tf.version.VERSION, tf.version.GIT_VERSION, tf.version.COMPILER_VERSION],
        "cpu": [platform.machine(), *sorted({line for line in lines if CPU.match(line)})],
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0)),
        "variables": set_to | {"TF_XLA_FLAGS": _own_flags(), "TF_CPP_MIN_LOG_LEVEL": ""},
    }
