"""The Wasserstein-1 distance between one-dimensional samples."""

import torch
from torch import Tensor


def wasserstein_distance(real: Tensor, generated: Tensor) -> Tensor:
    """Compute the Wasserstein-1 distance: the area between the two empirical distribution functions.

    For sets of equal size, this is the mean absolute difference of the sorted values.

    Args:
        real, generated: floating [N, ...] and [M, ...]: one sample per position of the trailing axes.

    Returns:
        float64 [...].
    """
    values, order = torch.cat((real, generated)).double().sort(dim=0)
    steps = torch.where(order < len(real), 1 / len(real), -1 / len(generated)).to(values.dtype)
    area: Tensor = (steps.cumsum(dim=0)[:-1].abs() * values.diff(dim=0)).sum(dim=0)
    return area
