"""The three generators and lam."""

from typing import Any

import pytest
import torch
from torch import nn

from wavegan_dist.errors import UsageError
from wavegan_dist.model import WaveletDiscriminator, WaveletGenerator, hinge_g
from wavegan_dist.wavelet import idwt

SMALL: dict[str, Any] = {"resolution": 32, "z_dim": 8, "width": 8}


def latents(count: int = 4, z_dim: int = 8) -> torch.Tensor:
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(0))


def components(generator: WaveletGenerator, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    base, low, (high,) = generator.components(z)
    assert low is not None
    return base, low, high


def g_loss(generator: WaveletGenerator, discriminator: WaveletDiscriminator) -> torch.Tensor:
    return torch.stack([hinge_g(logits) for logits in discriminator(generator(latents())).values()]).sum()


def gradients(generator: WaveletGenerator, network: str) -> dict[str, torch.Tensor]:
    """Gradients of one network, by parameter name."""
    parameters = generator.get_submodule(network).named_parameters()
    return {name: parameter.grad for name, parameter in parameters if parameter.grad is not None}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("resolution", [32, 64, 256])
@pytest.mark.parametrize("attention", ["max", "dot", "none"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_shapes_at_every_resolution(resolution, attention, norm):
    generator = WaveletGenerator(resolution, z_dim=10, z_low=3, width=4, attention=attention, norm=norm)
    base, low, high = components(generator, latents(2, 10))
    half = resolution // 2
    assert base.shape == (2, 3, resolution, resolution)
    assert low.shape == (2, 3, half, half)
    assert high.shape == (2, 9, half, half)
    assert generator(latents(2, 10)).shape == base.shape


def test_low_sees_the_first_k_of_the_latent_and_high_the_rest():
    generator = WaveletGenerator(**SMALL, z_low=3).eval()
    z, other = latents(), latents()
    other[:, :3] += 1
    (_, low, high), (_, other_low, other_high) = components(generator, z), components(generator, other)
    assert not torch.equal(low, other_low)
    assert torch.equal(high, other_high)


def test_output_is_the_blend_of_its_components():
    generator = WaveletGenerator(**SMALL).eval()
    with torch.no_grad():
        generator.lam.fill_(0.25)
    base, low, high = components(generator, latents())
    torch.testing.assert_close(generator(latents()), 0.75 * base + 0.25 * idwt(low, high))


def test_at_lam_0_the_branches_get_exactly_no_gradient_and_lam_gets_one():
    generator, discriminator = WaveletGenerator(**SMALL), WaveletDiscriminator(32, 8)
    assert generator.lam.item() == 0
    g_loss(generator, discriminator).backward()
    for branch in ("low", "high"):
        assert gradients(generator, branch).keys() == dict(generator.get_submodule(branch).named_parameters()).keys()
        assert all(gradient.count_nonzero() == 0 for gradient in gradients(generator, branch).values())
    assert generator.lam.grad is not None
    assert generator.lam.grad.item() != 0
    assert all(gradient.count_nonzero() > 0 for name, gradient in gradients(generator, "base").items() if "0.weight" in name)


def test_lam_leaves_0_in_one_step_and_the_branches_then_learn():
    generator, discriminator = WaveletGenerator(**SMALL), WaveletDiscriminator(32, 8)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        g_loss(generator, discriminator).backward()
        optimizer.step()
        assert generator.lam.item() != 0
    for branch in ("low", "high"):
        assert any(gradient.count_nonzero() > 0 for gradient in gradients(generator, branch).values())


def test_lam_forms_bound_the_effective_lam():
    free, clamp, sigmoid = (WaveletGenerator(**SMALL, lam=form) for form in ("free", "clamp", "sigmoid"))
    for generator in (free, clamp, sigmoid):
        with torch.no_grad():
            generator.lam.fill_(1.5)
    assert free.effective_lam().item() == 1.5
    # The trainer clamps these parameters after each optimizer step.
    assert [generator.clamped_parameters() for generator in (free, clamp, sigmoid)] == [[], ["lam"], []]
    assert 0 < sigmoid.effective_lam().item() < 1
    assert WaveletGenerator(**SMALL, lam="clamp").effective_lam().item() == 0
    assert WaveletGenerator(**SMALL, lam="sigmoid").effective_lam().item() < 0.02


def test_base_only_has_no_branches_and_no_lam():
    generator = WaveletGenerator(**SMALL, base_only=True).eval()
    assert not any(name.startswith(("low", "high", "lam")) for name in generator.state_dict())
    torch.testing.assert_close(generator(latents()), generator.base(latents())[0])
    assert generator.effective_lam().item() == 0


def test_norm_none_has_no_batch_norm():
    assert any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in WaveletGenerator(**SMALL).modules())
    without = WaveletGenerator(**SMALL, norm="none").modules()
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in without)


@pytest.mark.parametrize("k", [0, 8, 9, -1])
def test_an_empty_half_of_the_latent_is_refused(k):
    with pytest.raises(UsageError, match=r"1\.\.7"):
        WaveletGenerator(**SMALL, z_low=k)


@pytest.mark.parametrize("resolution", [0, 16, 48, 2048])
def test_other_resolutions_are_refused(resolution):
    with pytest.raises(UsageError, match="power of two"):
        WaveletGenerator(resolution)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"backbone": "resnet"}, "backbone = 'resnet': input should be 'dcgan' or 'residual'"),
        ({"resample": "bicubic"}, "resample = 'bicubic': input should be 'bilinear' or 'haar'"),
        ({"attention": "maximum"}, "attention = 'maximum': input should be 'max', 'dot' or 'none'"),
        ({"norm": "Batch"}, "norm = 'Batch': input should be 'batch' or 'none'"),
        ({"lam": "clmap"}, "lam = 'clmap': input should be 'free', 'clamp' or 'sigmoid'"),
        ({"width": 0}, "width = 0: input should be greater than 0"),
        ({"num_classes": -1}, "num_classes = -1: input should be greater than or equal to 0"),
        ({"z_dim": 4.0}, "z_dim = 4.0: input should be a valid integer"),
        ({"resolution": 32.0}, "resolution = 32.0: input should be a valid integer"),
    ],
)
def test_arguments_that_are_no_choice_or_of_another_type_are_refused(argument, words):
    with pytest.raises(UsageError) as refusal:
        WaveletGenerator(**argument)
    assert str(refusal.value) == words


def test_latents_of_another_size_are_refused():
    with pytest.raises(UsageError, match=r"\[B, 8\]"):
        WaveletGenerator(**SMALL)(latents(2, 9))
