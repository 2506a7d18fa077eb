"""The H100 hardware file, and a small experiment."""

from typing import Any

import pytest
import yaml

from wavegan_dist.config import Experiment, parse
from wavegan_dist.plan import Hardware, load_hardware
from wavegan_dist.plan.hardware import FOLDERS

H100 = next(folder / "h100.yaml" for folder in FOLDERS if (folder / "h100.yaml").exists())


@pytest.fixture(scope="session")
def rates() -> dict[str, Any]:
    """The content of the H100 hardware file, nodes of 8 GPUs."""
    return dict(yaml.safe_load(H100.read_text()))


@pytest.fixture(scope="session")
def hardware() -> Hardware:
    return load_hardware(str(H100))


@pytest.fixture
def experiment() -> Experiment:
    tree = {"data": {"index": "none"}, "model": {"resolution": 32, "width": 8, "z_dim": 16}, "train": {"batch_size": 256}}
    return parse(tree, "tests")
