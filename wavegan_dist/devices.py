"""The device on which a command that runs in one process computes, and whether it may use TF32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wavegan_dist.errors import UsageError


def find_device(name: str | None = None) -> torch.device:
    """Return the device called `name` ("cpu", "cuda", "cuda:1", ...); None: the accelerator if there is one, else the CPU.

    Raises:
        UsageError: this machine has no such device.
    """
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:  # not the name of a type of device
        device = None
    if device is None or (device.index or 0) >= _device_count(device.type):
        raise UsageError(f"--device {name}: there is no such device; choose from {', '.join(_device_names())}")
    return device


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in all float32 convolutions and matrix products of this process.

    Setting `torch.backends.fp32_precision` alone is not enough: the setting of a backend or an operation takes precedence once
    it has been set, and each compilation of `torch.compile` sets the one of `torch.backends.cuda.matmul`.
    """
    for backend in _float32_backends():
        backend.fp32_precision = "tf32" if allowed else "ieee"


@contextmanager
def full_float32() -> Iterator[None]:
    """Forbid TF32 in float32 convolutions and matrix products, and set `cudnn.deterministic`, within this context.

    By default PyTorch allows TF32 in convolutions. Its rounding errors are 8,000 times those of float32.
    """
    precisions = [backend.fp32_precision for backend in _float32_backends()]
    deterministic = torch.backends.cudnn.deterministic
    allow_tf32(False)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = deterministic
        for backend, precision in zip(_float32_backends(), precisions, strict=True):
            backend.fp32_precision = precision


def _float32_backends() -> list[Any]:
    """Return every object with a `fp32_precision`, the general one first."""
    backends: Any = torch.backends
    cuda, cudnn, mkldnn = backends.cuda, backends.cudnn, backends.mkldnn
    return [backends, cuda.matmul, cudnn, cudnn.conv, cudnn.rnn, mkldnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def _device_count(kind: str) -> int:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and kind == accelerator.type:
        return torch.accelerator.device_count()
    return int(kind == "cpu")


def _device_names() -> list[str]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = "" if accelerator is None else accelerator.type
    return ["cpu", *(f"{kind}:{index}" for index in range(_device_count(kind)))]
