"""The sliced Wasserstein distance of wavelet packets: a distance of detail that needs few images.

The packets are those of `fwd` (`wavelet_distance.py`). The coefficients of a packet are projected on fixed random unit vectors
(Rabin, Peyré, Delon and Bernot, "Wasserstein barycenter and its application to texture mixing", SSVM 2011). Each projection is
one number per image, and the Wasserstein-1 distance between two sets of numbers needs no covariance of 192 x 192 entries.

The distance of a packet is the mean over its projections, in units of the standard deviation of real images. All packets
therefore count equally, while in `fwd` the packets with the largest coefficients outweigh those with the finest detail.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.spectrum import ROUNDING_NOISE
from wavegan_dist.evaluate.statistics import FeatureRows
from wavegan_dist.evaluate.wasserstein import wasserstein_distance
from wavegan_dist.evaluate.wavelet_distance import CHANNELS, PACKET_SIDE, TILE, haar_packets, packet_level, packet_names
from wavegan_dist.evaluate.wavelet_distance import tiles as cut_into_tiles

MOST_DIRECTIONS, FEWEST_DIRECTIONS = 64, 4  # of a packet
NUMBERS_OF_TILE = 8192  # projections of all packets of a tile (32 KiB), which limits the directions of a packet
DIRECTIONS_STREAM = "evaluate/directions"


class SlicedDistance:
    """Sliced Wasserstein distance `swd`, the mean over all Haar packets, and two parts of it.

    `swd_low` is the distance of the one packet that is low at every level, `swd_high` the mean over all other packets. Images
    above 256 px are cut into tiles of 256 px, which count like images.

    Args:
        size: side of the images in pixels: 16, 32, ..., 256 or a multiple of 256.

    Raises:
        UsageError: images of this size do not split into packets.
    """

    name = "swd"
    minimum = 2  # the standard deviation of one image is not defined

    def __init__(self, size: int) -> None:
        self.side = min(size, TILE)
        self.level = packet_level(self.side)
        packets, variables = 4**self.level, CHANNELS * PACKET_SIDE**2
        directions = max(min(NUMBERS_OF_TILE // packets, MOST_DIRECTIONS), FEWEST_DIRECTIONS)
        self.directions = unit_vectors(packets, directions, variables).mT
        self.protocol: dict[str, Any] = {"basis": "haar", "level": self.level, "directions": directions, "order": 1}
        if size > TILE:
            self.protocol["tile"] = TILE
        self.feature = Feature(self.name, self._projections, self.protocol, FeatureRows)

    def compare(self, real: FeatureRows, generated: FeatureRows) -> MetricResult:
        """Compute the three values, and the table `swd_packets`: packet name to distance.

        Args:
            real, generated: the rows of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            WaveganError: a value is not finite.
        """
        low, *high = distances = list(_distances(real.rows(), generated.rows()))
        parts = {"": sum(distances) / len(distances), "_low": low, "_high": sum(high) / len(high)}
        return MetricResult(
            metrics={f"{self.name}{part}": value for part, value in parts.items()},
            tables={f"{self.name}_packets": dict(zip(packet_names(self.level), distances, strict=True))},
        )

    def _projections(self, images: Tensor) -> Tensor:
        """Project each packet, in gray levels: uint8 [B, 3, S, S] -> float32 [B * tiles of an image, packets, directions]."""
        packets = haar_packets(cut_into_tiles(images, self.side).double(), self.level).flatten(2)
        return (packets.transpose(0, 1) @ self.directions.to(images.device)).transpose(0, 1).float()


def unit_vectors(packets: int, directions: int, variables: int) -> Tensor:
    """Draw unit vectors, the same in every evaluation: float64 [packets, directions, variables] on the CPU."""
    vectors = counted.normal(0, DIRECTIONS_STREAM, range(packets * directions), variables).double()
    units: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
    return units.view(packets, directions, variables)


def _distances(real: Tensor, generated: Tensor) -> Iterator[float]:
    """Yield the distance of each packet between projections [N, packets, directions] and [M, packets, directions].

    The unit is the standard deviation of the packet's projections of real images, which counts as at least rounding to 8 bits.
    """
    for parts in zip(real.split(1, dim=1), generated.split(1, dim=1), strict=True):
        real_part, generated_part = (part.movedim(0, -1) for part in parts)  # [1, directions, N]: sorts fastest
        deviation = real_part.double().var(dim=-1).mean(dim=-1).clamp(min=ROUNDING_NOISE).sqrt()
        yield from (wasserstein_distance(real_part, generated_part).mean(dim=-1) / deviation).tolist()
