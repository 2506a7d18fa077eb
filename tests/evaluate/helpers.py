"""Metrics computed directly on images, and a snapshot."""

from pathlib import Path

import torch
from torch import Tensor

from wavegan_dist.config import Experiment
from wavegan_dist.evaluate.metric import Metric, MetricResult
from wavegan_dist.evaluate.statistics import StatisticsT
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot


def make_snapshot(path: Path, resolution: int, cache: Path | None = None) -> Path:
    """Write a snapshot of an untrained generator, of a run with this `data.cache`, and return its folder."""
    torch.manual_seed(0)
    model = {"width": 8, "z_dim": 16, "resolution": resolution}
    config = Experiment.model_validate({"data": {"index": "x", "cache": cache}, "model": model})
    weights = build_generator(config).state_dict()
    save_snapshot(path, weights, weights.items(), config, 2000, "1" * 64)
    return path


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
