"""TensorFlow's settings for the machine that it runs on."""

import contextlib
import hashlib
import os
import sys
from pathlib import Path

import tensorflow as tf

from support.errors import first_line

CACHE = "seqgan/compiled-"  # and a key, in the user's cache directory
KINDS = ("model", "flags", "Features", "CPU ")  # lines of /proc/cpuinfo that tell a kind of CPU, on x86 and on ARM


def configure_tensorflow(threads: int = 0, deterministic: bool = True, cache: bool = False) -> None:
    """Makes every op repeatable and float32 products exact, and takes GPU memory as it is needed.

    `threads` and `deterministic` are the flags; another number of threads than before has to come before TensorFlow's
    first op, and what was once made repeatable stays so as long as the process. `cache` keeps what XLA compiles.
    """
    if cache:
        keep_compiled(threads)
    if threads and threads != tf.config.threading.get_intra_op_parallelism_threads():
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(not deterministic)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def of_cache(error: Exception) -> str:
    """The line about an error of the cache of `keep_compiled`: a damaged file, a full disk. Of another error ""."""
    advice = "TensorFlow's cache of compiled steps: remove that file, or free space there"
    return f"{first_line(error)}; {advice}" if CACHE in str(error) else ""


def keep_compiled(threads: int) -> None:
    """Has TensorFlow keep what XLA compiles for the CPU, in the user's cache directory, for the next process.

    To be called before TensorFlow's first operation. On Linux alone, and not where TF_XLA_FLAGS names a directory. The
    directory is `$XDG_CACHE_HOME/seqgan` (`~/.cache/seqgan`). A program is for one CPU, version and number of threads,
    of which TensorFlow takes no note: so each has a directory of its own, and an empty file, as a power cut leaves it,
    is removed. Where the directory can't be written to, nothing is kept.
    """
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if sys.platform != "linux" or "persistent_cache" in flags:
        return
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
        cpu = {line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(KINDS)}
        cores = threads or len(os.sched_getaffinity(0))
        xla = os.environ.get("XLA_FLAGS", "")
        key = hashlib.sha256(repr([tf.version.VERSION, sorted(cpu), cores, flags, xla]).encode()).hexdigest()[:16]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        folder = home / f"{CACHE}{key}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
        for path in folder.glob("*.pb"):  # not what another process is writing
            if not path.stat().st_size:
                path.unlink()
        kept = f'--tf_xla_persistent_cache_directory="{folder}" --tf_xla_persistent_cache_device_types=CPU'
        os.environ["TF_XLA_FLAGS"] = f"{flags} {kept}".strip()
