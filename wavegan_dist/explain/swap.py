"""Swap experiments: what changes with `z_l`, the latent of the low network, and what with `z_h`, that of the high network?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist.explain.energy import bands_of
from wavegan_dist.explain.parts import latents_of_images, run_networks
from wavegan_dist.model.snapshot import Snapshot

SIDE = 4  # latents of each kind in the grid


@dataclass(frozen=True)
class Change:
    """Mean squared difference between two images of a grid, over pairs of images, colors and pixels.

    Attributes:
        low: of pairs with the same `z_h` and another `z_l`.
        high: of pairs with the same `z_l` and another `z_h`.
        both: of pairs that have neither in common.
    """

    low: float
    high: float
    both: float


@dataclass(frozen=True)
class Swaps:
    """Images of all combinations of `SIDE` vectors `z_l` and `SIDE` vectors `z_h`.

    Attributes:
        images: fused images [SIDE, SIDE, 3, R, R]; those of a row have the same `z_l`, those of a column the same `z_h`.
        changes: by part (base, wavelet, fused; base alone for a model without band networks), then by the name of the band.
    """

    images: Tensor
    changes: dict[str, dict[str, Change]]


def swap(snapshot: Snapshot, seed: int, label: int | None) -> Swaps:
    """Combine the latents of the images 0 to `SIDE` - 1 of `wavegan sample`: on the diagonal of the grid are these images.

    Args:
        snapshot: the snapshot.
        seed: seed of the latents.
        label: class of all images; None for a model without classes. The images on the diagonal may be of another class than
            those of `wavegan sample`.
    """
    model = snapshot.config.model
    z, k = latents_of_images(snapshot, range(SIDE), seed), snapshot.generator.z_low
    z_of_pairs = torch.cat((z[:, :k].repeat_interleave(SIDE, dim=0), z[:, k:].repeat(SIDE, 1)), dim=1)
    parts = run_networks(snapshot, z_of_pairs, None if label is None else torch.full((SIDE**2,), label))
    wavelet = parts.wavelet_image()
    images = {"base": parts.base} if wavelet is None else {"base": parts.base, "wavelet": wavelet, "fused": parts.fused}
    changes = {
        part: {name: change(band) for name, band in bands_of(of_part, model.levels).items()} for part, of_part in images.items()
    }
    return Swaps(parts.fused.unflatten(0, (SIDE, SIDE)), changes)


def change(grid: Tensor) -> Change:
    """Compute the change of images [side * side, ...] that are in the order of a grid, row by row."""
    side = round(len(grid) ** 0.5)
    values = grid.flatten(1).double()
    squares = torch.pdist(values).square() / values.shape[1]
    one, other = torch.triu_indices(len(grid), len(grid), offset=1)  # the pairs in the order of `pdist`
    same_row, same_column = one // side == other // side, one % side == other % side
    pairs = {"low": same_column, "high": same_row, "both": ~(same_row | same_column)}
    return Change(**{name: squares[chosen].mean().item() for name, chosen in pairs.items()})
