"""Statistics that metrics accumulate over a set of images: one feature row per image, or only mean and covariance."""

from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor


class Statistics(Protocol):
    """Statistics of a growing set of images.

    Attributes:
        image_axis: the axis of the features whose entries are images, or the tiles of the first image, then of the next.
    """

    image_axis: int

    def update(self, features: Tensor) -> None:
        """Add the features of a batch of at least one image, on any device; their shape depends on the class."""

    def merge(self, other: Self) -> None:
        """Add the images of `other`, which follow the images of `self`."""

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the state as named CPU tensors. At least one image must have been added."""

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """Return new statistics with the state that `to_tensors` returned."""


StatisticsT = TypeVar("StatisticsT", bound=Statistics)


class FeatureRows:
    """The features of every image, in order, on the CPU.

    Args:
        batches: features of the first images, CPU tensors [B, ...]; none for statistics of no images.
    """

    image_axis = 0

    def __init__(self, *batches: Tensor) -> None:
        self.batches = list(batches)

    def update(self, features: Tensor) -> None:
        """Append features [B, ...] on any device, one row per image."""
        self.batches.append(features.cpu())

    def merge(self, other: Self) -> None:
        """Append the rows of `other`, which shares its tensors with `self` afterwards."""
        self.batches += other.batches

    def rows(self) -> Tensor:
        """Return all rows added so far, in order, as one tensor [N, ...] on the CPU.

        Raises:
            ValueError: no rows were added.
        """
        if len(self.batches) != 1:
            self.batches = [torch.cat(self.batches)]  # so that the rows are in memory once
        return self.batches[0]

    def to_tensors(self) -> dict[str, Tensor]:
        """Return {"rows": `rows()`}."""
        return {"rows": self.rows()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """Return new statistics with the rows that `to_tensors` returned."""
        return cls(tensors["rows"])


class Moments:
    """Mean and covariance in float64 on the CPU. Memory does not grow with the number of images.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm
    for computing sample variances", 1979). Another split into batches changes the result by rounding only.
    """

    image_axis = -2

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.scatter = torch.zeros(0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Add features of B images, floating [..., B, D], on any device, with B >= 1.

        Each index of the leading axes is a distribution of D variables. The shape without B is the same in every call.
        """
        features = features.double()
        mean = features.mean(dim=-2)
        centered = features - mean.unsqueeze(-2)
        self._add(features.shape[-2], mean.cpu(), (centered.mT @ centered).cpu())

    def merge(self, other: Self) -> None:
        """Add the images of `other`, whose features have the same shape; statistics of no images change nothing."""
        if other.count:
            self._add(other.count, other.mean, other.scatter)

    def covariance(self, part: slice = slice(None)) -> Tensor:
        """Return the unbiased covariance (divided by count - 1), float64 [..., D, D]; NaN for a single image.

        Args:
            part: which distributions along the first leading axis.
        """
        return self.scatter[part] / (self.count - 1)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the state as CPU tensors: `count`, `mean` [..., D] and `scatter` [..., D, D], covariance * (count - 1)."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """Return new statistics with the state that `to_tensors` returned."""
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
