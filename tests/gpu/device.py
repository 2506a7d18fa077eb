"""The device of these tests: the GPU if there is one, else the CPU; only tests marked `needs_gpu` are skipped there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wavegan_dist.wavelet import choice, choose

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_gpu = pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a GPU")

# Memory layouts: each function returns a tensor with the values of x.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "crop": lambda x: F.pad(x, (3, 2, 1, 2))[:, :, 1:-2, 3:-2],
    "every other column": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "permuted": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "misaligned": lambda x: torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape),
    "channel slice": lambda x: torch.cat((x, x, x), dim=1)[:, x.shape[1] : 2 * x.shape[1]],
}


def operators() -> Any:
    """Return the namespace of the device's compiled operators; skip the test where there are none."""
    name, why = choose(DEVICE.type)
    if name == "reference":
        pytest.skip(why)
    return {"C++": torch.ops.wavegan_cpu, "Triton": torch.ops.wavegan_triton}[name]


def require_kernel(dtype: torch.dtype) -> None:
    """Skip the test if the device's compiled operators do not support a dtype."""
    operators()
    if dtype not in choice.LOADED[choose(DEVICE.type)[0]].dtypes:
        pytest.skip(f"no kernel for {dtype} on {DEVICE.type}")


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Draw values in [-1, 1) on the device."""
    values = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return values.to(DEVICE, dtype)


@contextmanager
def no_synchronization() -> Iterator[None]:
    """Make every operation that waits for the GPU raise an error in the block. Only for tests marked `needs_gpu`."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
