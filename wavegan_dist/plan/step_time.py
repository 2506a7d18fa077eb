"""Seconds of one training step: a roofline for each operator, the alpha-beta model for each collective (docs/scaling.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from wavegan_dist.plan.count import ModelSizes, Operator, PhaseCounts, StepCounts
from wavegan_dist.plan.hardware import Hardware
from wavegan_dist.plan.network import Network
from wavegan_dist.plan.strategy import DDP_BUCKET_BYTES, DDP_FIRST_BUCKET_BYTES, FLOAT, ZERO_BUCKET_BYTES
from wavegan_dist.train.step_status import STATUS_FLAGS

# float32 numbers read or written for each parameter: by Adam and by the gradient norm, and for each element of the EMA.
ADAM_ACCESSES, GRADIENT_NORM_ACCESSES, EMA_ACCESSES = 7, 1, 3


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step, by part."""

    compute: float  # forward and backward
    optimizer: float  # Adam, gradient norm, EMA
    norms: float  # collectives of synchronized batch norm
    gradients: float  # collectives of gradients (and of sharded weights) that the backward pass does not hide
    agreement: float  # all-reduce of the status flags at the end of the step

    @property
    def network(self) -> float:
        """Seconds that the step waits for collectives."""
        return self.norms + self.gradients + self.agreement

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.compute + self.optimizer + self.network


def step_time(
    counts: StepCounts, sizes: ModelSizes, strategy: str, network: Network, d_steps: int, accumulation: int = 1
) -> StepTime:
    """Predict the seconds of a step of `d_steps` discriminator phases and one generator phase, by part.

    The mean over steps with and without gradient penalties; waiting for data is not included.

    Args:
        counts: counts of one micro-batch of a device.
        sizes: sizes of the two modules.
        strategy: one of `STRATEGIES`.
        network: the devices that train together.
        d_steps: discriminator phases of the step.
        accumulation: micro-batches of each phase. DDP and ZeRO-1 communicate gradients once in a step,
            ZeRO-2 and ZeRO-3 with each micro-batch.
    """
    hardware = network.hardware
    slowdown = 1 + (hardware.sharing - 1) * (network.devices_per_node - 1) / max(hardware.gpus_per_node - 1, 1)
    phases = [(d_steps * share, phase, sizes.discriminator) for share, phase in counts.d_variants]
    phases += [(1, counts.g, sizes.generator)]
    compute = accumulation * sum(count * operator_seconds(phase.operators, hardware) for count, phase, _ in phases)
    optimizer = optimizer_seconds(sizes, strategy, network.devices, hardware, d_steps)
    if network.devices == 1:
        return StepTime(compute * slowdown, optimizer * slowdown, 0, 0, 0)
    gradients = (accumulation if strategy in ("zero2", "zero3") else 1) * sum(
        count * exposed_gradient_seconds(phase, trainable, sizes, strategy, network) for count, phase, trainable in phases
    )
    norms = accumulation * norm_seconds(sizes, network, d_steps)
    return StepTime(compute * slowdown, optimizer * slowdown, norms, gradients, network.all_reduce(FLOAT * STATUS_FLAGS))


def operator_seconds(operators: Sequence[Operator], hardware: Hardware) -> float:
    """Predict the seconds of operators that run one after another.

    Each operator is bound by arithmetic or by memory. A GPU computes while the host launches further operators, so the longer
    of the times of computing and of launching all operators counts. On a CPU, the two times are added.
    """
    peak: dict[str, float] = hardware.peak_tflops.model_dump()
    flops_per_second = {name: value * 1e12 * hardware.matmul_fraction for name, value in peak.items()}
    launch = hardware.operator_us * 1e-6
    rooflines: list[float] = [
        max(operator.flops / flops_per_second[operator.precision], operator.bytes / _memory_rate(hardware))
        for operator in operators
    ]
    device, host = sum(rooflines), launch * len(rooflines)
    return device + host if hardware.kind == "cpu" else max(device, host)


def optimizer_seconds(sizes: ModelSizes, strategy: str, devices: int, hardware: Hardware, d_steps: int) -> float:
    """Predict the seconds that one training step spends in Adam, the gradient norms and the EMA update.

    All three are bound by memory bandwidth. Under ZeRO each device updates only its shard of the parameters; ZeRO stage 3
    shards the EMA too.

    Args:
        sizes: numbers of parameters.
        strategy: one of `STRATEGIES` ("ddp", "zero1", "zero2", "zero3").
        devices: number of devices.
        hardware: rates of one device.
        d_steps: discriminator updates per step; the generator is updated once.

    Returns:
        Seconds per training step.
    """
    updated = d_steps * sizes.discriminator + sizes.generator
    shards = 1 if strategy == "ddp" else devices
    ema = sizes.ema / (devices if strategy == "zero3" else 1)
    accesses = (ADAM_ACCESSES + GRADIENT_NORM_ACCESSES) * updated / shards + EMA_ACCESSES * ema
    return FLOAT * accesses / _memory_rate(hardware)


def norm_seconds(sizes: ModelSizes, network: Network, d_steps: int) -> float:
    """Predict the seconds of batch-norm collectives in a step of `d_steps` discriminator phases, one micro-batch each.

    The generator gathers mean and variance in its forward in each of the d_steps + 1 phases, and two sums in its backward. All
    are all-gathers, each shared by the n-th layers of all networks (`model.lockstep`).
    """
    joined = [sum(channels) for channels in zip_longest(*sizes.norm_channels, fillvalue=0)]
    return (d_steps + 2) * sum(network.all_gather(2 * FLOAT * channels * network.devices) for channels in joined)


def exposed_gradient_seconds(phase: PhaseCounts, trainable: int, sizes: ModelSizes, strategy: str, network: Network) -> float:
    """Predict the seconds that a phase waits for the collectives of gradients and, under ZeRO, of weights.

    The backward pass hides the collectives of all buckets but the last, whose gradients are ready only at its end.

    Args:
        phase: counts of the phase.
        trainable: parameters of the module that the phase trains.
        sizes: sizes of the two modules.
        strategy: one of `STRATEGIES`.
        network: the devices that train together.
    """
    hardware, size = network.hardware, FLOAT * trainable
    collective = network.all_reduce if strategy == "ddp" else network.reduce_scatter
    bucket_seconds = [collective(bucket) for bucket in gradient_buckets(size, strategy)]
    hidden = hardware.overlap * operator_seconds(phase.backward, hardware)
    gradients = max(sum(bucket_seconds) - hidden, bucket_seconds[-1])
    if strategy == "zero3":
        return gradients + network.all_gather(FLOAT * sizes.parameters)
    return gradients + (0.0 if strategy == "ddp" else network.all_gather(size))


def gradient_buckets(size: float, strategy: str) -> list[float]:
    """Split `size` bytes of gradients into communication buckets; return the bytes of each, in the order of sending."""
    if strategy == "ddp":
        first, full = DDP_FIRST_BUCKET_BYTES, DDP_BUCKET_BYTES
    else:
        first = full = ZERO_BUCKET_BYTES
    buckets = [min(size, first)]
    while (remaining := size - sum(buckets)) > 0:
        buckets.append(min(remaining, full))
    return buckets


def _memory_rate(hardware: Hardware) -> float:
    """Return the memory bandwidth that operators reach, in bytes per second."""
    return hardware.memory_gb_per_s * 1e9 * hardware.memory_fraction
