"""Small generators of several kinds, with weights as after training."""

from pathlib import Path

import torch

from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment
from wavegan_dist.export.program import generator_inputs
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot

# Together: every backbone, resampling, attention and form of lam, one to three levels, classes, and no bands at all.
MODELS: dict[str, dict[str, object]] = {
    "dcgan": {},
    "dcgan-classes": {"num_classes": 3, "levels": 3, "resolution": 64, "width": 4, "lam": "sigmoid", "norm": "none"},
    "residual-base": {"backbone": "residual", "num_classes": 3, "base_only": True},
    "residual-haar": {"backbone": "residual", "resample": "haar", "levels": 2, "attention": "dot", "lam": "clamp"},
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
    classes = Classes([2, 1, 1], ["a", "b", "c"]) if config.model.num_classes else None
    weights = generator.state_dict()
    save_snapshot(folder, weights, weights.items(), config, 2000, "1" * 64, classes=classes)
    return folder
