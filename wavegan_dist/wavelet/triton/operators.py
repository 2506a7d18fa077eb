"""The operators `wavegan_triton::*`: contiguous memory, launches, derivatives of every order."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from wavegan_dist.wavelet.triton import kernels

NAMESPACE = "wavegan_triton"
PAIRS = {torch.float32: torch.int64, torch.bfloat16: torch.int32, torch.float16: torch.int32, torch.uint8: torch.int16}

LANES = 64 if torch.version.hip else 32

operator = torch.library.custom_op


@operator(f"{NAMESPACE}::dwt", mutates_args=())
def dwt(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `ops.dwt`; so are the others."""
    low, high = _empty_bands(x, x.dtype)
    _launch(kernels.dwt, low, _pairs(x), low, high)
    return low, high


@operator(f"{NAMESPACE}::idwt", mutates_args=())
def idwt(low: Tensor, high: Tensor) -> Tensor:
    """The inverse."""
    low, high = low.contiguous(), high.contiguous()
    x = _empty_image(low)
    _launch(kernels.idwt, low, low, high, _pairs(x))
    return x


@operator(f"{NAMESPACE}::fuse", mutates_args=())
def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """The mix."""
    low, high = low.contiguous(), high.contiguous()
    out = _empty_image(low)
    _launch(kernels.fuse, low, _pairs(base), low, high, lam, _pairs(out))
    return out


@operator(f"{NAMESPACE}::fuse_backward", mutates_args=())
def fuse_backward(grad: Tensor, base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of base, low, high and lam; the last is summed over the programs in double, in the order of PyTorch's sum."""
    low, high = low.contiguous(), high.contiguous()
    grad_base, grad_low, grad_high = _empty_image(low), torch.empty_like(low), torch.empty_like(high)
    sums = torch.empty(_grid(low), dtype=torch.float32, device=low.device)
    outputs = (_pairs(grad_base), grad_low, grad_high, sums)
    _launch(kernels.fuse_backward, low, _pairs(grad), _pairs(base), low, high, lam, *outputs)
    return grad_base, grad_low, grad_high, sums.sum(dtype=torch.float64).to(lam.dtype)


@operator(f"{NAMESPACE}::analyse", mutates_args=())
def analyse(images: Tensor, band_std: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 -> float32 image and scaled bands."""
    image = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    low, high = _empty_bands(images, torch.float32)
    _launch(kernels.analyse, low, _pairs(images), _pairs(image), low, high, *(1 / (127.5 * std) for std in band_std))
    return image, low, high


def _launch(kernel: Any, low: Tensor, *arguments: Any) -> None:
    """Run the kernel over all rows of the band."""
    batch, channels, height, width = low.shape
    if low.numel() == 0:
        return
    rows, columns = kernels.tile(width, low.element_size(), LANES)
    with torch.accelerator.device_index(low.device.index):
        kernel[_grid(low)](
            *arguments, batch * channels * height, width, channels * height, rows, columns, num_warps=kernels.WARPS
        )


def _grid(low: Tensor) -> tuple[int, int]:
    batch, channels, height, width = low.shape
    if low.numel() == 0:
        return 0, 0
    rows, columns = kernels.tile(width, low.element_size(), LANES)
    return triton.cdiv(batch * channels * height, rows), triton.cdiv(width, columns)


def _pairs(x: Tensor) -> Tensor:
    """Two neighbours as one integer; a copy where the image is not contiguous or not aligned to 16 bytes."""
    x = x.contiguous().flatten()
    if x.numel() == 0:
        return x
    if x.data_ptr() % 16:
        x = x.clone()
    return x.view(PAIRS[x.dtype])


def _empty_image(low: Tensor) -> Tensor:
    batch, channels, height, width = low.shape
    return torch.empty((batch, channels, 2 * height, 2 * width), dtype=low.dtype, device=low.device)


def _empty_bands(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    low, high = (torch.empty((batch, n * channels, height // 2, width // 2), dtype=dtype, device=x.device) for n in (1, 3))
    return low, high


def _dwt_backward(ctx: Any, low: Tensor, high: Tensor) -> Tensor:
    return idwt(low, high)


def _idwt_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return dwt(grad)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _fuse_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return fuse_backward(grad, *ctx.saved_tensors)


def _fuse_backward_gradients(ctx: Any, base: Tensor, low: Tensor, high: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """As in cpu/autograd.cpp: what it computes is linear in grad, in lam and in (base, low, high)."""
    x_grad, x_base, x_low, x_high, lam = ctx.saved_tensors
    of_grad = fuse(base, low, high, lam) + scale * (idwt(x_low, x_high) - x_base)
    low_grad, high_grad = dwt(x_grad)
    of_lam = fuse_backward(x_grad, base, low, high, lam)[3]
    return of_grad, -scale * x_grad, scale * low_grad, scale * high_grad, of_lam


dwt.register_autograd(_dwt_backward)
idwt.register_autograd(_idwt_backward)
fuse.register_autograd(_fuse_gradients, setup_context=_save)
fuse_backward.register_autograd(_fuse_backward_gradients, setup_context=_save)
