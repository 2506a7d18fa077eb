"""Process groups of distributed runs, and pools of worker processes on one machine."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
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
from wavegan_dist.log import log
from wavegan_dist.rendezvous import report_missing_ranks

Job = TypeVar("Job")
Result = TypeVar("Result")
Group: TypeAlias = PartialState | Accelerator  # a process group: both types give rank, world size and device
JOIN_TIMEOUT = timedelta(minutes=30)  # PyTorch's own timeout of a process group
# Schedulers and terminals send these signals to the whole process group; only the parent reacts to them.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LEAVE_TIMEOUT = 10.0  # seconds that `leave` waits for unfinished collectives
# How long the ranks wait for one that reads or writes files. A process that ends is noticed at once in spite of this.
FILE_TIMEOUT = timedelta(days=1)
REPORT_AFTER = 60.0  # seconds of reading or writing, after each of which `together` logs a warning


def join(timeout: timedelta = JOIN_TIMEOUT, requested: tuple[int, str] | None = None) -> PartialState:
    """Join the process group of the launcher, once; without a launcher, the group is this process alone. Collective.

    Args:
        timeout: how long this rank waits for the others, here and in a later collective.
        requested: the number of processes that must take part, and who asked for it; None: as many as the launcher starts.

    Returns:
        accelerate's state: rank, world size and device of this process.

    Raises:
        UsageError: the launcher's environment variables are wrong or incomplete, or the group has a different number of
            processes than `requested`.
        WaveganError: the group did not form, for example because another process did not join within `timeout`.
    """
    requested, cpu = requested or requested_world_size(), trains_on_cpu()
    # Without cpu=True, each rank of a machine without GPUs would form a separate group (accelerate 1.15).
    with nullcontext() if dist.is_initialized() else report_missing_ranks(cpu, timeout):
        group = PartialState(cpu=cpu, timeout=timeout)
    check_world_size(group.num_processes, *requested)
    return group


def leave() -> bool:
    """Destroy the process group, if there is one. Call this last in every process that called `join`, even after an error.

    A gloo thread may release the tensors of a collective after the collective has returned. Releasing them needs the
    interpreter: if the interpreter is shutting down, the thread aborts the process with SIGABRT (torch 2.14, Python 3.11).
    Destroying the group ends these threads. Reference cycles of a trainer's modules keep the group alive, so garbage is
    collected first. A collective that a stopped peer never completes cannot be cancelled: `leave` then returns after
    LEAVE_TIMEOUT (10 seconds) and the group is not destroyed.

    Returns:
        Whether there is no group any more. If not, end the process by `os._exit`: a thread that waits in the collective, as
        that of a checkpoint, would keep the interpreter from shutting down until the collective times out.
    """

    def end() -> None:
        gc.collect()
        dist.destroy_process_group()

    if not dist.is_initialized():
        return True
    leaving = threading.Thread(target=end, daemon=True)
    leaving.start()
    leaving.join(LEAVE_TIMEOUT)
    return not leaving.is_alive()


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


@contextmanager
def together(group: Group, doing: str | None) -> Iterator[None]:
    """Context around work with files, from which all ranks return together, or none of them. Collective.

    Reading or writing may take long, or may fail on one rank alone. The other ranks wait for FILE_TIMEOUT, in collectives of
    the block, too, and rank 0 logs a warning after each REPORT_AFTER. If a rank ends, the others still notice it at once.

    Args:
        group: the process group.
        doing: what the block does, for the warning, for example "reading the checkpoint"; None: no warning.

    Raises:
        WaveganError: on all ranks, if the block raised a WaveganError or an OSError on any rank: this rank's own error, else
            that of the lowest failing rank with its number.
    """
    error: WaveganError | None = None
    with _longer_timeout(group), _reported(doing if group.is_main_process else None):
        try:
            yield
        except WaveganError as raised:
            error = raised
        except OSError as raised:
            error = WaveganError(describe(raised))
        try:
            other = _error_of_another_rank(group, error)
        except RuntimeError:  # another rank has ended meanwhile
            if error is None:
                raise
            other = None
    if first := error or other:
        raise first


def on_main(group: Group, work: Callable[[], Result], doing: str) -> Result:
    """Call `work` on rank 0 and return its result on all ranks. Collective; the result must be picklable.

    Raises:
        WaveganError: on all ranks, if `work` raises a WaveganError or an OSError, see `together`, which takes `doing`. An
            error of another type is raised on rank 0 only, and the other ranks wait for rank 0 until it ends.
    """
    outcome: list[Result | None] = [None]
    with together(group, doing):
        if group.is_main_process:
            outcome = [work()]
    if group.num_processes > 1:
        broadcast_object_list(outcome)
    return outcome[0]  # type: ignore[return-value]


def on_all_ranks(group: Group, work: Callable[[], Result], doing: str | None = None) -> Result:
    """Call `work` on every rank; return on each rank what `work` returned there. Collective.

    Raises:
        WaveganError: on all ranks, if `work` raises a WaveganError or an OSError on any rank, see `together`, which takes
            `doing`. An error of another type is raised on its rank only, and the other ranks wait for that rank until it ends.
    """
    with together(group, doing):
        result = work()
    return result


def file_group() -> dist.ProcessGroup | None:
    """Return a new process group of gloo whose collectives wait for FILE_TIMEOUT; None without a process group. Collective.

    Raises:
        WaveganError: the group did not form: the processes cannot connect to each other, or one of them has ended.
    """
    if not dist.is_initialized():
        return None
    try:
        group = dist.new_group(backend="gloo")
    except RuntimeError as error:
        raise WaveganError(
            f"the processes cannot connect to each other to write checkpoints ({_shortened(error)}); see whether one of them "
            "has ended, and which network interface GLOO_SOCKET_IFNAME names"
        ) from error
    assert isinstance(group, dist.ProcessGroup)
    group._get_backend(torch.device("cpu"))._set_default_timeout(FILE_TIMEOUT)  # forming the group takes seconds
    return group


def _error_of_another_rank(group: Group, error: WaveganError | None) -> WaveganError | None:
    """Return the error of the lowest failing rank; None if no rank has failed. Collective."""
    if group.num_processes == 1:
        return None
    failed = torch.tensor(float(error is not None), device=group.device)
    dist.all_reduce(failed, dist.ReduceOp.MAX)
    if not failed.item():
        return None
    errors = gather_object([error])
    rank, first = next((rank, each) for rank, each in enumerate(errors) if each is not None)
    kind = UsageError if isinstance(first, UsageError) else WaveganError
    return kind(f"rank {rank}: {first}")


@contextmanager
def _longer_timeout(group: Group) -> Iterator[None]:
    """Let collectives of the process group wait for FILE_TIMEOUT while the block runs."""
    if group.num_processes == 1:
        yield
        return
    backend = dist.distributed_c10d._get_default_group()._get_backend(group.device)
    before = backend.options._timeout
    backend._set_default_timeout(FILE_TIMEOUT)
    try:
        yield
    finally:
        backend._set_default_timeout(before)


@contextmanager
def _reported(doing: str | None) -> Iterator[None]:
    """Log a warning after each REPORT_AFTER seconds that the block takes, unless `doing` is None."""
    done = threading.Event()

    def report() -> None:
        begin = time.monotonic()
        while not done.wait(REPORT_AFTER):
            log.warning("%s: %.0f s so far, on this rank or on another; the run waits", doing, time.monotonic() - begin)

    if doing is not None:
        threading.Thread(target=report, daemon=True, name="reported").start()
    try:
        yield
    finally:
        done.set()


def gather_to_main(group: Group, item: Result) -> Iterator[Result]:
    """Send one picklable item of every rank to rank 0. Collective: every rank exhausts the iterator.

    Yields:
        On rank 0, the items in the order of the ranks, each received when it is requested; on other ranks, nothing.
    """
    if not group.is_main_process:
        dist.send_object_list([item], dst=0)
        return
    yield item
    for rank in range(1, group.num_processes):
        received: list[Result | None] = [None]
        dist.recv_object_list(received, src=rank)
        yield received[0]  # type: ignore[misc]


@contextmanager
def report_lost_ranks(group: Group) -> Iterator[None]:
    """In a group of several processes, replace an error of torch.distributed in the block by a WaveganError of one line.

    The message says that another process has ended or stopped answering, which is why a collective fails in most cases, and
    ends with the reason that torch.distributed gives.
    """
    try:
        yield
    except RuntimeError as error:
        is_collective = isinstance(error, dist.DistError) or "gloo" in str(error)
        if group.num_processes == 1 or not is_collective:
            raise
        message = "another process of this run has ended or stopped answering; see its own error for the reason"
        raise WaveganError(f"{message} ({_shortened(error)})") from error


def _shortened(error: BaseException) -> str:
    """Return the first and the last line of an error's message: NCCL gives its reason in the last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "; ".join(dict.fromkeys((lines[0], lines[-1])))


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def single_core_threads(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Start `threads` threads in which PyTorch computes with one core; end them with the block, and cancel tasks that wait."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # the number of the calling thread and of threads that start later


def parallel_map(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Yield `function(job)` for each job, in the order of the jobs.

    The work starts when the first result is requested. If an error ends the iteration, or the caller closes the iterator early,
    the worker processes are killed: jobs that run may take hours to end.

    Args:
        function: called in forked worker processes, in which PyTorch uses one thread, or in this process if `workers` or the
            number of jobs is less than 2. A function of a module; its results must be picklable.
        jobs: picklable arguments of `function`.
        workers: largest number of worker processes.

    Raises:
        WaveganError: a worker process died.
        Exception: any error that `function` raises.
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
    """Block signals in this thread while the block runs. Processes that are started in the block keep them blocked for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(pid: int) -> None:
    """Kill (SIGKILL) a process and all its descendants; nothing happens if the process has ended."""
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
    """Make this process, if `multiprocessing` started it, exit with code 1 as soon as its parent has ended, even by SIGKILL.

    The exit is `os._exit`, without any clean-up. Starts a thread that waits for the parent, and returns at once.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
