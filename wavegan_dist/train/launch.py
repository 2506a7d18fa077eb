"""Start of a training process: process group, checks of the launch, the run folder's lock and log."""

import ctypes
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from wavegan_dist.config import TrainConfig, check_batch_division
from wavegan_dist.devices import allow_tf32
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import user_cache
from wavegan_dist.launcher import requested_world_size, trains_on_cpu
from wavegan_dist.log import copied_to
from wavegan_dist.processes import join, on_all_ranks, on_main, report_lost_ranks
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.zero_settings import check_strategy

# Longer than anything that one rank computes while the others wait in a collective; short enough that a hang does not waste
# much cluster time. Ranks wait longer for one that reads or writes files (`processes.FILE_TIMEOUT`).
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
Settings = TypeVar("Settings")
# Environment variables with which accelerate configures its own strategy, which the engines of this package would ignore.
STRATEGY_VARIABLES = (
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)
# Parameters of mallopt in glibc's malloc.h, and the largest value they take.
M_TRIM_THRESHOLD, M_MMAP_MAX, INT_MAX = -1, -4, 2**31 - 1


def init_accelerator(train: TrainConfig) -> Accelerator:
    """Join the process group of the launcher and configure PyTorch in this process for training: a collective call.

    Collectives of the group time out after 10 minutes (COLLECTIVE_TIMEOUT). Call this once in a process.

    Returns:
        An accelerator without mixed precision: the engines apply autocast themselves.

    Raises:
        UsageError: the number of processes is not the requested one or does not divide the batch size, the launcher configures
            something that this run would not honor or sets wrong environment variables, or `train.strategy` or `train.compile`
            cannot run here.
        WaveganError: the other processes did not join, or `train.compile` is on and there is no folder for compiled code.
    """
    refuse_launcher_settings(train)
    requested = (train.world_size, "train.world_size") if train.world_size is not None else requested_world_size()
    join(COLLECTIVE_TIMEOUT, requested)
    # Buffers are equal on all ranks without a broadcast: batch statistics are synchronized, and spectral norm
    # computes the same from equal weights. Accelerate's only name for this option is deprecated since PyTorch 2.14.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # The engines apply autocast themselves.
    accelerator = Accelerator(cpu=trains_on_cpu(), mixed_precision="no", kwargs_handlers=[ddp])
    check_batch_division(accelerator.num_processes, train)
    check_strategy(train, accelerator.num_processes)
    check_compile(train, accelerator.device)
    allow_tf32(train.tf32)
    torch.backends.cudnn.deterministic = True  # otherwise a resumed float32 run differs from an uninterrupted one
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def read_together(read: Callable[[], Settings]) -> Settings:
    """Join the process group of the launcher and return what `read` returns on this rank: a collective call.

    A rank that cannot read its settings would otherwise end before it joins, and the others would wait for it.

    Raises:
        UsageError: on all ranks, if `read` raises a UsageError on any rank, or the number of processes is not the requested
            one.
        WaveganError: on all ranks, if `read` fails otherwise on any rank, or the other processes did not join or ended.
    """
    refuse_launcher_strategy()
    group = join(COLLECTIVE_TIMEOUT)
    with report_lost_ranks(group):
        return on_all_ranks(group, read, "reading the settings")


def check_compile(train: TrainConfig, device: torch.device) -> None:
    """Check `train.compile`; unless it is `off`, create the folder of compiled code, named by TORCHINDUCTOR_CACHE_DIR.

    If the environment variable is not set yet, it is set to a folder in the user's cache, where a requeued job finds it again.

    Raises:
        UsageError: `train.compile` is `graphs` and `device`, on which this process trains, is not a GPU.
        WaveganError: the user has no cache folder, or the folder cannot be created or written to.
    """
    if train.compile == "off":
        return
    if train.compile == "graphs" and device.type != "cuda":
        raise UsageError(
            f"train.compile = graphs needs a GPU, and this process trains on {device.type}; set it to default or off"
        )
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or user_cache() / "inductor")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WaveganError(f"cannot keep compiled code in {folder} ({error.strerror}); set XDG_CACHE_HOME") from error
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on machines without a GPU, it warns of that


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of returning it to the kernel and faulting each page in again.

    This holds for the whole process from now on. Does nothing with a C library that has no `mallopt`.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, INT_MAX)
        libc.mallopt(M_MMAP_MAX, 0)  # raising the mmap threshold instead is limited to 32 MiB


def refuse_launcher_strategy() -> None:
    """Raise UsageError if `accelerate launch` configures a strategy of its own, which joining the group would set up.

    Reads the environment variables that `accelerate launch` sets. docs/launching.md lists all fields of its config file.
    """
    for variable in STRATEGY_VARIABLES:
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise UsageError(
                f"{variable} is set: the launcher's profile configures its own strategy; set distributed_type: MULTI_GPU there "
                "(launchers/accelerate) and train.strategy=zero1, zero2 or zero3 for the run"
            )


def refuse_launcher_settings(train: TrainConfig) -> None:
    """Raise UsageError if `accelerate launch` requests settings that training would ignore.

    These are a strategy such as FSDP, compilation, a precision other than none and `train.precision`, and a number of
    accumulation steps other than 1 and `train.accumulation`. Reads the environment variables that `accelerate launch` sets.
    docs/launching.md lists all fields of its config file.
    """
    refuse_launcher_strategy()
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if backend.lower() != "no":
        raise UsageError(
            f"ACCELERATE_DYNAMO_BACKEND={backend} is set: the launcher's profile compiles the model; launch with "
            "--dynamo_backend no (in the profile: no dynamo_config) and set train.compile=default or graphs for the run"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", train.precision):
        raise UsageError(
            f"ACCELERATE_MIXED_PRECISION={precision} is set by the launcher, but train.precision = {train.precision}; "
            "launch with --mixed_precision no, or set train.precision to the same"
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", str(train.accumulation)):
        raise UsageError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps} is set, but train.accumulation = {train.accumulation}; "
            "unset the variable and set train.accumulation"
        )


@contextmanager
def open_run_folder(accelerator: Accelerator, folder: RunFolder) -> Iterator[None]:
    """On rank 0, hold the run folder's lock and append log records to its log.txt while the block runs.

    Entering is a collective call. Creates the folder.

    Raises:
        UsageError: on all ranks, if another process holds the lock.
        WaveganError: on all ranks, if the folder cannot be written.
    """
    with ExitStack() as stack:
        on_main(accelerator, lambda: stack.enter_context(folder.lock()), "locking the run folder")
        if accelerator.is_main_process:
            stack.enter_context(copied_to(folder.log))
        yield
