"""Metrics of one number per image: the distance between the distributions of this number over two sets of images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.bootstrap import RESAMPLES, bootstrap_intervals
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.statistics import FeatureRows
from wavegan_dist.evaluate.wasserstein import wasserstein_distance


@dataclass
class PerImageMetric:
    """Three values: `NAME_UNIT`, `NAME_UNIT_signed` and a score.

    `NAME_UNIT` is the Wasserstein-1 distance between the numbers of real and of generated images: it is large if generated
    images have too little, too much or too uniform detail. `NAME_UNIT_signed` is the mean of generated images minus the mean
    of real images: below 0, generated images have too little detail. The score is a function of the mean number of the
    generated images, as papers report it. It has no best value of its own: compare it with its floor, the score of real images.

    Args:
        name: name of the metric.
        unit: unit of the numbers.
        feature: computes the numbers, float64 [B, 1].
        score: name of the score.
        score_of_mean: elementwise function from mean numbers, a float64 tensor of any shape, to scores.
        seed: seed of the bootstrap.
    """

    name: str
    unit: str
    feature: Feature[FeatureRows]
    score: str
    score_of_mean: Callable[[Tensor], Tensor]
    seed: int
    minimum: int = field(default=1, init=False)
    protocol: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.protocol = {**self.feature.protocol, "bootstrap": RESAMPLES}

    def compare(self, real: FeatureRows, generated: FeatureRows) -> MetricResult:
        """Compute the three values, and a table with the score of both sets.

        Only values that are functions of means have intervals: resampled images increase a Wasserstein distance.

        Args:
            real, generated: the rows of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            WaveganError: a value is not finite.
        """
        rows = real.rows(), generated.rows()
        means = [rows_of_set.mean(dim=0) for rows_of_set in rows]
        names = [f"{self.name}_{self.unit}_signed", self.score]
        signed, score = self._values(*means).tolist()
        real_score = self.score_of_mean(means[0]).item()
        return MetricResult(
            {
                f"{self.name}_{self.unit}": wasserstein_distance(*(rows_of_set[:, 0] for rows_of_set in rows)).item(),
                names[0]: signed,
                names[1]: score,
            },
            {self.name: {f"real_{self.score}": real_score, f"generated_{self.score}": score}},
            bootstrap_intervals(names, self._values, *rows, self.seed),
        )

    def _values(self, real: Tensor, generated: Tensor) -> Tensor:
        """Compute the signed difference and the score, [..., 2], from the means of both sets, each [..., 1]."""
        return torch.cat((generated - real, self.score_of_mean(generated)), dim=-1)
