import math

import numpy as np
import pytest
import pywt
import scipy.stats
import torch
from torch import Tensor

from tests.evaluate.degradations import blurred, noisy
from tests.evaluate.helpers import compare
from wavegan_dist.evaluate.bands import BandMetric
from wavegan_dist.evaluate.metric import MetricResult


def bands(real: Tensor, generated: Tensor) -> MetricResult:
    return compare(BandMetric(real.shape[-1]), real, generated)


def test_energy_and_kurtosis_of_each_band_equal_pywavelets_and_scipy(photos: Tensor) -> None:
    table = bands(photos, photos).tables["bands"]
    centred = photos.numpy() - photos.numpy().mean(axis=(-2, -1), keepdims=True)
    low, second, first = pywt.wavedec2(centred, "haar", "periodization", 2, axes=(-2, -1))
    expected = dict(zip(table["band"], [*first, *second, low], strict=True))
    assert list(expected) == ["LH1", "HL1", "HH1", "LH2", "HL2", "HH2", "LL2"]
    for at, (name, band) in enumerate(expected.items()):
        assert table["real_db"][at] == pytest.approx(10 * math.log10((band**2).mean())), name
        moments = (band**4).mean() / (band**2).mean() ** 2
        assert table["real_kurtosis"][at] == pytest.approx(moments), name
        assert moments == pytest.approx(scipy.stats.kurtosis(band.ravel(), fisher=False), rel=0.05)


def test_a_set_equals_itself(photos: Tensor) -> None:
    assert bands(photos, photos.flip(0)).metrics == pytest.approx(
        dict.fromkeys(("bands_db", "bands_db_signed", "bands_kurtosis"), 0)
    )


def test_blur_takes_energy_away_and_noise_takes_sparseness_away(photos: Tensor) -> None:
    assert bands(photos, blurred(photos, 1.0)).metrics["bands_db_signed"] < -1
    table = bands(photos, noisy(photos, 32.0)).tables["bands"]
    assert table["generated_kurtosis"][2] == pytest.approx(3, rel=0.2)
    assert table["real_kurtosis"][2] > 10


def test_flat_images_give_finite_numbers(photos: Tensor) -> None:
    outcome = bands(photos, torch.full_like(photos, 90))
    assert np.isfinite(list(outcome.metrics.values())).all()
    assert outcome.metrics["bands_db_signed"] < -10


def test_intervals_hold_their_numbers(photos: Tensor) -> None:
    outcome = bands(photos[:300], noisy(photos[300:], 8.0))
    low, high = outcome.intervals["bands_db"]
    assert low < outcome.metrics["bands_db"] < high
