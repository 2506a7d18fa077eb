"""Sample grids of each configuration from the same latents."""

from collections.abc import Sequence
from pathlib import Path

import torch

from wavegan_dist.compare.groups import RunGroup
from wavegan_dist.evaluate.generate import generated_images
from wavegan_dist.images import save_grid

COUNT, COLUMNS = 32, 8


def draw_samples(groups: Sequence[RunGroup], out: Path) -> dict[str, Path]:
    """Draw images 0..31 of seed 0 from the newest snapshot of the first run with a snapshot, for each group.

    Args:
        groups: the runs, grouped by configuration.
        out: folder of the PNG files.

    Returns:
        Caption to PNG file; groups without a snapshot are left out.
    """
    grids: dict[str, Path] = {}
    for number, group in enumerate(groups):
        snapshot = next((run.snapshot for run in group.runs if run.snapshot is not None), None)
        if snapshot is None:
            continue
        generator = snapshot.generator
        images = torch.cat(list(generated_images(generator, range(COUNT), 0, COUNT, generator.z_dim)))
        path = out / f"samples-{number}.png"
        save_grid(images, path, COLUMNS)
        grids[f"{group.label}, {snapshot.nimg / 1000:g} kimg, z of {generator.z_dim}"] = path
    return grids
