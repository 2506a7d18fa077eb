"""The three discriminators: on the image, on its low Haar band and on its three high ones."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wavegan_dist.errors import UsageError
from wavegan_dist.model.generator import COLOURS, check_resolution, feature_sides, width_at
from wavegan_dist.model.spectral_norm import spectral_norm
from wavegan_dist.wavelet import dwt

NETWORKS = ("image", "low", "high")
BANDS = ("low", "lh", "hl", "hh")


class WaveletDiscriminator(nn.Module):
    """One logit per image from each of up to three networks (patent CN 111275640 B).

    The bands are those of the image that is given, real or fused, never the raw outputs of the band generators: this is
    what joins the three generators under one loss.

    Args:
        resolution: side of the image in pixels, a power of two from 32 to 256.
        width: channels of each network's largest feature map; doubled with each halving, up to 8 times.
        networks: which of `image`, `low`, `high` to build.
        band_std: standard deviation of each Haar band (`low`, `lh`, `hl`, `hh`) over real data, to divide the bands by;
            None: bands as they are (the patent's own).

    Raises:
        UsageError: an unsupported resolution, no network, an unknown one, or a missing band.
    """

    low_std: Tensor
    high_std: Tensor

    def __init__(
        self,
        resolution: int = 32,
        width: int = 64,
        networks: Sequence[str] = NETWORKS,
        band_std: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        check_resolution(resolution)
        if not networks or set(networks) - set(NETWORKS):
            raise UsageError(f"discriminators {list(networks)}: name at least one of {', '.join(NETWORKS)}, and no others")
        self.scales = band_std is not None
        std = dict.fromkeys(BANDS, 1.0) if band_std is None else band_std
        if missing := set(BANDS) - set(std):
            raise UsageError(f"band_std lacks {', '.join(sorted(missing))}; write the shards again to measure it")
        self.register_buffer("low_std", torch.tensor(std["low"]))
        high = torch.tensor([std[band] for band in BANDS[1:]]).repeat_interleave(COLOURS)
        self.register_buffer("high_std", high[:, None, None])
        self.image = Convolution(resolution, COLOURS, width) if "image" in networks else None
        self.low = Convolution(resolution // 2, COLOURS, width) if "low" in networks else None
        self.high = Convolution(resolution // 2, 3 * COLOURS, width) if "high" in networks else None

    def forward(self, image_bchw: Tensor) -> dict[str, Tensor]:
        """Images [B, 3, R, R] -> one logit per image, [B], under each network's name."""
        logits: dict[str, Tensor] = {}
        if self.image is not None:
            logits["image"] = self.image(image_bchw)
        if self.low is not None or self.high is not None:
            low, high = dwt(image_bchw)
            if self.scales:
                low, high = low / self.low_std, high / self.high_std
            if self.low is not None:
                logits["low"] = self.low(low)
            if self.high is not None:
                logits["high"] = self.high(high)
        return logits


class Convolution(nn.Sequential):
    """A DCGAN discriminator with spectral norm (Miyato et al. 2018): strided convolutions down to 4x4, then one logit."""

    def __init__(self, resolution: int, in_channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        channels = in_channels
        for side in reversed(feature_sides(resolution)):
            previous, channels = channels, width_at(side, resolution, width)
            layers += [spectral_norm(nn.Conv2d(previous, channels, 4, 2, 1)), nn.LeakyReLU(0.1, inplace=True)]
        layers += [spectral_norm(nn.Conv2d(channels, 1, 4)), nn.Flatten(0)]
        super().__init__(*layers)
