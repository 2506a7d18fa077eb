"""The Fréchet Wavelet Distance: Fréchet distances between wavelet packets of real and generated images.

Veeramacheneni, Wolter, Kuehne and Gall, "Fréchet Wavelet Distance: A Domain-Agnostic Metric for Image Generation",
ICLR 2025. As in the paper, images are in [0, 1], every band of every level is split again, the variables of a packet are its
coefficients of all color channels, covariances are unbiased, and the distance is the mean over the packets of the last level.
No trained network is involved, so the distance is not biased towards ImageNet. High packets show detail that FID hardly sees.

`fwd` is the distance of the paper in the basis in which the model learns. `fwd_db2` uses Daubechies' wavelet with two
vanishing moments, reflected at the borders as in the paper's code: an independent check, because no loss uses that basis.

Images above 256 px are cut into tiles of 256 px, whose statistics are pooled. With Haar, these are the packets of the whole
image, with the covariances of coefficients up to 256 px apart at equal positions in each tile. Undivided, the covariances of
1024 px would take 4.5 GiB of memory and the distance 16,384 packets. Larger structures show in `spectrum`, `bands` and `fd`.

Like every Fréchet distance, both have a positive bias that is about proportional to 1/count. `benchmarks/evaluation.py
--floors` prints the bias.
"""

from functools import partial
from importlib.metadata import version
from itertools import product
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.frechet import gaussian_frechet_distance
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.require import require
from wavegan_dist.evaluate.statistics import Moments
from wavegan_dist.processes import single_core_threads
from wavegan_dist.wavelet import dwt

CHANNELS = 3
PACKET_SIDE = 8
PART = 8  # packets whose distances one thread computes at once
MAX_THREADS = 8
TILE = 256  # side of the largest image that is not cut into tiles
BANDS = {"a": "LL", "h": "LH", "v": "HL", "d": "HH"}  # PyWavelets' letters, in its natural order


