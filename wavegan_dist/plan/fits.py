"""Refuse a run whose training state and activations are larger than the memory of its device, before it starts."""

import os
from pathlib import Path

import psutil
import torch

from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.launcher import requested_world_size, trains_on_cpu
from wavegan_dist.model.shapes import IMAGE_CHANNELS
from wavegan_dist.plan.count import count_step
from wavegan_dist.plan.strategy import FLOAT, device_state

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of the container or Slurm job, in bytes, or "max"
# Several times what the networks of this package need: bytes for each pixel of a batch and channel of `model.width`, and bytes
# of weights, gradients and moments for each squared channel, for each channel and entry of the latent or class, and for each
# number of a class embedding as long as the latent. Counting a step takes seconds, and most runs are far below.
ACTIVATION_BOUND, STATE_BOUND, ENTRY_BOUND, EMBEDDING_BOUND = 200, 800_000, 20_000, 200


def check_memory(experiment: Experiment) -> None:
    """Raise UsageError if a lower bound of the memory of this process in training exceeds the memory of its device.

    The bound is the training state, the activations that autograd saves in the larger phase, and a micro-batch of real and of
    generated images. A run needs more, for libraries, workspaces of convolutions and fragmentation, so a run that would
    fit never raises the error.

    A process without WORLD_SIZE > 1 in its environment must call the function before it joins the process group, because
    `requested_world_size` reads what the launcher set, which joining overwrites. Not a collective call. Takes seconds if the
    run is not far below the memory.

    Raises:
        UsageError: the device has too little memory, or the environment does not describe a process of a launch.
    """
    processes, _ = requested_world_size()
    micro_batch = max(experiment.train.batch_size // processes // experiment.train.accumulation, 1)
    memory, device = _memory()
    if rough_bound(experiment, micro_batch) <= memory:
        return
    needed = step_bytes(experiment, micro_batch, processes)
    if needed > memory:
        model = experiment.model
        raise UsageError(
            f"a step of {micro_batch} images of {model.resolution} px with model.width = {model.width} needs at least "
            f"{needed / 2**30:.1f} GiB, but {device} has {memory / 2**30:.1f} GiB; lower train.batch_size or model.width, "
            "raise train.accumulation, or use more GPUs"
        )


def rough_bound(experiment: Experiment, micro_batch: int) -> float:
    """Return an upper bound of `step_bytes`, in bytes, computed without counting operators.

    `micro_batch` is the number of real images of a process in one forward.
    """
    model, emas = experiment.model, len(experiment.ema.half_lives_kimg)
    state = STATE_BOUND * model.width**2 + ENTRY_BOUND * model.width * (model.z_dim + model.num_classes)
    state += EMBEDDING_BOUND * model.z_dim * model.num_classes
    return ACTIVATION_BOUND * micro_batch * model.resolution**2 * model.width + state * (4 + emas) / 5


def step_bytes(experiment: Experiment, micro_batch: int, processes: int) -> float:
    """Return the bytes of state, saved activations and images of one of `processes` processes in a step.

    Args:
        experiment: the settings.
        micro_batch: number of real images of a process in one forward.
        processes: number of processes that train together, one per device.
    """
    sizes, counts = count_step(experiment, micro_batch)
    images = 2 * micro_batch * IMAGE_CHANNELS * experiment.model.resolution**2 * FLOAT
    activations = max(phase.saved_bytes for phase in counts.phases)
    return device_state(sizes, experiment.train.strategy, processes).total + activations + images


def _memory() -> tuple[int, str]:
    """Return the bytes of memory that this process can use, and the name of the device for a message.

    The memory is that of its GPU or, on CPUs and other accelerators, its share of the host's memory or the cgroup's limit.
    """
    if not trains_on_cpu():
        number = int(os.environ.get("LOCAL_RANK", 0)) % torch.accelerator.device_count()
        if torch.cuda.is_available():
            return torch.cuda.get_device_properties(number).total_memory, f"GPU {number}"
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    total = min(psutil.virtual_memory().total, int(limit) if limit.isdigit() else 2**63)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return total // local, "this machine" if local == 1 else f"each of {local} processes of this machine"
