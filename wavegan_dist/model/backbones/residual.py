"""The `residual` backbone: residual blocks without normalization, after R3GAN (Huang et al. 2024).

A network is a stack of stages, one for each feature-map size from 4 px to half the resolution. Between stages, the size
doubles in the generator and halves in the discriminator. Pixels and the largest feature map are joined by the Haar transform:
the generator's last convolution computes four bands, the discriminator's first one reads four bands.

At initialization the last convolution of every block is zero, so a block is the identity, and the other weights are scaled to
preserve variance. Where bands are joined or removed, the scales assume the spectrum of natural images: their power falls as
1 / f**2 (Field 1987), so each octave has the same share of the variance.
"""

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from wavegan_dist.config import SMALLEST_BAND
from wavegan_dist.errors import UsageError
from wavegan_dist.model.attention import MaxAttention, make_attention
from wavegan_dist.model.shapes import check_labels, feature_map_channels, feature_map_sizes
from wavegan_dist.wavelet import dwt, idwt

Attention = Literal["max", "dot", "none"]
Resample = Literal["bilinear", "haar"]

BASE_SIZE = 4  # height and width of the smallest feature map in pixels
BLOCKS_PER_STAGE = 1
EXPANSION = 2
GROUP_SIZE = 1  # channels per group: depthwise, because groups of 16 cost twice as much on a CPU (docs/LOG.md)
SLOPE = 0.2  # of the leaky ReLU for negative inputs
ACTIVATION_GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the second moment of a normal input (He et al. 2015)


class ResidualGenerator(nn.Module):
    """Generates one tensor of unit variance per output size from a latent and, optionally, a class.

    The linear map of the latent scales a learned 4x4 basis. Every output is a linear function of a feature map: the largest one
    is the inverse Haar transform of four bands computed from the largest feature map, which has half its size; every further
    one is computed from the feature map of its own size.

    Args:
        z_dim: size of the latent.
        output_sizes: heights (= widths) of the outputs in pixels, the largest first, each half of the one before: powers of
            two, at least 8.
        out_channels: number of channels of every output.
        width: number of channels of the largest feature map; each halving of the size doubles it, up to 8 times.
        num_classes: number of classes; 0 for an unconditional network. An embedding of the class is joined to the latent.
        attention: attention layer: the patent's `max`, SAGAN's `dot` or `none`.
        attention_at: sizes of the feature maps that are followed by an attention layer.
        resample: how stages double the size: `bilinear` interpolation, or `haar`, the inverse Haar transform.

    Raises:
        UsageError: the sizes are not as above, or there is no feature map of a size in `attention_at`.
    """

    def __init__(
        self,
        z_dim: int,
        output_sizes: Sequence[int],
        out_channels: int,
        width: int,
        *,
        num_classes: int = 0,
        attention: Attention = "none",
        attention_at: Sequence[int] = (),
        resample: Resample = "bilinear",
    ) -> None:
        super().__init__()
        _check_sizes(output_sizes, attention_at if attention != "none" else ())
        resolution = output_sizes[0]
        self.z_dim, self.num_classes = z_dim, num_classes
        self.embedding = nn.Embedding(num_classes, z_dim) if num_classes else None
        sizes = feature_map_sizes(resolution)
        channels = [feature_map_channels(size, resolution, width) for size in sizes]
        self.basis = GenerativeBasis(2 * z_dim if num_classes else z_dim, channels[0])
        blocks = BLOCKS_PER_STAGE * len(sizes)
        self.stages = nn.ModuleDict()  # by size
        self.heads = nn.ModuleDict()
        for number, (size, count) in enumerate(zip(sizes, channels, strict=True)):
            layers: list[nn.Module] = []
            if number > 0:
                layers.append(_upsample(channels[number - 1], count, size, resample))
            layers += [ResidualBlock(count, blocks) for _ in range(BLOCKS_PER_STAGE)]
            if attention != "none" and size in attention_at:
                layers.append(_attention(count, attention))
            self.stages[str(size)] = nn.Sequential(*layers)
            if size in output_sizes:
                self.heads[str(size)] = _conv3x3(count, out_channels, size)
        self.band_head = BandHead(channels[-1], out_channels, sizes[-1])

    @override
    def forward(self, z: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """Generate one tensor per output size.

        Args:
            z: latents, float [B, z_dim], standard normal.
            labels: classes, int64 [B]; None for an unconditional network.

        Returns:
            Tensors [B, out_channels, s, s], one for each s of `output_sizes`.

        Raises:
            UsageError: `z` has another shape, or labels are missing or not expected.
        """
        if z.dim() != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"the generator expects latents [B, {self.z_dim}], got {list(z.shape)}")
        check_labels(labels, self.num_classes, z.shape[0])
        if self.embedding is not None and labels is not None:
            z = torch.cat((z, self.embedding(labels)), dim=1)
        x_bchw = self.basis(z)
        outputs: list[Tensor] = []
        for size, stage in self.stages.items():
            x_bchw = stage(x_bchw)
            if size in self.heads:
                outputs.append(self.heads[size](x_bchw))
        return [self.band_head(x_bchw), *reversed(outputs)]


