"""TensorFlow's settings for the machine that it runs on."""

from typing import Any

import tensorflow as tf

from support import compile_cache


def configure_tensorflow(
    threads: int = 0, deterministic: bool = True, tf32: bool = False, keep_compiled: tuple[Any, ...] = ()
) -> None:
    """Makes every op repeatable and float32 products exact, and takes GPU memory as it is needed.

    `threads`, `deterministic` and `tf32` are the flags; another number of threads than before has to come before
    TensorFlow's first op, and what was once made repeatable stays so as long as the process. What is compiled is kept
    for the next process if `keep_compiled` tells what it is of, see `compile_cache.begin`.
    """
    cached = keep_compiled and compile_cache.enable()
    if threads and threads != tf.config.threading.get_intra_op_parallelism_threads():
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    if cached:
        compile_cache.begin(*keep_compiled)
