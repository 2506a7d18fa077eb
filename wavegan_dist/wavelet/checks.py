"""Argument checks of the transform, made before any memory is accessed; `cpu/tensors.h` repeats them in C++.

All of them raise UsageError, which is a ValueError, with a message of one line.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wavegan_dist.errors import UsageError


def check_dwt(x_bchw: Tensor) -> None:
    """Raise UsageError unless `x_bchw` is a dense floating-point [B, C, H, W] tensor with even H and W."""
    _check_floating("dwt", x_bchw)
    height, width = x_bchw.shape[-2:]
    if height % 2 or width % 2:
        raise UsageError(f"dwt: height and width must be even, got {height}x{width}; crop or pad the image")


def check_wavedec(x_bchw: Tensor, levels: int) -> None:
    """Raise UsageError unless levels >= 1 and `x_bchw` is dense floating-point [B, C, H, W], H and W multiples of 2**levels."""
    _check_floating("wavedec", x_bchw)
    height, width = x_bchw.shape[-2:]
    if levels < 1 or height % 2**levels or width % 2**levels:
        raise UsageError(
            f"wavedec: {levels} levels of an image of {height}x{width}; levels must be at least 1 and height and width "
            "multiples of 2**levels"
        )


def check_idwt(low: Tensor, high: Tensor, name: str = "idwt") -> None:
    """Raise UsageError unless low is dense floating-point [B, C, h, w] and high is [B, 3C, h, w] of its dtype and device.

    `name` is the function that the message names.
    """
    _check_floating(name, low)
    _check_high(name, low, high, 1)


def check_waverec(low: Tensor, highs: Sequence[Tensor]) -> None:
    """Raise UsageError unless low is dense floating-point [B, C, h, w] and highs match its shape, dtype and device.

    `highs` are [B, 3C, h, w], [B, 3C, 2h, 2w], ...; an empty sequence passes.
    """
    _check_floating("waverec", low)
    for level, high in enumerate(highs):
        _check_high("waverec", low, high, 2**level)


def check_fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> None:
    """Raise UsageError unless low and high pass `check_idwt`, and base and lam match them.

    base must be [B, C, 2h, 2w] of low's dtype and device, lam a 0-dimensional floating-point tensor on this device.
    """
    check_idwt(low, high, "fuse")
    batch, channels, height, width = low.shape
    rebuilt = [batch, channels, 2 * height, 2 * width]
    if list(base.shape) != rebuilt:
        raise UsageError(f"fuse: base is {list(base.shape)} but the bands rebuild {rebuilt}; they must be equal")
    _check_same_kind("fuse", "base", base, "low", low)
    if lam.dim() or not lam.is_floating_point() or lam.device != base.device:
        got = f"{lam.dtype} {list(lam.shape)} on {lam.device}"
        raise UsageError(f"fuse: lam must be a floating-point scalar on {base.device}, got {got}; move or cast it")


def _check_high(name: str, low: Tensor, high: Tensor, scale: int) -> None:
    batch, channels, height, width = low.shape
    expected = [batch, 3 * channels, scale * height, scale * width]
    if list(high.shape) != expected:
        raise UsageError(f"{name}: low {list(low.shape)} needs high {expected}, got {list(high.shape)}")
    _check_same_kind(name, "low", low, "high", high)


def _check_floating(name: str, x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point() or x.layout != torch.strided:
        raise UsageError(f"{name}: expected a dense floating-point [B, C, H, W] tensor, got {x.dtype} {list(x.shape)}")


def _check_same_kind(name: str, a_name: str, a: Tensor, b_name: str, b: Tensor) -> None:
    if a.dtype != b.dtype or a.device != b.device or a.layout != b.layout:
        raise UsageError(f"{name}: {a_name} is {a.dtype} on {a.device}, {b_name} is {b.dtype} on {b.device}; make them equal")
