"""Fake (meta) implementations of the operators: shapes, dtypes and memory formats for `torch.compile` and FakeTensor."""

from collections.abc import Callable

import torch
from torch import Tensor

from wavegan_dist.wavelet import checks


def memory_format_of(x_bchw: Tensor) -> torch.memory_format:
    """Return `torch.channels_last` if a 4D tensor is channels last and not also contiguous, else `torch.contiguous_format`."""
    channels_last = x_bchw.is_contiguous(memory_format=torch.channels_last) and not x_bchw.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def register_fakes(namespace: str, result_format: Callable[[Tensor], torch.memory_format]) -> None:
    """Register fake implementations of the operators of a library, with the same argument checks as the real ones.

    Call it after the library's operators are defined.

    Args:
        namespace: name of the library, which has the operators `dwt`, `idwt`, `fuse` and `fuse_backward`.
        result_format: maps the first image or low band among the arguments to the memory format of the results.
    """

    def image(low: Tensor, like: Tensor) -> Tensor:
        batch, channels, height, width = low.shape
        shape = (batch, channels, 2 * height, 2 * width)
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=result_format(like))

    def bands(x: Tensor) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = x.shape
        low, high = (
            torch.empty(
                (batch, n * channels, height // 2, width // 2), dtype=x.dtype, device=x.device, memory_format=result_format(x)
            )
            for n in (1, 3)
        )
        return low, high

    def dwt(x: Tensor) -> tuple[Tensor, Tensor]:
        checks.check_dwt(x)
        return bands(x)

    def idwt(low: Tensor, high: Tensor) -> Tensor:
        checks.check_idwt(low, high)
        return image(low, low)

    def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
        checks.check_fuse(base, low, high, lam)
        return image(low, base)

    def fuse_backward(grad: Tensor, base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> tuple[Tensor, ...]:
        checks.check_fuse(base, low, high, lam)
        return image(low, base), *bands(base), torch.empty_like(lam)

    for fake in (dwt, idwt, fuse, fuse_backward):
        torch.library.register_fake(f"{namespace}::{fake.__name__}", fake)
