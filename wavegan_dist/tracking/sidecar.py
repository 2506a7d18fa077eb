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
    """Deliver the spool until the run has ended, and for at most `seconds` more if the run was killed."""
    log.configure()
    closing = threading.Event()
    threading.Thread(target=exit_on_deadline, args=(os.getppid(), closing, seconds), daemon=True).start()
    with spool.lock(wait=True):
        Sender(spool).follow(closing)
    os._exit(0)  # does not wait for threads of MLflow's libraries


def exit_on_deadline(run_pid: int, closing: threading.Event, seconds: float) -> None:
    """Set `closing` when the run ends, then exit this process after the seconds that the run wrote to stdin, or `seconds`."""
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
