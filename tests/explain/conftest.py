"""A short training run with snapshots and checkpoints, and fewer images to measure."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Command


@pytest.fixture(scope="package")
def few_images() -> Iterator[None]:
    """Measure 32 images instead of 256."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wavegan_dist.explain.measure.STATISTICS_IMAGES", 32)
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, wavegan: Command, config: Path) -> Path:
    """The folder of a run of a two-level model, with snapshots and checkpoints at 0, 160 and 320 images."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    outcome = wavegan("train", "--config", config, "--run-dir", folder, "model.levels=2", "model.band_scale=data")
    assert outcome.returncode == 0, outcome.stderr
    return folder
