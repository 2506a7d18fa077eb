"""A snapshot of an untrained generator."""

from pathlib import Path

import pytest

from tests.evaluate.helpers import make_snapshot
from wavegan_dist.model.snapshot import Snapshot, load_snapshot


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a snapshot that makes images of 32 px from latents of 16 components."""
    return make_snapshot(tmp_path_factory.mktemp("run") / "kimg-000002", 32)


@pytest.fixture(scope="module")
def loaded(snapshot: Path) -> Snapshot:
    """The same, loaded."""
    return load_snapshot(snapshot)
