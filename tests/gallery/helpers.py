"""Run folders of untrained generators."""

import math
from pathlib import Path
from typing import Any

import torch

from tests.explain.helpers import make_snapshot
from wavegan_dist.images import save_png
from wavegan_dist.model.snapshot import load_snapshot, save_snapshot
from wavegan_dist.run_folder import RunFolder

GRAY = 200  # of every pixel of the image that the copying generator makes


def make_run(folder: Path, **model: Any) -> Path:
    """Write a run folder with a snapshot of 2 kimg and an older one that is damaged, and return its path."""
    run = RunFolder(folder)
    make_snapshot(run.snapshot(2000), **model)
    run.config.write_bytes((run.snapshot(2000) / "config.yaml").read_bytes())
    run.snapshot(1000).mkdir()
    return folder


def add_grids(folder: Path, widths: dict[int, int]) -> Path:
    """Write a sample grid for each image number, of the given width and random pixels, and return the run folder."""
    draws = torch.Generator().manual_seed(0)
    for nimg, width in widths.items():
        save_png(torch.randint(256, (32, width, 3), generator=draws, dtype=torch.uint8), RunFolder(folder).samples(nimg))
    return folder


def make_copying_run(folder: Path) -> Path:
    """Write a run folder whose generator makes one image only: every pixel is `GRAY`."""
    run = RunFolder(make_run(folder, base_only=True))
    snapshot = load_snapshot(run.snapshot(2000))
    head = list(snapshot.generator.base.children())[-1]
    assert isinstance(head, torch.nn.ConvTranspose2d)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, math.atanh(GRAY / 127.5 - 1))
    tensors = snapshot.generator.state_dict()
    save_snapshot(snapshot.path, tensors, tensors.items(), snapshot.config, snapshot.nimg, snapshot.index_digest)
    return folder
