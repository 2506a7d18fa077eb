"""Patches of real photographs, a snapshot, and a cache that belongs to these tests alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from tests.evaluate.degradations import patches
from tests.evaluate.helpers import make_snapshot
from tests.helpers import fresh_cache
from wavegan_dist.data import write_shards
from wavegan_dist.images import save_png


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", fresh_cache(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """uint8 [600, 3, 32, 32]: patches of five photographs in a fixed random order."""
    return patches(stride=32)[:600]


@pytest.fixture(scope="session")
def data(photos: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index.json of the 600 patches."""
    folder = tmp_path_factory.mktemp("data")
    for number, photo in enumerate(photos):
        save_png(photo.permute(1, 2, 0), folder / "photos" / f"{number:06d}.png")
    write_shards(folder / "photos", folder / "shards", 32, progress=False)
    return folder / "shards" / "index.json"


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a snapshot that makes images of 32 px."""
    return make_snapshot(tmp_path_factory.mktemp("run") / "kimg-000002", 32)