def packet_level(size: int) -> int:
    """Return the number of levels for images, or tiles, of `size` pixels: 2 at 32 px, 3 at 64 px, 4 at 128 px, 5 at 256 px.

    A Haar packet then has 8x8 pixels x 3 channels = 192 variables at every size. The paper uses 4 levels at 256 px, where a
    packet has 768 variables; fewer variables need fewer images.

    Raises:
        UsageError: `size` is not 16, 32, 64, ...
    """
    level = (size // PACKET_SIDE).bit_length() - 1
    if level < 1 or PACKET_SIDE << level != size:
        raise UsageError(f"fwd: images of {size} px do not split into packets of {PACKET_SIDE} px; use 16, 32, 64, 128, ...")
    return level


def tiles(images: Tensor, side: int) -> Tensor:
    """Cut images [B, C, H, W] into tiles: [B * tiles of an image, C, h, w], image by image, then row by row.

    A height or width of at most `side` is not cut; a larger one must be a multiple of `side`.
    """
    height, width = images.shape[-2:]
    rows, columns = max(height // side, 1), max(width // side, 1)
    cut: Tensor = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # [B, C, rows, h, columns, w]
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def packet_names(level: int) -> list[str]:
    """Return the names of the 4**level packets in their order: "LL.LL", "LL.LH", ..., "HH.HH" for two levels.

    The first part of a name is the band of the first split.
    """
    return [".".join(path) for path in product(BANDS.values(), repeat=level)]


def haar_packets(images: Tensor, level: int) -> Tensor:
    """Compute the leaves of the full Haar packet tree.

    Args:
        images: floating [B, C, H, W], H and W divisible by 2**level.
        level: how many times every band is split.

    Returns:
        [B, 4**level, C, H / 2**level, W / 2**level] in the natural order of PyWavelets (a, h, v, d = LL, LH, HL, HH), in the
        dtype of `images`.
    """
    batch, channels, height, width = images.shape
    bands = images
    for _ in range(level):
        low, high = dwt(bands)
        bands = torch.cat((low, high), dim=1).reshape(-1, channels, *low.shape[-2:])  # the parent varies slowest
    return bands.reshape(batch, 4**level, channels, height >> level, width >> level)


def db2_packets(images: Tensor, level: int) -> Tensor:
    """Compute the leaves of the full db2 packet tree with ptwt, images reflected at the borders.

    Args:
        images: float32 or float64 [B, C, H, W].
        level: how many times every band is split.

    Returns:
        [B, 4**level, C, h, w] in the order of `haar_packets`. A split of n pixels gives (n + 3) // 2 coefficients: db2 filters
        reach over the border. Where Haar leaves have 8x8, h and w are 10; 9 if `level` is 1.

    Raises:
        UsageError: ptwt is not installed.
    """
    tree = require("ptwt", "fwd_db2").WaveletPacket2D(images, "db2", mode="reflect", maxlevel=level)
    return torch.stack([tree["".join(path)] for path in product(BANDS, repeat=level)], dim=1)


PACKETS = {"haar": haar_packets, "db2": db2_packets}


class WaveletDistance:
    """Fréchet Wavelet Distance `fwd`, the mean over all packets, and two parts of it.

    `fwd_low` is the distance of the one packet that is low at every level, `fwd_high` the mean over all other packets. With the
    basis `db2`, the names begin with `fwd_db2`.

    Args:
        size: side of the images in pixels: 16, 32, ..., 256 or a multiple of 256.
        basis: `haar` or `db2`.

    Raises:
        UsageError: images of this size do not split into packets, or ptwt, which `db2` needs, is not installed.
    """

    def __init__(self, size: int, basis: str = "haar") -> None:
        self.name = "fwd" if basis == "haar" else f"fwd_{basis}"
        self.side, self.packets = min(size, TILE), PACKETS[basis]
        self.level, tiles_of_image = packet_level(self.side), (size // self.side) ** 2
        variables = self.packets(torch.zeros(1, CHANNELS, self.side, self.side), self.level)[0, 0].numel()
        self.minimum = -(-(variables + 1) // tiles_of_image)  # the covariance of fewer tiles than variables is singular
        self.protocol: dict[str, Any] = {"basis": basis, "level": self.level, "variables": variables, "range": [0, 1]}
        if tiles_of_image > 1:
            self.protocol["tile"] = self.side
        if basis != "haar":
            self.protocol |= {"borders": "reflect", "ptwt": version("ptwt")}
        self.feature = Feature(self.name, self._coefficients, self.protocol, Moments)

    def compare(self, real: Moments, generated: Moments) -> MetricResult:
        """Compute the three values, and the table `fwd_packets` or `fwd_db2_packets`: packet name to distance.

        Args:
            real, generated: the moments of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            WaveganError: a value is not finite.
        """
        low, *high = distances = _distances(real, generated)
        parts = {"": sum(distances) / len(distances), "_low": low, "_high": sum(high) / len(high)}
        return MetricResult(
            metrics={f"{self.name}{part}": value for part, value in parts.items()},
            tables={f"{self.name}_packets": dict(zip(packet_names(self.level), distances, strict=True))},
        )

    def _coefficients(self, images: Tensor) -> Tensor:
        """Compute packet coefficients: uint8 [B, 3, S, S] -> float64 [packets, B * tiles of an image, variables]."""
        return self.packets(tiles(images, self.side).double() / 255, self.level).flatten(2).transpose(0, 1)


def _distances(real: Moments, generated: Moments) -> list[float]:
    """Compute the distance of each packet, in parts: the covariances of all packets, and their roots, would take gigabytes.

    Several threads on one core each are faster than LAPACK on several cores, because the matrices are small.
    """
    parts = [slice(first, first + PART) for first in range(0, len(real.mean), PART)]
    with single_core_threads(min(torch.get_num_threads(), MAX_THREADS)) as pool:
        return [distance for of_part in pool.map(partial(_distances_of_part, real, generated), parts) for distance in of_part]


def _distances_of_part(real: Moments, generated: Moments, part: slice) -> list[float]:
    covariances = real.covariance(part), generated.covariance(part)
    distances: list[float] = gaussian_frechet_distance(
        real.mean[part], covariances[0], generated.mean[part], covariances[1]
    ).tolist()
    return distances
