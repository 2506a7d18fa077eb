"""Standard deviations of the Haar bands of a dataset, accumulated in one pass."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavegan_dist.data.index import BandStd
from wavegan_dist.wavelet import dwt

CHUNK_PIXELS = 2**19  # pixels transformed at once: page faults of larger buffers would cost more than the transform

BandSums = NDArray[np.float64]  # [4, 3]; rows: low, lh, hl, hh; columns: number of values, sum, sum of squares


class BandStdAccumulator:
    """Accumulates sums over the Haar bands of uint8 images.

    The result does not depend on the order of the images or on the number of threads: band values of pixels 0..255 and their
    squares are exact in float32, and the sums are exact in float64.
    """

    def __init__(self) -> None:
        self._chunk: list[NDArray[np.uint8]] = []
        self._sums = torch.zeros(4, 3, dtype=torch.float64)  # layout of BandSums

    def add(self, image_hwc: NDArray[np.uint8]) -> None:
        """Add one uint8 image [H, W, 3]; all images must have the same size."""
        self._chunk.append(image_hwc)
        if len(self._chunk) * image_hwc.shape[0] * image_hwc.shape[1] >= CHUNK_PIXELS:
            self._flush()

    def sums(self) -> BandSums:
        """Return the sums over all images added so far. Sums of disjoint sets of images can be added."""
        self._flush()
        return self._sums.numpy()

    def _flush(self) -> None:
        if self._chunk:
            x_bchw = torch.from_numpy(np.stack(self._chunk)).permute(0, 3, 1, 2).to(torch.float32)
            low, high = dwt(x_bchw)
            self._sums += torch.stack([_moments(band) for band in (low, *high.chunk(3, dim=1))])
            self._chunk.clear()


def band_std(sums: BandSums) -> BandStd:
    """Population standard deviation of each band, over all images and colors, for pixels scaled to [-1, 1]."""
    number, total, squares = sums.T
    std = np.sqrt(np.maximum(squares / number - (total / number) ** 2, 0)) / 127.5
    low, lh, hl, hh = std.tolist()
    return BandStd(low=low, lh=lh, hl=hl, hh=hh)


def _moments(band: Tensor) -> Tensor:
    return torch.stack(
        (torch.tensor(band.numel(), dtype=torch.float64), band.sum(dtype=torch.float64), band.square().sum(dtype=torch.float64))
    )
