"""The report of `wavegan doctor`: versions, devices, the wavelet transform's kernels, and missing optional packages."""

import importlib.util
import os
from typing import TypedDict

import torch

from wavegan_dist.provenance import provenance
from wavegan_dist.wavelet import choose

# Optional modules: the command that needs each, and how to install it.
OPTIONAL = {
    "torch_fidelity": "wavegan evaluate --metrics fid,fd,kid: pip install 'wavegan-dist[eval]'",
    "efficientnet_lite_pytorch": "wavegan evaluate --metrics fd,kid: pip install 'wavegan-dist[eval]'",
    "onnxscript": "wavegan export --format onnx: pip install 'wavegan-dist[export]'",
    "onnxruntime": "wavegan export --format onnx: pip install 'wavegan-dist[export]'",
    "skimage": "wavegan shards write embedded: pip install 'wavegan-dist[embedded]'",
    "sklearn": "wavegan shards write embedded: pip install 'wavegan-dist[embedded]'",
}


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
    missing = [f"{name}, for {use}" for name, use in OPTIONAL.items() if importlib.util.find_spec(name) is None]
    return Report(versions=_versions(), devices=_devices(), kernels=kernels, missing=missing)


def format_report(report: Report) -> str:
    """Format a report as text, one line per entry."""
    lines = [f"{name:<16} {version}" for name, version in report["versions"].items()]
    lines += [f"{'device':<16} {device}" for device in report["devices"]]
    lines += [
        f"{'wavelet on ' + device:<16} {kernel['kernel']}: {kernel['why']}" for device, kernel in report["kernels"].items()
    ]
    return "\n".join(lines + [f"{'missing':<16} {package}" for package in report["missing"]])


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
