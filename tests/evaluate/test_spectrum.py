import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.evaluate.conftest import blurred, compare, noisy
from wavegan_dist.evaluate.metric import Outcome
from wavegan_dist.evaluate.spectrum import SpectrumError, plot_spectrum, radial_decibels


def spectrum(real: Tensor, generated: Tensor) -> Outcome:
    return compare(SpectrumError(real.shape[-1]), real.split(64), generated.split(50))


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
def test_radii_run_from_one_to_the_corner(size: int) -> None:
    frequency = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    curve = radial_decibels(torch.from_numpy(10 ** (np.floor(radius) / 10)))
    np.testing.assert_allclose(curve, np.arange(1, int(radius.max()) + 1), atol=1e-9)


def test_plot_is_a_png(photos: Tensor, tmp_path: Path) -> None:
    plot_spectrum(spectrum(photos, blurred(photos, 1.0)).tables["spectrum"], tmp_path / "spectrum.png")
    with Image.open(tmp_path / "spectrum.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 300
