"""A short training run with snapshots and checkpoints."""

from pathlib import Path

import pytest

from tests.helpers import Command


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, wavegan: Command, config: Path) -> Path:
    """The folder of a run of a two-level model, with snapshots and checkpoints at 0, 160 and 320 images."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    outcome = wavegan("train", "--config", config, "--run-dir", folder, "model.levels=2", "model.band_scale=data")
    assert outcome.returncode == 0, outcome.stderr
    return folder
