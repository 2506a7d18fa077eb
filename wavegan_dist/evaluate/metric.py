"""What a metric is: it compares what was kept of two sets of images."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from wavegan_dist.evaluate.feature import Feature, Statistics


@dataclass(frozen=True)
class MetricResult:
    """A metric's share of the result; everything in it can be written as JSON.

    `intervals` has the 95% bootstrap interval of those numbers for which it is cheap.
    """

    metrics: dict[str, float]
    tables: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)


class Metric(Protocol):
    """A distance between two sets of images.

    `name` is what errors call it, `minimum` the fewest images a side that give it a meaning, `feature` what it needs of
    each side, `protocol` all that its numbers depend on besides the images.
    """

    name: str
    minimum: int
    feature: Feature
    protocol: dict[str, Any]

    def compare(self, real: Statistics, generated: Statistics) -> MetricResult:
        """What `feature` keeps of both sides -> the numbers."""
