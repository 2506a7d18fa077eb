"""The Fréchet Wavelet Distance: Fréchet distances between Haar packets of real and generated images.

Veeramacheneni, Wolter, Kuehne and Gall, "Fréchet Wavelet Distance: A Domain-Agnostic Metric for Image Generation",
ICLR 2025. As there: images in [0, 1], every band of every level is split again, a packet's variables are its
coefficients of all colours, covariances are unbiased, and the distance is the mean over the packets of the last level.
No trained network takes part, so it is not biased towards ImageNet; high packets show the detail that FID hardly sees.

Like every Fréchet distance it is too large by about 1/count: between disjoint real sets of 32 px patches it is 0.78, 0.25,
0.14 and 0.05 at 300, 1000, 2000 and 5000 images. Compare equal counts only; below 1000 a slight blur may even look better.
"""

from itertools import product

import torch
from torch import Tensor

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.metric import Outcome
from wavegan_dist.evaluate.moments import Moments, frechet_distance
from wavegan_dist.wavelet import dwt

COLOURS = 3
PACKET_SIDE = 8
BANDS = ("LL", "LH", "HL", "HH")


def packet_level(size: int) -> int:
    """Levels for images of `size` pixels: packets of 8x8 x 3 colours = 192 variables, whatever the size.

    32 px: 2, 64 px: 3, 128 px: 4, 256 px: 5. The paper gives 4 for 256 px, where a packet has 768 variables: fewer need
    fewer images. Raises UsageError unless size is 16, 32, 64, ...
    """
    level = (size // PACKET_SIDE).bit_length() - 1
    if level < 1 or PACKET_SIDE << level != size:
        raise UsageError(f"fwd: images of {size} px do not split into packets of {PACKET_SIDE} px; use 16, 32, 64, 128, ...")
    return level


def packet_names(level: int) -> list[str]:
    """Names in the order of `packets`, coarsest split first: "LL.LL", "LL.LH", ..., "HH.HH"."""
    return [".".join(path) for path in product(BANDS, repeat=level)]


def packets(images: Tensor, level: int) -> Tensor:
    """The full Haar packet tree's leaves.

    Args:
        images: floating [B, C, H, W], H and W divisible by 2**level.
        level: how often every band is split.

    Returns:
        [B, 4**level, C, H / 2**level, W / 2**level] in the natural order of PyWavelets (a, h, v, d = LL, LH, HL, HH).
    """
    batch, colours, height, width = images.shape
    bands = images
    for _ in range(level):
        low, high = dwt(bands)
        bands = torch.cat((low, high), dim=1).reshape(-1, colours, *low.shape[-2:])  # the parent varies slowest
    return bands.reshape(batch, 4**level, colours, height >> level, width >> level)


class PacketMoments:
    """Mean and covariance of every packet of the images seen."""

    def __init__(self, level: int, device: torch.device | str = "cpu") -> None:
        self.level = level
        self.moments = Moments((4**level, COLOURS * PACKET_SIDE**2), device)

    def update(self, images: Tensor) -> None:
        """Look at uint8 images [B, 3, H, W]."""
        leaves = packets(images.double() / 255, self.level)
        self.moments.update(leaves.flatten(2).transpose(0, 1))  # [packets, B, variables]


class WaveletDistance:
    """`fwd`, its parts `fwd_low` (the one packet that is low throughout) and `fwd_high` (the mean of all others).

    Args:
        size: side of the images in pixels.
        device: where the images are.
    """

    name = "fwd"
    minimum = COLOURS * PACKET_SIDE**2 + 1  # fewer images than variables give a singular covariance

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.level = packet_level(size)
        self.real = PacketMoments(self.level, device)
        self.generated = PacketMoments(self.level, device)

    def result(self) -> Outcome:
        """Compare; the table `fwd_packets` has the distance of each packet by its name."""
        real, generated = self.real.moments, self.generated.moments
        distances = frechet_distance(real.mean, real.covariance(), generated.mean, generated.covariance()).tolist()
        low, *high = distances
        return Outcome(
            metrics={"fwd": sum(distances) / len(distances), "fwd_low": low, "fwd_high": sum(high) / len(high)},
            tables={"fwd_packets": dict(zip(packet_names(self.level), distances, strict=True))},
            protocol={"basis": "haar", "level": self.level, "variables": self.minimum - 1, "range": [0, 1]},
        )
