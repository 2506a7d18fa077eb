"""The energy of every Haar band of every part of the images."""

import math
from collections.abc import Sequence

from torch import Tensor

from wavegan_dist.explain.parts import Parts
from wavegan_dist.images import from_uint8
from wavegan_dist.wavelet import wavedec

Energies = dict[str, float]  # name of a band -> mean square of its coefficients
HIGH_BANDS = ("LH", "HL", "HH")


def named_bands(low: Tensor, highs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name the bands of B images: LL2, LH2, HL2, HH2, LH1, HL1, HH1 for two levels. Level 1 is the finest.

    Args:
        low: low band of the last level [B, 3, h, w].
        highs: high bands of every level as `wavelet.wavedec` returns them, the coarsest first: [B, 9, h, w], ...

    Returns:
        Name -> band [B, 3, h, w], where h x w is the size of the band's level.
    """
    bands = {f"LL{len(highs)}": low}
    for level, high in zip(range(len(highs), 0, -1), highs, strict=True):
        bands |= {f"{name}{level}": band for name, band in zip(HIGH_BANDS, high.chunk(3, dim=1), strict=True)}
    return bands


def bands_of(images: Tensor, levels: int) -> dict[str, Tensor]:
    """Return the bands of images, float [B, 3, R, R], after `levels` levels of the transform, named as by `named_bands`."""
    return named_bands(*wavedec(images, levels))


def mean_squares(bands: dict[str, Tensor]) -> Energies:
    """Return the mean square of each band, over images, colors and pixels."""
    return {name: band.double().square().mean().item() for name, band in bands.items()}


def energy_columns(parts: Parts, levels: int, real: Tensor | None) -> dict[str, Energies]:
    """Return the columns of the page's table of energies: heading -> energies.

    The columns are the parts of generated images, with and without their factors, then `real` and `fused / real` if there are
    real images: NaN for a band in which these have no energy. With `model.base_only`, `fused` is the only part.

    Args:
        parts: the parts of the generated images.
        levels: number of levels of the transform.
        real: real images, uint8 [N, 3, R, R]; None: no columns of real images.
    """
    columns: dict[str, Energies] = {}
    if parts.low is not None:
        base, bands = mean_squares(bands_of(parts.base, levels)), mean_squares(named_bands(parts.low, parts.highs))
        columns |= {"base": base, "(1 - lam) * base": _times(base, (1 - parts.lam) ** 2)}
        columns |= {"low and high": bands, "lam * low and high": _times(bands, parts.lam**2)}
    fused = columns["fused"] = mean_squares(bands_of(parts.fused, levels))
    if real is not None:
        columns["real"] = mean_squares(bands_of(from_uint8(real), levels))
        # NaN where the real images have no energy
        columns["fused / real"] = {name: value / (columns["real"][name] or math.nan) for name, value in fused.items()}
    return columns


def _times(energies: Energies, factor: float) -> Energies:
    return {name: factor * energy for name, energy in energies.items()}
