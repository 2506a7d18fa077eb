"""Sample grids of each configuration from the same latents."""

from collections.abc import Sequence
from pathlib import Path

import torch

from wavegan_dist.compare.groups import RunGroup
from wavegan_dist.images import images_in_grid, save_grid
from wavegan_dist.model.snapshot import snapshot_images

COUNT, COLUMNS = 32, 8


def draw_samples(groups: Sequence[RunGroup], out: Path) -> dict[str, Path]:
    """Draw images 0..31 of seed 0 (0..15 at 1024 px) from the newest snapshot of each group's first run that has a snapshot.

    Computes on the CPU.

    Args:
        groups: the runs, grouped by configuration.
        out: folder of the PNG files.

    Returns:
        Caption to PNG file; groups without a snapshot are left out.

    Raises:
        WaveganError: an image is not finite.
        OSError: a file cannot be written.
    """
    grids: dict[str, Path] = {}
    for number, group in enumerate(groups):
        snapshot = next((run.snapshot for run in group.runs if run.snapshot is not None), None)
        if snapshot is None:
            continue
        count = images_in_grid(COUNT, snapshot.config.model.resolution)
        images = torch.cat(list(snapshot_images(snapshot, range(count), 0, count)))
        path = out / f"samples-{number}.png"
        save_grid(images, path, COLUMNS)
        grids[f"{group.label}, {snapshot.nimg / 1000:g} kimg, z of {snapshot.generator.z_dim}"] = path
    return grids
