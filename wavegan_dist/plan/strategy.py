"""What each strategy keeps and sends. Everything is float32, whatever the networks compute in; n devices.

| | weights | gradients | moments | average | sent to share gradients and weights |
|---|---|---|---|---|---|
| ddp | all | all | all | all | all-reduce of gradients |
| zero1 | all, and 1/n again | all | 1/n | all | reduce-scatter of gradients, all-gather of weights |
| zero2 | all, and 1/n again | 1/n | 1/n | all | the same |
| zero3 | 1/n, 64 MiB at hand | 1/n | 1/n | 1/n | reduce-scatter of gradients, all-gather of both modules in each phase |
"""

from dataclasses import dataclass

from wavegan_dist.plan.count import Sizes

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
FLOAT = 4
# train/zero_settings.py and DDP's own: bytes of a message of gradients, of DDP's first; of what zero3 may keep gathered.
ZERO_BUCKET, ZERO_GATHERED = 16 * 2**20, 64 * 2**20
DDP_BUCKET, DDP_FIRST = 25 * 2**20, 2**20


@dataclass(frozen=True)
class State:
    """Bytes that one device holds of a run, besides activations."""

    weights: float
    gradients: float
    moments: float
    average: float
    passing: float  # buckets under way, weights gathered for a while

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.moments + self.average + self.passing


def state(sizes: Sizes, strategy: str, devices: int) -> State:
    """What `strategy` leaves on each of `devices`."""
    weights, average = FLOAT * sizes.parameters, FLOAT * sizes.average
    if strategy == "ddp":
        return State(weights, weights, 2 * weights, average, 0)
    share = weights / devices
    bucket = min(ZERO_BUCKET, FLOAT * max(sizes.generator, sizes.discriminator))
    if strategy == "zero1":
        return State(weights + share, weights, 2 * share, average, bucket)
    if strategy == "zero2":
        return State(weights + share, share, 2 * share, average, 2 * bucket)
    return State(share, share, 2 * share, average / devices, min(weights, ZERO_GATHERED) + 2 * bucket)


def saved_bytes(sizes: Sizes) -> float:
    """Of a checkpoint: weights, two moments each, the average."""
    return FLOAT * (3 * sizes.parameters + sizes.average)
