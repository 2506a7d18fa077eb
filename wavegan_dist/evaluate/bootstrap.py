"""How far a number would move if other images had been drawn."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from wavegan_dist.counted import rng_at

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
    draws = rng_at(seed, "bootstrap", 0)
    values = numbers(*(times_drawn(len(rows), draws).to(rows.dtype) @ rows / len(rows) for rows in (real, generated)))
    return {name: between(values[:, at]) for at, name in enumerate(names)}


def times_drawn(count: int, draws: np.random.Generator) -> Tensor:
    """How often each of `count` images is drawn when as many are drawn with replacement: int64 [RESAMPLES, count]."""
    return torch.from_numpy(
        np.stack([np.bincount(draws.integers(count, size=count), minlength=count) for _ in range(RESAMPLES)])
    )


def between(values: Tensor) -> list[float]:
    """The interval that holds 95% of the values [RESAMPLES]: [low, high]."""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return [low, high]
