"""The Wasserstein-1 distance between one-dimensional samples."""

import torch
from torch import Tensor


def wasserstein_distance(real: Tensor, generated: Tensor) -> Tensor:
    """Compute the Wasserstein-1 distance: the area between the two empirical distribution functions.

    For sets of equal size, this is the mean absolute difference of the sorted values.

    Args:
        real, generated: floating [..., N] and [..., M]: one sample along the last axis.

    Returns:
        float64 [...].
    """
    count, others = real.shape[-1], generated.shape[-1]
    values, order = torch.cat((real, generated), dim=-1).double().sort(dim=-1)
    # In units of 1 / (N M), the distribution functions and their difference are integers and have no rounding.
    difference = torch.where(order < count, others, -count).cumsum(dim=-1)[..., :-1]
    area: Tensor = (difference.abs() * values.diff(dim=-1)).sum(dim=-1)
    return area / (count * others)
