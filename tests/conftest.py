"""Fixtures of all tests: a small set of shards, a config of a tiny model, and the `wavegan` command."""

import signal
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.forked import ForkedProgram
from tests.helpers import PATIENCE, Command, environment
from wavegan_dist.data import Index, write_shards

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores SIGINT, and so do its programs


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A folder of 8 shards with 512 patches of smooth noise, 32 px."""
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
    """URI of an MLflow database that all tests of a session share, because creating its tables takes seconds.

    A sidecar that ended before all tables are there would leave a database that MLflow refuses for ever.
    """
    from mlflow import MlflowClient  # takes seconds, and most tests do not need it

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    MlflowClient(uri).search_experiments()
    return uri


def write_config(folder: Path, shards: Path, tracking: str) -> Path:
    """Write the config file of a model so small that a step takes milliseconds."""
    path = folder / "tiny.yaml"
    path.write_text(
        f"data: {{index: {shards}/index.json, workers: 0}}\n"
        "model: {resolution: 32, z_dim: 8, width: 4}\n"
        "train: {batch_size: 32, total_kimg: 0.32, snapshot_kimg: 0.16, checkpoint_kimg: 0.16, report_kimg: 0.064}\n"
        f"tracking: {tracking}\n"
    )
    return path


@pytest.fixture(scope="session")
def config(tmp_path_factory, shards) -> Path:
    """The config file of a tiny model, without tracking: a sidecar costs seconds."""
    return write_config(tmp_path_factory.mktemp("config"), shards, "{enabled: false}")


@pytest.fixture(scope="session")
def tracked_config(tmp_path_factory, shards, store) -> Path:
    """The same with tracking in `store`."""
    return write_config(tmp_path_factory.mktemp("tracked"), shards, f"{{uri: '{store}'}}")


@pytest.fixture(scope="session")
def wavegan_with() -> Command:
    """Run `wavegan ARGUMENTS` in a new process with additional environment variables, the first argument."""

    def run(variables: dict[str, str], *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = ("-m", "wavegan_dist", *arguments)
        return ForkedProgram(command, environment(**variables), cwd).finish(PATIENCE)

    return run


@pytest.fixture(scope="session")
def wavegan(wavegan_with: Command) -> Command:
    """Run `wavegan ARGUMENTS` in a new process, in the working directory `cwd`."""
    return partial(wavegan_with, {})
