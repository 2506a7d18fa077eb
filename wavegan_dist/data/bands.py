"""Standard deviations of the Haar bands of a set of images, in one pass."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavegan_dist.data.index import BandStd
from wavegan_dist.wavelet import dwt

CHUNK = 2**19  # pixels transformed together: fresh memory in larger pieces costs more than the transform

BandSums = NDArray[np.float64]  # [4, 3]: low, lh, hl, hh by number, sum, sum of squares


class BandStdAccumulator:
    """Sums over the bands of uint8 images.

    Bands and their squares are exact in float32, and sums of them in float64: neither order nor threads change the result.
    """

    def __init__(self) -> None:
        self._chunk: list[NDArray[np.uint8]] = []
        self._sums = torch.zeros(4, 3, dtype=torch.float64)  # as BandSums

    def add(self, image: NDArray[np.uint8]) -> None:
        """Take in one uint8 [H, W, 3] image; all must have the same size."""
        self._chunk.append(image)
        if len(self._chunk) * image.shape[0] * image.shape[1] >= CHUNK:
            self._flush()

    def sums(self) -> BandSums:
        """What can be added to the sums over other images, and given to `band_std`."""
        self._flush()
        return self._sums.numpy()

    def _flush(self) -> None:
        if self._chunk:
            x_bchw = torch.from_numpy(np.stack(self._chunk)).permute(0, 3, 1, 2).to(torch.float32)
            low, high = dwt(x_bchw)
            self._sums += torch.stack([_moments(band) for band in (low, *high.chunk(3, dim=1))])
            self._chunk.clear()


def band_std(sums: BandSums) -> BandStd:
    """Population standard deviations for pixels scaled to [-1, 1], over all colours."""
    number, total, squares = sums.T
    std = np.sqrt(np.maximum(squares / number - (total / number) ** 2, 0)) / 127.5
    low, lh, hl, hh = std.tolist()
    return BandStd(low=low, lh=lh, hl=hl, hh=hh)


def _moments(band: Tensor) -> Tensor:
    return torch.stack(
        (torch.tensor(band.numel(), dtype=torch.float64), band.sum(dtype=torch.float64), band.square().sum(dtype=torch.float64))
    )
