"""Delivery of a spool: in order, each event once, until MLflow has them all."""

import logging
import random
import threading
import time
from collections.abc import Iterator

from wavegan_dist.tracking.spool import Event, Spool
from wavegan_dist.tracking.store import METRICS, AwayError, Store

POLL = 5.0  # seconds between looks at a spool that is all delivered
FIRST_PAUSE, LONGEST_PAUSE, LAST_PAUSE = 1.0, 30.0, 2.0  # seconds between tries; the last while the run waits for the end
FIRST_PATIENCE = 10  # seconds for a request; doubles with each try, for large files and slow servers
DOUBLINGS = 5  # at most, of pauses and of patience
TRIES = 5  # of a file that fails while MLflow is well otherwise

log = logging.getLogger("wavegan")


class Sender:
    """Delivers one spool.

    Args:
        spool: what to deliver; the caller holds its lock.
        patience: seconds that a request may take.
    """

    def __init__(self, spool: Spool, patience: int = FIRST_PATIENCE) -> None:
        self.spool, self.store, self.tries = spool, Store(spool.run), 0
        self.store.patience(patience)

    def deliver(self) -> None:
        """Send all that the spool has now; raises AwayError where that fails, what was sent before is noted."""
        _, refused = self.spool.progress()
        for events, offset in batches(self.spool.unsent()):
            try:
                refused += self.store.send(events)
            except AwayError as error:
                refused += self._give_up_on(events, error)
            self.spool.note(offset, refused)
            self.tries = 0

    def follow(self, closing: threading.Event) -> None:
        """Deliver what is there and what comes, trying for ever; return when `closing` is set and all is delivered."""
        failures = 0
        while True:
            last = closing.is_set()
            try:
                self.deliver()
            except (AwayError, OSError) as error:  # OSError: the position could not be noted
                if failures == 0:
                    log.warning("MLflow is away, training goes on: %s", error)
                failures += 1
            else:
                if failures:
                    log.warning("MLflow is back")
                failures = 0
                if last:
                    return
            self.store.patience(FIRST_PATIENCE * 2 ** min(failures, DOUBLINGS))
            if last:
                time.sleep(LAST_PAUSE)
            else:
                closing.wait(pause(failures))

    def _give_up_on(self, events: list[Event], error: AwayError) -> int:
        """1, for an event to skip, when a file failed often though MLflow is well otherwise; else raise the error."""
        self.tries += 1
        if self.tries < TRIES or events[0]["kind"] not in ("file", "picture"):
            raise error
        self.store.check()
        log.warning("MLflow failed %d times to take %s: %s", TRIES, events[0], error)
        return 1


def pause(failures: int) -> float:
    """Seconds until the next try after so many failures in a row: 1, 2, 4, ... 30, each plus or minus half of it."""
    return min(FIRST_PAUSE * 2 ** min(failures - 1, DOUBLINGS), LONGEST_PAUSE) * random.uniform(0.5, 1.5) if failures else POLL


def batches(unsent: Iterator[tuple[Event, int]]) -> Iterator[tuple[list[Event], int]]:
    """Join metrics that follow each other, up to the most that MLflow takes at once; all else alone. With offsets behind."""
    waiting: list[Event] = []
    size = end = 0
    for event, offset in unsent:
        joins = event["kind"] == "metrics"
        if waiting and (not joins or size + len(event["values"]) > METRICS):
            yield waiting, end
            waiting, size = [], 0
        if joins:
            waiting.append(event)
            size, end = size + len(event["values"]), offset
        else:
            yield [event], offset
    if waiting:
        yield waiting, end
