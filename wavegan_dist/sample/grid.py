"""A grid of images in one PNG file."""

import math
from pathlib import Path

import torch

from wavegan_dist.images import save_grid
from wavegan_dist.sample.images import Images
from wavegan_dist.sample.workers import Workers


def write_grid(workers: Workers, images: Images, out: Path, rows: int) -> None:
    """Write images that take turns in `rows` classes: a row for each class, or a square for one."""
    grid = torch.cat(list(workers.results(images, images.batches(), lambda numbers, batch: batch)))
    columns = math.ceil(math.sqrt(len(grid))) if rows == 1 else math.ceil(len(grid) / rows)
    if rows > 1:
        blank = grid.new_zeros(rows * columns - len(grid), *grid.shape[1:])
        grid = torch.cat((grid, blank)).unflatten(0, (columns, rows)).transpose(0, 1).flatten(0, 1)
    save_grid(grid, out, columns)
