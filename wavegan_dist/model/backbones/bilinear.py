"""Bilinear interpolation and its transpose, each the backward of the other.

On GPUs, PyTorch's backward of bilinear interpolation accumulates in an arbitrary order, so that a resumed run would differ from
an uninterrupted one. The backward in this module is a convolution on GPUs, which is deterministic.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wavegan_dist.model.backbones.memory_format import empty, formatted


@torch.library.custom_op("wavegan::bilinear_upsample", mutates_args=())
def upsample(x: Tensor, scale: float) -> Tensor:
    """Double the size by bilinear interpolation and multiply by `scale`: [B, C, H, W] -> [B, C, 2H, 2W].

    Interpolates as `F.interpolate` with `align_corners=False`. The result has the dtype and memory format (contiguous or
    channels last) of x, and is differentiable to any order with respect to x.
    """
    y = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return formatted(y if scale == 1 else y.mul_(scale), x)


@torch.library.custom_op("wavegan::bilinear_upsample_transpose", mutates_args=())
def transpose(y: Tensor, scale: float) -> Tensor:
    """Apply the transpose of `upsample`: [B, C, 2H, 2W] -> [B, C, H, W]. With scale = 1/4, a constant map keeps its value.

    The result has the dtype and memory format (contiguous or channels last) of y, and is differentiable to any order with
    respect to y.
    """
    if y.device.type == "cpu":  # here PyTorch's function is deterministic, and faster
        batch, channels, height, width = y.shape
        size = [batch, channels, height // 2, width // 2]
        x = torch.ops.aten.upsample_bilinear2d_backward(y, [height, width], size, False, 2.0, 2.0)
    else:
        x = transpose_by_convolution(y)
    return formatted(x if scale == 1 else x.mul_(scale), y)


def transpose_by_convolution(y: Tensor) -> Tensor:
    """Apply the transpose of `upsample` with scale 1, by a convolution: [B, C, 2H, 2W] -> [B, C, H, W] in the dtype of y.

    Interpolation pads its input by one repeated pixel on each side, then applies a transposed convolution. Its transpose is
    therefore a convolution, whose result has a border of one pixel, and the addition of this border to the pixels next to it.
    """
    taps = 1 - (torch.arange(4, dtype=y.dtype, device=y.device) - 1.5).abs() / 2  # 1/4, 3/4, 3/4, 1/4
    kernels = taps.outer(taps).expand(y.shape[1], 1, -1, -1)
    with torch.autocast(y.device.type, enabled=False):
        padded = F.conv2d(y, kernels, stride=2, padding=3, groups=y.shape[1])
    for dim in (2, 3):
        first, x, last = padded.split((1, padded.shape[dim] - 2, 1), dim)
        x.narrow(dim, 0, 1).add_(first)
        x.narrow(dim, -1, 1).add_(last)
        padded = x
    return padded


@upsample.register_fake
def _(x: Tensor, scale: float) -> Tensor:
    batch, channels, height, width = x.shape
    return empty(x, (batch, channels, 2 * height, 2 * width))


@transpose.register_fake
def _(y: Tensor, scale: float) -> Tensor:
    batch, channels, height, width = y.shape
    return empty(y, (batch, channels, height // 2, width // 2))


def _save_scale(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
    ctx.scale = inputs[1]


def _upsample_backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
    return transpose(dy, ctx.scale), None


def _transpose_backward(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
    return upsample(dx, ctx.scale), None


upsample.register_autograd(_upsample_backward, setup_context=_save_scale)
transpose.register_autograd(_transpose_backward, setup_context=_save_scale)
