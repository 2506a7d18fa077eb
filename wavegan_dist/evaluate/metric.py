"""The interface of metrics: each compares the statistics of two sets of images."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.statistics import StatisticsT


@dataclass(frozen=True)
class MetricResult:
    """The values of one metric; everything in it can be written as JSON.

    Args:
        metrics: name to value.
        tables: what the values summarize, by name.
        intervals: 95% bootstrap intervals [low, high] of those values for which an interval is cheap.
    """

    metrics: dict[str, float]
    tables: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


class Metric(Protocol[StatisticsT]):
    """A distance, or several, between two sets of images.

    Attributes:
        name: what error messages call the metric.
        minimum: the smallest number of images per set for which the metric is defined.
        feature: what the metric needs of each set of images.
        protocol: everything but the images that the values depend on.
    """

    name: str
    minimum: int
    feature: Feature[StatisticsT]
    protocol: dict[str, Any]

    def compare(self, real: StatisticsT, generated: StatisticsT) -> MetricResult:
        """Compute the values from the statistics of `feature` over real and over generated images."""
