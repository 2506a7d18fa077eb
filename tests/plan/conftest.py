"""The H100 hardware file, and a small experiment."""

from typing import Any

import pytest
import yaml

from wavegan_dist.config import Experiment, parse
from wavegan_dist.launcher_files import PACKAGED
from wavegan_dist.plan import Hardware, load_hardware

H100 = PACKAGED / "hardware" / "h100.yaml"


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
