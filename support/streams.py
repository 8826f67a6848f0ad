"""Standard streams that outlive their readers: closed ones, broken pipes, a terminal that has gone."""

import io
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


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
        """Writes `data`; returns how many bytes were taken. Waits where a descriptor that does not block is full."""
        try:
            while (taken := super().write(data)) is None:
                select.select([], [self.fileno()], [])
            return taken
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def keep_writing() -> None:
    """Lets a run go on when its output has no reader left, and print what its terminal lacks letters for, such as ±."""
    open_all()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        raw = io.BufferedWriter(_Raw(descriptor, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=True))


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the exit status of a tool's `main`, whose result may go to stdout.

    Where stdout is full, that is one line on stderr and status 2; a reader of it that has seen enough is no error. What
    its terminal lacks letters for, such as ±, is printed as escapes. Ctrl-C ends the process as SIGINT does.
    """
    if sys.stdout:  # None: started without
        whole = {"line_buffering": False, "write_through": False}  # to fail below, not where `main` writes files
        sys.stdout.reconfigure(errors="backslashreplace", **whole)  # type: ignore[union-attr]
    status = 0
    try:
        try:
            status = main()
        except SystemExit as end:
            status = end.code  # type: ignore[assignment]
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except OSError as error:  # those of files `main` tells itself
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left in the buffer
        if not status and not isinstance(error, BrokenPipeError):
            status = 2
            print(f"{Path(sys.argv[0]).name}: error: stdout: {error.strerror}", file=sys.stderr)
    sys.exit(status)
