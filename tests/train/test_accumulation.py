"""Gradient accumulation: a step of several micro-batches equals a step on the full batch."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from wavegan_dist.config import parse
from wavegan_dist.train.trainer import Trainer

BANDS = dict.fromkeys(("low", "lh", "hl", "hh"), 1.0)


def first_step(accumulation: int) -> dict[str, float]:
    """Return losses and gradient norms of a step without batch norm and with spectral norm in eval mode."""
    tree = {"data": {"index": "none"}, "model": {"z_dim": 8, "width": 4, "norm": "none"}}
    tree["train"] = {"batch_size": 8, "accumulation": accumulation}
    index = SimpleNamespace(band_std=SimpleNamespace(model_dump=lambda: BANDS))
    trainer = Trainer(parse(tree, "test"), index, Accelerator(cpu=True))
    trainer.discriminator.module.eval()
    draws = torch.Generator().manual_seed(0)
    trainer.step(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=draws) for _ in itertools.count())
    return trainer.metrics.drain()


def test_micro_batches_have_the_losses_and_gradients_of_the_full_batch():
    full = first_step(1)
    assert full["grad_norm/d"] > 0.1
    for accumulation in (2, 4):
        assert first_step(accumulation) == pytest.approx(full, rel=1e-4, abs=1e-6)
