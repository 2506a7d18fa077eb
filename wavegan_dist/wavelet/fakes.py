"""Shapes, dtypes and layouts of what the kernels return or refuse, for `torch.compile` and fake tensors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wavegan_dist.wavelet import checks

Layout = Callable[[Tensor], torch.memory_format]


def layout_of(x_bchw: Tensor) -> torch.memory_format:
    """Channels last where the tensor is that and not contiguous as well."""
    channels_last = x_bchw.is_contiguous(memory_format=torch.channels_last) and not x_bchw.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def register_fakes(namespace: str, layout: Layout) -> None:
    """Teach PyTorch the results of all operators of `namespace`.

    Args:
        namespace: of `dwt`, `idwt`, `fuse`, `fuse_backward` and `analyse`.
        layout: of the results, for their first image or low band.
    """

    def image(like_low: Tensor, x: Tensor) -> Tensor:
        batch, channels, height, width = like_low.shape
        shape = (batch, channels, 2 * height, 2 * width)
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout(x))

    def bands(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = x.shape
        low, high = (
            torch.empty((batch, n * channels, height // 2, width // 2), dtype=dtype, device=x.device, memory_format=layout(x))
            for n in (1, 3)
        )
        return low, high

    def dwt(x: Tensor) -> tuple[Tensor, Tensor]:
        checks.check_dwt(x)
        return bands(x, x.dtype)

    def idwt(low: Tensor, high: Tensor) -> Tensor:
        checks.check_idwt(low, high)
        return image(low, low)

    def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
        checks.check_fuse(base, low, high, lam)
        return image(low, base)

    def fuse_backward(grad: Tensor, base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> tuple[Tensor, ...]:
        checks.check_fuse(base, low, high, lam)
        return image(low, base), *bands(base, base.dtype), torch.empty_like(lam)

    def analyse(images: Tensor, band_std: Sequence[float]) -> tuple[Tensor, ...]:
        checks.check_analyse(images, band_std)
        pixels = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=layout(images))
        return pixels, *bands(images, torch.float32)

    for fake in (dwt, idwt, fuse, fuse_backward, analyse):
        torch.library.register_fake(f"{namespace}::{fake.__name__}", fake)
