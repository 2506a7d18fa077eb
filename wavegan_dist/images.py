"""Conversion between uint8 pixels and the model's range [-1, 1], and PNG files."""

from pathlib import Path

import torch
from imagecodecs import PNG, png_encode
from torch import Tensor

from wavegan_dist.files import atomic_file

DEFAULT_GRID_PIXELS = 2**24  # most pixels of a grid whose number of images nobody chose: 64 images of 512 px, 16 of 1024 px


def images_in_grid(count: int, size: int) -> int:
    """Return `count`, or the number of images of `size` x `size` pixels that fit into DEFAULT_GRID_PIXELS if that is less."""
    return min(count, DEFAULT_GRID_PIXELS // size**2)


def from_uint8(images: Tensor) -> Tensor:
    """Convert uint8 0..255 to float32 [-1, 1], any shape."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Convert floating [-1, 1], any shape, to uint8: clamped, rounded to nearest, the inverse of `from_uint8`."""
    return ((images.float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Write uint8 [B, 3, H, W] as one PNG grid, row by row; unused cells of the last row are black."""
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    cells = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    cells[:batch] = images.cpu()
    grid = cells.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    save_png(grid.reshape(rows * height, columns * width, channels), path)


def save_png(image_hwc: Tensor, path: Path) -> None:
    """Write uint8 [H, W, 3] as a PNG file, atomically."""
    with atomic_file(path, "wb") as file:
        file.write(encode_png(image_hwc.permute(2, 0, 1)))


def encode_png(image_chw: Tensor) -> bytes:
    """Encode uint8 [3, H, W] as PNG. Releases Python's global lock.

    Takes a third of the time of Pillow's default or less, for the same number of bytes (benchmarks/README.md, sample).
    """
    pixels = image_chw.permute(1, 2, 0).cpu().contiguous().numpy()
    return bytes(png_encode(pixels, level=1, strategy=PNG.STRATEGY.RLE, filter=PNG.FILTER.PAETH))
