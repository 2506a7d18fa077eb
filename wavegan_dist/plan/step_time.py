"""Seconds of one training step: a roofline for each operator, the alpha-beta model for each collective."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from wavegan_dist.plan.count import Counts, Operator, Pass, Sizes
from wavegan_dist.plan.hardware import Hardware
from wavegan_dist.plan.network import Network
from wavegan_dist.plan.strategy import DDP_BUCKET, DDP_FIRST, FLOAT, ZERO_BUCKET

ADAM, NORM, AVERAGE = 7, 1, 3  # float32 numbers read or written for each parameter
BOUNDARY_BYTES = 12  # train/step_sync.py: three flags


@dataclass(frozen=True)
class StepTime:
    """Seconds of each part of a step. `gradients` is what the backward pass does not hide."""

    compute: float
    optimizer: float
    norms: float  # batch statistics
    gradients: float  # and weights, where they are shared out
    agreement: float  # the flags of a step's end

    @property
    def network(self) -> float:
        """All collectives."""
        return self.norms + self.gradients + self.agreement

    @property
    def total(self) -> float:
        """All of it."""
        return self.compute + self.optimizer + self.network


def step_time(counts: Counts, sizes: Sizes, strategy: str, network: Network, d_steps: int) -> StepTime:
    """Of a step of `d_steps` D phases and one G phase, its counts those of a device's share of the batch."""
    hardware = network.hardware
    busy = 1 + (hardware.sharing - 1) * (network.in_node - 1) / max(hardware.gpus_per_node - 1, 1)
    phases = [(counts.d, sizes.discriminator)] * d_steps + [(counts.g, sizes.generator)]
    compute = sum(seconds(phase.forward, hardware) + seconds(phase.backward, hardware) for phase, _ in phases)
    optimizer = optimizer_seconds(sizes, strategy, network.devices, hardware, d_steps)
    if network.devices == 1:
        return StepTime(compute * busy, optimizer * busy, 0, 0, 0)
    gradients = sum(exposed(phase, moving, sizes, strategy, network) for phase, moving in phases)
    norms = norm_seconds(sizes, network, d_steps)
    return StepTime(compute * busy, optimizer * busy, norms, gradients, network.all_reduce(BOUNDARY_BYTES))


def seconds(operators: Sequence[Operator], hardware: Hardware) -> float:
    """One after another, each bound by arithmetic, by memory or, on a GPU, by its launch; a CPU's launch comes on top."""
    peak: dict[str, float] = hardware.peak_tflops.model_dump()
    memory = hardware.memory_gb_per_s * 1e9 * hardware.memory_fraction
    arithmetic = {name: value * 1e12 * hardware.matmul_fraction for name, value in peak.items()}
    launch = hardware.operator_us * 1e-6
    works: list[float] = [max(each.flops / arithmetic[each.precision], each.bytes / memory) for each in operators]
    return sum(works) + launch * len(works) if hardware.kind == "cpu" else sum(max(work, launch) for work in works)


def optimizer_seconds(sizes: Sizes, strategy: str, devices: int, hardware: Hardware, d_steps: int) -> float:
    """Adam, the gradient's norm and the moving average, bound by memory; a device's share of them under ZeRO."""
    moved = d_steps * sizes.discriminator + sizes.generator
    share = 1 if strategy == "ddp" else devices
    averaged = sizes.average / (devices if strategy == "zero3" else 1)
    numbers = (ADAM + NORM) * moved / share + AVERAGE * averaged
    return FLOAT * numbers / (hardware.memory_gb_per_s * 1e9 * hardware.memory_fraction)


def norm_seconds(sizes: Sizes, network: Network, d_steps: int) -> float:
    """Batch statistics: means and variances gathered in each forward, two sums in the one backward (model/norm.py).

    A message a norm, the backward's an all-reduce; on CPUs one for the norms that the networks reach together, all gathered.
    """
    if network.hardware.kind == "cpu":
        together = [sum(channels) for channels in zip_longest(*sizes.norms, fillvalue=0)]
        return (d_steps + 2) * sum(network.all_gather(2 * FLOAT * channels * network.devices) for channels in together)
    alone = [2 * FLOAT * channels for net in sizes.norms for channels in net]
    return sum((d_steps + 1) * network.all_gather(size * network.devices) + network.all_reduce(size) for size in alone)


def exposed(phase: Pass, moving: int, sizes: Sizes, strategy: str, network: Network) -> float:
    """What a phase waits for gradients, and for weights where they are shared out.

    Gradients travel in buckets while the backward pass goes on, all but the last, which is ready only at its end.
    """
    hardware, size = network.hardware, FLOAT * moving
    sends = network.all_reduce if strategy == "ddp" else network.reduce_scatter
    sent = [sends(bucket) for bucket in buckets(size, strategy)]
    hidden = hardware.overlap * seconds(phase.backward, hardware)
    gradients = max(sum(sent) - hidden, sent[-1])
    if strategy == "zero3":
        return gradients + network.all_gather(FLOAT * sizes.parameters)
    return gradients + (0.0 if strategy == "ddp" else network.all_gather(size))


def buckets(size: float, strategy: str) -> list[float]:
    """Bytes of each message of gradients, in the order in which they are sent."""
    first, full = (DDP_FIRST, DDP_BUCKET) if strategy == "ddp" else (ZERO_BUCKET, ZERO_BUCKET)
    sizes = [min(size, first)]
    while (left := size - sum(sizes)) > 0:
        sizes.append(min(left, full))
    return sizes
