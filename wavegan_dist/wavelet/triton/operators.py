"""The operators `wavegan_triton::*`: they make arguments contiguous, launch the kernels and define derivatives of every order.

Arguments and results are those of the functions of the same names in `ops`, on a GPU and of a dtype in PAIR_DTYPES. The
operators check nothing: the callers have checked the arguments.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from wavegan_dist.wavelet.triton import kernels

NAMESPACE = "wavegan_triton"
PAIR_DTYPES = {torch.float32: torch.int64, torch.bfloat16: torch.int32, torch.float16: torch.int32}  # see kernels.py
WARP_SIZE = 64 if torch.version.hip else 32

custom_op = torch.library.custom_op


@custom_op(f"{NAMESPACE}::dwt", mutates_args=())
def dwt(x: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the 2D Haar transform `ops.dwt`: x [B, C, H, W] -> low [B, C, H/2, W/2], high [B, 3C, H/2, W/2], contiguous."""
    low, high = _empty_bands(x)
    _launch(kernels.dwt, low, _as_pairs(x), low, high)
    return low, high


@custom_op(f"{NAMESPACE}::idwt", mutates_args=())
def idwt(low: Tensor, high: Tensor) -> Tensor:
    """Apply the inverse Haar transform `ops.idwt`: low [B, C, h, w], high [B, 3C, h, w] -> x [B, C, 2h, 2w], contiguous."""
    low, high = low.contiguous(), high.contiguous()
    x = _empty_image(low)
    _launch(kernels.idwt, low, low, high, _as_pairs(x))
    return x


@custom_op(f"{NAMESPACE}::fuse", mutates_args=())
def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """Compute `(1 - lam) * base + lam * idwt(low, high)`, [B, C, H, W], contiguous; see `ops.fuse`."""
    low, high = low.contiguous(), high.contiguous()
    out = _empty_image(low)
    _launch(kernels.fuse, low, _as_pairs(base), low, high, lam, _as_pairs(out))
    return out


@custom_op(f"{NAMESPACE}::fuse_backward", mutates_args=())
def fuse_backward(grad: Tensor, base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the backward of `fuse`, `image = (1 - lam) * base + lam * idwt(low, high)`.

    Args:
        grad: gradient of the image, [B, C, H, W].
        base, low, high, lam: the arguments of `fuse`: [B, C, H, W], [B, C, H/2, W/2], [B, 3C, H/2, W/2] and a scalar.

    Returns:
        The gradients of base, low, high and lam, with the shapes and dtypes of these. Every Triton program adds up its part of
        lam's gradient in float32; `torch.sum` then adds the parts in float64, so that the result does not change from run to
        run.
    """
    low, high = low.contiguous(), high.contiguous()
    grad_base, grad_low, grad_high = _empty_image(low), torch.empty_like(low), torch.empty_like(high)
    sums = torch.empty(_grid(low), dtype=torch.float32, device=low.device)
    outputs = (_as_pairs(grad_base), grad_low, grad_high, sums)
    _launch(kernels.fuse_backward, low, _as_pairs(grad), _as_pairs(base), low, high, lam, *outputs)
    return grad_base, grad_low, grad_high, sums.sum(dtype=torch.float64).to(lam.dtype)


def _launch(kernel: Any, low: Tensor, *arguments: Any) -> None:
    """Launch a kernel on a 2D grid of tiles that covers the band `low`; do nothing if the band is empty.

    Args:
        kernel: a kernel of `kernels`.
        low: gives the shape, dtype and device of the band; it is not passed to the kernel.
        arguments: the first arguments of the kernel; rows, width, ch and the tile size follow them.
    """
    batch, channels, height, width = low.shape
    if low.numel() == 0:
        return
    tile_h, tile_w = kernels.tile(width, low.element_size(), WARP_SIZE)
    with torch.accelerator.device_index(low.device.index):
        kernel[_grid(low)](
            *arguments, batch * channels * height, width, channels * height, tile_h, tile_w, num_warps=kernels.WARPS
        )


def _grid(low: Tensor) -> tuple[int, int]:
    batch, channels, height, width = low.shape
    if low.numel() == 0:
        return 0, 0
    tile_h, tile_w = kernels.tile(width, low.element_size(), WARP_SIZE)
    return triton.cdiv(batch * channels * height, tile_h), triton.cdiv(width, tile_w)


def _as_pairs(x: Tensor) -> Tensor:
    """View an image as a flat tensor of pairs; copies an image that is not contiguous or not aligned to 16 bytes."""
    x = x.contiguous().flatten()
    if x.numel() == 0:
        return x
    if x.data_ptr() % 16:
        x = x.clone()
    return x.view(PAIR_DTYPES[x.dtype])


def _empty_image(low: Tensor) -> Tensor:
    batch, channels, height, width = low.shape
    return torch.empty((batch, channels, 2 * height, 2 * width), dtype=low.dtype, device=low.device)


def _empty_bands(x: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    low, high = (torch.empty((batch, n * channels, height // 2, width // 2), dtype=x.dtype, device=x.device) for n in (1, 3))
    return low, high


def _dwt_backward(ctx: Any, low: Tensor, high: Tensor) -> Tensor:
    return idwt(low, high)


def _idwt_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return dwt(grad)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _fuse_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return fuse_backward(grad, *ctx.saved_tensors)


def _fuse_double_backward(ctx: Any, to_base: Tensor, to_low: Tensor, to_high: Tensor, to_lam: Tensor) -> tuple[Tensor, ...]:
    """Backward of `fuse_backward`, which is linear in grad, in lam and in (base, low, high); same as in cpu/autograd.cpp.

    `to_base`, `to_low`, `to_high` and `to_lam` are the gradients of a scalar with respect to its four results.
    """
    grad, base, low, high, lam = ctx.saved_tensors
    of_grad = fuse(to_base, to_low, to_high, lam) + to_lam * (idwt(low, high) - base)
    grad_low, grad_high = dwt(grad)
    of_lam = fuse_backward(grad, to_base, to_low, to_high, lam)[3]
    return of_grad, -to_lam * grad, to_lam * grad_low, to_lam * grad_high, of_lam


dwt.register_autograd(_dwt_backward)
idwt.register_autograd(_idwt_backward)
fuse.register_autograd(_fuse_backward, setup_context=_save_inputs)
fuse_backward.register_autograd(_fuse_double_backward, setup_context=_save_inputs)
