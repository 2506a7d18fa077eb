"""Mean and covariance of rows that arrive in batches, and the Fréchet distance between two such Gaussians."""

from typing import Self

import torch
from torch import Tensor


class Moments:
    """Exact mean and covariance in float64; the memory does not depend on how many rows are seen.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm
    for computing sample variances", 1979), so the result depends on how the rows were cut into batches by rounding only.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.scatter = torch.zeros(0, dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Add rows [..., N, D] of any floating dtype: independent Gaussians along the leading axes, D variables each."""
        rows = rows.double()
        mean = rows.mean(dim=-2)
        centred = rows - mean.unsqueeze(-2)
        self._add(rows.shape[-2], mean.cpu(), (centred.mT @ centred).cpu())

    def merge(self, other: "Moments") -> None:
        """Add all the rows that `other`, of the same shape, has seen."""
        if other.count:
            self._add(other.count, other.mean, other.scatter)

    def covariance(self) -> Tensor:
        """The unbiased estimate (over count - 1), float64 [..., D, D]."""
        return self.scatter / (self.count - 1)

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """What `tensors` gave."""
        moments = cls()
        moments.count, moments.mean, moments.scatter = int(tensors["count"]), tensors["mean"], tensors["scatter"]
        return moments

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if not self.count:
            self.count, self.mean, self.scatter = count, mean.clone(), scatter.clone()
            return
        total = self.count + count
        shift = mean - self.mean
        self.scatter += scatter
        self.scatter += shift.unsqueeze(-1) * shift.unsqueeze(-2) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total


def gaussian_frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Squared Fréchet (2-Wasserstein) distance between Gaussians (Dowson and Landau 1982).

        d = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)

    With C = L L^T the last trace is the sum of the singular values of L1^T L2. Unlike the eigenvalues of C1 C2 these
    are real and non-negative and need no square root, so covariances that are nearly singular do no harm.

    Args:
        mean1, mean2: float64 [..., D].
        cov1, cov2: float64 [..., D, D], symmetric and positive semi-definite.

    Returns:
        float64 [...], never negative.
    """
    overlap: Tensor = torch.linalg.svdvals(_root(cov1).mT @ _root(cov2)).sum(dim=-1)
    traces: Tensor = torch.einsum("...ii->...", cov1 + cov2)
    return ((mean1 - mean2).square().sum(dim=-1) + traces - 2 * overlap).clamp(min=0)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt().unsqueeze(-2)
    return root
