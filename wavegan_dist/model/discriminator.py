"""The wavelet discriminator: three networks on an image, its low Haar band and its high bands."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.errors import UsageError
from wavegan_dist.model.backbones.dcgan import DCGANDiscriminator
from wavegan_dist.model.backbones.residual import ResidualDiscriminator
from wavegan_dist.model.shapes import (
    IMAGE_CHANNELS,
    band_sizes,
    check_arguments,
    check_labels,
    check_levels,
    check_resolution,
)
from wavegan_dist.wavelet import wavedec

Inputs = dict[str, list[Tensor]]  # network -> its inputs: one tensor for `image` and `low`, one tensor per level for `high`
NETWORKS = ("image", "low", "high")
BANDS = ("low", "lh", "hl", "hh")


class WaveletDiscriminator(nn.Module):
    """Up to three networks that each compute one logit per image: from the image, its low band, its high bands.

    The method is that of patent CN 111275640 B.

    The bands are those of the image that is passed in, real or generated, never the raw outputs of the generator's `low` and
    `high` networks. Each of the three losses therefore has a gradient with respect to all three generator networks.

    Args:
        resolution: height and width of the image in pixels, one of `config.RESOLUTIONS`.
        width: number of channels of each network's largest feature map. Each halving of the feature map's size doubles the
            number of channels, up to `8 * width`.
        networks: which of `image`, `low`, `high` to build; the attributes of the other networks are None.
        levels: number of levels of the wavelet transform: `low` gets the low band of the last level, `high` the high bands of
            every level.
        num_classes: number of classes; 0: the discriminator takes no labels.
        backbone: architecture of the networks: `dcgan` or `residual`.
        resample: how `residual` networks halve the size of feature maps: `bilinear` or `haar`. None: `bilinear`. Unused in
            `dcgan` networks.
        band_std: for each level, the finest first, the standard deviation of each Haar band (`low`, `lh`, `hl`, `hh`) over real
            data, by which the bands are divided; further levels are ignored. None (the patent's choice): bands are not scaled.
        spectral_norm: divide the weights of `dcgan` networks by their spectral norm; unused in `residual` networks.
        logit_gain: factor of the logits of `dcgan` networks; unused in `residual` networks.

    Raises:
        UsageError: an argument is of the wrong type or not one of its choices, `resolution` is not supported, there are too
            many levels for it, `networks` is empty or has an unknown name, or `band_std` lacks a level or a band, or has one
            that is not above 0.
    """

    def __init__(
        self,
        resolution: int = 32,
        width: int = 64,
        networks: Sequence[str] = NETWORKS,
        levels: int = 1,
        num_classes: int = 0,
        backbone: Literal["dcgan", "residual"] = "dcgan",
        resample: Literal["bilinear", "haar"] | None = None,
        band_std: Sequence[Mapping[str, float]] | None = None,
        spectral_norm: bool = True,
        logit_gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_arguments(resolution=resolution, width=width, num_classes=num_classes, backbone=backbone)
        check_arguments(resample=resample, spectral_norm=spectral_norm, logit_gain=logit_gain)
        check_resolution(resolution)
        check_levels(levels, resolution)
        if not networks or set(networks) - set(NETWORKS):
            raise UsageError(f"discriminators {list(networks)}: name at least one of {', '.join(NETWORKS)}, and no others")
        self.resolution, self.levels = resolution, levels
        self.num_classes, self.scales_bands = num_classes, band_std is not None
        self._add_band_std([dict.fromkeys(BANDS, 1.0)] * levels if band_std is None else band_std)

        def network(name: str, resolution: int, channels: int, levels: int = 1) -> nn.Module | None:
            if name not in networks:
                return None
            if backbone == "residual":
                options: dict[str, Any] = {"levels": levels, "num_classes": num_classes, "resample": resample or "bilinear"}
                return ResidualDiscriminator(resolution, channels, width, **options)
            return DCGANDiscriminator(resolution, channels, width, levels, num_classes, spectral_norm, logit_gain)

        sizes = band_sizes(resolution, levels)
        self.image = network("image", resolution, IMAGE_CHANNELS)
        self.low = network("low", sizes[-1], IMAGE_CHANNELS)
        self.high = network("high", sizes[0], 3 * IMAGE_CHANNELS, levels)

    @override
    def forward(self, image_bchw: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the logits of images by each network that was built: name of the network to float [B].

        Args:
            image_bchw: real or generated images, float [B, 3, R, R] in about [-1, 1], where R is `resolution`.
            labels: classes, int64 [B] in 0..num_classes-1; None if `num_classes` is 0.

        Raises:
            UsageError: the images have another shape, or labels are missing, not expected, or not int64 [B].
        """
        side = self.resolution
        if image_bchw.shape[1:] != (IMAGE_CHANNELS, side, side):
            raise UsageError(f"the discriminators expect images [B, 3, {side}, {side}], got {list(image_bchw.shape)}")
        return self.logits(self.inputs(image_bchw), labels)

    def inputs(self, image_bchw: Tensor, scaled: bool = True) -> Inputs:
        """Return the inputs of each network that was built, for images [B, 3, R, R], by name of the network.

        `image` and `low` have one input. `high` has one per level, the finest first: [B, 9, R/2, R/2], [B, 9, R/4, R/4], ...

        Args:
            image_bchw: the images, float [B, 3, R, R].
            scaled: divide the bands by the constructor's `band_std`, if it was given. False: do not divide, so that the bands
                of white noise are white noise.

        Raises:
            UsageError: `low` or `high` was built, and R is not a multiple of 2**levels.
        """
        inputs: Inputs = {} if self.image is None else {"image": [image_bchw]}
        if self.low is None and self.high is None:
            return inputs
        low, highs = wavedec(image_bchw, self.levels)
        highs = highs[::-1]  # the finest level first
        if scaled and self.scales_bands:
            low = low / self.get_buffer("low_std")
            highs = [high / self.get_buffer(_high_std(level)).to(high.dtype) for level, high in enumerate(highs, start=1)]
        return inputs | ({} if self.low is None else {"low": [low]}) | ({} if self.high is None else {"high": highs})

    def logits(self, inputs: Mapping[str, Sequence[Tensor]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the logits, float [B], of each network in `inputs`, by its name.

        Args:
            inputs: what the method `inputs` returns, or some of its items.
            labels: classes, int64 [B] in 0..num_classes-1; None if `num_classes` is 0.

        Raises:
            UsageError: labels are missing, not expected, or not int64 [B]; or the networks are `residual`, and an input has
                another shape.
            AttributeError: `inputs` has the name of a network that was not built.
        """
        logits = {}
        for name, tensors in inputs.items():
            check_labels(labels, self.num_classes, len(tensors[0]))
            logits[name] = self.get_submodule(name)(tensors, labels)
        return logits

    def _add_band_std(self, band_std: Sequence[Mapping[str, float]]) -> None:
        """Register buffers: `low_std`, a scalar for the low band of the last level, and [9, 1, 1] for each level's high bands.

        Raises:
            UsageError: `band_std` lacks a level or a band, or has one that is not finite and above 0.
        """
        if len(band_std) < self.levels:
            raise UsageError(
                f"band_std has {len(band_std)} levels, the model {self.levels}; index the shards again to measure it"
            )
        for level, std in enumerate(band_std[: self.levels], start=1):
            if missing := set(BANDS) - set(std):
                raise UsageError(f"band_std lacks {', '.join(sorted(missing))}; write the shards again to measure it")
            if empty := [band for band in BANDS if not 0 < std[band] < math.inf]:
                raise UsageError(
                    f"band {empty[0]} of level {level} has the standard deviation {std[empty[0]]} in the data, by which it "
                    "cannot be divided; set model.band_scale=none"
                )
            high = torch.tensor([std[band] for band in BANDS[1:]]).repeat_interleave(IMAGE_CHANNELS)
            self.register_buffer(_high_std(level), high[:, None, None])
        self.register_buffer("low_std", torch.tensor(band_std[self.levels - 1]["low"]))


def _high_std(level: int) -> str:
    """Name of the buffer with the standard deviations of the high bands of level 1, 2, 3, ...: high_std, high_std_2, ..."""
    return "high_std" if level == 1 else f"high_std_{level}"
