"""Hardware files: rates of a device, of the links between devices, and of storage and loaders. YAML, in launchers/hardware."""

from typing import Annotated, Literal

from pydantic import Field

from wavegan_dist.config import FileKind, Section
from wavegan_dist.config.section import Count
from wavegan_dist.launcher_files import find_launcher_file

# Far below and far above any device, and no product or ratio of a few of them overflows.
Rate = Annotated[float, Field(ge=1e-6, le=1e9)]
Amount = Annotated[float, Field(ge=0, le=1e9)]

HARDWARE_FILE = FileKind("hardware file", "docs/scaling.md describes the keys, launchers/hardware/h200.yaml is an example")


class Link(Section):
    """The alpha-beta model of a link: a message of n bytes takes alpha + n / beta seconds (Hockney 1994)."""

    alpha_us: Amount = Field(description="alpha, latency of a message in microseconds")
    gb_per_s: Rate = Field(
        description="beta, bandwidth of a device in 1e9 bytes/s in each direction, while it sends and receives"
    )

    def seconds(self, size: float) -> float:
        """Return the seconds that a message of `size` bytes takes."""
        return self.alpha_us * 1e-6 + size / (self.gb_per_s * 1e9)


class Peak(Section):
    """Peak rate of dense matrix products in TFLOP/s (1e12 per second), by the precision of the factors."""

    fp32: Rate
    bf16: Rate
    fp16: Rate


class Hardware(Section):
    """A device, its nodes and their network. Peaks are data-sheet values; a fraction is the share of a peak that is reached."""

    name: str
    kind: Literal["gpu", "cpu"] = Field(description="gpu, or cpu: launches do not overlap computation")
    source: str = Field(description="source of the figures: measured (by which program) or given (by whom)")
    peak_tflops: Peak
    matmul_fraction: float = Field(ge=1e-6, le=1, description="share of the peak that convolutions reach")
    memory_gb_per_s: Rate
    memory_fraction: Rate = Field(description="share of memory_gb_per_s that other operators reach; above 1 if caches help")
    operator_us: Amount = Field(description="microseconds to launch an operator in eager PyTorch")
    sharing: float = Field(
        1.0, ge=1, le=1e6, description="factor by which a device slows down while all other devices of its node are busy"
    )
    memory_gib: Rate = Field(description="memory of a device in GiB")
    reserved_gib: Amount = Field(description="GiB of memory_gib that libraries and fragmentation take")
    gpus_per_node: Count
    cores_per_gpu: Count
    intra_node: Link
    inter_node: Link
    overlap: float = Field(ge=0, le=1, description="share of the backward pass that can hide the collectives of gradients")
    storage_gb_per_s: Rate = Field(description="1e9 bytes/s for reading shards and writing checkpoints, over all nodes")
    host_copy_gb_per_s: Rate = Field(description="1e9 bytes/s from a device to the memory of its host")
    decode_megapixels_per_s: Rate = Field(description="1e6 pixels/s that one core of a loader decodes")
    evaluate_images_per_s: Rate = Field(description="images/s of `wavegan evaluate` on one device, generated and real together")
    cost_per_gpu_hour: Amount = Field(description="price of a device hour, in your currency")


def load_hardware(name: str) -> Hardware:
    """Read a hardware file.

    Args:
        name: path of the file, or its name, with or without .yaml, in ./launchers/hardware or else in the package's
            launchers/hardware.

    Raises:
        UsageError: the file does not exist, cannot be read, is not YAML, or has an unknown key, a missing key or an invalid
            value.
    """
    path = find_launcher_file("hardware", "hardware file", name)
    return HARDWARE_FILE.validate(Hardware, HARDWARE_FILE.read(path), str(path))
