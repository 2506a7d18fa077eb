"""Energy and kurtosis of each Haar sub-band: is the detail there, and is it as sparse as in real images?

The bands are those of the model's own transform (`wavedec`): every level splits the low band of the level before. Band
coefficients of natural images have a high kurtosis (Field 1987): few of them are large. Gaussian noise has a kurtosis of 3.
"""

from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.bootstrap import RESAMPLES, bootstrap_intervals
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.spectrum import ROUNDING_NOISE, decibels
from wavegan_dist.evaluate.statistics import FeatureRows
from wavegan_dist.wavelet import wavedec

SMALLEST = 8  # side of the coarsest band in pixels
NAMES = ["bands_db", "bands_db_signed", "bands_kurtosis"]


class BandMetric:
    """Differences in the energy and the kurtosis of the sub-bands between generated and real images.

    `bands_db` is the mean absolute difference of the bands' energy in dB, `bands_db_signed` the mean difference: below 0,
    generated images have too little energy. `bands_kurtosis` is the mean absolute difference of the natural logarithm of the
    kurtosis: 0.1 is about 10%.

    Args:
        size: side of the images in pixels, a power of two.
        seed: seed of the bootstrap.
    """

    name = "bands"
    minimum = 1

    def __init__(self, size: int, seed: int = 0) -> None:
        self.seed = seed
        self.levels = max(size // SMALLEST, 2).bit_length() - 1
        basis: dict[str, Any] = {"basis": "haar", "levels": self.levels, "mean": "removed"}
        self.feature = Feature("bands", self._band_powers, basis, FeatureRows)
        self.protocol = {**basis, "bootstrap": RESAMPLES}
        high_bands = [f"{band}{level + 1}" for level in range(self.levels) for band in ("LH", "HL", "HH")]
        self.bands = [*high_bands, f"LL{self.levels}"]

    def compare(self, real: FeatureRows, generated: FeatureRows) -> MetricResult:
        """Compute the three values and the table `bands`: energy in dB (0: 1 squared gray level) and kurtosis of each band.

        Args:
            real, generated: the rows of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            WaveganError: a value is not finite.
        """
        rows = real.rows(), generated.rows()
        means = [rows_of_set.mean(dim=0) for rows_of_set in rows]
        (real_db, real_kurtosis), (generated_db, generated_kurtosis) = map(_energy_and_kurtosis, means)
        columns = {
            "real_db": real_db, "generated_db": generated_db, "real_kurtosis": real_kurtosis,
            "generated_kurtosis": generated_kurtosis,
        }  # fmt: skip
        return MetricResult(
            dict(zip(NAMES, _values(*means).tolist(), strict=True)),
            {"bands": {"band": self.bands, **{name: column.tolist() for name, column in columns.items()}}},
            bootstrap_intervals(NAMES, _values, *rows, self.seed),
        )

    def _band_powers(self, images: Tensor) -> Tensor:
        """Compute the mean square of each band, then the mean fourth powers: uint8 [B, 3, S, S] -> float64 [B, 2 * bands]."""
        low = images.double()
        low = low - low.mean(dim=(-2, -1), keepdim=True)
        low, highs = wavedec(low, self.levels)
        bands = [band for high in reversed(highs) for band in high.unflatten(1, (3, -1)).unbind(dim=1)]
        squares = [band.square() for band in (*bands, low)]
        powers = (*squares, *(square.square() for square in squares))
        return torch.stack([power.mean(dim=(1, 2, 3)) for power in powers], dim=1)


def _energy_and_kurtosis(means: Tensor) -> tuple[Tensor, Tensor]:
    """Return energy in dB and kurtosis (3 for a normal distribution) of each band, each [..., bands].

    Energy, and the mean square that kurtosis divides by, are at least ROUNDING_NOISE; kurtosis is at least 1.

    Args:
        means: mean squares of all bands, then their mean fourth powers, [..., 2 * bands].
    """
    square, fourth = means.chunk(2, dim=-1)
    kurtosis = fourth / square.clamp(min=ROUNDING_NOISE).square()
    return decibels(square), kurtosis.clamp(min=1)  # no distribution has a kurtosis below 1


def _values(real: Tensor, generated: Tensor) -> Tensor:
    """Compute the values of `NAMES`, [..., 3], from the mean features of both sets, each [..., 2 * bands]."""
    real_db, real_kurtosis = _energy_and_kurtosis(real)
    generated_db, generated_kurtosis = _energy_and_kurtosis(generated)
    error = generated_db - real_db
    kurtosis = (generated_kurtosis / real_kurtosis).log()
    return torch.stack((error.abs().mean(dim=-1), error.mean(dim=-1), kurtosis.abs().mean(dim=-1)), dim=-1)
