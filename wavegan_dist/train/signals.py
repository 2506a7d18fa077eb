"""Signals that ask a run to leave: the first is noted and answered at the end of the step, a second ends the process.

The interpreter runs Python handlers between two bytecodes of the main thread, so never while that waits inside a collective.
Its C handler writes the number to a socket at once (`signal.set_wakeup_fd`); a thread reads it there.
"""

import os
import signal
import socket
import threading
import time
from types import TracebackType
from typing import Self

from wavegan_dist.errors import WaveganError

ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
# A launcher passes on what the whole process group has got already: within this time the two are one.
SAME_SIGNAL_SECONDS = 3.0
REQUEUE = 75  # sysexits.h EX_TEMPFAIL: "the user is invited to retry"


class InterruptedRunError(WaveganError):
    """The run was asked to leave and has saved itself. Exit code 75 (start it again), or 130 after Ctrl-C.

    Args:
        number: the signal.
        message: what was saved.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.exit_code = 130 if number == signal.SIGINT else REQUEUE


class Signals:
    """While this context lasts, `received` is the first signal's number, or 0.

    A second signal, more than 3 seconds later, ends the process at once with 128 + its number.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Self:
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = {number: signal.signal(number, _noted) for number in ASKED}
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True, name="signals").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._writer.close()

    def _watch(self, reader: socket.socket) -> None:
        first = 0.0
        with reader:
            while number := reader.recv(1):
                if number[0] not in ASKED:
                    continue
                if not self.received:
                    self.received, first = number[0], time.monotonic()
                elif time.monotonic() - first > SAME_SIGNAL_SECONDS:
                    os._exit(128 + number[0])


def _noted(_number: int, _frame: object) -> None:
    """Python wants a handler; the thread does the work."""
