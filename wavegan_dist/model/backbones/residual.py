"""The `residual` backbone: residual blocks without normalization, after R3GAN (Huang et al. 2024).

A network is a stack of stages, one for each feature-map size from 4 px to half the resolution. Between stages, the size
doubles in the generator and halves in the discriminator. The Haar transform connects the pixels with the largest feature map:
the generator's last convolution computes four bands, and the discriminator's first convolution reads four bands.

At initialization the last convolution of every block is zero, so a block is the identity, and the other weights are scaled to
preserve variance. Where bands are merged or discarded, the scales assume the spectrum of natural images: their power falls as
1 / f**2 (Field 1987), so each octave has the same share of the variance.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.config import SMALLEST_BAND
from wavegan_dist.errors import UsageError
from wavegan_dist.model.attention import MaxAttention, make_attention
from wavegan_dist.model.backbones.residual_layers import (
    BASE_SIZE,
    BandHead,
    BandStem,
    BilinearDownsample,
    BilinearUpsample,
    GenerativeBasis,
    HaarDownsample,
    HaarUpsample,
    ResidualBlock,
    conv3x3,
    scaled,
)
from wavegan_dist.model.shapes import check_labels, feature_map_channels, feature_map_sizes

Attention = Literal["max", "dot", "none"]
Resample = Literal["bilinear", "haar"]

BLOCKS_PER_STAGE = 1


class ResidualGenerator(nn.Module):
    """Generates one tensor per output size from a latent and, optionally, a class.

    The outputs are unbounded and have unit variance at initialization.

    A linear map of the latent scales a learned 4x4 basis. The largest output is the inverse Haar transform of four bands
    computed from the largest feature map, which has half the output's size; every other output is a 3x3 convolution of the
    feature map of its own size.

    Args:
        z_dim: size of the latent.
        output_sizes: heights (= widths) of the outputs in pixels, the largest first, each half of the one before: powers of
            two, at least 8.
        out_channels: number of channels of every output.
        width: number of channels of the largest feature map. Each halving of the feature map's size doubles the number of
            channels, up to `8 * width`.
        num_classes: number of classes; 0 for an unconditional network. An embedding of the class is concatenated with the
            latent.
        attention: attention layer: the patent's `max`, SAGAN's `dot` or `none`.
        attention_at: sizes of the feature maps that are followed by an attention layer; unused if `attention` is `none`.
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
                self.heads[str(size)] = conv3x3(count, out_channels, size)
        self.band_head = BandHead(channels[-1], out_channels, sizes[-1])

    @override
    def forward(self, z: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """Generate one tensor per output size.

        Args:
            z: latents, float [B, z_dim], standard normal.
            labels: classes, int64 [B]; None for an unconditional network.

        Returns:
            Tensors [B, out_channels, s, s], one for each s of `output_sizes`, in their order.

        Raises:
            UsageError: `z` has another shape, or labels are missing, not expected, or not int64 [B].
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
    """Computes one logit per image from one tensor per level and, optionally, a class; the mirror of `ResidualGenerator`.

    The first convolution reads the four Haar bands of the largest input; every further input is added to the feature map of its
    size, after a 3x3 convolution. The inner product of each channel of the smallest feature map and a learned 4x4 basis is
    a feature; the logit is a linear function of the features. With classes, the inner product of the features and an
    embedding of the class is added (Miyato and Koyama 2018).

    Args:
        resolution: height and width of the largest input in pixels: a power of two, at least 8.
        in_channels: number of channels of every input.
        width: number of channels of the largest feature map. Each halving of the feature map's size doubles the number of
            channels, up to `8 * width`.
        levels: number of inputs; each has half the size of the one before, at least 8 px.
        num_classes: number of classes; 0 for an unconditional network.
        attention: attention layer: the patent's `max`, SAGAN's `dot` or `none`.
        attention_at: sizes of the feature maps that are followed by an attention layer; unused if `attention` is `none`.
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
                self.stems[str(size)] = conv3x3(in_channels, count)
            layers: list[nn.Module] = [ResidualBlock(count, blocks) for _ in range(BLOCKS_PER_STAGE)]
            if attention != "none" and size in attention_at:
                layers.append(_attention(count, attention))
            if size > BASE_SIZE:
                layers.append(_downsample(count, channels[number + 1], size, resample))
            self.stages[str(size)] = nn.Sequential(*layers)
        features = channels[-1]
        basis = torch.randn(features, BASE_SIZE, BASE_SIZE)
        self.basis = nn.Parameter(basis / torch.linalg.vector_norm(basis, dim=(1, 2), keepdim=True))
        self.linear = scaled(nn.Linear(features, 1))
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
            UsageError: an input has another shape, or labels are missing, not expected, or not int64 [B].
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
        features = torch.einsum("bchw,chw->bc", x_bchw, self.basis)
        logits: Tensor = self.linear(features).squeeze(1)
        if self.embedding is not None and labels is not None:
            logits = logits + (features * self.embedding(labels).to(features.dtype)).sum(dim=1)
        return logits


def _upsample(in_channels: int, out_channels: int, size: int, resample: Resample) -> nn.Module:
    if resample == "haar":
        return HaarUpsample(in_channels, out_channels, size)
    return BilinearUpsample(in_channels, out_channels, size)


def _downsample(in_channels: int, out_channels: int, size: int, resample: Resample) -> nn.Module:
    if resample == "haar":
        return HaarDownsample(in_channels, out_channels)
    return BilinearDownsample(in_channels, out_channels, size)


def _attention(channels: int, kind: Literal["max", "dot"]) -> nn.Module:
    """Return an attention layer that is initialized as the identity: in `MaxAttention`, h = 1 and expand = 0."""
    layer = make_attention(kind, channels)
    if not isinstance(layer, MaxAttention):
        return layer
    nn.init.dirac_(layer.h.weight)
    nn.init.zeros_(layer.expand.weight)
    for conv in (layer.h, layer.expand):
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
    return layer


def _check_sizes(sizes: Sequence[int], attention_at: Sequence[int]) -> None:
    """Raise UsageError unless the sizes halve down to 8 px or more and feature maps of all sizes in `attention_at` exist."""
    powers = [2**n for n in range(SMALLEST_BAND.bit_length() - 1, 31)]
    if not sizes or sizes[0] not in powers or any(2 * b != a for a, b in pairwise(sizes)) or sizes[-1] < SMALLEST_BAND:
        raise UsageError(f"sizes {list(sizes)}: each must be half of the one before, powers of two, at least {SMALLEST_BAND}")
    maps = feature_map_sizes(sizes[0])
    if missing := sorted(set(attention_at) - set(maps)):
        raise UsageError(f"attention_at: a network for {sizes[0]} px has no feature map of {missing[0]} px, only of {maps}")
