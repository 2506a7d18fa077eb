"""Conversion between uint8 pixels and the model's range [-1, 1], and PNG files."""

from pathlib import Path

import torch
from imagecodecs import PNG, png_encode
from torch import Tensor

from wavegan_dist.files import atomic_file

DEFAULT_GRID_PIXELS = 2**24  # most pixels of a grid whose number of images nobody chose: 64 images of 512 px, 16 of 1024 px


def images_in_grid(count: int, size: int) -> int:
    """Return `count`, but at most the number of images of `size` x `size` pixels in 2**24 pixels (DEFAULT_GRID_PIXELS)."""
    return min(count, DEFAULT_GRID_PIXELS // size**2)


def from_uint8(images: Tensor) -> Tensor:
    """Convert uint8 0..255 to float32 [-1, 1], of any shape and on the same device."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Convert floating [-1, 1], of any shape, to uint8 on the same device: clamped, rounded; the inverse of `from_uint8`."""
    return ((images.float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Write uint8 [B, 3, H, W], B >= 1, on any device, as one PNG grid, atomically.

    The images fill the grid row by row, `columns` in each, without gaps. The unused cells of the last row are black, also if it
    is the only row. Creates the parent folders.
    """
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    cells = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    cells[:batch] = images.cpu()
    grid = cells.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    save_png(grid.reshape(rows * height, columns * width, channels), path)


def save_png(image_hwc: Tensor, path: Path) -> None:
    """Write uint8 [H, W, 3], on any device, as a PNG file, atomically. Creates the parent folders."""
    with atomic_file(path, "wb") as file:
        file.write(encode_png(image_hwc.permute(2, 0, 1)))


def encode_png(image_chw: Tensor) -> bytes:
    """Encode uint8 [3, H, W], on any device, as PNG. The encoder releases Python's global interpreter lock (GIL).

    It takes a third of the time of Pillow's default or less, for the same number of bytes (benchmarks/README.md, sample).
    """
    pixels = image_chw.permute(1, 2, 0).cpu().contiguous().numpy()
    return bytes(png_encode(pixels, level=1, strategy=PNG.STRATEGY.RLE, filter=PNG.FILTER.PAETH))
