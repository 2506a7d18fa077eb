"""The wavelet discriminator: three DCGAN discriminators on an image, its low Haar band and its three high bands."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.errors import UsageError
from wavegan_dist.model.shapes import IMAGE_CHANNELS, check_resolution, feature_map_channels, feature_map_sizes
from wavegan_dist.model.spectral_norm import spectral_norm as normalize_spectrum
from wavegan_dist.wavelet import dwt

Inputs = dict[str, list[Tensor]]  # by network: one tensor for `image` and for `low`, one for each level for `high`
NETWORKS = ("image", "low", "high")
BANDS = ("low", "lh", "hl", "hh")


class WaveletDiscriminator(nn.Module):
    """Computes one logit per image from each of up to three networks (patent CN 111275640 B).

    The bands are those of the image that is passed in, real or generated, never the raw outputs of the generator's `low` and
    `high` networks: the three losses therefore reach all three generator networks.

    Args:
        resolution: height and width of the image in pixels, one of `config.RESOLUTIONS`.
        width: number of channels of each network's largest feature map; each halving of the size doubles it, up to 8 times.
        networks: which of `image`, `low`, `high` to build; the attributes of the other networks are None.
        band_std: standard deviation of each Haar band (`low`, `lh`, `hl`, `hh`) over real data, by which the bands are
            divided. None (the patent's choice): bands are not scaled.
        spectral_norm: divide each layer's weight by its largest singular value.
        logit_gain: factor of the logits.

    Raises:
        UsageError: `resolution` is not supported, `networks` is empty or has an unknown name, or `band_std` lacks a band.
    """

    low_std: Tensor
    high_std: Tensor

    def __init__(
        self,
        resolution: int = 32,
        width: int = 64,
        networks: Sequence[str] = NETWORKS,
        band_std: Mapping[str, float] | None = None,
        spectral_norm: bool = True,
        logit_gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        if not networks or set(networks) - set(NETWORKS):
            raise UsageError(f"discriminators {list(networks)}: name at least one of {', '.join(NETWORKS)}, and no others")
        self.scales_bands = band_std is not None
        std = dict.fromkeys(BANDS, 1.0) if band_std is None else band_std
        if missing := set(BANDS) - set(std):
            raise UsageError(f"band_std lacks {', '.join(sorted(missing))}; write the shards again to measure it")
        self.register_buffer("low_std", torch.tensor(std["low"]))
        high = torch.tensor([std[band] for band in BANDS[1:]]).repeat_interleave(IMAGE_CHANNELS)
        self.register_buffer("high_std", high[:, None, None])

        def build(name: str, size: int, channels: int) -> DCGANDiscriminator | None:
            return DCGANDiscriminator(size, channels, width, spectral_norm, logit_gain) if name in networks else None

        self.image = build("image", resolution, IMAGE_CHANNELS)
        self.low = build("low", resolution // 2, IMAGE_CHANNELS)
        self.high = build("high", resolution // 2, 3 * IMAGE_CHANNELS)

    @override
    def forward(self, image_bchw: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the logits [B] of images [B, 3, R, R] with classes int64 [B], by name of the network."""
        return self.logits(self.inputs(image_bchw), labels)

    def inputs(self, image_bchw: Tensor, scaled: bool = True) -> Inputs:
        """Compute the inputs of the networks from images [B, 3, R, R].

        Args:
            image_bchw: the images.
            scaled: False: do not divide bands by their standard deviations.
        """
        inputs: Inputs = {}
        if self.image is not None:
            inputs["image"] = [image_bchw]
        if self.low is not None or self.high is not None:
            low, high = dwt(image_bchw)
            if scaled and self.scales_bands:
                low, high = low / self.low_std, high / self.high_std
            if self.low is not None:
                inputs["low"] = [low]
            if self.high is not None:
                inputs["high"] = [high]
        return inputs

    def logits(self, inputs: Inputs, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the logits [B] from the networks' inputs and classes int64 [B], by name of the network."""
        return {name: self.get_submodule(name)(*tensors) for name, tensors in inputs.items()}


class DCGANDiscriminator(nn.Sequential):
    """A DCGAN discriminator (Radford et al. 2016), from [B, C, R, R] to one logit per image, [B].

    Strided convolutions halve the size down to 4x4; a last 4x4 convolution gives the logit.

    Args:
        resolution: height and width R of the input in pixels.
        in_channels: number of channels C of the input.
        width: number of channels of the largest feature map (`feature_map_channels`).
        spectral_norm: divide each layer's weight by its largest singular value (Miyato et al. 2018).
        logit_gain: factor of the logits. With spectral norm, a random 4x4 convolution of stride 2 shrinks its input, so that
            logits hardly leave 0.
    """

    def __init__(
        self, resolution: int, in_channels: int, width: int, spectral_norm: bool = True, logit_gain: float = 1.0
    ) -> None:
        normalized = normalize_spectrum if spectral_norm else nn.Identity()
        layers: list[nn.Module] = []
        out_channels = in_channels
        for size in reversed(feature_map_sizes(resolution)):
            in_channels, out_channels = out_channels, feature_map_channels(size, resolution, width)
            layers += [normalized(nn.Conv2d(in_channels, out_channels, 4, 2, 1)), nn.LeakyReLU(0.1, inplace=True)]
        layers += [normalized(nn.Conv2d(out_channels, 1, 4)), nn.Flatten(0)]
        super().__init__(*layers)
        self.logit_gain = logit_gain

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.logit_gain * super().forward(x)
