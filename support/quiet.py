"""Imports TensorFlow without the lines that it logs meanwhile; import this first, and TensorFlow as usual afterwards.

Some of these lines (no CUDA driver, which instructions the CPU has) are written before any setting can stop them. Who
wants to see the log sets TF_CPP_MIN_LOG_LEVEL to less than 3. Nor does Ctrl-C bring a traceback from then on.
"""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

# oneDNN's kernels, which TensorFlow announces at length, are not used by XLA and make no difference to the speed.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def _told(kind: type[BaseException], *more: Any) -> None:
    """Tells of an exception that ends the program; Ctrl-C, as which it ends then, is its user's own doing."""
    if kind is not KeyboardInterrupt:
        sys.__excepthook__(kind, *more)


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Sends what is written to file descriptor 2, by C++ too, to nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


sys.excepthook = _told
at_interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Keras would take it for a library that is missing
gc.disable()  # collections meanwhile take half a second
hidden = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
with _without_stderr() if hidden else contextlib.nullcontext():
    import keras
    import tensorflow
signal.signal(signal.SIGINT, at_interrupt)
gc.enable()
gc.freeze()  # nor need later ones pass over what was imported

__all__ = ["keras", "tensorflow"]
