"""The processes of a run: found by Accelerate, counted before the first step."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import psutil
import torch
import torch.distributed as dist
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from wavegan_dist.config import TrainConfig
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.train.run_folder import RunFolder

Result = TypeVar("Result")

# Longer than anything that one rank does while the others wait in a collective (a sample grid, a read from slow storage),
# shorter than anyone wants to pay for a cluster that hangs.
TIMEOUT = timedelta(minutes=10)


def start(train: TrainConfig) -> Accelerator:
    """Join the process group that the launcher made and check that everyone who was asked for is there.

    Raises:
        UsageError: fewer or more processes than asked for, or a batch that they cannot share.
    """
    # All ranks hold equal buffers (model/norm.py; spectral norm is a function of equal weights), so none are broadcast.
    # (Accelerate knows no other name for this yet than the one that PyTorch 2.14 deprecates.)
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    precision = "no" if train.precision == "fp32" else train.precision
    # Without cpu=True, ranks that find no GPU would each train alone (accelerate 1.15).
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=precision,
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=TIMEOUT)],
    )
    check_world_size(accelerator.num_processes, train)
    return accelerator


def check_world_size(world_size: int, train: TrainConfig) -> None:
    """Raise UsageError unless `world_size` is what was asked for and divides the global batch."""
    asked, by = _asked(train)
    if world_size != asked:
        raise UsageError(
            f"{by} asked for {asked} processes but {world_size} take part; on CPUs start them with "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N (or launchers/accelerate/cpu2.yaml)"
        )
    if train.batch_size % world_size:
        raise UsageError(
            f"train.batch_size = {train.batch_size} does not divide among {world_size} processes; make it a multiple"
        )


def on_main(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Do `work` on rank 0 and hand its result, or its error, to all ranks: they go on or stop together."""
    outcome: list[Result | WaveganError | None] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [work()]
        except WaveganError as error:
            outcome = [error]
        except OSError as error:
            outcome = [WaveganError(str(error))]
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    result = outcome[0]
    if isinstance(result, WaveganError):
        raise result
    return result  # type: ignore[return-value]


@contextmanager
def locked(accelerator: Accelerator, folder: RunFolder) -> Iterator[None]:
    """Hold the run folder's lock, on rank 0, while the block lasts; UsageError on all ranks where another holds it."""
    with ExitStack() as stack:
        on_main(accelerator, lambda: stack.enter_context(folder.lock()))
        yield


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """Say in one line when a collective breaks because another process is gone, in place of the library's trace."""
    try:
        yield
    except RuntimeError as error:
        of_the_group = isinstance(error, dist.DistError) or "gloo" in str(error)
        if accelerator.num_processes == 1 or not of_the_group:
            raise
        raise WaveganError("another process of this run has ended or stopped answering; its own error tells why") from error


def _asked(train: TrainConfig) -> tuple[int, str]:
    if train.world_size is not None:
        return train.world_size, "train.world_size"
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]), "WORLD_SIZE"
    return _asked_of_accelerate(), "accelerate launch"


def _asked_of_accelerate() -> int:
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
