"""Shapes, dtypes and layouts of what the kernels return, for `torch.compile` and fake tensors: both kernels agree on them.

Results are contiguous, or channels last where the first argument is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def register_fakes(namespace: str) -> None:
    """Teach PyTorch the results of all operators of `namespace`."""
    fakes: dict[str, Callable[..., Any]] = {
        "dwt": _dwt,
        "idwt": _idwt,
        "fuse": _fuse,
        "fuse_backward": _fuse_backward,
        "analyse": _analyse,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f"{namespace}::{name}", fake)


def layout(x_bchw: Tensor) -> torch.memory_format:
    """Of the results: channels last where the argument is that and not contiguous as well."""
    channels_last = x_bchw.is_contiguous(memory_format=torch.channels_last) and not x_bchw.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def empty_image(like_low: Tensor, x: Tensor) -> Tensor:
    """[B, C, 2h, 2w] for a low band [B, C, h, w], with dtype, device and layout of `x`."""
    batch, channels, height, width = like_low.shape
    shape = (batch, channels, 2 * height, 2 * width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout(x))


def empty_bands(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Low and high for an image, on its device and in its layout."""
    batch, channels, height, width = x.shape
    low, high = (
        torch.empty((batch, n * channels, height // 2, width // 2), dtype=dtype, device=x.device, memory_format=layout(x))
        for n in (1, 3)
    )
    return low, high


def _dwt(x: Tensor) -> tuple[Tensor, Tensor]:
    return empty_bands(x, x.dtype)


def _idwt(low: Tensor, high: Tensor) -> Tensor:
    return empty_image(low, low)


def _fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    return empty_image(low, base)


def _fuse_backward(grad: Tensor, base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_image(low, base), *empty_bands(base, base.dtype), torch.empty_like(lam)


def _analyse(images: Tensor, band_std: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    image = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=layout(images))
    return image, *empty_bands(images, torch.float32)
