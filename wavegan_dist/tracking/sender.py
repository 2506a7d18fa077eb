"""Delivery of a spool to MLflow: in order, each event once, with retries until MLflow has everything."""

import random
import threading
import time
from collections.abc import Iterator

from wavegan_dist.log import log
from wavegan_dist.tracking.mlflow_run import MAX_METRICS, MlflowRun, MlflowUnavailableError
from wavegan_dist.tracking.spool import Event, Spool

POLL_INTERVAL = 5.0  # seconds between checks of a spool that is completely delivered
MIN_DELAY, MAX_DELAY = 1.0, 30.0  # seconds between attempts
CLOSING_DELAY = 2.0  # seconds between attempts while the run waits for its sidecar
REQUEST_TIMEOUT = 10  # seconds for a request; doubles with each failed attempt, for large files and slow servers
MAX_DOUBLINGS = 5  # of the delay and of the timeout
MAX_ATTEMPTS = 5  # to upload a file that fails although MLflow answers other requests


class UploadFailedError(MlflowUnavailableError):
    """MLflow failed to store a file and answers other requests; after MAX_ATTEMPTS of them, the file is skipped."""


class Sender:
    """Delivers one spool.

    Args:
        spool: the spool to deliver; the caller must hold `Spool.lock` during `deliver` and `follow`.
        timeout: seconds that one request to MLflow may take; holds for the whole process (`MlflowRun.set_timeout`).
    """

    def __init__(self, spool: Spool, timeout: int = REQUEST_TIMEOUT) -> None:
        self.spool, self.mlflow_run, self.attempts = spool, MlflowRun(spool.folder), 0
        self.mlflow_run.set_timeout(timeout)

    def deliver(self) -> None:
        """Send all undelivered events that the spool contains now and record each delivery.

        Events that MLflow rejects count as delivered, with a warning. So does a file that has failed MAX_ATTEMPTS times in a
        row, over several calls, although MLflow worked otherwise.

        Raises:
            UploadFailedError: a file could not be sent although MLflow works otherwise; the next attempt may skip it.
            MlflowUnavailableError: an event could not be sent; the events before it are recorded as delivered.
            OSError: the spool cannot be read, or a delivery cannot be recorded.
        """
        _, rejected = self.spool.delivered()
        for events, offset in batches(self.spool.undelivered()):
            try:
                rejected += self.mlflow_run.send(events)
            except MlflowUnavailableError as error:
                self._skip_or_raise(events, error)
                rejected += 1
            self.spool.set_delivered(offset, rejected)
            self.attempts = 0

    def deliver_or_skip(self) -> None:
        """Call `deliver`, and repeat it with pauses until each file is sent or skipped. Raises its other errors."""
        while True:
            try:
                return self.deliver()
            except UploadFailedError:
                time.sleep(retry_delay(self.attempts))

    def follow(self, closing: threading.Event) -> None:
        """Deliver present and future events; return when `closing` is set and none is left.

        While MLflow is unavailable, logs a warning and retries without limit, even after `closing` is set. What `deliver` skips
        is skipped. Raises neither MlflowUnavailableError nor OSError.

        Args:
            closing: set by another thread when the run has ended and appends no more events.
        """
        failures = 0
        while True:
            last = closing.is_set()
            try:
                self.deliver()
            except (MlflowUnavailableError, OSError) as error:  # OSError: the position could not be written
                if failures == 0:
                    log.warning("MLflow is unavailable, training continues: %s", error)
                failures += 1
            else:
                if failures:
                    log.warning("MLflow is available again")
                failures = 0
                if last:
                    return
            self.mlflow_run.set_timeout(REQUEST_TIMEOUT * 2 ** min(failures, MAX_DOUBLINGS))
            if last:
                time.sleep(CLOSING_DELAY)
            else:
                closing.wait(retry_delay(failures))

    def _skip_or_raise(self, events: list[Event], error: MlflowUnavailableError) -> None:
        """Warn that the event is skipped if it is a file that failed `MAX_ATTEMPTS` times while MLflow worked otherwise.

        Raises:
            UploadFailedError: it is a file that failed fewer times.
            MlflowUnavailableError: it is no file, or MLflow does not work; `error`, or that of `MlflowRun.check`.
        """
        if events[0]["kind"] not in ("file", "picture"):
            raise error
        self.mlflow_run.check()  # failures of an outage do not count
        self.attempts += 1
        if self.attempts < MAX_ATTEMPTS:
            raise UploadFailedError(str(error)) from error
        log.warning("MLflow failed %d times to store %s: %s", MAX_ATTEMPTS, events[0], error)


def retry_delay(failures: int) -> float:
    """Return the seconds to wait after this many consecutive failures: 1, 2, 4, ... 30, each plus or minus up to 50%.

    After no failure: POLL_INTERVAL.
    """
    if not failures:
        return POLL_INTERVAL
    mean: float = min(MIN_DELAY * 2 ** min(failures - 1, MAX_DOUBLINGS), MAX_DELAY)
    return mean * random.uniform(0.5, 1.5)


def batches(undelivered: Iterator[tuple[Event, int]]) -> Iterator[tuple[list[Event], int]]:
    """Join consecutive metrics events up to MLflow's limit of values per request; every other event gets a separate request.

    Args:
        undelivered: events, each with the offset at which its line ends.

    Yields:
        The events of one request, and the offset at which the last of their lines ends.
    """
    waiting: list[Event] = []
    size = end = 0
    for event, offset in undelivered:
        is_metrics = event["kind"] == "metrics"
        if waiting and (not is_metrics or size + len(event["values"]) > MAX_METRICS):
            yield waiting, end
            waiting, size = [], 0
        if is_metrics:
            waiting.append(event)
            size, end = size + len(event["values"]), offset
        else:
            yield [event], offset
    if waiting:
        yield waiting, end
