"""What all tests share: small real shards, and commands run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import Command, environment
from wavegan_dist.data import Index, write_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Folder of 8 shards of 32 px: 512 patches of photograph-like noise."""
    folder = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for number in range(8):
        coarse = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((288, 288), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    out = tmp_path_factory.mktemp("shards") / "set"
    write_shards(str(folder), out, 32, patches=True)
    return out


@pytest.fixture(scope="session")
def index(shards) -> Index:
    return Index.load(shards)


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> str:
    """URI of an MLflow store that all tests of a session share: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def config(tmp_path_factory, shards, store) -> Path:
    """A config of a model so small that a step takes milliseconds."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        f"data: {{index: {shards}/index.json, workers: 0}}\n"
        "model: {resolution: 32, z_dim: 8, width: 4}\n"
        "train: {batch_size: 32, total_kimg: 0.32, snapshot_kimg: 0.16, checkpoint_kimg: 0.16, report_kimg: 0.064}\n"
        f"tracking: {{uri: '{store}'}}\n"
    )
    return path


@pytest.fixture(scope="session")
def wavegan() -> Command:
    """Runs `wavegan ARGUMENTS` in a process of its own."""

    def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, **settings)

    return run
