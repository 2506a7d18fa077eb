import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.evaluate.degradations import blurred, noisy
from tests.evaluate.helpers import compare
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.spectrum import RadialPower, SpectrumError
from wavegan_dist.evaluate.spectrum_plot import plot_spectrum


def spectrum(real: Tensor, generated: Tensor) -> MetricResult:
    return compare(SpectrumError(real.shape[-1]), real, generated)


def test_equal_sets_differ_by_zero_decibels(photos: Tensor) -> None:
    assert all(abs(value) < 1e-6 for value in spectrum(photos, photos.flip(0)).metrics.values())


def test_blur_lowers_the_top_half_and_noise_raises_it_monotonically(photos: Tensor) -> None:
    soft = [spectrum(photos, blurred(photos, s)).metrics["spectrum_db_top_half_signed"] for s in (0.4, 0.7, 1.0)]
    rough = [spectrum(photos, noisy(photos, s)).metrics["spectrum_db_top_half_signed"] for s in (4, 8, 16)]
    assert 0 > soft[0] > soft[1] > soft[2]
    assert 0 < rough[0] < rough[1] < rough[2]


def test_signs_do_not_cancel_in_the_absolute_error(photos: Tensor) -> None:
    metrics = spectrum(photos, noisy(blurred(photos, 1.0), 8.0)).metrics
    assert metrics["spectrum_db"] > abs(metrics["spectrum_db_signed"])


def test_white_noise_of_known_variance_is_flat_at_its_variance() -> None:
    random = torch.Generator().manual_seed(0)
    images = (128 + 20 * torch.randn(400, 3, 32, 32, generator=random)).round().clamp(0, 255).to(torch.uint8)
    curve = spectrum(images, images).tables["spectrum"]["real_db"]
    assert np.abs(np.array(curve[2:]) - 20 * math.log10(20)).max() < 0.3


def test_brightness_alone_changes_nothing(photos: Tensor) -> None:
    dark = photos // 2
    assert spectrum(dark, dark + 100).metrics["spectrum_db"] < 1e-4


def test_flat_images_give_finite_numbers(photos: Tensor) -> None:
    metrics = spectrum(photos, torch.full_like(photos, 90)).metrics
    assert all(map(math.isfinite, metrics.values()))
    assert metrics["spectrum_db_signed"] < -10


@pytest.mark.parametrize("size", [32, 64])
def test_power_at_each_radius_equals_numpy(size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, size, size), dtype=np.uint8)
    window = np.outer(np.kaiser(size, 8), np.kaiser(size, 8))
    centred = images - images.mean(axis=(-2, -1), keepdims=True)
    power = np.abs(np.fft.fft2(centred * window / np.linalg.norm(window))) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size)))
    rings = [(r <= radius) & (radius < r + 1) for r in range(1, int(radius.max()) + 1)]
    expected = np.stack([power.mean(axis=1)[:, ring].mean(axis=1) for ring in rings], axis=1)
    np.testing.assert_allclose(RadialPower(size)(torch.from_numpy(images)), expected, rtol=1e-9)


def test_parts_are_means_over_the_upper_frequencies(photos: Tensor) -> None:
    outcome = spectrum(photos, blurred(photos, 1.0))
    table = outcome.tables["spectrum"]
    error = np.array(table["generated_db"]) - np.array(table["real_db"])
    for part, least in {"": 0, "_top_half": 0.5, "_top_quarter": 0.75}.items():
        upper = error[np.array(table["frequency"]) >= least]
        assert outcome.metrics[f"spectrum_db{part}"] == pytest.approx(np.abs(upper).mean())
        assert outcome.metrics[f"spectrum_db{part}_signed"] == pytest.approx(upper.mean())


def test_the_interval_holds_the_number_and_narrows_with_more_images(photos: Tensor) -> None:
    few, many = (spectrum(photos[: n // 2], noisy(photos[n // 2 : n], 8.0)) for n in (100, 600))
    for outcome in (few, many):
        low, high = outcome.intervals["spectrum_db_top_half_signed"]
        assert low < outcome.metrics["spectrum_db_top_half_signed"] < high
    assert np.ptp(many.intervals["spectrum_db_top_half_signed"]) < 0.7 * np.ptp(few.intervals["spectrum_db_top_half_signed"])


def test_plot_is_a_png(photos: Tensor, tmp_path: Path) -> None:
    plot_spectrum(spectrum(photos, blurred(photos, 1.0)).tables["spectrum"], tmp_path / "spectrum.png")
    with Image.open(tmp_path / "spectrum.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 300
