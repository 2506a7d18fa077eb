"""The processes of a run: found by Accelerate, counted before the first step."""

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from wavegan_dist.config import TrainConfig
from wavegan_dist.errors import UsageError
from wavegan_dist.processes import check_world_size, on_main, requested_world_size, together
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train import zero_settings
from wavegan_dist.train.precision import set_matmul_precision

__all__ = ["check_batch_division", "locked", "on_main", "start", "together"]

# Longer than anything that one rank does while the others wait in a collective (a sample grid, a read from slow storage),
# shorter than anyone wants to pay for a cluster that hangs.
TIMEOUT = timedelta(minutes=10)
# Of glibc's malloc.h: when freed memory goes back to the kernel.
TRIM_THRESHOLD, MMAP_MAX, NEVER = -1, -4, 2**31 - 1


def start(train: TrainConfig) -> Accelerator:
    """Join the process group that the launcher made and check that everyone who was asked for is there.

    Raises:
        UsageError: fewer or more processes than asked for, a batch that they cannot share, a launcher that brings its own
            strategy, or a strategy that is not possible here.
    """
    refuse_launchers_strategy()
    # All ranks hold equal buffers (model/norm.py; spectral norm is a function of equal weights), so none are broadcast.
    # (Accelerate knows no other name for this yet than the one that PyTorch 2.14 deprecates.)
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # Without cpu=True, ranks that find no GPU would each train alone (accelerate 1.15).
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no",  # engine.py has it
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=TIMEOUT)],
    )
    check_batch_division(accelerator.num_processes, train)
    zero_settings.check(train, accelerator.num_processes)
    set_matmul_precision(train)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def check_batch_division(world_size: int, train: TrainConfig) -> None:
    """Raise UsageError unless `world_size` is what was asked for and divides the global batch."""
    check_world_size(world_size, *_asked(train))
    if train.batch_size % (world_size * train.accumulation):
        in_parts = f" in {train.accumulation} micro-batches each" if train.accumulation > 1 else ""
        raise UsageError(
            f"train.batch_size = {train.batch_size} does not divide among {world_size} processes{in_parts}; make it a multiple"
        )


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one, which else takes it from the kernel again, page by page."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(TRIM_THRESHOLD, NEVER)
        libc.mallopt(MMAP_MAX, 0)  # a threshold above 32 MiB would be refused


def refuse_launchers_strategy() -> None:
    """Raise UsageError where `accelerate launch` was told to use DeepSpeed or FSDP: that would become plain DDP here."""
    for variable in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise UsageError(
                f"{variable} is set: the launcher's profile brings its own strategy; give it distributed_type: MULTI_GPU "
                "(launchers/accelerate) and the run train.strategy=zero1, zero2 or zero3"
            )


@contextmanager
def locked(accelerator: Accelerator, folder: RunFolder) -> Iterator[None]:
    """Hold the run folder's lock, on rank 0, while the block lasts; UsageError on all ranks where another holds it."""
    with ExitStack() as stack:
        on_main(accelerator, lambda: stack.enter_context(folder.lock()))
        yield


def _asked(train: TrainConfig) -> tuple[int, str]:
    if train.world_size is not None:
        return train.world_size, "train.world_size"
    return requested_world_size()
