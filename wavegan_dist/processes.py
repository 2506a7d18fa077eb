"""Process groups of distributed runs, and pools of worker processes on one machine."""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeAlias, TypeVar

import psutil
import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object

from wavegan_dist.errors import UsageError, WaveganError, describe
from wavegan_dist.launcher import requested_world_size, trains_on_cpu
from wavegan_dist.rendezvous import report_missing_ranks

Job = TypeVar("Job")
Result = TypeVar("Result")
Group: TypeAlias = PartialState | Accelerator  # a process group: both types give rank, world size and device
JOIN_TIMEOUT = timedelta(minutes=30)  # PyTorch's own timeout of a process group
# Schedulers and terminals send these signals to the whole process group; only the parent reacts to them.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LEAVE_TIMEOUT = 10.0  # seconds that `leave` waits for unfinished collectives


def join() -> PartialState:
    """Join the process group of the launcher; without a launcher, the group is this process alone. Collective.

    Raises:
        UsageError: the number of processes in the group is not the number that the launcher was asked to start.
        WaveganError: the other processes did not join.
    """
    requested, cpu = requested_world_size(), trains_on_cpu()
    # Without cpu=True, each rank of a machine without GPUs would form a separate group (accelerate 1.15).
    with report_missing_ranks(cpu, JOIN_TIMEOUT):
        group = PartialState(cpu=cpu)
    check_world_size(group.num_processes, *requested)
    return group


def leave() -> None:
    """Destroy the process group, if there is one. Call this last in every process that called `join`, even after an error.

    A gloo thread may release the tensors of a collective after the collective has returned. Releasing them needs the
    interpreter: if the interpreter is shutting down, the thread aborts the process with SIGABRT (torch 2.14, Python 3.11).
    Destroying the group ends these threads. Reference cycles of a trainer's modules keep the group alive, so garbage is
    collected first. A collective that a stopped peer never completes cannot be cancelled: the wait ends after LEAVE_TIMEOUT.
    """

    def end() -> None:
        gc.collect()
        dist.destroy_process_group()

    if dist.is_initialized():
        leaving = threading.Thread(target=end, daemon=True)
        leaving.start()
        leaving.join(LEAVE_TIMEOUT)


def check_world_size(world_size: int, requested: int, source: str) -> None:
    """Compare the world size with the number of processes requested.

    Args:
        world_size: number of processes in the group.
        requested: number of processes that the launcher was asked to start.
        source: where `requested` was found, for the message.

    Raises:
        UsageError: the numbers differ.
    """
    if world_size != requested:
        raise UsageError(
            f"{source} asked for {requested} processes but {world_size} take part; on CPUs start them with "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N (or launchers/accelerate/cpu2.yaml)"
        )


def on_main(group: Group, work: Callable[[], Result]) -> Result:
    """Call `work` on rank 0 and return its result on all ranks. Collective; the result must be picklable.

    Raises:
        WaveganError: on all ranks, if `work` raises a WaveganError or an OSError.
    """
    outcome: list[Result | WaveganError | None] = [None]
    if group.is_main_process:
        try:
            outcome = [work()]
        except WaveganError as error:
            outcome = [error]
        except OSError as error:
            outcome = [WaveganError(describe(error))]
    if group.num_processes > 1:
        broadcast_object_list(outcome)
    result = outcome[0]
    if isinstance(result, WaveganError):
        raise result
    return result  # type: ignore[return-value]


def on_all_ranks(group: Group, work: Callable[[], Result]) -> Result:
    """Call `work` on every rank and return each rank's own result. Collective.

    Raises:
        WaveganError: on all ranks, if `work` raises a WaveganError or an OSError on any rank; the error of the lowest failing
            rank.
    """
    error: WaveganError | None = None
    try:
        result = work()
    except WaveganError as raised:
        error = raised
    except OSError as raised:
        error = WaveganError(describe(raised))
    errors = [error] if group.num_processes == 1 else gather_object([error])
    for first in errors:
        if first is not None:
            raise first
    return result


def gather_to_main(group: Group, item: Result) -> Sequence[Result]:
    """Gather one picklable item of every rank. Collective.

    Returns:
        On rank 0, the items in the order of the ranks; on other ranks, an empty sequence.
    """
    if group.num_processes == 1:
        return [item]
    items: list[Result] | None = [item] * group.num_processes if group.is_main_process else None
    dist.gather_object(item, items)
    return items or []


@contextmanager
def report_lost_ranks(group: Group) -> Iterator[None]:
    """Turn the error of a collective that failed because another rank has ended into a WaveganError of one line."""
    try:
        yield
    except RuntimeError as error:
        is_collective = isinstance(error, dist.DistError) or "gloo" in str(error)
        if group.num_processes == 1 or not is_collective:
            raise
        message = "another process of this run has ended or stopped answering; see its own error for the reason"
        raise WaveganError(message) from error


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def parallel_map(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Yield `function(job)` for each job, in the order of the jobs.

    Args:
        function: called in forked worker processes, or in this process if one worker suffices.
        jobs: picklable arguments of `function`.
        workers: largest number of worker processes.

    Raises:
        WaveganError: a worker process died.
        Exception: any error that `function` raises. The worker processes are killed: jobs that run may take hours to end.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), _prepare_worker) as pool:
        try:
            with signals_blocked(signal.SIGINT):
                results = pool.map(function, jobs)
            yield from results
        except BrokenProcessPool as error:
            raise WaveganError("a worker process died, perhaps out of memory; try again with fewer --workers") from error
        except BaseException:
            for pid in list(pool._processes):
                _kill(pid)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def signals_blocked(*signals: signal.Signals) -> Iterator[None]:
    """Block signals while the block runs, so that processes started in it ignore them from their first instruction on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(pid: int) -> None:
    """Kill a process and the processes that it has started."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.suspend()  # so that it starts no further ones
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                one.kill()


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    exit_with_parent()


def exit_with_parent() -> None:
    """Make this process exit as soon as its parent has ended, even by SIGKILL."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
