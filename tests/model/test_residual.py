"""The residual backbone: shapes, scale at initialization, resampling, classes, derivatives, errors."""

import copy
import io
from typing import TypeVar

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavegan_dist.errors import UsageError
from wavegan_dist.model.attention import DotAttention
from wavegan_dist.model.backbones import residual_layers
from wavegan_dist.model.backbones.residual import ResidualDiscriminator, ResidualGenerator
from wavegan_dist.model.backbones.residual_layers import ResidualBlock

NetworkT = TypeVar("NetworkT", bound=nn.Module)
RESAMPLE = pytest.mark.parametrize("resample", ["bilinear", "haar"])
OUTPUT_SIZES = [[8], [16], [32], [64], [16, 8], [64, 32, 16]]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def wake(network: NetworkT) -> NetworkT:
    """Draw the weights that are zero at initialization: the last convolution of every block and of every `MaxAttention`."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.3)
    return network


def natural(count: int, channels: int, size: int) -> Tensor:
    """Noise [count, channels, size, size] with the spectrum of natural images, power ~ 1 / f**2, of mean 0 and variance 1."""
    frequency = torch.fft.fftfreq(size)
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt().clamp(min=1 / size)
    x = torch.fft.ifft2(torch.fft.fft2(torch.randn(count, channels, size, size)) / radius).real
    return (x - x.mean()) / x.std()


def inputs_like(sizes: list[int], channels: int = 3, count: int = 2) -> list[Tensor]:
    return [torch.randn(count, channels, size, size) for size in sizes]


@RESAMPLE
@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("sizes", OUTPUT_SIZES, ids=str)
@pytest.mark.parametrize("channels", [3, 9])
def test_shapes(sizes, channels, num_classes, resample):
    generator = ResidualGenerator(10, sizes, channels, 4, num_classes=num_classes, resample=resample)
    settings = {"levels": len(sizes), "num_classes": num_classes, "resample": resample}
    discriminator = ResidualDiscriminator(sizes[0], channels, 4, **settings)
    labels = torch.tensor([4, 0]) if num_classes else None
    outputs = generator(torch.randn(2, 10), labels)
    assert [output.shape for output in outputs] == [(2, channels, size, size) for size in sizes]
    assert discriminator(outputs, labels).shape == (2,)


@RESAMPLE
@pytest.mark.parametrize("resolution", [8, 128, 1024])
def test_sizes_up_to_1024(resolution, resample):
    with torch.device("meta"):
        sizes = [resolution, resolution // 2] if resolution > 8 else [resolution]
        generator = ResidualGenerator(64, sizes, 3, 32, resample=resample)
        discriminator = ResidualDiscriminator(resolution, 3, 32, levels=len(sizes), resample=resample)
        outputs = generator(torch.randn(2, 64))
        assert outputs[0].shape == (2, 3, resolution, resolution)
        assert discriminator(outputs).shape == (2,)


@RESAMPLE
@pytest.mark.parametrize("attention", ["max", "dot", "none"])
@pytest.mark.parametrize("sizes", OUTPUT_SIZES, ids=str)
def test_every_output_has_unit_variance_at_initialization(sizes, attention, resample):
    settings = {"attention": attention, "attention_at": [4], "resample": resample}
    variances = []
    with torch.no_grad():
        for _ in range(3):
            outputs = ResidualGenerator(32, sizes, 3, 32, **settings)(torch.randn(16, 32))
            variances.append([output.var().item() for output in outputs])
    assert np.mean(variances, axis=0) == pytest.approx(1, abs=0.25)


@RESAMPLE
def test_with_classes_the_output_has_unit_variance_at_initialization(resample):
    generators = [ResidualGenerator(32, [32], 3, 32, num_classes=10, resample=resample) for _ in range(4)]
    with torch.no_grad():
        variances = [generator(torch.randn(32, 32), torch.arange(32) % 10)[0].var().item() for generator in generators]
    assert np.mean(variances) == pytest.approx(1, abs=0.25)


@RESAMPLE
@pytest.mark.parametrize("num_classes", [0, 10])
@pytest.mark.parametrize("sizes", OUTPUT_SIZES, ids=str)
def test_logits_of_natural_images_have_a_standard_deviation_of_order_one_at_initialization(sizes, num_classes, resample):
    inputs = [natural(16, 3, size) for size in sizes]
    labels = torch.arange(16) % 10 if num_classes else None
    settings = {"levels": len(sizes), "num_classes": num_classes, "resample": resample}
    with torch.no_grad():
        stds = [ResidualDiscriminator(sizes[0], 3, 32, **settings)(inputs, labels).std().item() for _ in range(3)]
    assert 0.25 < np.mean(stds) < 2


def test_a_block_is_the_identity_at_initialization_and_trains():
    block, x = ResidualBlock(32, blocks=3), torch.randn(2, 32, 8, 8)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.project.weight.grad.any()
    assert not torch.equal(wake(block)(x), x)


def test_inside_a_block_the_first_convolutions_keep_the_scale():
    block, x = ResidualBlock(64, blocks=1), torch.randn(8, 64, 8, 8)
    y = F.leaky_relu(block.expand(x), residual_layers.SLOPE)
    assert y.square().mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_bilinear_resampling_agrees_with_interpolate(size):
    x = torch.randn(2, 3, size, size)
    up, down = residual_layers.BilinearUpsample(3, 3, 2 * size), residual_layers.BilinearDownsample(3, 3, size)
    for module in (up, down):
        nn.init.dirac_(module.conv.weight)
    torch.testing.assert_close(up(x), F.interpolate(x, scale_factor=2, mode="bilinear"))
    expected = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
    inside = (..., slice(1, -1), slice(1, -1))  # at the border, interpolate has other weights
    torch.testing.assert_close(down(x)[inside], expected[inside])


@pytest.mark.parametrize("size", [8, 16, 64])
def test_haar_resampling_agrees_with_pywavelets(size):
    x = torch.randn(2, 3, size, size)
    down, up = residual_layers.HaarDownsample(3, 12), residual_layers.HaarUpsample(12, 3, 2 * size)
    for weight, offset in ((down.low.weight, 0), (down.high.weight, 3)):  # the output channels are the bands
        weight.data.zero_()
        weight.data[offset : offset + weight.shape[1], :, 0, 0] = torch.eye(weight.shape[1])
    for weight, offset in ((up.low.weight, 0), (up.high.weight, 3)):
        weight.data.zero_()
        weight.data[:, offset : offset + weight.shape[0], 0, 0] = torch.eye(weight.shape[0])
    low, high = pywt.dwt2(x.numpy(), "haar")
    bands = torch.from_numpy(np.concatenate((low, *high), axis=1))
    torch.testing.assert_close(down(x), bands)
    torch.testing.assert_close(up(bands), torch.from_numpy(pywt.idwt2((low, high), "haar")))


@pytest.mark.parametrize("size", [8, 32])
def test_the_compensation_of_bilinear_upsampling_is_exact(size):
    x = torch.eye(4)[:, None]  # the response to each of the four values
    while x.shape[-1] < size:
        x = F.interpolate(x, scale_factor=2, mode="linear")
    assert residual_layers._bilinear_std(size) == pytest.approx(x.square().sum().item() / size)


def test_the_largest_output_ends_in_the_inverse_haar_transform():
    generator = ResidualGenerator(8, [16], 3, 8, resample="haar")
    maps: list[Tensor] = []
    generator.band_head.conv.register_forward_hook(lambda _module, _inputs, bands: maps.append(bands))
    (output,) = generator(torch.randn(2, 8))
    low, *high = maps[0].detach().numpy().reshape(2, 4, 3, 8, 8).swapaxes(0, 1)
    torch.testing.assert_close(output.detach(), torch.from_numpy(pywt.idwt2((low, tuple(high)), "haar")))


def test_with_haar_the_highest_octave_has_its_share_of_the_variance_at_initialization():
    with torch.no_grad():
        outputs = torch.cat([ResidualGenerator(32, [64], 12, 16, resample="haar")(torch.randn(8, 32))[0] for _ in range(4)])
    _, high = pywt.dwt2(outputs.numpy(), "haar")
    share = sum(np.square(band).sum() for band in high) / outputs.square().sum().item()
    assert share == pytest.approx(1 / 6, rel=0.25)  # 3/4 if the bands had equal variances


@RESAMPLE
def test_the_class_changes_every_output(resample):
    generator = ResidualGenerator(8, [16, 8], 3, 8, num_classes=3, resample=resample)
    z = torch.randn(1, 8).expand(2, -1)
    for output in generator(z, torch.tensor([0, 2])):
        assert (output[0] - output[1]).abs().mean() > 0.1
    for output in generator(z, torch.tensor([1, 1])):
        torch.testing.assert_close(output[0], output[1])


def test_the_projection_notices_swapped_labels():
    discriminator = ResidualDiscriminator(16, 3, 8, num_classes=4)
    x, labels = natural(16, 3, 16), torch.arange(16) % 4
    right, swapped = discriminator([x], labels), discriminator([x], labels.roll(1))
    assert (right - swapped).abs().mean() > 0.1
    assert discriminator.embedding is not None
    with torch.no_grad():
        discriminator.embedding.weight.zero_()
    torch.testing.assert_close(discriminator([x], labels), discriminator([x], labels.roll(1)))


def test_every_input_of_the_discriminator_changes_the_logit():
    discriminator, inputs = ResidualDiscriminator(32, 3, 8, levels=3), inputs_like([32, 16, 8])
    logits = discriminator(inputs)
    for level in range(3):
        changed = [*inputs[:level], -inputs[level], *inputs[level + 1 :]]
        assert not torch.allclose(discriminator(changed), logits)


@RESAMPLE
@pytest.mark.parametrize("attention", ["max", "dot"])
def test_every_parameter_gets_a_gradient(attention, resample):
    settings = {"num_classes": 2, "attention": attention, "attention_at": [8], "resample": resample}
    generator = wake(ResidualGenerator(8, [32, 16], 3, 4, **settings))
    discriminator = wake(ResidualDiscriminator(32, 3, 4, levels=2, **settings))
    for module in [*generator.modules(), *discriminator.modules()]:
        if isinstance(module, DotAttention):
            nn.init.ones_(module.gamma)
    labels = torch.tensor([0, 1])
    discriminator(generator(torch.randn(2, 8), labels), labels).sum().backward()
    for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.any() or name.endswith(("f.bias", "g.bias")), name


@RESAMPLE
def test_derivatives_of_first_and_second_order(resample):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = wake(ResidualGenerator(2, [16, 8], 1, 1, resample=resample))
            self.discriminator = wake(ResidualDiscriminator(16, 1, 1, levels=2, resample=resample))

        def forward(self, z: Tensor) -> Tensor:
            return self.discriminator(self.generator(z))

    net, z = Net().double(), torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, z)
    assert torch.autograd.gradgradcheck(net, z)


@RESAMPLE
def test_the_exact_penalty_reaches_every_weight_that_shapes_the_input_gradient(resample):
    discriminator = wake(ResidualDiscriminator(16, 3, 4, resample=resample))
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator([x]).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    for name, parameter in discriminator.named_parameters():
        if "weight" in name:
            assert parameter.grad.any(), name


@RESAMPLE
def test_channels_last_and_bfloat16_agree_with_float32(resample):
    settings = {"attention": "max", "attention_at": [8], "resample": resample}
    generator = wake(ResidualGenerator(8, [32, 16], 3, 8, **settings))
    discriminator = wake(ResidualDiscriminator(32, 3, 8, levels=2, **settings))
    z = torch.randn(4, 8)
    outputs = generator(z)
    logits = discriminator(outputs)
    for module in (generator, discriminator):
        module.to(memory_format=torch.channels_last)
    torch.testing.assert_close(discriminator(generator(z)), logits, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low_precision = discriminator(generator(z))
    low_precision.float().sum().backward()
    torch.testing.assert_close(low_precision.float(), logits, rtol=0.2, atol=0.2 * logits.abs().max().item())


@RESAMPLE
def test_compiles_as_one_graph(resample):
    settings = {"num_classes": 3, "attention": "max", "attention_at": [8], "resample": resample}
    generator = wake(ResidualGenerator(8, [16, 8], 3, 4, **settings))
    discriminator = wake(ResidualDiscriminator(16, 3, 4, levels=2, **settings))

    def logits(z: Tensor, labels: Tensor) -> Tensor:
        return discriminator(generator(z, labels), labels)

    z, labels = torch.randn(2, 8), torch.tensor([0, 2])
    compiled = torch.compile(logits, fullgraph=True, backend="eager")  # the graph, without code for it
    torch.testing.assert_close(compiled(z, labels), logits(z, labels))


def test_a_state_dict_restores_the_network():
    generator = wake(ResidualGenerator(8, [32, 16], 3, 4, num_classes=2, attention="max", attention_at=[8]))
    file = io.BytesIO()
    torch.save(generator.state_dict(), file)
    file.seek(0)
    other = ResidualGenerator(8, [32, 16], 3, 4, num_classes=2, attention="max", attention_at=[8])
    other.load_state_dict(torch.load(file, weights_only=True))
    z, labels = torch.randn(2, 8), torch.tensor([0, 1])
    for output, expected in zip(other(z, labels), copy.deepcopy(generator)(z, labels), strict=True):
        assert torch.equal(output, expected)


@pytest.mark.parametrize("width", [4, 7, 10, 24])
def test_any_width(width):
    (output,) = ResidualGenerator(8, [16], 3, width)(torch.randn(2, 8))
    assert ResidualDiscriminator(16, 3, width)([output]).shape == (2,)


@pytest.mark.parametrize("sizes", [[], [4], [12], [32, 8], [16, 8, 4], [8, 16], [32, 32]], ids=str)
def test_impossible_sizes_are_one_line(sizes):
    with pytest.raises(UsageError, match=r"^sizes \[.*\]: [^\n]*at least 8[^\n]*$"):
        ResidualGenerator(8, sizes, 3, 4)


def test_too_many_levels_are_one_line():
    with pytest.raises(UsageError, match=r"^sizes \[16, 8, 4\]: [^\n]*$"):
        ResidualDiscriminator(16, 3, 4, levels=3)
    with pytest.raises(UsageError, match=r"^sizes \[\]: [^\n]*$"):
        ResidualDiscriminator(16, 3, 4, levels=0)


@pytest.mark.parametrize("attention", ["max", "dot"])
def test_attention_at_a_size_without_a_feature_map_is_one_line(attention):
    message = r"^attention_at: [^\n]*no feature map of 32 px, only of \[4, 8, 16\]$"
    with pytest.raises(UsageError, match=message):
        ResidualGenerator(8, [32], 3, 4, attention=attention, attention_at=[8, 32])
    with pytest.raises(UsageError, match=message):
        ResidualDiscriminator(32, 3, 4, attention=attention, attention_at=[8, 32])


def test_inputs_of_another_shape_are_one_line():
    generator, discriminator = ResidualGenerator(8, [16], 3, 4), ResidualDiscriminator(16, 3, 4, levels=2)
    with pytest.raises(UsageError, match=r"^the generator expects latents \[B, 8\], got \[2, 9\]$"):
        generator(torch.randn(2, 9))
    for sizes in ([16], [16, 16], [16, 8, 4]):
        with pytest.raises(UsageError, match=r"^the discriminator expects inputs [^\n]*$"):
            discriminator(inputs_like(sizes))
