"""Standard deviations of the Haar bands of a set of images, in one pass."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavegan_dist.data.index import BandStd
from wavegan_dist.wavelet import dwt

CHUNK = 256  # images transformed together


class BandStatistics:
    """Sums over the bands of uint8 images. In float64 they are exact, so neither order nor threads change the result."""

    def __init__(self) -> None:
        self._chunk: list[NDArray[np.uint8]] = []
        self._sums = torch.zeros(4, 3, dtype=torch.float64)  # low, lh, hl, hh by number, sum, sum of squares

    def add(self, image: NDArray[np.uint8]) -> None:
        """Take in one uint8 [H, W, 3] image; all must have the same size."""
        self._chunk.append(image)
        if len(self._chunk) == CHUNK:
            self._flush()

    def std(self) -> BandStd:
        """Population standard deviations for pixels scaled to [-1, 1], over all colours."""
        self._flush()
        number, total, squares = self._sums.unbind(dim=1)
        std = (squares / number - (total / number) ** 2).clamp(min=0).sqrt() / 127.5
        low, lh, hl, hh = std.tolist()
        return BandStd(low=low, lh=lh, hl=hl, hh=hh)

    def _flush(self) -> None:
        if self._chunk:
            x_bchw = torch.from_numpy(np.stack(self._chunk)).permute(0, 3, 1, 2).to(torch.float64)
            low, high = dwt(x_bchw)
            self._sums += torch.stack([_moments(band) for band in (low, *high.chunk(3, dim=1))])
            self._chunk.clear()


def _moments(band: Tensor) -> Tensor:
    return torch.stack((torch.tensor(band.numel(), dtype=torch.float64), band.sum(), band.square().sum()))
