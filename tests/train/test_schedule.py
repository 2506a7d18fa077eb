"""Learning rates by images: their values, and that both optimizers get them."""

import math

import pytest

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.config import OptimConfig
from wavegan_dist.train.engine import DdpEngine
from wavegan_dist.train.schedule import lr_factor

COSINE = {"lr_decay": "cosine", "lr_decay_kimg": 100, "lr_final": 0.1}


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({}, {64: 1, 10**9: 1}),
        ({"lr_warmup_kimg": 10}, {64: 0.0064, 5_000: 0.5, 10_000: 1, 10_064: 1}),
        (COSINE, {0: 1, 25_000: 0.1 + 0.45 * (1 + math.sqrt(0.5)), 50_000: 0.55, 100_000: 0.1, 200_000: 0.1}),
        ({**COSINE, "lr_final": 0}, {50_000: 0.5, 100_000: 0, 100_064: 0}),
        ({**COSINE, "lr_warmup_kimg": 100}, {50_000: 0.5 * 0.55, 100_000: 0.1}),
    ],
)
def test_the_factor_at_an_image_number(settings, factors):
    optim = OptimConfig(**settings)
    assert {nimg: lr_factor(optim, nimg) for nimg in factors} == pytest.approx(factors)


def test_each_step_uses_the_rate_at_its_end_in_both_optimizers():
    optim = {"lr_g": 1e-3, "lr_d": 2e-3, "lr_warmup_kimg": 0.016, "lr_decay": "cosine", "lr_decay_kimg": 0.032}
    trainer = make_trainer({}, {}, optim=optim)
    batches, rates = random_batches(), []
    for _ in range(5):
        trainer.step(batches)
        rates.append([engine.optimizer.param_groups[0]["lr"] for engine in trainer.engines if isinstance(engine, DdpEngine)])
    factors = [0.5 * (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(math.pi * 3 / 4)) / 2, 0, 0]
    assert rates == [pytest.approx((1e-3 * factor, 2e-3 * factor)) for factor in factors]
    assert trainer.learning_rates(16) == pytest.approx((5e-4, 1e-3))


def test_a_rate_of_0_changes_no_weight():
    trainer = make_trainer({}, {}, optim={"lr_decay": "cosine", "lr_decay_kimg": 0.001})
    before = [value.clone() for engine in trainer.engines for value in engine.module.parameters()]
    trainer.step(random_batches())
    after = [value for engine in trainer.engines for value in engine.module.parameters()]
    assert all(map(lambda one, other: one.equal(other), before, after))
