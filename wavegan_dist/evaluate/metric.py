"""The interface of metrics: each compares the statistics of two sets of images."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.statistics import StatisticsT


@dataclass(frozen=True)
class MetricResult:
    """The values of one metric; all fields are JSON-serializable.

    Args:
        metrics: name to value.
        tables: the detailed values that the metrics summarize, by table name.
        intervals: 95% bootstrap intervals [low, high], by name of the value; only for values whose interval is cheap.
    """

    metrics: dict[str, float]
    tables: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


class Metric(Protocol[StatisticsT]):
    """One or several distances between two sets of images.

    Attributes:
        name: what error messages call the metric.
        minimum: the smallest number of images per set for which the metric is defined.
        feature: the feature whose statistics over each set of images the metric compares.
        protocol: everything that the values depend on, except the images.
    """

    name: str
    minimum: int
    feature: Feature[StatisticsT]
    protocol: dict[str, Any]

    def compare(self, real: StatisticsT, generated: StatisticsT) -> MetricResult:
        """Compute the values from the statistics of `feature` over real and over generated images."""
