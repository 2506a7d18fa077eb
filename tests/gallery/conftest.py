"""Real photographs as training data, a generator, and runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.gallery.helpers import GRAY, add_grids, make_run
from tests.helpers import Command
from wavegan_dist.data import Index, write_shards
from wavegan_dist.images import save_png


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """60 images of 32 px: blobs of random colors and sizes; one is uniformly gray."""
    folder, draws = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    y, x = np.mgrid[:32, :32]
    for number in range(60):
        image = np.zeros((32, 32, 3)) + draws.uniform(0, 255, 3)
        for _ in range(4):
            center, radius, color = draws.uniform(0, 32, 2), draws.uniform(3, 12), draws.uniform(0, 255, 3)
            image[(y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2] = color
        pixels = torch.from_numpy(image.astype(np.uint8))
        save_png(torch.full_like(pixels, GRAY) if number == 41 else pixels, folder / "images" / f"{number:03d}.png")
    return write_shards(folder / "images", folder / "shards", 32, progress=False)


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of an untrained generator with three grids, whose widths are 32, 40 and 48."""
    return add_grids(make_run(tmp_path_factory.mktemp("runs") / "made"), {0: 32, 1500: 40, 2000: 48})


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory, wavegan: Command, config: Path) -> Path:
    """The folder of a run that was trained for ten steps, with grids and snapshots of 0, 0.16 and 0.32 kimg."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    outcome = wavegan("train", "--config", config, "--run-dir", folder, "data.horizontal_flip=false")
    assert outcome.returncode == 0, outcome.stderr
    return folder
