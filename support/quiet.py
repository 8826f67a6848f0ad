"""Imports TensorFlow without the lines that it logs meanwhile; import this first, and TensorFlow as usual afterwards.

Some of these lines (no CUDA driver, which instructions the CPU has) are written before any setting can stop them. Who
wants to see the log sets TF_CPP_MIN_LOG_LEVEL to less than 3. Nor does Ctrl-C bring a traceback from then on.
"""

import gc
import os
import signal
import sys
from typing import Any

# oneDNN's kernels, which TensorFlow announces at length, are not used by XLA and make no difference to the speed.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ["KERAS_BACKEND"] = "tensorflow"


def _told(kind: type[BaseException], *more: Any) -> None:
    """Tells of an exception that ends the program; Ctrl-C, as which it ends then, is its user's own doing."""
    if kind is not KeyboardInterrupt:
        sys.__excepthook__(kind, *more)


sys.excepthook = _told
at_interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Keras would take it for a library that is missing
gc.disable()  # collections meanwhile take half a second
try:
    os.fstat(2)
except OSError:  # a closed stderr, whose number the next file would get
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
if hidden := os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # takes what is written to file descriptor 2, by C++ too
try:
    import keras
    import tensorflow
finally:
    if hidden:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
keras.config.set_floatx("float32")  # whatever ~/.keras/keras.json says
signal.signal(signal.SIGINT, at_interrupt)
gc.enable()
gc.freeze()  # nor need later ones pass over what was imported

__all__ = ["keras", "tensorflow"]
