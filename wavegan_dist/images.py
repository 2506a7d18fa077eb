"""Pictures: between uint8 pixels and the model's [-1, 1], and out to PNG."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wavegan_dist.files import atomic_file


def from_uint8(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1], any shape."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floating, nominally [-1, 1], any shape -> uint8, clamped and rounded to nearest: the inverse of `from_uint8`."""
    return ((images.float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Write uint8 [B, 3, H, W] as one PNG, row by row; what is left of the last row is black."""
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    cells = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    cells[:batch] = images.cpu()
    grid = cells.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    save_png(grid.reshape(rows * height, columns * width, channels), path)


def save_png(image_hwc: Tensor, path: Path) -> None:
    """Write uint8 [H, W, 3] as a PNG."""
    with atomic_file(path, "wb") as file:
        Image.fromarray(image_hwc.cpu().numpy()).save(file, format="PNG")
