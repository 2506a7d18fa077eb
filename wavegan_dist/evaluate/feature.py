"""What metrics keep of a set of images: a row for each image, or the moments of such rows where they would not fit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from wavegan_dist.evaluate.moments import Moments


class FeatureRows:
    """All rows, in order, on the CPU."""

    def __init__(self, *parts: Tensor) -> None:
        self.parts = list(parts)

    def update(self, rows: Tensor) -> None:
        """Append rows [B, ...]."""
        self.parts.append(rows.cpu())

    def merge(self, other: "FeatureRows") -> None:
        """Append the rows of the images that follow."""
        self.parts += other.parts

    def all(self) -> Tensor:
        """[N, ...] in the order of the images."""
        return torch.cat(self.parts)

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        return {"rows": self.all()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """What `tensors` gave."""
        return cls(tensors["rows"])


Statistics = FeatureRows | Moments


@dataclass(frozen=True)
class Feature:
    """What is looked at in each image.

    Args:
        name: of what is looked at.
        of: uint8 [B, 3, S, S] -> floating [B, ...], a row for each image; or [..., B, D] where only moments are kept.
        protocol: all that the rows depend on besides the images.
        moments: keep only mean and covariance, in memory that does not depend on the number of images.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    protocol: dict[str, Any]
    moments: bool = False

    def empty(self) -> Statistics:
        """Of no images yet."""
        return Moments() if self.moments else FeatureRows()

    def from_tensors(self, tensors: dict[str, Tensor]) -> Statistics:
        """What `tensors` of a `Statistics` of this feature gave."""
        return (Moments if self.moments else FeatureRows).from_tensors(tensors)
