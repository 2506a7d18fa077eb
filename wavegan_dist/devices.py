"""The device on which a command that runs in one process computes, and whether it may use TF32."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from wavegan_dist.errors import UsageError


def find_device(name: str | None = None) -> torch.device:
    """Return the device called `name` ("cpu", "cuda", "cuda:1", ...). None: the accelerator if there is one, else the CPU.

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
    """Allow or forbid TF32 in all float32 convolutions and matrix products that this process computes on a GPU from now on.

    Setting `torch.backends.fp32_precision` alone is not enough: the setting of a backend or an operation takes precedence once
    it has been set, and each compilation of `torch.compile` sets the one of `torch.backends.cuda.matmul`.
    """
    of_cpus = {*_cpu_backends()}
    _set_precisions({backend: "tf32" if allowed and backend not in of_cpus else "ieee" for backend in _backends()})


@contextmanager
def full_float32() -> Iterator[None]:
    """Forbid TF32 in float32 convolutions and matrix products, and set `cudnn.deterministic`, while the block runs.

    These settings are the process's: other threads compute with them, too. The earlier settings return when the block ends.
    PyTorch allows TF32 in convolutions by default. The rounding errors of TF32 are 8,000 times those of float32.
    """
    precisions = {backend: backend.fp32_precision for backend in _backends()}
    deterministic = torch.backends.cudnn.deterministic
    allow_tf32(False)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = deterministic
        _set_precisions(precisions)


def _set_precisions(precisions: Mapping[Any, str]) -> None:
    """Set the `fp32_precision` of each backend, and the older `allow_tf32` in agreement with them.

    PyTorch keeps both, and raises a RuntimeError where it reads an `allow_tf32` that disagrees, as `torch.export` does.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch asks to set fp32_precision instead
        cudnn.allow_tf32 = precisions[cudnn.conv] == "tf32"
        matmul.allow_tf32 = precisions[matmul] == "tf32"
    for backend, precision in precisions.items():  # allow_tf32 has changed some of them
        backend.fp32_precision = precision


def _backends() -> list[Any]:
    """Return every object in `torch.backends` that has a `fp32_precision`, the general one (`torch.backends`) first."""
    backends: Any = torch.backends
    return [backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn, *_cpu_backends()]


def _cpu_backends() -> list[Any]:
    mkldnn: Any = torch.backends.mkldnn
    return [mkldnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def _device_count(kind: str) -> int:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and kind == accelerator.type:
        return torch.accelerator.device_count()
    return int(kind == "cpu")


def _device_names() -> list[str]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = "" if accelerator is None else accelerator.type
    return ["cpu", *(f"{kind}:{index}" for index in range(_device_count(kind)))]
