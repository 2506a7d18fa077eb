"""Several wavelet levels and classes, in the generator and in the discriminator."""

from typing import Any

import numpy as np
import pytest
import pywt
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from wavegan_dist.errors import UsageError
from wavegan_dist.model import WaveletDiscriminator, WaveletGenerator

SMALL: dict[str, Any] = {"resolution": 64, "z_dim": 8, "width": 4}
LABELS = torch.tensor([0, 1, 2, 2])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def latents(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(0))


def images(count: int = 4, resolution: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("resolution", "levels"), [(32, 1), (32, 2), (64, 3), (128, 4), (256, 5), (512, 6), (1024, 7)])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes_at_the_most_levels_of_every_size(resolution, levels, num_classes):
    with FakeTensorMode():
        options: dict[str, Any] = {"resolution": resolution, "width": 2, "levels": levels, "num_classes": num_classes}
        generator, discriminator = WaveletGenerator(z_dim=8, **options), WaveletDiscriminator(**options)
        z, labels = torch.empty(4, 8), torch.empty(4, dtype=torch.int64) if num_classes else None
        base, low, highs = generator.components(z, labels)
        logits = discriminator(base, labels)
    assert base.shape == (4, 3, resolution, resolution)
    assert low is not None
    assert low.shape == (4, 3, resolution >> levels, resolution >> levels)
    assert [high.shape for high in highs] == [(4, 9, resolution >> n, resolution >> n) for n in range(levels, 0, -1)]
    assert {name: logit.shape for name, logit in logits.items()} == dict.fromkeys(("image", "low", "high"), (4,))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_image_is_the_blend_of_base_and_pywavelets_reconstruction(levels):
    generator = WaveletGenerator(**SMALL, levels=levels).double().eval()
    with torch.no_grad():
        generator.lam.fill_(0.25)
        base, low, highs = generator.components(latents().double())
        image = generator(latents().double())
    assert low is not None
    details = [tuple(band.numpy() for band in high.chunk(3, dim=1)) for high in highs]
    branches = pywt.waverec2([low.numpy(), *details], "haar")
    np.testing.assert_allclose(image.numpy(), 0.75 * base.numpy() + 0.25 * branches, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_discriminators_see_pywavelets_bands(levels):
    image = images().double()
    inputs = WaveletDiscriminator(64, 4, levels=levels).inputs(image)
    low, *details = pywt.wavedec2(image.numpy(), "haar", level=levels)
    np.testing.assert_allclose(inputs["low"][0], low, atol=1e-12)
    for high, bands in zip(inputs["high"], reversed(details), strict=True):
        np.testing.assert_allclose(high, np.concatenate(bands, axis=1), atol=1e-12)


def test_each_level_is_divided_by_its_own_deviations():
    std = [{"low": 2.0 * n, "lh": 0.5 * n, "hl": 0.25 * n, "hh": 0.125 * n} for n in (1, 2)]
    plain = WaveletDiscriminator(64, 4, levels=2).inputs(images())
    scaled = WaveletDiscriminator(64, 4, levels=2, band_std=std).inputs(images())
    torch.testing.assert_close(scaled["low"][0], plain["low"][0] / 4)
    for level, (high, plain_high) in enumerate(zip(scaled["high"], plain["high"], strict=True), start=1):
        divisors = torch.tensor([0.5, 0.25, 0.125]).repeat_interleave(3)[:, None, None] * level
        torch.testing.assert_close(high, plain_high / divisors)


def test_the_high_discriminator_depends_on_every_level():
    discriminator = WaveletDiscriminator(64, 4, levels=3)
    inputs = discriminator.inputs(images())["high"]
    for high in inputs:
        high.requires_grad_()
    gradients = torch.autograd.grad(discriminator.get_submodule("high")(inputs).sum(), inputs)
    assert all(gradient.count_nonzero() > 0 for gradient in gradients)


def test_every_parameter_of_a_conditional_model_with_levels_gets_a_gradient():
    generator = WaveletGenerator(**SMALL, levels=3, num_classes=3)
    discriminator = WaveletDiscriminator(64, 4, levels=3, num_classes=3)
    with torch.no_grad():
        generator.lam.fill_(0.5)
    torch.stack(list(discriminator(generator(latents(), LABELS), LABELS).values())).sum().backward()
    for module in (generator, discriminator):
        assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


def test_one_class_differs_from_another_only_by_the_class_gains_and_biases():
    generator = WaveletGenerator(**SMALL, num_classes=2).eval()
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    assert torch.equal(generator(latents(), zeros), generator(latents(), ones))  # gains 1 and biases 0 at the start
    for name, parameter in generator.named_parameters():
        if name.startswith("base") and "gain" in name:
            nn.init.normal_(parameter)
    assert not torch.allclose(generator(latents(), zeros), generator(latents(), ones))


def test_conditional_batch_norm_is_batch_norm_with_the_gain_and_bias_of_the_class():
    generator = WaveletGenerator(**SMALL, num_classes=3)
    layers = dict(generator.base.named_children())
    affine = layers["3"]
    for parameter in affine.parameters():
        nn.init.normal_(parameter)
    x = layers["1"](layers["0"](latents()))
    result = affine(layers["2"](x), LABELS)
    normalized = F.batch_norm(x, None, None, training=True)
    for number, label in enumerate(LABELS):
        gain, bias = (affine.get_parameter(f"{name}.weight")[label][:, None, None] for name in ("gain", "bias"))
        torch.testing.assert_close(result[number], normalized[number] * gain + bias)


def test_the_projection_notices_swapped_labels():
    """Learns which of two constant images has which class; wrong labels must then lower the logit."""
    discriminator = WaveletDiscriminator(32, 4, num_classes=2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))
    dark, labels = torch.full((8, 3, 32, 32), -0.5), torch.tensor([0, 1] * 4)
    image = torch.where(labels[:, None, None, None] == 1, -dark, dark) + images(8, 32) / 10
    for _ in range(40):
        right, wrong = discriminator(image, labels), discriminator(image, 1 - labels)
        loss = torch.stack([F.relu(1 - right[name]).mean() + F.relu(1 + wrong[name]).mean() for name in ("image", "low")]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name in ("image", "low"):
        right, wrong = discriminator.eval()(image, labels)[name], discriminator(image, 1 - labels)[name]
        assert (right > wrong).all(), name


@pytest.mark.parametrize(("levels", "resolution"), [(0, 32), (3, 32), (-1, 64), (4, 64), (8, 1024)])
def test_too_many_levels_are_refused(levels, resolution):
    for model in (WaveletGenerator, WaveletDiscriminator):
        with pytest.raises(UsageError, match=f"{resolution} px have 1 to"):
            model(resolution, levels=levels)


@pytest.mark.parametrize(
    ("num_classes", "labels"),
    [(0, LABELS), (3, None), (3, LABELS[:2]), (3, LABELS.float()), (3, F.one_hot(LABELS))],
)
def test_missing_unexpected_and_misshapen_labels_are_refused(num_classes, labels):
    generator, discriminator = (
        WaveletGenerator(**SMALL, num_classes=num_classes),
        WaveletDiscriminator(64, 4, num_classes=num_classes),
    )
    with pytest.raises(UsageError, match="label"):
        generator(latents(), labels)
    with pytest.raises(UsageError, match="label"):
        discriminator(images(), labels)


def test_second_derivatives_of_a_conditional_discriminator_with_levels():
    discriminator = WaveletDiscriminator(32, 2, levels=2, num_classes=3).double().eval()
    x = images(2, 32).double().requires_grad_()
    labels = torch.tensor([0, 2])

    def gradient_norm(pixel: torch.Tensor) -> torch.Tensor:
        image = torch.cat((x[:, :, :1, :1] + pixel, x[:, :, :1, 1:]), dim=3)
        image = torch.cat((image, x[:, :, 1:]), dim=2)
        logits = torch.stack(list(discriminator(image, labels).values())).sum()
        (gradient,) = torch.autograd.grad(logits, image, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(gradient_norm, torch.zeros((), dtype=torch.float64, requires_grad=True))


def test_a_conditional_model_with_levels_compiles_into_one_graph():
    generator = WaveletGenerator(**SMALL, levels=2, num_classes=3).eval()
    discriminator = WaveletDiscriminator(64, 4, levels=2, num_classes=3).eval()

    def logits(z: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(discriminator(generator(z, LABELS), LABELS).values()))

    compiled = torch.compile(logits, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(latents()), logits(latents()))
