"""The radial power spectrum: at which frequencies do generated images have too little or too much?

As in stylegan3's `avg_spectra` (Karras et al. 2021) each image is weighted by a Kaiser window (beta 8, unit energy) so
that its borders do not count as edges, and power is averaged over images and colours before the logarithm. Ours removes
each colour's mean from each image and averages over the angle. 0 dB is one squared grey level of 256.
"""

import math
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.bootstrap import RESAMPLES, intervals
from wavegan_dist.evaluate.feature import Feature, FeatureRows, Statistics
from wavegan_dist.evaluate.metric import MetricResult

KAISER_BETA = 8.0
ROUNDING_NOISE = 1 / 12  # power of rounding to 8 bits: below it nothing is meant, and a flat image stays finite
PARTS = {"": 0.0, "_top_half": 0.5, "_top_quarter": 0.75}  # from this frequency up, in units of Nyquist


class SpectrumError:
    """`spectrum_db`: mean absolute difference to the data in dB over all radii; `..._top_half`, `..._top_quarter`: over those
    from 1/2 and 3/4 of the Nyquist frequency up (one Haar level calls the upper half high). `..._signed`: below 0 there is
    too little detail.

    Args:
        size: side of the images in pixels.
        seed: of the bootstrap.
    """

    name = "spectrum"
    minimum = 1

    def __init__(self, size: int, seed: int = 0) -> None:
        self.seed = seed
        self.frequency = torch.arange(1, radii(size) + 1, dtype=torch.float64) / (size / 2)
        rows: dict[str, Any] = {"window": f"kaiser {KAISER_BETA:g}", "colours": "mean power", "mean": "removed"}
        self.feature = Feature("spectrum", RadialPower(size), rows)
        self.protocol = {**rows, "bootstrap": RESAMPLES}
        self.names = [f"spectrum_db{part}{signed}" for part in PARTS for signed in ("", "_signed")]

    def compare(self, real: Statistics, generated: Statistics) -> MetricResult:
        """The table `spectrum` has both curves in dB over the frequency in units of Nyquist."""
        assert isinstance(real, FeatureRows)
        assert isinstance(generated, FeatureRows)
        sides = real.all(), generated.all()
        curves = [decibels(side.mean(dim=0)) for side in sides]
        table = {"frequency": self.frequency, "real_db": curves[0], "generated_db": curves[1]}
        return MetricResult(
            dict(zip(self.names, self._numbers(*(side.mean(dim=0) for side in sides)).tolist(), strict=True)),
            {"spectrum": {name: curve.tolist() for name, curve in table.items()}},
            intervals(self.names, self._numbers, *sides, self.seed),
        )

    def _numbers(self, real: Tensor, generated: Tensor) -> Tensor:
        """Mean powers [..., R] -> the six numbers [..., 6]."""
        error = decibels(generated) - decibels(real)
        parts = [error[..., self.frequency >= least] for least in PARTS.values()]
        return torch.stack([mean for part in parts for mean in (part.abs().mean(dim=-1), part.mean(dim=-1))], dim=-1)


class RadialPower:
    """Power at the radii 1, 2, ... up to the corner of the frequency plane, mean over angle and colours, of each image."""

    def __init__(self, size: int) -> None:
        window = torch.kaiser_window(size, periodic=False, beta=KAISER_BETA, dtype=torch.float64)
        window /= window.norm()
        self.window = window.outer(window)
        frequency = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64)
        self.radius = torch.hypot(frequency[:, None], frequency[None, :]).floor().long().flatten()
        self.share = 1 / torch.bincount(self.radius).double()

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] -> float64 [B, R]."""
        grey_levels = images.double()
        centred = grey_levels - grey_levels.mean(dim=(-2, -1), keepdim=True)
        power = torch.fft.fft2(centred * self.window.to(images.device)).abs().square().mean(dim=1).flatten(1)
        sums = power.new_zeros(len(images), len(self.share)).index_add_(1, self.radius.to(images.device), power)
        means: Tensor = sums * self.share.to(images.device)
        return means[:, 1:]


def radii(size: int) -> int:
    """Whole radii from 1 to the corner of the frequency plane of images of `size` pixels."""
    return math.isqrt(size * size // 2)


def decibels(power: Tensor) -> Tensor:
    """Power in squared grey levels, any shape -> dB, from that of rounding to 8 bits up."""
    return 10 * power.clamp(min=ROUNDING_NOISE).log10()
