"""The processes of a launch: joined through Accelerate, counted before work begins, stopped together."""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeAlias, TypeVar

import psutil
import torch
import torch.distributed as dist
import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object

from wavegan_dist.errors import UsageError, WaveganError

Job = TypeVar("Job")
Result = TypeVar("Result")
Group: TypeAlias = PartialState | Accelerator  # both know the rank, how many there are and the device
LEAVE_TIMEOUT = 10.0  # seconds that leaving waits for a collective that is still under way


def join() -> PartialState:
    """Join the process group that the launcher made, if any; UsageError where not everyone is there who was asked for."""
    # Without cpu=True, ranks that find no GPU would each work alone (accelerate 1.15).
    group = PartialState(cpu=not torch.accelerator.is_available())
    check_world_size(group.num_processes, *requested_world_size())
    return group


def leave() -> None:
    """Leave the process group, if one was joined: the last act of a process that did, whatever became of its work.

    A collective's tensors are let go of by a thread of gloo, perhaps after the call has returned, and that takes the
    interpreter: one that is ending by then makes the thread end the whole process with SIGABRT (torch 2.14, Python 3.11).
    Its threads end with the group, and a trainer's modules lie in cycles that keep it: they are collected first.
    Nothing cancels a collective that a stopped process never answers, so it is waited for 10 s and no longer.
    """

    def end() -> None:
        gc.collect()
        dist.destroy_process_group()

    if dist.is_initialized():
        leaving = threading.Thread(target=end, daemon=True)
        leaving.start()
        leaving.join(LEAVE_TIMEOUT)


def requested_world_size() -> tuple[int, str]:
    """How many processes the launcher was asked for, and who says so."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]), "WORLD_SIZE"
    if (tasks := int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))) > 1:  # each task of `srun` would work alone
        return tasks, "srun"
    return _requested_of_accelerate(), "accelerate launch"


def check_world_size(world_size: int, asked: int, by: str) -> None:
    """Raise UsageError unless `world_size` processes were asked for."""
    if world_size != asked:
        raise UsageError(
            f"{by} asked for {asked} processes but {world_size} take part; on CPUs start them with "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N (or launchers/accelerate/cpu2.yaml)"
        )


def on_main(group: Group, work: Callable[[], Result]) -> Result:
    """Do `work` on rank 0 and hand its result, or its error, to all ranks: they go on or stop together."""
    outcome: list[Result | WaveganError | None] = [None]
    if group.is_main_process:
        try:
            outcome = [work()]
        except WaveganError as error:
            outcome = [error]
        except OSError as error:
            outcome = [WaveganError(str(error))]
    if group.num_processes > 1:
        broadcast_object_list(outcome)
    result = outcome[0]
    if isinstance(result, WaveganError):
        raise result
    return result  # type: ignore[return-value]


def on_all_ranks(group: Group, work: Callable[[], Result]) -> Result:
    """Do `work` on every rank; where it fails on any of them, all raise the error of the first: none is left waiting."""
    error: WaveganError | None = None
    try:
        result = work()
    except WaveganError as raised:
        error = raised
    except OSError as raised:
        error = WaveganError(str(raised))
    errors = [error] if group.num_processes == 1 else gather_object([error])
    for found in errors:
        if found is not None:
            raise found
    return result


def gather_to_main(group: Group, item: Result) -> Sequence[Result]:
    """Every rank's item, in the order of the ranks, on rank 0; nothing elsewhere."""
    if group.num_processes == 1:
        return [item]
    items: list[Result] | None = [item] * group.num_processes if group.is_main_process else None
    dist.gather_object(item, items)
    return items or []


@contextmanager
def together(group: Group) -> Iterator[None]:
    """Say in one line when a collective breaks because another process is gone, in place of the library's trace."""
    try:
        yield
    except RuntimeError as error:
        of_the_group = isinstance(error, dist.DistError) or "gloo" in str(error)
        if group.num_processes == 1 or not of_the_group:
            raise
        raise WaveganError("another process of this run has ended or stopped answering; its own error tells why") from error


def _requested_of_accelerate() -> int:
    """The process count on the command line or in the file of a parent `accelerate launch`; 1 where there is none.

    `accelerate launch --cpu --num_processes 2` and MULTI_CPU profiles start one process with nothing in its environment
    that says so (accelerate 1.15): the parent's command line is the only witness.
    """
    command = psutil.Process().parent()
    words = command.cmdline() if command is not None else []
    if "launch" not in words:
        return 1
    options = dict(pairwise(words)) | dict(word.split("=", 1) for word in words if "=" in word)
    if count := options.get("--num_processes", options.get("--num-processes")):
        return int(count)
    if file := options.get("--config_file", options.get("--config-file")):
        return int(yaml.safe_load(Path(file).read_text()).get("num_processes", 1))
    return 1


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def parallel_map(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
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
            with signals_blocked(signal.SIGINT):
                results = pool.map(function, jobs)
            yield from results
        except BrokenProcessPool as error:
            raise WaveganError("a worker process died, perhaps for want of memory; try again with fewer --workers") from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def signals_blocked(*signals: signal.Signals) -> Iterator[None]:
    """Processes that start while this lasts never hear these signals, not even before they can say so themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    """One thread a worker; nobody outlives the parent, even a killed one."""
    torch.set_num_threads(1)
    exit_with_parent()


def exit_with_parent() -> None:
    """From now on this process ends at once when its parent has ended, even by SIGKILL."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
