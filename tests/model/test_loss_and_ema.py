"""Hinge losses against hand-computed numbers; the EMA."""

import copy

import pytest
import torch

from wavegan_dist.model import Ema, WaveletGenerator, hinge_d, hinge_g
from wavegan_dist.model.ema import TensorLists


def test_hinge_losses_equal_hand_computed_numbers():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.5])
    assert hinge_d(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2.5) / 3)
    assert hinge_g(fake).item() == pytest.approx(0.5)


def test_hinge_losses_are_float32_whatever_the_logits():
    logits = torch.zeros(4, dtype=torch.bfloat16)
    assert hinge_d(logits, logits).dtype == hinge_g(logits).dtype == torch.float32


def test_the_contribution_of_a_weight_halves_after_the_half_life():
    module = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(module.weight)
    ema = Ema(module, half_life=1000, rampup=0)
    torch.nn.init.zeros_(module.weight)
    for nimg in range(100, 1001, 100):
        ema.update(TensorLists.of(module), nimg, batch_size=100)
    assert ema.module.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_the_half_life_grows_with_the_run():
    module = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(module.weight)
    ema = Ema(module, half_life=1e9, rampup=0.05)
    torch.nn.init.zeros_(module.weight)
    ema.update(TensorLists.of(module), nimg=2000, batch_size=100)  # half-life 100 images: one batch halves it
    assert ema.module.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_buffers_are_averaged_and_the_average_is_never_trained():
    generator = WaveletGenerator(32, 8, width=4)
    ema = Ema(generator, half_life=100, rampup=0)
    before = copy.deepcopy(ema.module.state_dict())
    generator(torch.randn(4, 8))
    ema.update(TensorLists.of(generator), 100, batch_size=100)
    name = "base.2.running_mean"
    torch.testing.assert_close(ema.module.state_dict()[name], (before[name] + generator.state_dict()[name]) / 2)
    assert ema.module.state_dict()["base.2.num_batches_tracked"].item() == 1
    assert not ema.module.training
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