class ResidualDiscriminator(nn.Module):
    """Computes one logit per example from one tensor per level and, optionally, a class; the mirror of `ResidualGenerator`.

    The first convolution reads the four Haar bands of the largest input; every further input is added to the feature map of its
    size. A learned 4x4 basis reduces the smallest feature map to one feature per channel, of which the logit is a linear
    function. With classes, the inner product of the features and an embedding of the class is added (Miyato and Koyama 2018).

    Args:
        resolution: height and width of the largest input in pixels: a power of two, at least 8.
        in_channels: number of channels of every input.
        width: number of channels of the largest feature map; each halving of the size doubles it, up to 8 times.
        levels: number of inputs; each has half the size of the one before, at least 8 px.
        num_classes: number of classes; 0 for an unconditional network.
        attention: attention layer: the patent's `max`, SAGAN's `dot` or `none`.
        attention_at: sizes of the feature maps that are followed by an attention layer.
        resample: how stages halve the size: `bilinear`, the transpose of bilinear upsampling, or `haar`, the Haar transform.

    Raises:
        UsageError: the sizes are not as above, or there is no feature map of a size in `attention_at`.
    """

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        width: int,
        *,
        levels: int = 1,
        num_classes: int = 0,
        attention: Attention = "none",
        attention_at: Sequence[int] = (),
        resample: Resample = "bilinear",
    ) -> None:
        super().__init__()
        self.input_sizes = [resolution // 2**level for level in range(levels)]
        _check_sizes(self.input_sizes, attention_at if attention != "none" else ())
        self.in_channels, self.num_classes = in_channels, num_classes
        sizes = feature_map_sizes(resolution)[::-1]
        channels = [feature_map_channels(size, resolution, width) for size in sizes]
        blocks = BLOCKS_PER_STAGE * len(sizes)
        self.band_stem = BandStem(in_channels, channels[0])
        self.stems = nn.ModuleDict()  # by size
        self.stages = nn.ModuleDict()
        for number, (size, count) in enumerate(zip(sizes, channels, strict=True)):
            if size in self.input_sizes:
                self.stems[str(size)] = _conv3x3(in_channels, count)
            layers: list[nn.Module] = [ResidualBlock(count, blocks) for _ in range(BLOCKS_PER_STAGE)]
            if attention != "none" and size in attention_at:
                layers.append(_attention(count, attention))
            if size > BASE_SIZE:
                layers.append(_downsample(count, channels[number + 1], size, resample))
            self.stages[str(size)] = nn.Sequential(*layers)
        features = channels[-1]
        self.basis = _scaled(nn.Conv2d(features, features, BASE_SIZE, groups=features, bias=False))
        self.linear = _scaled(nn.Linear(features, 1))
        self.embedding = nn.Embedding(num_classes, features) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=features**-0.5)

    @override
    def forward(self, inputs: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compute logits.

        Args:
            inputs: float tensors, the largest first: `inputs[i]` is [B, in_channels, resolution / 2**i, resolution / 2**i].
            labels: classes, int64 [B]; None for an unconditional network.

        Returns:
            Logits [B].

        Raises:
            UsageError: an input has another shape, or labels are missing or not expected.
        """
        expected = [[self.in_channels, size, size] for size in self.input_sizes]
        if [list(x.shape[1:]) for x in inputs] != expected:
            raise UsageError(
                f"the discriminator expects inputs [B, ...] with {expected}, got {[list(x.shape) for x in inputs]}"
            )
        check_labels(labels, self.num_classes, inputs[0].shape[0])
        x_bchw = self.band_stem(inputs[0])
        further = iter(inputs[1:])
        for size, stage in self.stages.items():
            if size in self.stems:
                x_bchw = (x_bchw + self.stems[size](next(further))) * 0.5**0.5  # keeps the variance
            x_bchw = stage(x_bchw)
        features = self.basis(x_bchw).flatten(1)
        logits: Tensor = self.linear(features).squeeze(1)
        if self.embedding is not None and labels is not None:
            logits = logits + (features * self.embedding(labels).to(features.dtype)).sum(dim=1)
        return logits


class ResidualBlock(nn.Module):
    """Computes `x + project(act(grouped(act(expand(x)))))`: 1x1, grouped 3x3 and 1x1 convolutions.

    At initialization `project` is zero. The other two are scaled by blocks**(-1/4), as in Fixup (Zhang et al. 2019).

    Args:
        channels: number of channels of the input and of the output.
        blocks: number of residual blocks in the network.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        gain = ACTIVATION_GAIN * blocks**-0.25
        self.expand = _scaled(nn.Conv2d(channels, inner, 1), gain)
        groups = inner // math.gcd(inner, GROUP_SIZE)
        self.grouped = _scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain)
        self.project = _scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        y = F.leaky_relu(self.expand(x_bchw), SLOPE, inplace=True)
        y = F.leaky_relu(self.grouped(y), SLOPE, inplace=True)
        out: Tensor = x_bchw + self.project(y)
        return out


