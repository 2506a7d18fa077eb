"""How far a number would move if other images had been drawn."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from wavegan_dist.counted import generator

RESAMPLES = 200


def intervals(
    names: Sequence[str], numbers: Callable[[Tensor, Tensor], Tensor], real: Tensor, generated: Tensor, seed: int
) -> dict[str, list[float]]:
    """95% percentile bootstrap (Efron 1979): the images of both sides are drawn again with replacement, 200 times.

    Args:
        names: of the numbers.
        numbers: mean rows of both sides [..., D] -> [..., len(names)].
        real, generated: float64 [N, D], a row for each image.
        seed: of the draws.

    Returns:
        name -> [low, high].
    """
    draws = generator(seed, "bootstrap", 0)
    resampled = [_means(rows, draws) for rows in (real, generated)]
    values = numbers(*resampled)
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype), dim=0)
    return {name: [low[at].item(), high[at].item()] for at, name in enumerate(names)}


def _means(rows: Tensor, draws: np.random.Generator) -> Tensor:
    """Means of resampled rows: [RESAMPLES, D]."""
    count = len(rows)
    times = np.stack([np.bincount(draws.integers(count, size=count), minlength=count) for _ in range(RESAMPLES)])
    return torch.from_numpy(times).to(rows.dtype) @ rows / count
