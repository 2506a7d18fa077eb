"""Energy and kurtosis of each Haar sub-band: is the detail there, and is it as sparse as that of real images?

The pyramid is that of the model's own transform: every level splits the low band of the one before. Natural images have
band coefficients of high kurtosis (Field 1987): few are large. Noise of the right energy has 3.
"""

from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.bootstrap import RESAMPLES, intervals
from wavegan_dist.evaluate.feature import Feature, FeatureRows, Statistics
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.spectrum import ROUNDING_NOISE, decibels
from wavegan_dist.wavelet import wavedec

SMALLEST = 8  # side of the coarsest band in pixels
NAMES = ["bands_db", "bands_db_signed", "bands_kurtosis"]


class BandMetric:
    """`bands_db`: mean absolute difference of the bands' energy to the data's in dB; `..._signed`: below 0 there is too little.
    `bands_kurtosis`: mean absolute difference of the natural logarithm of their kurtosis (0.1 is about 10%).

    Args:
        size: side of the images in pixels, a power of two.
        seed: of the bootstrap.
    """

    name = "bands"
    minimum = 1

    def __init__(self, size: int, seed: int = 0) -> None:
        self.seed = seed
        self.levels = max(size // SMALLEST, 2).bit_length() - 1
        basis: dict[str, Any] = {"basis": "haar", "levels": self.levels, "mean": "removed"}
        self.feature = Feature("bands", self._rows, basis)
        self.protocol = {**basis, "bootstrap": RESAMPLES}
        self.names = [f"{band}{level + 1}" for level in range(self.levels) for band in ("LH", "HL", "HH")] + [
            f"LL{self.levels}"
        ]

    def compare(self, real: Statistics, generated: Statistics) -> MetricResult:
        """The table `bands` has energy in dB (1 squared grey level = 0) and kurtosis of each band, of both sides."""
        assert isinstance(real, FeatureRows)
        assert isinstance(generated, FeatureRows)
        sides = real.all(), generated.all()
        means = [side.mean(dim=0) for side in sides]
        (real_db, real_kurtosis), (made_db, made_kurtosis) = (_energy_and_kurtosis(mean) for mean in means)
        columns = {
            "real_db": real_db, "generated_db": made_db, "real_kurtosis": real_kurtosis, "generated_kurtosis": made_kurtosis,
        }  # fmt: skip
        return MetricResult(
            dict(zip(NAMES, _numbers(*means).tolist(), strict=True)),
            {"bands": {"band": self.names, **{name: column.tolist() for name, column in columns.items()}}},
            intervals(NAMES, _numbers, *sides, self.seed),
        )

    def _rows(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] -> mean square of each band, then mean fourth power of each: float64 [B, 2 * bands]."""
        low = images.double()
        low = low - low.mean(dim=(-2, -1), keepdim=True)
        low, highs = wavedec(low, self.levels)
        bands = [band for high in reversed(highs) for band in high.unflatten(1, (3, -1)).unbind(dim=1)]
        squares = [band.square() for band in (*bands, low)]
        return torch.stack([mean.mean(dim=(1, 2, 3)) for mean in (*squares, *(square.square() for square in squares))], dim=1)


def _energy_and_kurtosis(means: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 2 * bands] -> energy in dB and kurtosis, each [..., bands]."""
    square, fourth = means.chunk(2, dim=-1)
    return decibels(square), (fourth / square.clamp(min=ROUNDING_NOISE).square()).clamp(min=1)  # which it is for any variable


def _numbers(real: Tensor, generated: Tensor) -> Tensor:
    (real_db, real_kurtosis), (made_db, made_kurtosis) = (_energy_and_kurtosis(side) for side in (real, generated))
    error = made_db - real_db
    kurtosis = (made_kurtosis / real_kurtosis).log()
    return torch.stack((error.abs().mean(dim=-1), error.mean(dim=-1), kurtosis.abs().mean(dim=-1)), dim=-1)
