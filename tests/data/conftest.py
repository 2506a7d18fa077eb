"""Datasets whose pixels encode the number of each image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from wavegan_dist.data import Index, write_shards

Numbers = list[int]


@pytest.fixture(scope="session")
def numbered_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 96 pictures of 32 px whose red value is the number of the picture (see `numbers`)."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(96):
        color = (number, 255 - number, 7)
        Image.new("RGB", (32, 32), color).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def numbered(numbered_pictures: Path, tmp_path: Path) -> Index:
    """The numbered pictures in 8 shards of 12; a copy for each test, which may damage it."""
    return write_shards(numbered_pictures, tmp_path / "numbered", 32, progress=False)


@pytest.fixture(scope="session")
def numbers() -> Callable[[Tensor], Numbers]:
    """Function that reads the numbers of the pictures in a batch."""

    def read(batch_bchw: Tensor) -> Numbers:
        assert (batch_bchw == batch_bchw[:, :, :1, :1]).all()
        assert (batch_bchw[:, 0].int() + batch_bchw[:, 1].int() == 255).all()
        return batch_bchw[:, 0, 0, 0].tolist()

    return read


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder and subfolder with three pictures of 96 x 64 px, each half noise and half black."""
    folder = tmp_path_factory.mktemp("mixed")
    draws = np.random.default_rng(0)
    for name in ("one.png", "two.bmp", "deeper/three.png"):
        pixels = np.zeros((64, 96, 3), dtype=np.uint8)
        pixels[:, 48:] = draws.integers(0, 256, (64, 48, 3))
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder
