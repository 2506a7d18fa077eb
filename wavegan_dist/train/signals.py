"""Signals that ask a run to stop: the first sets a flag that is read after each step, a second one ends the process.

Python runs signal handlers between bytecodes of the main thread, and therefore never while that thread waits in a collective.
The interpreter's C-level handler, however, writes the signal number to a socket at once (`signal.set_wakeup_fd`); a thread
reads the socket.
"""

import os
import signal
import socket
import threading
import time
from types import TracebackType
from typing import Self

from wavegan_dist.errors import EXIT_INTERRUPTED, EXIT_REQUEUE, WaveganError
from wavegan_dist.processes import STOP_SIGNALS

# A launcher forwards signals that its process group has also received: two signals within this time count as one.
SAME_SIGNAL_SECONDS = 3.0


class InterruptedRunError(WaveganError):
    """A signal ended the run, which first saved a checkpoint. Exit code 75 (start the run again), or 130 after Ctrl-C.

    If `train.on_disk_error` is `continue`, the save may have failed: the log then has a warning.

    Args:
        number: the signal.
        message: the signal's name and where the run was saved.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_REQUEUE


class Signals:
    """Context in which stop signals set `received` (number of the first signal, 0 before) instead of ending the process.

    Stop signals are SIGTERM, SIGUSR1, SIGUSR2 and SIGINT. One more than 3 seconds after the first ends the process at once with
    exit code 128 + its number. Leaving the context restores the handlers, but not `received`. Only in the main thread:
    elsewhere, Python raises ValueError.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Self:
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # First, so that no signal is lost once the handlers do nothing.
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._previous_handlers = {number: signal.signal(number, _do_nothing) for number in STOP_SIGNALS}
        threading.Thread(target=self._watch, args=(reader,), daemon=True, name="signals").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup_fd)
        self._writer.close()

    def _watch(self, reader: socket.socket) -> None:
        first_time = 0.0
        with reader:
            while number := reader.recv(1):
                if number[0] not in STOP_SIGNALS:
                    continue
                if not self.received:
                    self.received, first_time = number[0], time.monotonic()
                elif time.monotonic() - first_time > SAME_SIGNAL_SECONDS:
                    os._exit(128 + number[0])


def _do_nothing(_number: int, _frame: object) -> None:
    """Replaces the default handler, which would end the process; the watching thread handles the signal."""
