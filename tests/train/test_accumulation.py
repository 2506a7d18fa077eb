"""Gradient accumulation: a step of several micro-batches equals a step on the full batch."""

import pytest

from tests.train.tiny import make_trainer, random_batches


def first_step(accumulation: int) -> dict[str, float]:
    """Return losses and gradient norms of a step without batch norm and with spectral norm in eval mode."""
    trainer = make_trainer({"norm": "none"}, {"accumulation": accumulation})
    trainer.discriminator.module.eval()
    trainer.step(random_batches())
    return trainer.metrics.drain()


def test_micro_batches_have_the_losses_and_gradients_of_the_full_batch():
    full = first_step(1)
    assert full["grad_norm/d"] > 0.1
    for accumulation in (2, 4):
        assert first_step(accumulation) == pytest.approx(full, rel=1e-4, abs=1e-6)
