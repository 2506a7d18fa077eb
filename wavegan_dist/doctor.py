"""What this machine has and lacks."""

import importlib.util
import os
from typing import TypedDict

import torch

from wavegan_dist.provenance import provenance
from wavegan_dist.wavelet import choose

# What is optional, and what it is for.
OPTIONAL = {
    "torch_fidelity": "wavegan evaluate --metrics fid,fd,kid: pip install 'wavegan-dist[eval]'",
    "efficientnet_lite_pytorch": "wavegan evaluate --metrics fd,kid: pip install 'wavegan-dist[eval]'",
    "skimage": "wavegan shards write embedded: pip install 'wavegan-dist[embedded]'",
    "sklearn": "wavegan shards write embedded: pip install 'wavegan-dist[embedded]'",
}


class KernelFound(TypedDict):
    """Which kernel works on a kind of device ("C++", "Triton" or "reference"), and why that one."""

    kernel: str
    why: str


class Findings(TypedDict):
    """What `examine` found."""

    versions: dict[str, str]
    devices: list[str]
    kernels: dict[str, KernelFound]
    missing: list[str]


def examine() -> Findings:
    """Look at everything; the CPU kernels are compiled where no command has used them yet."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    kernels = {device: KernelFound(kernel=name, why=why) for device in devices for name, why in (choose(device),)}
    missing = [f"{name}, for {use}" for name, use in OPTIONAL.items() if importlib.util.find_spec(name) is None]
    return Findings(versions=_versions(), devices=_devices(), kernels=kernels, missing=missing)


def as_text(found: Findings) -> str:
    """The findings for people, a line each."""
    lines = [f"{name:<16} {version}" for name, version in found["versions"].items()]
    lines += [f"{'device':<16} {device}" for device in found["devices"]]
    lines += [f"{'wavelet on ' + device:<16} {each['kernel']}: {each['why']}" for device, each in found["kernels"].items()]
    return "\n".join(lines + [f"{'missing':<16} {each}" for each in found["missing"]])


def _versions() -> dict[str, str]:
    about = provenance()
    packages = about["packages"]
    assert isinstance(packages, dict)
    own = {name: str(about[name]) for name in ("wavegan-dist", "git_commit", "python", "platform")}
    return own | {str(name): str(version) for name, version in packages.items()}


def _devices() -> list[str]:
    cores = len(os.sched_getaffinity(0))
    cpu = f"CPU, {cores} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [cpu] + [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]
