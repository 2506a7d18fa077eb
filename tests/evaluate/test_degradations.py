"""A metric that cannot fail is none: what is done to real photographs, the more of it, the farther they are."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from tests.evaluate.degradations import blurred, checkered, collapsed, compressed, noisy, patches, sharpened
from tests.evaluate.helpers import compare, statistics_of
from wavegan_dist.evaluate.extractors import efflite0
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.network_metrics import PrecisionRecall, feature_frechet_distance, precision_recall
from wavegan_dist.evaluate.sliced_distance import SlicedDistance
from wavegan_dist.evaluate.spectrum import SpectrumError
from wavegan_dist.evaluate.statistics import Statistics
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance

pytestmark = pytest.mark.slow

Degrade = Callable[[Tensor, float], Tensor]
STRENGTHS: dict[Degrade, tuple[float, ...]] = {
    blurred: (0.5, 0.7, 2.0),
    sharpened: (0.5, 1.0, 4.0),
    checkered: (4.0, 8.0, 32.0),
    noisy: (6.0, 12.0, 48.0),
    compressed: (50.0, 80.0, 97.0),
    collapsed: (800.0, 100.0, 10.0),
}


METRICS: tuple[Metric[Any], ...] = (WaveletDistance(32), WaveletDistance(32, "db2"), SlicedDistance(32), SpectrumError(32))
RISING = ("fwd", "fwd_high", "fwd_db2", "swd", "swd_high", "spectrum_db")


@pytest.fixture(scope="module")
def others() -> Tensor:
    """2,000 patches."""
    return patches(stride=16)[2000:4000]


@pytest.fixture(scope="module")
def real() -> list[Statistics]:
    """Each metric's statistics of 2,000 patches, none of them in `others`."""
    return [statistics_of(metric, patches(stride=16)[:2000]) for metric in METRICS]


@pytest.mark.parametrize("degrade", STRENGTHS, ids=lambda degrade: degrade.__name__)
def test_the_worse_the_images_the_farther_they_are(real: list[Statistics], others: Tensor, degrade: Degrade) -> None:
    levels = [others, *(degrade(others, strength) for strength in STRENGTHS[degrade])]
    curves: dict[str, list[float]] = {name: [] for name in RISING}
    for images in levels:
        for metric, statistics in zip(METRICS, real, strict=True):
            metrics = metric.compare(statistics, statistics_of(metric, images)).metrics
            for name in curves.keys() & metrics.keys():
                curves[name].append(metrics[name])
    for name, values in curves.items():
        assert values == sorted(values), (name, values)
        assert values[-1] > 2 * values[0], (name, values)


def test_mode_collapse_raises_the_distance_of_features_and_lowers_recall(photos: Tensor) -> None:
    metric = PrecisionRecall(efflite0())
    real, others = (statistics_of(metric, part).rows() for part in photos[:400].split(200))
    sets = [collapsed(others, modes) for modes in (200, 50, 15, 5)]
    distances = [feature_frechet_distance(real, features) for features in sets]
    recalls = [precision_recall(real, features)[1] for features in sets]
    assert distances == sorted(distances)
    assert distances[-1] > 1.5 * distances[0]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[0] > 0.5 > 0.2 > recalls[-1]


def test_a_set_has_precision_and_recall_of_one_to_itself(photos: Tensor) -> None:
    outcome = compare(PrecisionRecall(efflite0()), photos[:32], photos[:32].flip(0))
    assert list(outcome.metrics.values()) == [1, 1]
