"""The device on which a command that runs in one process computes."""

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


def _device_count(kind: str) -> int:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and kind == accelerator.type:
        return torch.accelerator.device_count()
    return int(kind == "cpu")


def _device_names() -> list[str]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = "" if accelerator is None else accelerator.type
    return ["cpu", *(f"{kind}:{index}" for index in range(_device_count(kind)))]
