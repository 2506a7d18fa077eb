"""A grid of images in one PNG file."""

import math
from pathlib import Path

import torch

from wavegan_dist.images import save_grid
from wavegan_dist.sample.images import Images
from wavegan_dist.sample.workers import Workers


def write_grid(workers: Workers, images: Images, out: Path, rows: int) -> None:
    """Write all images as one PNG file. The images are in memory together.

    Args:
        workers: the threads.
        images: the images.
        out: the .png file, which is replaced.
        rows: number of classes that the images take turns in, at most the number of images. Image i is in row i % rows, so that
            each row is a class. 1: the grid is nearly a square, filled row by row. Cells without an image are black.

    Raises:
        WaveganError: an image is not finite.
        OSError: the file cannot be written.
    """
    grid = torch.cat(list(workers.results(images, images.batches(), lambda numbers, batch: batch)))
    columns = math.ceil(math.sqrt(len(grid))) if rows == 1 else math.ceil(len(grid) / rows)
    if rows > 1:
        blank = grid.new_zeros(rows * columns - len(grid), *grid.shape[1:])
        grid = torch.cat((grid, blank)).unflatten(0, (columns, rows)).transpose(0, 1).flatten(0, 1)
    save_grid(grid, out, columns)
