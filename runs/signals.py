"""Signals that end a run: the step under way is finished first."""

import os
import signal
import sys
import threading
from typing import Any


class Interrupt:
    """Remembers SIGINT, SIGTERM or SIGHUP, so that the step under way can end; a SIGINT after that exits at once.

    A Python signal handler has to wait until the step has ended, too. So a thread reads what the interpreter's own
    handler writes to a pipe.
    """

    signal: int | None = None
    _before: dict[int, Any] = {}  # the handlers of before

    def __enter__(self) -> "Interrupt":
        """Takes over the signals, in the main thread; but SIGHUP not where it is ignored, as under nohup."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._receive) for number in numbers}
        self._pipe_before = signal.set_wakeup_fd(self._writer)
        os.register_at_fork(after_in_child=self._leave)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _leave(self) -> None:
        """In a child process, such as one of an objective's pool: its signals are its own."""
        if self._before:
            self._give_back(-1)

    def _give_back(self, wakeup: int) -> None:
        signal.set_wakeup_fd(wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        os.close(self._writer)  # which ends the thread

    def _receive(self, number: int, frame: Any) -> None:
        self.signal = self.signal or number

    def _watch(self) -> None:
        told = False
        while received := os.read(self._reader, 1):
            number = received[0]
            if told and number == signal.SIGINT:
                os._exit(128 + number)
            if not told and number in self._before:
                print("interrupted: ends this step and saves; Ctrl-C once more stops at once", file=sys.stderr)
                told = True

    def __exit__(self, *_: object) -> None:
        self._give_back(self._pipe_before)
        self._thread.join()
        os.close(self._reader)
