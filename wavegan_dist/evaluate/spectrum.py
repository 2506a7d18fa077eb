"""The radial power spectrum: at which frequencies do generated images have too little or too much power?

As in stylegan3's `avg_spectra` (Karras et al. 2021), each image is weighted by a Kaiser window (beta 8, unit energy) so that
its borders do not count as edges, and power is averaged over images and color channels before the logarithm is taken. In
addition, each channel's mean is removed from each image and power is averaged over the angle. 0 dB is the power of one squared
gray level, on the scale 0..255.
"""

import math
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.bootstrap import RESAMPLES, bootstrap_intervals
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.statistics import FeatureRows

KAISER_BETA = 8.0
ROUNDING_NOISE = 1 / 12  # power of rounding to 8 bits: lower powers carry no meaning, and a flat image stays finite
RANGES = {"": 0.0, "_top_half": 0.5, "_top_quarter": 0.75}  # name suffix -> lowest frequency in units of Nyquist


class SpectrumError:
    """Difference between the radial power spectra of generated and real images.

    `spectrum_db` is the mean absolute difference in dB over all radii; `spectrum_db_top_half` and `spectrum_db_top_quarter`
    cover the radii from 1/2 and 3/4 of the Nyquist frequency up. The upper half is the range that one Haar level separates as
    its high bands. With the suffix `_signed`, it is the mean difference: below 0, generated images have too little power.

    Args:
        size: side of the images in pixels.
        seed: seed of the bootstrap.
    """

    name = "spectrum"
    minimum = 1

    def __init__(self, size: int, seed: int = 0) -> None:
        self.seed = seed
        self.frequency = torch.arange(1, radii(size) + 1, dtype=torch.float64) / (size / 2)
        settings: dict[str, Any] = {"window": f"kaiser {KAISER_BETA:g}", "colours": "mean power", "mean": "removed"}
        self.feature = Feature("spectrum", RadialPower(size), settings, FeatureRows)
        self.protocol = {**settings, "bootstrap": RESAMPLES}
        self.names = [f"spectrum_db{suffix}{signed}" for suffix in RANGES for signed in ("", "_signed")]

    def compare(self, real: FeatureRows, generated: FeatureRows) -> MetricResult:
        """Compute the six values, and the table `spectrum`: both spectra in dB over the frequency in units of Nyquist.

        Args:
            real, generated: the rows of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            WaveganError: a value is not finite.
        """
        rows = real.rows(), generated.rows()
        means = [rows_of_set.mean(dim=0) for rows_of_set in rows]
        table = {"frequency": self.frequency, "real_db": decibels(means[0]), "generated_db": decibels(means[1])}
        return MetricResult(
            dict(zip(self.names, self._values(*means).tolist(), strict=True)),
            {"spectrum": {name: curve.tolist() for name, curve in table.items()}},
            bootstrap_intervals(self.names, self._values, *rows, self.seed),
        )

    def _values(self, real: Tensor, generated: Tensor) -> Tensor:
        """Compute the six values, [..., 6], from the mean powers of both sets, each [..., number of radii]."""
        error = decibels(generated) - decibels(real)
        ranges = [error[..., self.frequency >= lowest] for lowest in RANGES.values()]
        return torch.stack([mean for part in ranges for mean in (part.abs().mean(dim=-1), part.mean(dim=-1))], dim=-1)


class RadialPower:
    """Mean power over angle and color channels at the radii 1, 2, ... up to the corner of the frequency plane.

    Args:
        size: side of the images in pixels.
    """

    def __init__(self, size: int) -> None:
        window = torch.kaiser_window(size, periodic=False, beta=KAISER_BETA, dtype=torch.float64)
        window /= window.norm()
        self.window = window.outer(window)
        frequency = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64)
        self.radius = torch.hypot(frequency[:, None], frequency[None, :]).floor().long().flatten()
        self.share = 1 / torch.bincount(self.radius).double()

    def __call__(self, images: Tensor) -> Tensor:
        """Compute the power at each radius: images in gray levels, uint8 or floating [B, 3, S, S] -> float64 [B, radii(S)]."""
        gray_levels = images.double()
        centered = gray_levels - gray_levels.mean(dim=(-2, -1), keepdim=True)
        power = torch.fft.fft2(centered * self.window.to(images.device)).abs().square().mean(dim=1).flatten(1)
        sums = power.new_zeros(len(images), len(self.share)).index_add_(1, self.radius.to(images.device), power)
        means: Tensor = sums * self.share.to(images.device)
        return means[:, 1:]


def radii(size: int) -> int:
    """Return the largest integer radius, in steps of the DFT, in the frequency plane of images of `size` x `size` pixels."""
    return math.isqrt(size * size // 2)


def decibels(power: Tensor) -> Tensor:
    """Convert power in squared gray levels, any shape, to dB. Power is clamped from below to that of rounding to 8 bits."""
    return 10 * power.clamp(min=ROUNDING_NOISE).log10()
