"""Metrics computed directly on images."""

import torch
from torch import Tensor

from wavegan_dist.evaluate.metric import Metric, MetricResult
from wavegan_dist.evaluate.statistics import StatisticsT


def statistics_of(metric: Metric[StatisticsT], images: Tensor, batch: int = 64) -> StatisticsT:
    """The metric's statistics of uint8 images [N, 3, S, S]."""
    statistics = metric.feature.statistics()
    with torch.inference_mode():
        for part in images.split(batch):
            statistics.update(metric.feature.extract(part))
    return statistics


def compare(metric: Metric[StatisticsT], real: Tensor, generated: Tensor) -> MetricResult:
    """The metric between uint8 images [N, 3, S, S] and [M, 3, S, S]."""
    return metric.compare(statistics_of(metric, real), statistics_of(metric, generated, batch=50))
