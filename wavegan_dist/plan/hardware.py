"""Hardware files: the rates of a device, of the links between devices and of what feeds them. YAML in launchers/hardware."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

import wavegan_dist
from wavegan_dist.config import FileKind, Section
from wavegan_dist.errors import UsageError

FOLDERS = (Path("launchers/hardware"), Path(wavegan_dist.__file__).parents[1] / "launchers/hardware")
HARDWARE_FILE = FileKind("hardware file", "docs/scaling.md describes the keys, launchers/hardware/h100.yaml is an example")


class Link(Section):
    """The alpha-beta model of a link: a message of `bytes` takes alpha + bytes / beta (Hockney 1994)."""

    alpha_us: NonNegativeFloat = Field(description="microseconds a message takes whatever its size")
    gb_per_s: PositiveFloat = Field(description="beta: 1e9 bytes a second that a device sends while it receives as many")

    def seconds(self, size: float) -> float:
        """Of a message of `size` bytes."""
        return self.alpha_us * 1e-6 + size / (self.gb_per_s * 1e9)


class Peak(Section):
    """1e12 floating-point operations a second of dense matrix products, by the type of the factors."""

    fp32: PositiveFloat
    bf16: PositiveFloat
    fp16: PositiveFloat


class Hardware(Section):
    """A device, and the nodes and the network around it. Peaks are what is possible, fractions what is reached."""

    name: str
    kind: Literal["gpu", "cpu"] = Field(description="cpu: operators do not overlap their launch; batch statistics go packed")
    source: str = Field(description="where the figures come from: measured, by what; or given, by whom")
    peak_tflops: Peak
    matmul_fraction: float = Field(gt=0, le=1, description="share of the peak that the convolutions reach")
    memory_gb_per_s: PositiveFloat
    memory_fraction: PositiveFloat = Field(description="share of it that the other operators reach; above 1 where caches help")
    operator_us: NonNegativeFloat = Field(description="least time of an operator: its launch, in eager PyTorch")
    sharing: float = Field(1.0, ge=1, description="by how much a device is slower while all others of its node are busy")
    memory_gib: PositiveFloat = Field(description="of a device")
    reserved_gib: NonNegativeFloat = Field(description="of it, what libraries and fragmentation take")
    gpus_per_node: PositiveInt
    cores_per_gpu: PositiveInt
    intra_node: Link
    inter_node: Link
    overlap: float = Field(ge=0, le=1, description="share of the backward pass during which gradients can travel for nothing")
    storage_gb_per_s: PositiveFloat = Field(description="reading shards and writing checkpoints, over all nodes")
    host_copy_gb_per_s: PositiveFloat = Field(description="from a device to the memory of its host")
    decode_megapixels_per_s: PositiveFloat = Field(description="one core of a loader")
    evaluate_images_per_s: PositiveFloat = Field(description="one device, `wavegan evaluate`, generated and real together")
    cost_per_gpu_hour: NonNegativeFloat = Field(description="in your currency")


def load_hardware(name: str) -> Hardware:
    """Read a hardware file.

    Args:
        name: its path, or the name of one in launchers/hardware, with or without .yaml.

    Raises:
        UsageError: no such file, not YAML, an unknown key, one that is missing or an impossible value.
    """
    path = _find(name)
    return HARDWARE_FILE.validate(Hardware, HARDWARE_FILE.read(path), str(path))


def _find(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    stem = name.removesuffix(".yaml")
    for folder in FOLDERS:
        if (folder / f"{stem}.yaml").is_file():
            return folder / f"{stem}.yaml"
    known = sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})
    raise UsageError(f"no hardware file '{name}'; there are {', '.join(known) or 'none'}, or give a path (docs/scaling.md)")
