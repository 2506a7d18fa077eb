"""Radial power spectra of the parts of generated images."""

from io import BytesIO

import torch
from torch import Tensor

from wavegan_dist.evaluate.spectrum import RadialPower, decibels, radii
from wavegan_dist.explain.parts import Parts
from wavegan_dist.images import from_uint8

GRAY_LEVELS = 127.5  # gray levels of 0..255 per unit of [-1, 1]


def spectra(parts: Parts, real: Tensor | None) -> dict[str, Tensor]:
    """Return power spectra by name: of each term of the fused images (`Parts.contributions`), of `fused` and of `real` images.

    Args:
        parts: the parts of the generated images.
        real: real images, uint8 [N, 3, R, R]; None: without their spectrum.

    Returns:
        Name -> mean power over the images in dB at each radius (`evaluate.spectrum`), float64 [radii(R)]; 0 dB is one squared
        gray level.
    """
    images = {**parts.contributions(), "fused": parts.fused} | ({} if real is None else {"real": from_uint8(real)})
    power = RadialPower(parts.base.shape[-1])
    return {name: decibels(power(of_part * GRAY_LEVELS).mean(dim=0)) for name, of_part in images.items()}


def plot_spectra(curves: dict[str, Tensor], resolution: int) -> bytes:
    """Plot the result of `spectra` for images of `resolution` x `resolution` pixels. Return a PNG file. Needs matplotlib."""
    from matplotlib.figure import Figure  # takes about a second to import

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="frequency / Nyquist", ylabel="power, dB (1 squared gray level = 0)")
    frequency = torch.arange(1, radii(resolution) + 1) / (resolution / 2)
    for name, curve in curves.items():
        color = "black" if name in ("fused", "real") else None
        axes.plot(frequency.tolist(), curve.tolist(), color=color, linestyle="--" if name == "real" else "-", label=name)
    axes.axvspan(0.5, frequency[-1].item(), alpha=0.08, label="top half")
    axes.grid(alpha=0.3)
    axes.legend()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
