"""The three discriminators."""

import pytest
import torch
from torch.nn.utils import parametrize

from wavegan_dist.config import parse
from wavegan_dist.errors import UsageError
from wavegan_dist.model import WaveletDiscriminator, WaveletGenerator
from wavegan_dist.model.build import build_discriminator
from wavegan_dist.wavelet import dwt

BAND_STD = {"low": 2.0, "lh": 0.5, "hl": 0.25, "hh": 0.125}


def images(resolution: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("resolution", [32, 64, 256])
def test_one_logit_per_image_from_each_network(resolution):
    logits = WaveletDiscriminator(resolution, width=4)(images(resolution))
    assert list(logits) == ["image", "low", "high"]
    assert all(logit.shape == (2,) for logit in logits.values())


@pytest.mark.parametrize("backbone", ["dcgan", "residual"])
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 3, 32, 64), (2, 1, 32, 32)])
def test_images_of_another_shape_are_refused(backbone, shape):
    with pytest.raises(UsageError, match=r"expect images \[B, 3, 32, 32\], got \[2, "):
        WaveletDiscriminator(32, width=4, backbone=backbone)(torch.zeros(shape))


def test_fake_bands_are_those_of_the_fused_image():
    generator, discriminator = WaveletGenerator(32, 8, width=4).eval(), WaveletDiscriminator(32, width=4).eval()
    with torch.no_grad():
        generator.lam.fill_(0.3)
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    fused = generator(z)
    low, high = dwt(fused)
    _, raw_low, (raw_high,) = generator.components(z)
    logits = discriminator(fused)
    torch.testing.assert_close(logits["low"], discriminator.get_submodule("low")([low]))
    torch.testing.assert_close(logits["high"], discriminator.get_submodule("high")([high]))
    assert not torch.allclose(logits["low"], discriminator.get_submodule("low")([raw_low]))
    assert not torch.allclose(logits["high"], discriminator.get_submodule("high")([raw_high]))


def test_bands_are_divided_by_their_deviation_over_real_data():
    torch.manual_seed(0)
    plain = WaveletDiscriminator(32, width=4).eval()
    scaled = WaveletDiscriminator(32, width=4, band_std=[BAND_STD]).eval()
    scaled.load_state_dict({**plain.state_dict(), **dict(scaled.named_buffers(recurse=False))})
    low, high = dwt(images())
    lh, hl, hh = high.chunk(3, dim=1)
    logits = scaled(images())
    torch.testing.assert_close(logits["low"], plain.get_submodule("low")([low / 2]))
    torch.testing.assert_close(
        logits["high"], plain.get_submodule("high")([torch.cat((lh / 0.5, hl / 0.25, hh / 0.125), dim=1)])
    )


@pytest.mark.parametrize("name", ["image", "low", "high"])
def test_a_weight_of_0_removes_its_network(name):
    experiment = parse({"data": {"index": "x"}, "loss": {"weights": {name: 0}}, "model": {"width": 4}}, "test")
    discriminator = build_discriminator(experiment, [BAND_STD])
    assert name not in discriminator(images())
    assert not any(key.startswith(f"{name}.") for key in discriminator.state_dict())
    assert len(discriminator(images())) == 2


def test_band_scale_is_used_only_when_asked_for():
    for scale, expected in (("none", 1.0), ("data", 2.0)):
        experiment = parse({"data": {"index": "x"}, "model": {"width": 4, "band_scale": scale}}, "test")
        assert build_discriminator(experiment, [BAND_STD]).get_buffer("low_std").item() == expected


def test_every_convolution_has_spectral_norm_1():
    discriminator = WaveletDiscriminator(32, width=4)
    for _ in range(50):  # each forward in training is one power iteration
        discriminator(images())
    convolutions = [module for module in discriminator.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 4 + 3 + 3
    for convolution in convolutions:
        assert parametrize.is_parametrized(convolution, "weight")
        assert torch.linalg.matrix_norm(convolution.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)


def test_scaled_bands_have_the_dtype_of_the_image():
    discriminator = WaveletDiscriminator(32, width=4, levels=2, band_std=[BAND_STD] * 2)
    inputs = discriminator.inputs(images(32).bfloat16())
    assert {x.dtype for tensors in inputs.values() for x in tensors} == {torch.bfloat16}


@pytest.mark.parametrize("std", [0.0, float("nan"), float("inf")])
def test_a_band_without_energy_cannot_be_scaled(std):
    with pytest.raises(UsageError, match=f"band lh of level 2 has the standard deviation {std} in the data.*band_scale=none"):
        WaveletDiscriminator(32, width=4, levels=2, band_std=[BAND_STD, BAND_STD | {"lh": std}])


def test_it_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        assert next(WaveletDiscriminator(32, width=4).parameters()).is_meta


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"backbone": "resnet"}, "'dcgan' or 'residual'"),
        ({"logit_gain": 0.0}, "greater than 0"),
        ({"width": 0}, "greater than 0"),
    ],
)
def test_arguments_that_are_no_choice_or_not_above_0_are_refused(argument, words):
    with pytest.raises(UsageError, match=words):
        WaveletDiscriminator(**argument)


def test_no_network_an_unknown_one_or_a_missing_band_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        WaveletDiscriminator(32, networks=[])
    with pytest.raises(UsageError, match="at least one"):
        WaveletDiscriminator(32, networks=["image", "detail"])
    with pytest.raises(UsageError, match="lacks hh"):
        WaveletDiscriminator(32, band_std=[{"low": 1, "lh": 1, "hl": 1}])
