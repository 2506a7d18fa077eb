"""The radial power spectrum: at which frequencies do generated images have too little or too much?

As in stylegan3's `avg_spectra` (Karras et al. 2021) each image is weighted by a Kaiser window (beta 8, unit energy) so
that its borders do not count as edges, and power is averaged over images and colours before the logarithm. Ours removes
each colour's mean from each image and averages over the angle. 0 dB is one squared grey level of 256.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.metric import Outcome
from wavegan_dist.files import atomic_file

KAISER_BETA = 8.0
ROUNDING_NOISE = 1 / 12  # power of rounding to 8 bits: below it nothing is meant, and a flat image stays finite


class PowerSpectrum:
    """The mean power at every 2D frequency of the images seen."""

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        window = torch.kaiser_window(size, periodic=False, beta=KAISER_BETA, device=device)
        window /= window.norm()
        self.window = window.outer(window)
        self.total = torch.zeros(size, size, dtype=torch.float64, device=device)
        self.count = 0

    def update(self, images: Tensor) -> None:
        """Look at uint8 images [B, 3, H, W]."""
        grey_levels = images.float()
        centred = grey_levels - grey_levels.mean(dim=(-2, -1), keepdim=True)
        power = torch.fft.fft2(centred * self.window).abs().square()
        self.total += power.double().mean(dim=1).sum(dim=0)
        self.count += len(images)

    def decibels(self) -> Tensor:
        """Power of the radii 1, 2, ... up to the corner of the frequency plane: float64 [R] on the CPU."""
        return radial_decibels(self.total.cpu() / self.count)


class SpectrumError:
    """`spectrum_db`: mean absolute difference to the data in dB over all radii; `spectrum_db_top_half`: over those from
    half the Nyquist frequency up, which one Haar level calls high. `..._signed`: below 0 there is too little detail.

    Args:
        size: side of the images in pixels.
        device: where the images are.
    """

    name = "spectrum"
    minimum = 1

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.size = size
        self.real = PowerSpectrum(size, device)
        self.generated = PowerSpectrum(size, device)

    def result(self) -> Outcome:
        """Compare; the table `spectrum` has both curves in dB over the frequency in units of Nyquist."""
        real, generated = self.real.decibels(), self.generated.decibels()
        frequency = torch.arange(1, len(real) + 1, dtype=torch.float64) / (self.size / 2)
        error = generated - real
        top = error[frequency >= 0.5]
        return Outcome(
            metrics={
                "spectrum_db": error.abs().mean().item(),
                "spectrum_db_signed": error.mean().item(),
                "spectrum_db_top_half": top.abs().mean().item(),
                "spectrum_db_top_half_signed": top.mean().item(),
            },
            tables={
                "spectrum": {
                    "frequency": frequency.tolist(),
                    "real_db": real.tolist(),
                    "generated_db": generated.tolist(),
                }
            },
            protocol={"window": f"kaiser {KAISER_BETA:g}", "colours": "mean power", "mean": "removed"},
        )


def radial_decibels(power: Tensor) -> Tensor:
    """Mean over the angle of a power spectrum [N, N] (zero frequency first), in dB for each whole radius from 1 on."""
    size = len(power)
    frequency = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency[None, :]).floor().long().flatten()
    mean = torch.bincount(radius, power.flatten()) / torch.bincount(radius)
    return 10 * mean[1 : math.isqrt(size * size // 2) + 1].clamp(min=ROUNDING_NOISE).log10()


def plot_spectrum(table: dict[str, Any], path: Path) -> None:
    """Draw the table `spectrum` of a result as a PNG: power of real and generated images over the frequency."""
    from matplotlib.figure import Figure  # comes with MLflow; slow to import

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="frequency / Nyquist", ylabel="power, dB (1 squared grey level = 0)")
    axes.plot(table["frequency"], table["real_db"], label="real")
    axes.plot(table["frequency"], table["generated_db"], label="generated")
    axes.axvspan(0.5, max(table["frequency"]), alpha=0.08, label="top half")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
