"""`python -m wavegan_dist.tracking.sidecar SPOOL SECONDS`: the process that delivers a run's spool while the run trains.

The sidecar's stdin is a pipe from the run. Before the run ends, it writes to the pipe how many seconds it will wait for the
sidecar. If the pipe closes without a number, the run was killed, and the sidecar has SECONDS left. The sidecar delivers what it
can within that time and exits.
"""

import os
import select
import sys
import threading
import time
from pathlib import Path

from wavegan_dist import log
from wavegan_dist.tracking.sender import Sender
from wavegan_dist.tracking.spool import Spool


def main(spool: Spool, seconds: float) -> None:
    """Deliver the spool until the run has ended and nothing is left, then end this process with exit code 0. Never returns.

    The time after the end of the run is limited; see `exit_on_deadline`, which ends the process with exit code 1.

    Args:
        spool: the spool of the run that started this process. Waits until no other sender holds its lock.
        seconds: how long to deliver after the end of a run that was killed.
    """
    log.configure()
    closing = threading.Event()
    threading.Thread(target=exit_on_deadline, args=(os.getppid(), closing, seconds), daemon=True).start()
    with spool.lock(wait=True):
        Sender(spool).follow(closing)
    os._exit(0)  # does not wait for threads of MLflow's libraries


def exit_on_deadline(run_pid: int, closing: threading.Event, seconds: float) -> None:
    """Set `closing` when the run ends; end this process some seconds later with exit code 1. Runs in a thread of its own.

    Args:
        run_pid: process id of the run, which started this process. The run has ended if stdin is closed or the parent process
            is another one.
        closing: the event to set.
        seconds: how many seconds later, unless the run wrote another number of seconds to stdin before it ended.
    """
    message = b""
    # A data loader worker may keep the pipe open after the run has ended, so the parent's process id is compared as well.
    while os.getppid() == run_pid:
        if select.select([sys.stdin], [], [], 1.0)[0]:
            received = os.read(sys.stdin.fileno(), 64)
            message += received
            if not received:
                break
    closing.set()
    time.sleep(float(message or seconds))
    os._exit(1)


if __name__ == "__main__":
    main(Spool(Path(sys.argv[1])), float(sys.argv[2]))
