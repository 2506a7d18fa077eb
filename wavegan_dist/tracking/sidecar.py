"""`python -m wavegan_dist.tracking.sidecar SPOOL`: the process that delivers a run's spool while the run goes on.

Its stdin is a pipe from the run. A run that ends writes how many seconds it will wait; a pipe that closes with nothing in
it is a run that was killed. Either way the sidecar delivers what it can within that time and leaves.
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

BOUND = 30.0  # seconds


def main(spool: Spool) -> None:
    """Deliver the spool until the run is over."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    closing = threading.Event()
    threading.Thread(target=leave_in_time, args=(os.getppid(), closing), daemon=True).start()
    with spool.sending(wait=True):
        Sender(spool).follow(closing)
    os._exit(0)  # no waiting for threads of libraries


def leave_in_time(run: int, closing: threading.Event) -> None:
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
    time.sleep(float(word or BOUND))
    os._exit(1)


if __name__ == "__main__":
    main(Spool(Path(sys.argv[1])))
