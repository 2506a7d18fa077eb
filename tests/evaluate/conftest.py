"""Patches of real photographs, and a cache that belongs to these tests alone."""

from collections.abc import Iterator

import pytest
from torch import Tensor

from tests.evaluate.degradations import patches
from tests.helpers import fresh_cache


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", fresh_cache(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """uint8 [600, 3, 32, 32]: patches of five photographs in a fixed random order."""
    return patches(stride=32)[:600]
