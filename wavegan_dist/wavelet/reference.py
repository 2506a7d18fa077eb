"""The Haar transform in plain PyTorch: the definition that the compiled kernels are tested against.

Arguments, results and errors are those of the functions of the same names in `ops`. Derivatives come from autograd.
"""

import torch
from torch import Tensor

from wavegan_dist.wavelet import checks


def dwt(x_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one level of the orthonormal 2D Haar transform (`ops.dwt`) by PyTorch's own operators.

    Returns low [B, C, H/2, W/2] and high [B, 3C, H/2, W/2] (LH of all channels, then HL, then HH) in the dtype of the input.
    Raises UsageError unless the input is a dense floating-point [B, C, H, W] tensor with even H and W.
    """
    checks.check_dwt(x_bchw)
    a, b = x_bchw[..., 0::2, 0::2], x_bchw[..., 0::2, 1::2]
    c, d = x_bchw[..., 1::2, 0::2], x_bchw[..., 1::2, 1::2]
    top_sum, top_difference = (a + b) / 2, (a - b) / 2
    bottom_sum, bottom_difference = (c + d) / 2, (c - d) / 2
    lh, hl = top_sum - bottom_sum, top_difference + bottom_difference
    hh = top_difference - bottom_difference
    return top_sum + bottom_sum, torch.cat((lh, hl, hh), dim=1)


def idwt(low: Tensor, high: Tensor) -> Tensor:
    """Compute the inverse of `dwt` (`ops.idwt`) by PyTorch's own operators.

    Returns [B, C, 2h, 2w] from low [B, C, h, w] and high [B, 3C, h, w]. Raises UsageError unless low is dense floating-point
    and high matches it in shape, dtype and device.
    """
    checks.check_idwt(low, high)
    batch, channels, height, width = low.shape
    lh, hl, hh = high.chunk(3, dim=1)
    top_sum, bottom_sum = (low + lh) / 2, (low - lh) / 2
    top_difference, bottom_difference = (hl + hh) / 2, (hl - hh) / 2
    top = torch.stack((top_sum + top_difference, top_sum - top_difference), dim=-1)
    bottom = torch.stack((bottom_sum + bottom_difference, bottom_sum - bottom_difference), dim=-1)
    return torch.stack((top, bottom), dim=-3).reshape(batch, channels, 2 * height, 2 * width)


def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """Compute `(1 - lam) * base + lam * idwt(low, high)` (`ops.fuse`) by PyTorch's own operators, [B, C, H, W].

    base is [B, C, H, W], low [B, C, H/2, W/2] and high [B, 3C, H/2, W/2] of one floating dtype and device, lam a floating-point
    scalar on this device; else UsageError is raised.
    """
    checks.check_fuse(base, low, high, lam)
    return (1 - lam) * base + lam * idwt(low, high)
