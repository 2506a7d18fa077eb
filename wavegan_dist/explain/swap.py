"""Swap experiments: what changes with `z_l`, the latent of the low network, and what with `z_h`, that of the high network?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist.explain.energy import bands_of
from wavegan_dist.explain.parts import run_networks
from wavegan_dist.model.generate import latents_of_images
from wavegan_dist.model.snapshot import Snapshot

SIDE = 4  # latents of each kind in the grid


@dataclass(frozen=True)
class Change:
    """Mean squared difference between two images of a grid, or between a band of both: the mean over pairs, colors and pixels.

    Attributes:
        low: mean over the pairs with the same `z_h` and different `z_l`.
        high: mean over the pairs with the same `z_l` and different `z_h`.
        both: mean over the pairs in which both differ.
    """

    low: float
    high: float
    both: float


@dataclass(frozen=True)
class Swaps:
    """Images of all combinations of `SIDE` vectors `z_l` and `SIDE` vectors `z_h`.

    Attributes:
        images: fused images [SIDE, SIDE, 3, R, R]; those of a row have the same `z_l`, those of a column the same `z_h`.
        changes: by part, then by the name of the band (`energy.named_bands`). The parts are `base`, `wavelet` (the inverse
            transform of the bands) and `fused`; with `model.base_only`, `base` alone.
    """

    images: Tensor
    changes: dict[str, dict[str, Change]]


def swap(snapshot: Snapshot, seed: int, label: int | None) -> Swaps:
    """Combine the latents of images 0 to `SIDE` - 1 of `wavegan sample`. The diagonal of the grid shows these images.

    Args:
        snapshot: the snapshot, with its generator on the CPU.
        seed: seed of the latents.
        label: class of all images; None for a model without classes. The images on the diagonal may be of another class than
            those of `wavegan sample`.

    Raises:
        WaveganError: an image is not finite.
    """
    model = snapshot.config.model
    z, k = latents_of_images(seed, snapshot.config.model.z_dim)(range(SIDE)), snapshot.generator.z_low
    z_of_pairs = torch.cat((z[:, :k].repeat_interleave(SIDE, dim=0), z[:, k:].repeat(SIDE, 1)), dim=1)
    parts = run_networks(snapshot, z_of_pairs, None if label is None else torch.full((SIDE**2,), label))
    wavelet = parts.wavelet_image()
    images = {"base": parts.base} if wavelet is None else {"base": parts.base, "wavelet": wavelet, "fused": parts.fused}
    changes = {
        part: {name: change(band) for name, band in bands_of(of_part, model.levels).items()} for part, of_part in images.items()
    }
    return Swaps(parts.fused.unflatten(0, (SIDE, SIDE)), changes)


def change(grid: Tensor) -> Change:
    """Compute the change of a grid of images, or of one of their bands.

    Args:
        grid: float [side * side, ...], row by row, side > 1; images of a row have the same `z_l`, of a column the same `z_h`.
    """
    side = round(len(grid) ** 0.5)
    values = grid.flatten(1).double()
    squares = torch.pdist(values).square() / values.shape[1]
    one, other = torch.triu_indices(len(grid), len(grid), offset=1)  # the pairs in the order of `pdist`
    same_row, same_column = one // side == other // side, one % side == other % side
    pairs = {"low": same_column, "high": same_row, "both": ~(same_row | same_column)}
    return Change(**{name: squares[chosen].mean().item() for name, chosen in pairs.items()})