class GenerativeBasis(nn.Module):
    """Scales a learned 4x4 basis: [B, z_dim] -> [B, C, 4, 4], each channel by a linear function of the latent."""

    def __init__(self, z_dim: int, channels: int) -> None:
        super().__init__()
        basis = torch.randn(channels, BASE_SIZE, BASE_SIZE)
        self.basis = nn.Parameter(basis / basis.square().mean(dim=(1, 2), keepdim=True).sqrt())
        self.linear = _scaled(nn.Linear(z_dim, channels, bias=False))

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
        self.conv = _scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), gain)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        return F.interpolate(self.conv(x_bchw), scale_factor=2, mode="bilinear", align_corners=False)


class HaarUpsample(nn.Module):
    """Doubles the size by 1x1 convolutions to four bands and `idwt`: [B, C, s/2, s/2] -> [B, C', s, s]."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        low, high = _band_std(size)
        self.low = _scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), low)
        self.high = _scaled(nn.Conv2d(in_channels, 3 * out_channels, 1, bias=False), high)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        return idwt(self.low(x_bchw), self.high(x_bchw))


class BilinearDownsample(nn.Module):
    """Halves the size by the filter [1, 3, 3, 1] and a 1x1 convolution: [B, C, s, s] -> [B, C', s/2, s/2].

    Away from the border, the filter is the transpose of bilinear upsampling, divided by 4. Beyond the border, it reads zeros.
    The convolution compensates for the variance that the filter removes from natural images, one of log2(s) octaves.
    """

    kernel: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        octaves = math.log2(size)
        self.conv = _scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), (octaves / (octaves - 1)) ** 0.5)
        taps = torch.tensor((0.125, 0.375, 0.375, 0.125))
        self.register_buffer("kernel", taps.outer(taps)[None, None], persistent=False)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        channels = x_bchw.shape[1]
        kernel = self.kernel.expand(channels, 1, -1, -1)
        out: Tensor = self.conv(F.conv2d(x_bchw, kernel, stride=2, padding=1, groups=channels))
        return out


class HaarDownsample(nn.Module):
    """Halves the size by `dwt` and 1x1 convolutions of its four bands: [B, C, s, s] -> [B, C', s/2, s/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # Together, the two have a fan-in of four times the channels.
        self.low = _scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), 0.25**0.5)
        self.high = _scaled(nn.Conv2d(3 * in_channels, out_channels, 1, bias=False), 0.75**0.5)

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
        self.conv = _conv3x3(in_channels, 4 * out_channels, size)
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
        self.conv = _conv3x3(4 * in_channels, out_channels)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.cat(dwt(x_bchw), dim=1))
        return out


