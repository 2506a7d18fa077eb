"""Snapshots of small generators whose statistics and lam are those of a trained one, in no run or in a run."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment
from wavegan_dist.model import WaveletGenerator
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot

NAMED = Classes([2, 5, 1], ["cat", "dog", "a, b"])
MODELS: dict[str, dict[str, Any]] = {
    "dcgan": {},
    "two levels": {"levels": 2, "attention": "none"},
    "conditional": {"num_classes": 3},
    "residual haar": {"backbone": "residual", "resample": "haar", "lam": "sigmoid"},
    "base only": {"base_only": True, "norm": "none"},
}


def settle(generator: WaveletGenerator) -> WaveletGenerator:
    """Give batch norms the statistics of their inputs, and lam and the gains of classes values: images show all of them."""
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    labels = torch.arange(64) % generator.num_classes if generator.num_classes else None
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        if generator.low is not None:
            generator.lam.fill_(0.4)
        generator(torch.randn(64, generator.z_dim), labels)
    return generator.eval()


def write_snapshot(path: Path, settings: dict[str, Any] | None = None, **model: Any) -> Path:
    """Write a snapshot of a model of 32 px, width 4 and 8 latents, and return its folder."""
    torch.manual_seed(0)
    tree = {"data": {"index": "x"}, "model": {"width": 4, "z_dim": 8} | model, **(settings or {})}
    config = Experiment.model_validate(tree)
    weights = settle(build_generator(config)).state_dict()
    classes = NAMED if config.model.num_classes else None
    save_snapshot(path, weights, weights.items(), config, 2000, "1" * 64, 3.5, classes)
    return path
