"""The layers of the `residual` backbone, scaled so that each output has the variance of the input."""

import functools
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from wavegan_dist.model.backbones import bilinear
from wavegan_dist.model.backbones.depthwise import DepthwiseConv
from wavegan_dist.wavelet import dwt, idwt

BASE_SIZE = 4  # height and width of the smallest feature map in pixels
EXPANSION = 2
SLOPE = 0.2  # of the leaky ReLU for negative inputs
ACTIVATION_GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the second moment of a normal input (He et al. 2015)


class ResidualBlock(nn.Module):
    """Computes `x + project(act(depthwise(act(expand(x)))))`: 1x1, depthwise 3x3 and 1x1 convolutions.

    `expand` doubles the number of channels, `act` is a leaky ReLU with slope 0.2. At initialization `project` is zero, and the
    weights of the other two have the factor blocks**(-1/4), as in Fixup (Zhang et al. 2019).

    Args:
        channels: number of channels C of the input and of the output, [B, C, H, W].
        blocks: number of residual blocks in the network.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        gain = ACTIVATION_GAIN * blocks**-0.25
        self.expand = scaled(nn.Conv2d(channels, inner, 1), gain)
        self.depthwise = scaled(DepthwiseConv(inner), gain)
        self.project = scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        y = F.leaky_relu(self.expand(x_bchw), SLOPE, inplace=True)
        y = F.leaky_relu(self.depthwise(y), SLOPE, inplace=True)
        out: Tensor = x_bchw + self.project(y)
        return out


class GenerativeBasis(nn.Module):
    """Scales a learned 4x4 basis: [B, z_dim] -> [B, C, 4, 4], each channel by a linear function of the latent."""

    def __init__(self, z_dim: int, channels: int) -> None:
        super().__init__()
        basis = torch.randn(channels, BASE_SIZE, BASE_SIZE)
        self.basis = nn.Parameter(basis / basis.square().mean(dim=(1, 2), keepdim=True).sqrt())
        self.linear = scaled(nn.Linear(z_dim, channels, bias=False))

    @override
    def forward(self, z: Tensor) -> Tensor:
        scale: Tensor = self.linear(z)
        out: Tensor = self.basis.to(scale.dtype) * scale[:, :, None, None]
        return out


class BilinearUpsample(nn.Module):
    """Doubles the size by a 1x1 convolution and bilinear interpolation: [B, C, s/2, s/2] -> [B, C', s, s].

    Interpolation averages values that vary independently at initialization; the convolution compensates for their lower
    variance.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        gain = _bilinear_std(size // 2) / _bilinear_std(size)
        self.conv = scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), gain)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        y = self.conv(x_bchw)
        if torch.compiler.is_exporting():  # to PyTorch's own operators
            return F.interpolate(y, scale_factor=2, mode="bilinear")
        out: Tensor = bilinear.upsample(y, 1.0)
        return out


class HaarUpsample(nn.Module):
    """Doubles the size by 1x1 convolutions to four bands and `idwt`: [B, C, s/2, s/2] -> [B, C', s, s]."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        low, high = _band_std(size)
        self.low = scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), low)
        self.high = scaled(nn.Conv2d(in_channels, 3 * out_channels, 1, bias=False), high)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        return idwt(self.low(x_bchw), self.high(x_bchw))


class BilinearDownsample(nn.Module):
    """Halves the size by the filter [1, 3, 3, 1] / 8 and a 1x1 convolution: [B, C, s, s] -> [B, C', s/2, s/2].

    The filter is the transpose of bilinear upsampling, divided by 4. It removes one of log2(s) octaves from natural images; the
    convolution compensates for the lost variance.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        octaves = math.log2(size)
        self.conv = scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), (octaves / (octaves - 1)) ** 0.5)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        out: Tensor = self.conv(bilinear.transpose(x_bchw, 0.25))
        return out


class HaarDownsample(nn.Module):
    """Halves the size by `dwt` and 1x1 convolutions of its four bands: [B, C, s, s] -> [B, C', s/2, s/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # Together, the two have a fan-in of four times the channels.
        self.low = scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), 0.25**0.5)
        self.high = scaled(nn.Conv2d(3 * in_channels, out_channels, 1, bias=False), 0.75**0.5)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        low, high = dwt(x_bchw)
        out: Tensor = self.low(low) + self.high(high)
        return out


class BandHead(nn.Module):
    """Computes the inverse Haar transform of four bands, from a 3x3 convolution: [B, C, s, s] -> [B, C', 2s, 2s]."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.bands = (out_channels, 3 * out_channels)
        self.conv = conv3x3(in_channels, 4 * out_channels, size)
        low, high = _band_std(2 * size)
        with torch.no_grad():
            self.conv.weight[:out_channels] *= low
            self.conv.weight[out_channels:] *= high

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        low, high = self.conv(x_bchw).split(self.bands, dim=1)
        return idwt(low, high)


class BandStem(nn.Module):
    """Computes a 3x3 convolution of the four Haar bands of an image: [B, C, 2s, 2s] -> [B, C', s, s]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(4 * in_channels, out_channels)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.cat(dwt(x_bchw), dim=1))
        return out


_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


def scaled(layer: _Layer, gain: float = 1.0) -> _Layer:
    """Draw a layer's filters uniformly from the sphere of radius `gain` and set its bias, if any, to 0; return the layer.

    Changes the layer in place. A filter is the weights of one output. For inputs of unit variance the outputs have variance
    gain**2, as with weights from N(0, gain / sqrt(fan_in)), but the variance differs less between outputs and between
    draws.
    """
    with torch.no_grad():
        layer.weight.normal_()
        norm = torch.linalg.vector_norm(layer.weight, dim=tuple(range(1, layer.weight.dim())), keepdim=True)
        layer.weight.mul_(gain / norm)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv3x3(in_channels: int, out_channels: int, size: int | None = None) -> nn.Conv2d:
    """Return a 3x3 convolution with zero padding that, at initialization, preserves the variance of its input.

    Without `size`, the variance is preserved away from the border, where no tap falls on the padding. With the height (= width)
    of the map in pixels as `size`, the mean variance over the map is preserved.
    """
    taps = 3.0 if size is None else 3 - 2 / size  # mean number of taps inside the map, in each dimension
    return scaled(nn.Conv2d(in_channels, out_channels, 3, padding=1), 3 / taps)


def _band_std(size: int) -> tuple[float, float]:
    """Standard deviations of the low and of each high Haar band of a natural image of `size` x `size` and variance 1.

    The high bands together are one of log2(size) octaves. As the transform is orthonormal, the mean variance of the four bands
    is 1.
    """
    share = 1 / math.log2(size)
    return (4 * (1 - share)) ** 0.5, (4 * share / 3) ** 0.5


@functools.cache
def _bilinear_std(size: int) -> float:
    """Root mean square of a 4x4 map of independent N(0, 1) values after repeated bilinear doubling to `size` x `size`.

    The filter is separable: if v is the mean variance in one dimension, the mean variance in two is v**2 and its root is v.
    """
    rows = [[float(i == j) for j in range(BASE_SIZE)] for i in range(BASE_SIZE)]  # response to each of the 4 values
    while len(rows[0]) < size:
        rows = [_double(row) for row in rows]
    return sum(value**2 for row in rows for value in row) / size


def _double(row: list[float]) -> list[float]:
    """Bilinear upsampling by 2 of one row, as `F.interpolate` does it: the border is repeated."""
    padded = [row[0], *row, row[-1]]
    pairs = [(0.25 * a + 0.75 * b, 0.75 * b + 0.25 * c) for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)]
    return [value for pair in pairs for value in pair]
