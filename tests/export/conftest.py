"""Snapshots of generators of several kinds, and their exported files."""

from pathlib import Path

import pytest

from tests.export.models import MODELS, save_trained
from wavegan_dist.export.export import export
from wavegan_dist.export.formats import find_formats
from wavegan_dist.model.snapshot import Snapshot, load_snapshot


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    """A snapshot of each of `MODELS`."""
    folder = tmp_path_factory.mktemp("run")
    return {name: load_snapshot(save_trained(folder / name, model)) for name, model in MODELS.items()}


@pytest.fixture(scope="session")
def exported(snapshots: dict[str, Snapshot], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder with generator.onnx and generator.pt2 of each of `MODELS`."""
    folder = tmp_path_factory.mktemp("exported")
    for name, snapshot in snapshots.items():
        export(snapshot, folder / name, find_formats("onnx,pt2"))
    return {name: folder / name for name in snapshots}
