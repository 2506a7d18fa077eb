"""Snapshots of generators of several kinds, and their exported files."""

from pathlib import Path

import pytest
import torch

from wavegan_dist.config import Experiment
from wavegan_dist.export.export import export
from wavegan_dist.export.formats import find_formats
from wavegan_dist.export.program import generator_inputs
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import Snapshot, load_snapshot, save_snapshot
from wavegan_dist.classes import Classes

MODELS = {
    "dcgan": {},
    "dcgan-classes": {"num_classes": 3, "levels": 2, "lam": "sigmoid", "norm": "none", "attention": "dot"},
    "residual": {"backbone": "residual", "num_classes": 3, "levels": 3, "resolution": 64, "width": 4},
    "residual-haar": {"backbone": "residual", "resample": "haar", "levels": 2, "attention": "dot", "lam": "clamp"},
    "base-only": {"base_only": True, "attention": "none"},
}


def save_trained(folder: Path, model: dict[str, object]) -> Path:
    """Write a snapshot whose every parameter and running statistic differs from its initial value, as after training."""
    settings = {"width": 8, "z_dim": 16, "resolution": 32, **model}
    config = Experiment.model_validate({"data": {"index": "x"}, "model": settings})
    torch.manual_seed(0)
    generator = build_generator(config)
    with torch.no_grad():
        for weight in generator.parameters():
            fan_in = max(weight[0].numel(), 16) if weight.dim() else 16
            weight.add_(torch.rand_like(weight) - 0.5, alpha=2 * fan_in**-0.5)
        if generator.low is not None:
            generator.lam.fill_(0.4)
        for _ in range(20):  # running statistics of the batch norms
            generator(*generator_inputs(generator, torch.randn(32, generator.z_dim)))
    classes = Classes(["a", "b", "c"], [2, 1, 1]) if config.model.num_classes else None
    weights = generator.state_dict()
    save_snapshot(folder, weights, weights.items(), config, 2000, "1" * 64, classes=classes)
    return folder


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
