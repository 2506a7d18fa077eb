"""One function over many jobs, in as many processes as asked for."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

import torch

from wavegan_dist.errors import WaveganError

Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def spread(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """`function(job)` of every job, in their order; one worker, or one job, stays in this process.

    Raises:
        WaveganError: a worker process died; what `function` raises comes through as it is. No further job is begun.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), _prepare_worker) as pool:
        try:
            with unheard(signal.SIGINT):
                results = pool.map(function, jobs)
            yield from results
        except BrokenProcessPool as error:
            raise WaveganError("a worker process died, perhaps for want of memory; try again with fewer --workers") from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def unheard(*signals: signal.Signals) -> Iterator[None]:
    """Processes that start while this lasts never hear these signals, not even before they can say so themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    """One thread a worker; nobody outlives the parent, even a killed one."""
    torch.set_num_threads(1)
    end_with_parent()


def end_with_parent() -> None:
    """From now on this process ends at once when its parent has ended, even by SIGKILL."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
