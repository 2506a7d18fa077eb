"""The Fréchet distance between two Gaussian distributions."""

import numpy as np
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]


def gaussian_frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Compute the squared Fréchet (2-Wasserstein) distance between Gaussians (Dowson and Landau 1982).

        d = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)

    With C = L L^T, the last trace is the sum of the singular values of L1^T L2. Unlike the eigenvalues of C1 C2, the singular
    values are real and non-negative and need no square root, so nearly singular covariances are no problem.

    Args:
        mean1, mean2: float64 [..., D].
        cov1, cov2: float64 [..., D, D], symmetric and positive semi-definite.

    Returns:
        float64 [...], never negative.
    """
    overlap = _singular_values(_matrix_root(cov1).mT @ _matrix_root(cov2)).sum(dim=-1)
    traces: Tensor = torch.einsum("...ii->...", cov1 + cov2)
    return ((mean1 - mean2).square().sum(dim=-1) + traces - 2 * overlap).clamp(min=0)


def _matrix_root(covariance: Tensor) -> Tensor:
    """Return L with L L^T = covariance, [..., D, D]; eigenvalues below 0, which come from rounding, count as 0."""
    try:
        values, vectors = torch.linalg.eigh(covariance)
    except LinAlgError:  # PyTorch's library does not converge on some matrices, for example of one repeated number
        values, vectors = (torch.from_numpy(part).to(covariance.device) for part in np.linalg.eigh(covariance.cpu().numpy()))
    root: Tensor = vectors * values.clamp(min=0).sqrt().unsqueeze(-2)
    return root


def _singular_values(matrix: Tensor) -> Tensor:
    try:
        values: Tensor = torch.linalg.svdvals(matrix)
    except LinAlgError:  # as above
        values = torch.from_numpy(np.linalg.svd(matrix.cpu().numpy(), compute_uv=False)).to(matrix.device)
    return values
