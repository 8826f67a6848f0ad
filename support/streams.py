"""Standard streams that outlive their readers: closed ones, broken pipes, a terminal that has gone."""

import io
import os
import sys


def open_all() -> None:
    """Opens those of descriptors 0, 1 and 2 that the process was started without, so that no file takes their place.

    To be called before anything else opens a file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one


class _Raw(io.FileIO):
    """Bytes to a descriptor, and to nowhere once nobody takes them any more."""

    def write(self, data) -> int:
        """Writes `data`; returns how many bytes were taken."""
        try:
            return super().write(data)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def keep_writing() -> None:
    """Lets a run go on when its output has no reader left, and print what its terminal lacks letters for, such as ±."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        raw = io.BufferedWriter(_Raw(descriptor, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=True))


def escape_unprintable() -> None:
    """Lets a tool print what its terminal lacks letters for, such as ±, as escapes."""
    if sys.stdout:  # None: started without
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
