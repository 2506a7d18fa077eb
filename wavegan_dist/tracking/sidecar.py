"""`python -m wavegan_dist.tracking.sidecar SPOOL SECONDS`: the process that delivers a run's spool while the run goes on.

Its stdin is a pipe from the run. A run that ends writes how many seconds it will wait; a pipe that closes with nothing in
it is a run that was killed, which counts as SECONDS. In that time the sidecar delivers what it can, and leaves.
"""

import logging
import os
import select
import sys
import threading
import time
from pathlib import Path

from wavegan_dist.tracking.sender import Sender
from wavegan_dist.tracking.spool import Spool


def main(spool: Spool, seconds: float) -> None:
    """Deliver the spool until the run is over, and for `seconds` after one that was killed."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    closing = threading.Event()
    threading.Thread(target=leave_in_time, args=(os.getppid(), closing, seconds), daemon=True).start()
    with spool.sending(wait=True):
        Sender(spool).follow(closing)
    os._exit(0)  # no waiting for threads of libraries


def leave_in_time(run: int, closing: threading.Event, seconds: float) -> None:
    """Set `closing` when the run, process `run`, is over; end this process when it is not done in time after that."""
    word = b""
    # A loader's worker may hold the pipe open for longer than the run lives: look at the parent as well.
    while os.getppid() == run:
        if select.select([sys.stdin], [], [], 1.0)[0]:
            more = os.read(sys.stdin.fileno(), 64)
            word += more
            if not more:
                break
    closing.set()
    time.sleep(float(word or seconds))
    os._exit(1)


if __name__ == "__main__":
    main(Spool(Path(sys.argv[1])), float(sys.argv[2]))
