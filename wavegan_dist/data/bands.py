"""Standard deviations of the Haar bands of a dataset at every level, accumulated in one pass."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavegan_dist.config import deepest_level
from wavegan_dist.counted import rng_at
from wavegan_dist.data.index import BandStd
from wavegan_dist.wavelet import wavedec

CHUNK_PIXELS = 2**19  # pixels transformed at once: page faults of larger buffers would cost more than the transform

# Python integers or fractions, object array [levels, 4, 3]; rows: low, lh, hl, hh; columns: number of values, sum, sum of
# squares. A band of level n has values that are multiples of 2**-n: the sums are those of the values times 2**n.
BandSums: TypeAlias = NDArray[np.object_]


class BandStdAccumulator:
    """Accumulates sums over the Haar bands of uint8 images, at all levels whose bands have at least 8 pixels per side.

    The sums are exact, so the result does not depend on the order of the images, on the chunks or on the number of threads:
    band values of pixels 0..255 at level n have 8 + 2n bits, which float32 holds up to level 8. Their squares, and the sums
    over a chunk, are exact in float64.

    Args:
        size: side of the images in pixels, a power of two.
    """

    def __init__(self, size: int) -> None:
        self.levels = deepest_level(size)
        self._chunk: list[NDArray[np.uint8]] = []
        self._sums = no_sums(size)

    def add(self, image_hwc: NDArray[np.uint8]) -> None:
        """Add one RGB image, uint8 [size, size, 3]. Later calls may still read the array: do not change it."""
        self._chunk.append(image_hwc)
        if len(self._chunk) * image_hwc.shape[0] * image_hwc.shape[1] >= CHUNK_PIXELS:
            self._flush()

    def sums(self) -> BandSums:
        """Return the sums over all images added so far. Sums of disjoint sets of images can be added.

        Returns:
            Object array [levels, 4, 3] of Python integers, which later calls of `add` change. Rows: the bands low, lh, hl, hh.
            Columns: number of values, sum of the values, sum of their squares, for values of level n times 2**n.
        """
        self._flush()
        return self._sums

    def _flush(self) -> None:
        if self._chunk:
            x_bchw = torch.from_numpy(np.stack(self._chunk)).permute(0, 3, 1, 2).to(torch.float32)
            for level, scale in enumerate(2**level for level in range(1, self.levels + 1)):
                x_bchw, (high,) = wavedec(x_bchw, 1)
                for row, band in enumerate((x_bchw, *high.chunk(3, dim=1))):
                    self._sums[level, row] += np.array(_moments(band, scale), dtype=object)
            self._chunk.clear()


class DrawnSums(NamedTuple):
    """Sums over the Haar bands of images that were drawn from a shard, and the number of these images."""

    sums: BandSums
    drawn: int  # images

    def of_all(self, images: int) -> BandSums:
        """Return the sums over all images from which these were drawn: exact integers if all were, else estimated fractions.

        Args:
            images: number of images from which these were drawn; the estimate is proportional to it.

        Raises:
            ZeroDivisionError: no image was drawn, but `images` is not 0.
        """
        scaled: BandSums = self.sums if images == self.drawn else self.sums * Fraction(images, self.drawn)
        return scaled


class DrawnBands:
    """Accumulates sums over the Haar bands of images drawn at random while they pass, however many they turn out to be.

    Each image belongs to group 0, 1, 2, ... with probability 1/2, 1/4, 1/8, ... All groups are accumulated at first. Whenever
    they hold more images than `limit`, the lowest group is dropped, and its later images are not decoded. Every image is
    therefore equally likely to be counted, and if there are at most `limit` images, all are.

    Args:
        size: side of the images in pixels.
        limit: largest number of images to count, at least 1. It is exceeded only if the one group that is left holds more.
        shard: number of the shard. The draw is a function of this number.
    """

    def __init__(self, size: int, limit: int, shard: int) -> None:
        self._size, self._limit, self._rng = size, limit, rng_at(0, "shards/index", shard)
        self._groups: dict[int, tuple[BandStdAccumulator, int]] = {}  # and the number of images
        self._lowest = 0

    def add(self, decode: Callable[[], NDArray[np.uint8]]) -> None:
        """Pass one image to the draw.

        Args:
            decode: returns the image, uint8 [size, size, 3]. Called only if the image's group has not been dropped; errors of
                `decode` are passed on.
        """
        group = -math.frexp(self._rng.random())[1]
        if group < self._lowest:
            return
        accumulator, images = self._groups.get(group) or (BandStdAccumulator(self._size), 0)
        accumulator.add(decode())
        self._groups[group] = (accumulator, images + 1)
        while self._drawn() > self._limit and len(self._groups) > 1:
            self._lowest = min(self._groups) + 1
            del self._groups[self._lowest - 1]

    def sums(self) -> DrawnSums:
        """Return the sums over the images of all groups that have not been dropped, and the number of these images."""
        return DrawnSums(sum((bands.sums() for bands, _ in self._groups.values()), no_sums(self._size)), self._drawn())

    def _drawn(self) -> int:
        return sum(images for _, images in self._groups.values())


def no_sums(size: int) -> BandSums:
    """Return the sums over no image, for images of `size` x `size` pixels: zeros of the shape of `BandStdAccumulator.sums`."""
    return np.full((deepest_level(size), 4, 3), 0, dtype=object)


def band_std(sums: BandSums) -> list[BandStd]:
    """Compute the population standard deviation of each band over all images and colors, for pixels scaled to [-1, 1].

    Args:
        sums: result of `BandStdAccumulator.sums` or `DrawnSums.of_all` over at least one image, or a sum of such results.

    Returns:
        The standard deviations of levels 1, 2, ..., one `BandStd` per level.
    """
    return [BandStd(**_band_std_of_level(bands, 2**level)) for level, bands in enumerate(sums.tolist(), start=1)]


def _band_std_of_level(bands: list[list[int]], scale: int) -> dict[str, float]:
    variances = [(number * squares - total**2) / number**2 for number, total, squares in bands]  # of the values times `scale`
    return {name: math.sqrt(variance) / scale / 127.5 for name, variance in zip(BandStd.model_fields, variances, strict=True)}


def _moments(band: Tensor, scale: int) -> tuple[int, int, int]:
    """Return the number of values, and the sums of the values and of their squares, both of the values times `scale`."""
    values = band.double() * scale
    return band.numel(), int(values.sum().item()), int(values.square().sum().item())
