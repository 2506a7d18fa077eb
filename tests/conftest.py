"""What all tests share: small real shards, and commands run as a user runs them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wavegan_dist.data import Index, write_shards
from wavegan_dist.wavelet.cpu.build import library

KERNELS = library().parent  # of this user, whatever a test makes of XDG_CACHE_HOME
Command = Callable[..., subprocess.CompletedProcess[str]]


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


def environment(**more: str) -> dict[str, str]:
    """This process's environment without a launcher's or a tracking server's variables."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "ACCELERATE_", "MLFLOW_TRACKING")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launcher)}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def fresh_cache(folder: Path) -> str:
    """An XDG_CACHE_HOME with the compiled kernels, which take half a minute to build, and nothing else."""
    (folder / "wavegan").mkdir(parents=True, exist_ok=True)
    KERNELS.mkdir(parents=True, exist_ok=True)
    if not (folder / "wavegan" / "kernels").exists():
        (folder / "wavegan" / "kernels").symlink_to(KERNELS)
    return str(folder)
