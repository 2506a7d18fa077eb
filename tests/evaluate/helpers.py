"""A metric between two sets of images in memory."""

import torch
from torch import Tensor

from wavegan_dist.evaluate.feature import Statistics
from wavegan_dist.evaluate.metric import Metric, MetricResult


def keep(metric: Metric, images: Tensor, batch: int = 64) -> Statistics:
    """What a metric keeps of uint8 images [N, 3, S, S]."""
    kept = metric.feature.empty()
    with torch.inference_mode():
        for part in images.split(batch):
            kept.update(metric.feature.of(part))
    return kept


def compare(metric: Metric, real: Tensor, generated: Tensor) -> MetricResult:
    """The metric between uint8 images [N, 3, S, S] and [M, 3, S, S]."""
    return metric.compare(keep(metric, real), keep(metric, generated, batch=50))
