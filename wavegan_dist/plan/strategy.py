"""Memory that each training strategy needs on one of n devices. All state is float32, whatever the compute precision.

| strategy | weights | gradients | moments | EMA | collectives in each phase |
|---|---|---|---|---|---|
| ddp | 1 | 1 | 1 | 1 | all-reduce of gradients |
| zero1 | 1 + 1/n (a second copy of the shard) | 1 | 1/n | 1 | reduce-scatter of gradients, all-gather of weights |
| zero2 | 1 + 1/n | 1/n | 1/n | 1 | as zero1 |
| zero3 | 1/n (and gathered weights) | 1/n | 1/n | 1/n | as zero1, with the all-gather for the weights of both modules |
"""

from dataclasses import dataclass

from wavegan_dist.plan.count import ModelSizes
from wavegan_dist.train.zero_settings import LIVE_PARAMETERS, REDUCE_BUCKET_ELEMENTS

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
FLOAT = 4  # bytes of a float32
ZERO_BUCKET_BYTES, ZERO_LIVE_BYTES = FLOAT * REDUCE_BUCKET_ELEMENTS, FLOAT * LIVE_PARAMETERS
# PyTorch's defaults for DistributedDataParallel: the bucket whose gradients are ready first is smaller.
DDP_FIRST_BUCKET_BYTES, DDP_BUCKET_BYTES = 2**20, 25 * 2**20


@dataclass(frozen=True)
class DeviceState:
    """Bytes of training state on one device, without activations."""

    weights: float
    gradients: float
    moments: float
    ema: float
    buffers: float  # communication buckets, and weights gathered for a while

    @property
    def total(self) -> float:
        """Sum of all parts in bytes."""
        return self.weights + self.gradients + self.moments + self.ema + self.buffers


def device_state(sizes: ModelSizes, strategy: str, devices: int) -> DeviceState:
    """Return the bytes of training state on each of `devices` devices under `strategy`, one of `STRATEGIES` (not checked)."""
    weights, ema = FLOAT * sizes.parameters, FLOAT * sizes.ema
    if strategy == "ddp":
        return DeviceState(weights, weights, 2 * weights, ema, 0)
    shard = weights / devices
    bucket = min(ZERO_BUCKET_BYTES, FLOAT * max(sizes.generator, sizes.discriminator))
    if strategy == "zero1":
        return DeviceState(weights + shard, weights, 2 * shard, ema, bucket)
    if strategy == "zero2":
        return DeviceState(weights + shard, shard, 2 * shard, ema, 2 * bucket)
    return DeviceState(shard, shard, 2 * shard, ema / devices, min(weights, ZERO_LIVE_BYTES) + 2 * bucket)


def checkpoint_bytes(sizes: ModelSizes) -> float:
    """Return the bytes of a checkpoint of all devices together: weights, two moments of each weight, and all EMAs."""
    return FLOAT * (3 * sizes.parameters + sizes.ema)
