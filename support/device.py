"""TensorFlow's settings for the machine that it runs on."""

import tensorflow as tf


def configure_tensorflow() -> None:
    """Makes every op repeatable and takes GPU memory as it is needed."""
    tf.config.experimental.enable_op_determinism()
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
