"""The interface of metrics: each compares the statistics of two sets of images."""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.statistics import StatisticsT


@dataclass(frozen=True)
class MetricResult:
    """The values of one metric; all fields are JSON-serializable.

    Args:
        metrics: name to value.
        tables: the detailed values that the metrics summarize, by table name.
        intervals: 95% bootstrap intervals [low, high], by name of the value; only for values whose interval is cheap.

    Raises:
        WaveganError: a number is infinite or not a number: JSON has neither.
    """

    metrics: dict[str, float]
    tables: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, content in (*self.tables.items(), *self.intervals.items(), *self.metrics.items()):
            try:
                json.dumps(content, allow_nan=False)
            except ValueError as error:
                raise WaveganError(
                    f"{name} is not a finite number for these images; raise --count or leave its metric out of --metrics"
                ) from error


class Metric(Protocol[StatisticsT]):
    """One or several distances between two sets of images.

    Attributes:
        name: identifies the metric, with its extractor, in the cache of floors.
        minimum: the smallest number of images per set for which the metric is defined.
        feature: the feature whose statistics over each set of images the metric compares.
        protocol: everything that the values depend on, except the images.
    """

    name: str
    minimum: int
    feature: Feature[StatisticsT]
    protocol: dict[str, Any]

    def compare(self, real: StatisticsT, generated: StatisticsT) -> MetricResult:
        """Compute the values from the statistics of `feature` over real and over generated images.

        Each set has at least `minimum` images, which is not checked. The statistics are not changed.

        Raises:
            WaveganError: a value is not finite.
        """
