"""Bootstrap confidence intervals: how much a value varies with the choice of images."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from wavegan_dist.counted import rng_at

RESAMPLES = 200


def bootstrap_intervals(
    names: Sequence[str], values_of_means: Callable[[Tensor, Tensor], Tensor], real: Tensor, generated: Tensor, seed: int
) -> dict[str, tuple[float, float]]:
    """Compute 95% percentile bootstrap intervals (Efron 1979) of values that are functions of mean features.

    The images of both sets are resampled with replacement 200 times (RESAMPLES), each set independently of the other.

    Args:
        names: names of the values.
        values_of_means: function from the mean features of both sets, each [..., D], to the values [..., len(names)].
        real, generated: features of both sets, float64 [N, D] and [M, D] on the CPU, one row per image.
        seed: seed of the draws.

    Returns:
        Name to (low, high).
    """
    rng = rng_at(seed, "bootstrap", 0)
    means = (resample_counts(len(rows), rng).to(rows.dtype) @ rows / len(rows) for rows in (real, generated))
    values = values_of_means(*means)
    return {name: percentile_interval(values[:, column]) for column, name in enumerate(names)}


def resample_counts(count: int, rng: np.random.Generator) -> Tensor:
    """Draw `count` of `count` images with replacement, RESAMPLES times; advances `rng`.

    Returns:
        How often each image is drawn in each resample, int64 [RESAMPLES, count] on the CPU.
    """
    return torch.from_numpy(np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(RESAMPLES)]))


def percentile_interval(values: Tensor) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles (low, high) of floating-point values [RESAMPLES] on the CPU."""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high
