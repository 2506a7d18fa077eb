"""A run on so many devices: speed, efficiency, memory, feeding, saving, cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wavegan_dist.config import Experiment
from wavegan_dist.data import Index
from wavegan_dist.data.order import STREAMS, WINDOW
from wavegan_dist.errors import UsageError
from wavegan_dist.model.shapes import IMAGE_CHANNELS
from wavegan_dist.plan.count import Counts, Model, Sizes
from wavegan_dist.plan.hardware import Hardware
from wavegan_dist.plan.network import Network
from wavegan_dist.plan.step_time import StepTime, step_time
from wavegan_dist.plan.strategy import FLOAT, STRATEGIES, saved_bytes, state

# Of shards: each stream permutes so many at a time (data/order.py); with fewer of them images are mixed less.
SHARDS = STREAMS * WINDOW
EVALUATED = 15_000  # images of `wavegan evaluate` as it comes: 5,000 generated, twice as many real ones for the floors


@dataclass(frozen=True)
class Row:
    """One strategy on one number of devices. Shares are of the run's time, times are seconds."""

    gpus: int
    strategy: str
    batch_per_gpu: int
    step: StepTime
    images_per_second: float
    weak_efficiency: float  # speed of a device, beside one that trains alone on the same share of the batch
    strong_efficiency: float  # the same, beside one that trains alone on the whole batch
    memory_gib: float  # of a device
    fits: bool
    workers_per_gpu: int
    fed: bool  # the node's cores and the storage keep up
    checkpoint_share: float
    evaluation_share: float  # of device hours, in jobs of their own
    cost_per_million_images: float


def predict(experiment: Experiment, hardware: Hardware, gpus: Sequence[int]) -> list[Row]:
    """A row for each number of devices and each strategy.

    Raises:
        UsageError: a number of devices that the batch or the nodes do not divide into.
    """
    for count in gpus:
        _check(count, experiment, hardware)
    model = Model(experiment)
    bytes_per_image = image_bytes(experiment)
    rows = []
    for count in gpus:
        for strategy in STRATEGIES if count > 1 else ("ddp",):
            rows.append(_row(experiment, model, Network(hardware, count), strategy, bytes_per_image))
    return rows


def image_bytes(experiment: Experiment) -> float:
    """Bytes of an image in the shards: by the index where it is on this disk, else as many as its pixels."""
    index = Path(experiment.data.index)
    if not index.exists():
        return IMAGE_CHANNELS * experiment.model.resolution**2
    loaded = Index.load(str(index))
    return sum(shard.bytes for shard in loaded.shards) / loaded.count


def device_bytes(counts: Counts, sizes: Sizes, strategy: str, devices: int, batch: int, resolution: int) -> float:
    """Of one device: its share of the state, the larger phase's activations with its largest operator, real and fake images."""
    largest = max(each.bytes for phase in (counts.d, counts.g) for part in (phase.forward, phase.backward) for each in part)
    activations = max(counts.d.saved_bytes, counts.g.saved_bytes)
    images = 2 * batch * IMAGE_CHANNELS * resolution**2 * FLOAT
    return state(sizes, strategy, devices).total + activations + largest + images


def _row(experiment: Experiment, model: Model, network: Network, strategy: str, bytes_per_image: float) -> Row:
    train, hardware, count = experiment.train, network.hardware, network.devices
    batch = train.batch_size // count
    counts = model.at(batch)
    step = step_time(counts, model.sizes, strategy, network, train.d_steps)
    shown = train.batch_size * train.d_steps
    decode = hardware.decode_megapixels_per_s * 1e6 / experiment.model.resolution**2
    feedable = min(hardware.cores_per_gpu * decode * count, hardware.storage_gb_per_s * 1e9 / bytes_per_image)
    speed = min(shown / step.total, feedable)
    used = device_bytes(counts, model.sizes, strategy, count, batch, experiment.model.resolution)
    memory = used / 2**30 + hardware.reserved_gib
    return Row(
        gpus=count,
        strategy=strategy,
        batch_per_gpu=batch,
        step=step,
        images_per_second=speed,
        weak_efficiency=speed / count / _alone(model, hardware, batch, train.d_steps),
        strong_efficiency=speed / count / _alone(model, hardware, train.batch_size, train.d_steps),
        memory_gib=memory,
        fits=memory <= hardware.memory_gib,
        workers_per_gpu=math.ceil(speed / count / decode),
        fed=shown / step.total <= feedable,
        checkpoint_share=_checkpoint_share(saved_bytes(model.sizes), hardware, count, train.checkpoint_kimg * 1000 / speed),
        evaluation_share=EVALUATED / hardware.evaluate_images_per_s / (count * train.snapshot_kimg * 1000 / speed),
        cost_per_million_images=count * hardware.cost_per_gpu_hour / 3600 * 1e6 / speed,
    )


def _alone(model: Model, hardware: Hardware, batch: int, d_steps: int) -> float:
    """Images a second of one device that trains alone on `batch`."""
    return batch * d_steps / step_time(model.at(batch), model.sizes, "ddp", Network(hardware, 1), d_steps).total


def _checkpoint_share(size: float, hardware: Hardware, count: int, interval: float) -> float:
    """Training waits for the copy to the host, and for a checkpoint that is not on the disk when the next is due.

    The copy is of all the state on every rank, as under DDP; under ZeRO it is less.
    """
    copy, write = size / (hardware.host_copy_gb_per_s * 1e9), size / (hardware.storage_gb_per_s * 1e9)
    waited = copy + max(write - interval, 0)
    return waited / (interval + waited)


def _check(count: int, experiment: Experiment, hardware: Hardware) -> None:
    batch, per_node = experiment.train.batch_size, hardware.gpus_per_node
    if batch % count:
        raise UsageError(
            f"train.batch_size = {batch} does not divide among {count} GPUs; "
            f"make it a multiple (train.batch_size={math.ceil(batch / count) * count}) or plan for fewer"
        )
    if count > per_node and count % per_node:
        raise UsageError(
            f"{count} GPUs are not whole nodes of {per_node}; give a multiple of {per_node}, or at most {per_node}"
        )
