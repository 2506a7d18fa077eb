"""What the transform takes, checked before memory is touched; the C++ kernels have the same checks in `cpu/tensors.h`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wavegan_dist.errors import UsageError


def check_dwt(x_bchw: Tensor) -> None:
    """Raise UsageError unless this is a floating image of even sides."""
    _check_floating("dwt", x_bchw)
    _check_even("dwt", x_bchw)


def check_levels(x_bchw: Tensor, levels: int) -> None:
    """Raise UsageError unless this is a floating image whose sides can be halved `levels` times."""
    _check_floating("wavedec", x_bchw)
    height, width = x_bchw.shape[-2:]
    if levels < 1 or height % 2**levels or width % 2**levels:
        raise UsageError(f"wavedec: {levels} levels of an image of {height}x{width}; each level, 1 or more, halves even sides")


def check_idwt(low: Tensor, high: Tensor, name: str = "idwt") -> None:
    """Raise UsageError unless these are the bands of one image."""
    _check_floating(name, low)
    batch, channels, height, width = low.shape
    if high.shape != (batch, 3 * channels, height, width):
        wanted = [batch, 3 * channels, height, width]
        raise UsageError(f"{name}: low {list(low.shape)} needs high {wanted}, got {list(high.shape)}")
    _check_alike(name, "low", low, "high", high)


def check_fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> None:
    """Raise UsageError unless the bands rebuild an image like base and lam is a scalar."""
    check_idwt(low, high, "fuse")
    batch, channels, height, width = low.shape
    if base.shape != (batch, channels, 2 * height, 2 * width):
        rebuilt = [batch, channels, 2 * height, 2 * width]
        raise UsageError(f"fuse: base is {list(base.shape)} but the bands rebuild {rebuilt}; they must be equal")
    _check_alike("fuse", "base", base, "low", low)
    if lam.dim() or not lam.is_floating_point() or lam.device != base.device:
        got = f"{lam.dtype} {list(lam.shape)} on {lam.device}"
        raise UsageError(f"fuse: lam wants a floating scalar on {base.device}, got {got}; move or cast it")


def check_analyse(images_bchw: Tensor, band_std: Sequence[float]) -> None:
    """Raise UsageError unless these are uint8 images of even sides and four positive deviations."""
    if images_bchw.dim() != 4 or images_bchw.dtype != torch.uint8 or images_bchw.layout != torch.strided:
        raise UsageError(f"analyse: wants a uint8 [B, C, H, W] tensor, got {images_bchw.dtype} {list(images_bchw.shape)}")
    _check_even("analyse", images_bchw)
    if len(band_std) != 4 or not all(std > 0 for std in band_std):
        raise UsageError(f"analyse: wants four positive standard deviations (low, LH, HL, HH), got {list(band_std)}")


def _check_floating(name: str, x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point() or x.layout != torch.strided:
        raise UsageError(f"{name}: wants a floating [B, C, H, W] tensor, got {x.dtype} {list(x.shape)}")


def _check_even(name: str, x: Tensor) -> None:
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        raise UsageError(f"{name}: height and width must be even, got {height}x{width}; crop or pad the image")


def _check_alike(name: str, first: str, a: Tensor, second: str, b: Tensor) -> None:
    if a.dtype != b.dtype or a.device != b.device or a.layout != b.layout:
        raise UsageError(f"{name}: {first} is {a.dtype} on {a.device}, {second} is {b.dtype} on {b.device}; make them equal")
