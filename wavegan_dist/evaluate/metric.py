"""What a metric is: it looks at real and at generated images batch by batch and then reports."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """A metric's share of the result; everything in it can be written as JSON."""

    metrics: dict[str, float]
    tables: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)


class Accumulator(Protocol):
    """What a metric keeps of one set of images."""

    def update(self, images: Tensor) -> None:
        """Look at uint8 images [B, 3, H, W]."""


class Metric(Protocol):
    """A distance between two sets of images.

    `name` is what errors call it, `minimum` the fewest images a side that give it a meaning.
    """

    name: str
    minimum: int

    @property
    def real(self) -> Accumulator:
        """Takes the real images."""

    @property
    def generated(self) -> Accumulator:
        """Takes the generated images."""

    def result(self) -> Outcome:
        """Compare what both sides have seen."""
