"""Predict speed, efficiency, memory, data loading, checkpointing and cost of a run on a given number of devices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wavegan_dist.config import Experiment, TrainConfig
from wavegan_dist.data import Index, is_remote
from wavegan_dist.data.order import STREAMS, WINDOW
from wavegan_dist.errors import UsageError
from wavegan_dist.model.shapes import IMAGE_CHANNELS
from wavegan_dist.plan.count import ModelSizes, StepCounter, StepCounts
from wavegan_dist.plan.hardware import Hardware
from wavegan_dist.plan.network import Network
from wavegan_dist.plan.step_time import StepTime, step_time
from wavegan_dist.plan.strategy import FLOAT, STRATEGIES, checkpoint_bytes, device_state

# Recommended number of shards. Each stream shuffles one window of shards at a time (data/order.py); fewer shards shuffle images
# less well.
RECOMMENDED_SHARDS = STREAMS * WINDOW
# Images that `wavegan evaluate` with default options processes: for each snapshot 5,000 generated ones; for the first also the
# real ones, in two sets for the floors, whose statistics are then in the cache.
GENERATED_IMAGES, REAL_IMAGES = 5_000, 10_000


@dataclass(frozen=True)
class Prediction:
    """The predicted figures of training with one strategy on one number of devices."""

    gpus: int
    strategy: str
    batch_per_gpu: int
    step: StepTime
    images_per_second: float  # real images, over all devices
    weak_efficiency: float  # speed of a device relative to one that trains alone on the same local batch
    strong_efficiency: float  # speed of a device relative to one that trains alone on the global batch
    memory_gib: float  # of one device
    fits: bool  # whether memory_gib fits the device
    workers_per_gpu: int  # loader processes
    fed: bool  # whether the node's cores and the storage deliver images fast enough
    checkpoint_share: float  # of the run's time, spent waiting for checkpoints
    evaluation_share: float  # device hours of evaluation jobs relative to those of training
    cost_per_million_images: float  # in the currency of the hardware file


def predict(experiment: Experiment, hardware: Hardware, gpus: Sequence[int]) -> list[Prediction]:
    """Predict an experiment for every number of devices and every strategy that applies to it.

    Args:
        experiment: the settings; `train.strategy` is ignored.
        hardware: the rates of the devices.
        gpus: numbers of devices, each at least 1.

    Returns:
        The predictions for the first number of devices, one for each strategy in the order of `STRATEGIES`, then for the next.
        A single device has only `ddp`, and exact gradient penalties do not have `zero3`.

    Raises:
        UsageError: the global batch is not a multiple of a number of devices times `train.accumulation`, the devices do not
            fill their nodes, or a local index of the data is invalid.
    """
    for devices in gpus:
        _check_devices(devices, experiment, hardware)
    counter = StepCounter(experiment)
    bytes_per_image = image_bytes(experiment)
    exact = experiment.loss.has_penalties and experiment.loss.penalty == "exact"
    strategies = [strategy for strategy in STRATEGIES if not (exact and strategy == "zero3")]
    return [
        _predict_one(experiment, counter, Network(hardware, devices), strategy, bytes_per_image)
        for devices in gpus
        for strategy in (strategies if devices > 1 else ("ddp",))
    ]


def image_bytes(experiment: Experiment) -> float:
    """Return the mean bytes that an image takes in the shards.

    The mean is read from the index if the index is on this machine. Otherwise returns the size of the uncompressed image, an
    upper bound. Several datasets count according to their weights.

    Raises:
        UsageError: an index on this machine is invalid.
    """
    sets = experiment.data.sets
    uncompressed = IMAGE_CHANNELS * experiment.model.resolution**2
    weighted = (one.weight * (_mean_bytes(one.index) or uncompressed) for one in sets)
    return sum(weighted) / sum(one.weight for one in sets)


def _mean_bytes(index: str) -> float | None:
    """Return the bytes of the shards per image of the dataset at `index`; None if it is remote or does not exist."""
    if is_remote(index) or not Path(index).exists():
        return None
    loaded = Index.load(index)
    return sum(shard.bytes for shard in loaded.shards) / loaded.count


def device_bytes(counts: StepCounts, sizes: ModelSizes, strategy: str, devices: int, batch: int, resolution: int) -> float:
    """Predict the bytes that one device needs, without what libraries and fragmentation take.

    The sum of the device's training state, the largest saved activations and the largest operator of all phases, and a batch of
    real and of generated images.

    Args:
        counts: counts of one micro-batch of the device.
        sizes: sizes of the two modules.
        strategy: one of `STRATEGIES`.
        devices: number of devices that train together.
        batch: number of real images that the device gets for one phase, in all its micro-batches.
        resolution: side of the images in pixels.
    """
    largest_operator = max(operator.bytes for phase in counts.phases for operator in phase.operators)
    activations = max(phase.saved_bytes for phase in counts.phases)
    images = 2 * batch * IMAGE_CHANNELS * resolution**2 * FLOAT
    return device_state(sizes, strategy, devices).total + activations + largest_operator + images


def _predict_one(
    experiment: Experiment, counter: StepCounter, network: Network, strategy: str, bytes_per_image: float
) -> Prediction:
    train, hardware, devices = experiment.train, network.hardware, network.devices
    batch = train.batch_size // devices
    counts = counter.counts(batch // train.accumulation)
    step = step_time(counts, counter.sizes, strategy, network, train.d_steps, train.accumulation)
    unbounded_speed = train.batch_size * train.d_steps / step.total
    images_per_core = hardware.decode_megapixels_per_s * 1e6 / experiment.model.resolution**2
    loader_speed = min(hardware.cores_per_gpu * images_per_core * devices, hardware.storage_gb_per_s * 1e9 / bytes_per_image)
    speed = min(unbounded_speed, loader_speed)
    used = device_bytes(counts, counter.sizes, strategy, devices, batch, experiment.model.resolution)
    memory = used / 2**30 + hardware.reserved_gib
    checkpoint_interval = train.checkpoint_kimg * 1000 / speed
    return Prediction(
        gpus=devices,
        strategy=strategy,
        batch_per_gpu=batch,
        step=step,
        images_per_second=speed,
        weak_efficiency=speed / devices / _single_device_speed(counter, hardware, batch, train),
        strong_efficiency=speed / devices / _single_device_speed(counter, hardware, train.batch_size, train),
        memory_gib=memory,
        fits=memory <= hardware.memory_gib,
        workers_per_gpu=math.ceil(speed / devices / images_per_core),
        fed=unbounded_speed <= loader_speed,
        checkpoint_share=_checkpoint_share(checkpoint_bytes(counter.sizes), hardware, checkpoint_interval),
        evaluation_share=_evaluated_images(experiment)
        / hardware.evaluate_images_per_s
        / (devices * train.total_kimg * 1000 / speed),
        cost_per_million_images=devices * hardware.cost_per_gpu_hour / 3600 * 1e6 / speed,
    )


def _evaluated_images(experiment: Experiment) -> int:
    """Return how many images the evaluations of all snapshots of a run process."""
    train = experiment.train
    snapshots = len(experiment.ema.half_lives_kimg) * math.ceil(train.total_kimg / train.snapshot_kimg)
    return snapshots * GENERATED_IMAGES + REAL_IMAGES


def _single_device_speed(counter: StepCounter, hardware: Hardware, batch: int, train: TrainConfig) -> float:
    """Return real images per second of one device that trains alone on batches of `batch`, without waiting for data.

    The batch is divided into `train.accumulation` micro-batches.
    """
    counts, alone = counter.counts(batch // train.accumulation), Network(hardware, 1)
    step = step_time(counts, counter.sizes, "ddp", alone, train.d_steps, train.accumulation)
    return batch * train.d_steps / step.total


def _checkpoint_share(size: float, hardware: Hardware, interval: float) -> float:
    """Return the share of the run's time that training waits for checkpoints of `size` bytes, one every `interval` seconds.

    Training waits for the copy to the host, and for a background write that is not finished when the next checkpoint is due.
    Assumes that every rank copies the full state, as under DDP; under ZeRO the copy is smaller.
    """
    copy, write = size / (hardware.host_copy_gb_per_s * 1e9), size / (hardware.storage_gb_per_s * 1e9)
    waited = copy + max(write - interval, 0)
    return waited / (interval + waited)


def _check_devices(devices: int, experiment: Experiment, hardware: Hardware) -> None:
    train, per_node = experiment.train, hardware.gpus_per_node
    parts = devices * train.accumulation
    among = f"{devices} GPUs" if train.accumulation == 1 else f"{devices} GPUs and {train.accumulation} micro-batches on each"
    if train.batch_size % parts:
        raise UsageError(
            f"train.batch_size = {train.batch_size} does not divide among {among}; "
            f"make it a multiple (train.batch_size={math.ceil(train.batch_size / parts) * parts}) or plan for fewer"
        )
    if devices > per_node and devices % per_node:
        raise UsageError(
            f"{devices} GPUs do not fill nodes of {per_node} GPUs; give a multiple of {per_node}, or at most {per_node}"
        )
