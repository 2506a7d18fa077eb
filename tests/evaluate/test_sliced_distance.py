from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from tests.evaluate.degradations import blurred, checkered, noisy, patches
from tests.evaluate.helpers import compare, statistics_of
from wavegan_dist.evaluate.metric import Metric, MetricResult
from wavegan_dist.evaluate.sliced_distance import SlicedDistance, unit_vectors
from wavegan_dist.evaluate.statistics import FeatureRows, Statistics
from wavegan_dist.evaluate.wasserstein import wasserstein_distance
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance, haar_packets


def swd(real: Tensor, generated: Tensor) -> MetricResult:
    return compare(SlicedDistance(real.shape[-1]), real, generated)


@pytest.mark.parametrize(("real", "generated"), [(50, 50), (40, 70), (1, 3)])
def test_the_distance_of_numbers_equals_scipy_for_sets_of_any_size_and_with_ties(real: int, generated: int) -> None:
    random = torch.Generator().manual_seed(0)
    sets = [torch.randint(0, 20, (4, 3, count), generator=random).float() for count in (real, generated)]
    ours = wasserstein_distance(*sets)
    assert ours.shape == (4, 3)
    for place in np.ndindex(4, 3):
        columns = [rows[place].numpy() for rows in sets]
        assert ours[place].item() == pytest.approx(scipy.stats.wasserstein_distance(*columns), abs=1e-12)


def test_each_packet_equals_scipy_over_its_projections(photos: Tensor) -> None:
    real, generated = photos[:90], noisy(photos[90:210], 6.0)
    outcome = swd(real, generated)
    directions = unit_vectors(16, 64, 192).numpy()
    projected = [
        np.einsum("npv,pkv->npk", haar_packets(images.double(), 2).flatten(2).numpy(), directions)
        for images in (real, generated)
    ]
    for packet, value in enumerate(outcome.tables["swd_packets"].values()):
        distances = [scipy.stats.wasserstein_distance(*(rows[:, packet, k] for rows in projected)) for k in range(64)]
        deviation = projected[0][:, packet].var(axis=0, ddof=1).mean() ** 0.5
        assert value == pytest.approx(np.mean(distances) / deviation, rel=1e-5)


def test_directions_are_independent_unit_vectors_and_always_the_same() -> None:
    vectors = unit_vectors(16, 64, 192).flatten(0, 1)
    products = vectors @ vectors.T
    torch.testing.assert_close(products.diagonal(), torch.ones(1024, dtype=torch.float64))
    assert (products - products.diag().diag()).square().mean().item() == pytest.approx(1 / 192, rel=0.02)
    assert torch.equal(unit_vectors(16, 64, 192).flatten(0, 1), vectors)


def test_a_set_is_at_distance_zero_from_itself(photos: Tensor) -> None:
    assert swd(photos, photos.flip(0)).metrics == {"swd": 0, "swd_low": 0, "swd_high": 0}


def test_parts_average_to_the_whole_and_noise_is_in_the_high_packets(photos: Tensor) -> None:
    outcome = swd(photos[:300], noisy(photos[300:], 12.0))
    table = outcome.tables["swd_packets"]
    assert len(table) == 16
    assert outcome.metrics["swd"] == pytest.approx(np.mean(list(table.values())))
    assert outcome.metrics["swd_low"] == table["LL.LL"]
    assert outcome.metrics["swd_high"] == pytest.approx((sum(table.values()) - table["LL.LL"]) / 15)
    assert outcome.metrics["swd_high"] > 2 * outcome.metrics["swd_low"]


def test_flat_real_images_give_finite_numbers(photos: Tensor) -> None:
    outcome = swd(torch.full_like(photos, 90), photos)
    assert np.isfinite(list(outcome.metrics.values())).all()


@pytest.mark.parametrize(
    ("size", "rows", "packets", "directions"),
    [
        (16, 1, 4, 64),
        (32, 1, 16, 64),
        (64, 1, 64, 64),
        (128, 1, 256, 32),
        (256, 1, 1024, 8),
        (512, 4, 1024, 8),
        (1024, 16, 1024, 8),
    ],
)
def test_an_image_has_at_most_32_kib_of_projections_per_tile_at_every_size(
    size: int, rows: int, packets: int, directions: int
) -> None:
    metric = SlicedDistance(size)
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    projections = metric.feature.extract(image)
    assert projections.shape == (rows, packets, directions)
    assert projections.nbytes <= rows * 2**15
    assert metric.protocol["directions"] == directions


def test_a_tile_of_a_large_image_counts_like_an_image_of_its_size() -> None:
    images = torch.randint(0, 256, (2, 3, 512, 512), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cut = torch.stack(
        [image[:, top : top + 256, left : left + 256] for image in images for top in (0, 256) for left in (0, 256)]
    )
    assert torch.equal(SlicedDistance(512).feature.extract(images), SlicedDistance(256).feature.extract(cut))


def test_merged_statistics_give_the_same_values_as_one_pass(photos: Tensor) -> None:
    metric = SlicedDistance(32)
    real, parts = statistics_of(metric, photos[:200]), [statistics_of(metric, part) for part in photos[200:400].split(70)]
    merged = FeatureRows()
    for part in parts:
        merged.merge(FeatureRows.from_tensors(part.to_tensors()))
    together = metric.compare(real, statistics_of(metric, photos[200:400])).metrics
    assert metric.compare(real, merged).metrics == pytest.approx(together, rel=1e-9)


SLIGHT: dict[Callable[[Tensor, float], Tensor], float] = {blurred: 0.5, noisy: 6.0, checkered: 4.0}
AT_300: tuple[Metric[Any], ...] = (SlicedDistance(32), WaveletDistance(32))


@pytest.fixture(scope="module")
def draws() -> list[tuple[list[Statistics], Tensor]]:
    """Four draws: the statistics of both metrics over 300 patches, and 300 other patches."""
    order = [torch.randperm(4234, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    sets = [patches(stride=16)[rows[:600]].split(300) for rows in order]
    return [([statistics_of(metric, real) for metric in AT_300], others) for real, others in sets]


@pytest.mark.parametrize("degrade", SLIGHT, ids=lambda degrade: degrade.__name__)
def test_300_images_show_a_slight_loss_of_quality_that_fwd_does_not_show(
    draws: list[tuple[list[Statistics], Tensor]], degrade: Callable[[Tensor, float], Tensor]
) -> None:
    floors, values = (
        [
            {
                name: value
                for metric, statistics in zip(AT_300, real, strict=True)
                for name, value in metric.compare(statistics, statistics_of(metric, change(others))).metrics.items()
            }
            for real, others in draws
        ]
        for change in (lambda images: images, lambda images: degrade(images, SLIGHT[degrade]))
    )
    for name in ("swd", "swd_high"):  # every value is above every floor
        assert min(value[name] for value in values) > 1.1 * max(floor[name] for floor in floors), (floors, values)
    assert min(value["fwd"] for value in values) < max(floor["fwd"] for floor in floors), (floors, values)
