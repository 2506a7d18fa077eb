"""The Haar transform in plain PyTorch: the definition that every faster kernel is held to.

On each 2x2 block [[a, b], [c, d]] (a top left):

    LL = (a + b + c + d) / 2      LH = (a + b - c - d) / 2
    HL = (a - b + c - d) / 2      HH = (a - b - c + d) / 2

(LH, HL, HH) are PyWavelets' (cH, cV, cD). The transform is orthonormal, so its inverse is its transpose and the
backward of each direction is the other one: derivatives of every order come from the same two operations.
"""

import torch
from torch import Tensor

from wavegan_dist.errors import UsageError


def dwt(x_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the Haar transform.

    Args:
        x_bchw: floating [B, C, H, W] with H and W even.

    Returns:
        `low` [B, C, H/2, W/2] and `high` [B, 3C, H/2, W/2], stacked by band, then colour: [LH of all C, HL of all C,
        HH of all C]. Same dtype as the input.

    Raises:
        UsageError: the input is not a floating 4D tensor or H or W is odd.
    """
    _check_floating("dwt", x_bchw)
    height, width = x_bchw.shape[-2:]
    if height % 2 or width % 2:
        raise UsageError(f"dwt: height and width must be even, got {height}x{width}; crop or pad the image")
    a, b = x_bchw[..., 0::2, 0::2], x_bchw[..., 0::2, 1::2]
    c, d = x_bchw[..., 1::2, 0::2], x_bchw[..., 1::2, 1::2]
    top_sum, top_difference = (a + b) / 2, (a - b) / 2
    bottom_sum, bottom_difference = (c + d) / 2, (c - d) / 2
    lh, hl = top_sum - bottom_sum, top_difference + bottom_difference
    hh = top_difference - bottom_difference
    return top_sum + bottom_sum, torch.cat((lh, hl, hh), dim=1)


def idwt(low: Tensor, high: Tensor) -> Tensor:
    """The inverse (and transpose) of `dwt`: `idwt(*dwt(x)) == x`.

    Args:
        low: floating [B, C, h, w].
        high: [B, 3C, h, w] of the same dtype and device.

    Returns:
        [B, C, 2h, 2w].

    Raises:
        UsageError: shapes, dtypes or devices do not go together.
    """
    _check_floating("idwt", low)
    batch, channels, height, width = low.shape
    wanted = [batch, 3 * channels, height, width]
    if list(high.shape) != wanted:
        raise UsageError(f"idwt: low {list(low.shape)} needs high {wanted}, got {list(high.shape)}")
    if (high.dtype, high.device) != (low.dtype, low.device):
        raise UsageError(f"idwt: low is {low.dtype} on {low.device}, high is {high.dtype} on {high.device}; make them equal")
    lh, hl, hh = high.chunk(3, dim=1)
    top_sum, bottom_sum = (low + lh) / 2, (low - lh) / 2
    top_difference, bottom_difference = (hl + hh) / 2, (hl - hh) / 2
    top = torch.stack((top_sum + top_difference, top_sum - top_difference), dim=-1)
    bottom = torch.stack((bottom_sum + bottom_difference, bottom_sum - bottom_difference), dim=-1)
    return torch.stack((top, bottom), dim=-3).reshape(batch, channels, 2 * height, 2 * width)


def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """The generator's output, `(1 - lam) * base + lam * idwt(low, high)` (patent CN 111275640 B).

    Args:
        base: [B, C, H, W].
        low: [B, C, H/2, W/2].
        high: [B, 3C, H/2, W/2].
        lam: 0-dimensional tensor of any floating dtype; float32 keeps `1 - lam` exact where base is bfloat16.

    Returns:
        [B, C, H, W] in base's dtype.

    Raises:
        UsageError: the bands do not rebuild an image of base's shape.
    """
    detail = idwt(low, high)
    if base.shape != detail.shape:
        raise UsageError(f"fuse: base is {list(base.shape)} but the bands rebuild {list(detail.shape)}; they must be equal")
    return (1 - lam) * base + lam * detail


def _check_floating(name: str, x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise UsageError(f"{name}: wants a floating [B, C, H, W] tensor, got {x.dtype} {list(x.shape)}")