_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


def _scaled(layer: _Layer, gain: float = 1.0) -> _Layer:
    """Draw a layer's filters uniformly from the sphere of radius `gain` and set its bias to 0.

    For inputs of unit variance the outputs have variance gain**2, as with weights from N(0, gain / sqrt(fan_in)), but the
    variance differs less between outputs and between draws.
    """
    with torch.no_grad():
        layer.weight.normal_()
        norm = torch.linalg.vector_norm(layer.weight, dim=tuple(range(1, layer.weight.dim())), keepdim=True)
        layer.weight.mul_(gain / norm)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _conv3x3(in_channels: int, out_channels: int, size: int | None = None) -> nn.Conv2d:
    """A 3x3 convolution with zero padding; with `size`, scaled to preserve the mean variance of a map of that size."""
    taps = 3.0 if size is None else 3 - 2 / size  # mean number of taps inside the map, in each dimension
    return _scaled(nn.Conv2d(in_channels, out_channels, 3, padding=1), 3 / taps)


def _upsample(in_channels: int, out_channels: int, size: int, resample: Resample) -> nn.Module:
    if resample == "haar":
        return HaarUpsample(in_channels, out_channels, size)
    return BilinearUpsample(in_channels, out_channels, size)


def _downsample(in_channels: int, out_channels: int, size: int, resample: Resample) -> nn.Module:
    if resample == "haar":
        return HaarDownsample(in_channels, out_channels)
    return BilinearDownsample(in_channels, out_channels, size)


def _attention(channels: int, kind: Literal["max", "dot"]) -> nn.Module:
    """An attention layer that is the identity at initialization: `MaxAttention` with h = 1 and expand = 0."""
    layer = make_attention(kind, channels)
    if not isinstance(layer, MaxAttention):
        return layer
    nn.init.dirac_(layer.h.weight)
    nn.init.zeros_(layer.expand.weight)
    for conv in (layer.h, layer.expand):
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
    return layer


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

    The filter is separable, so the mean variance is the square of the mean variance in one dimension, which this returns.
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


def _check_sizes(sizes: Sequence[int], attention_at: Sequence[int]) -> None:
    """Raise UsageError unless the sizes halve down to 8 px or more and feature maps of all sizes in `attention_at` exist."""
    powers = [2**n for n in range(SMALLEST_BAND.bit_length() - 1, 31)]
    if not sizes or sizes[0] not in powers or any(2 * b != a for a, b in pairwise(sizes)) or sizes[-1] < SMALLEST_BAND:
        raise UsageError(f"sizes {list(sizes)}: each must be half of the one before, powers of two, at least {SMALLEST_BAND}")
    maps = feature_map_sizes(sizes[0])
    if missing := sorted(set(attention_at) - set(maps)):
        raise UsageError(f"attention_at: a network for {sizes[0]} px has no feature map of {missing[0]} px, only of {maps}")
