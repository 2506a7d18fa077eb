import io

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor

from tests.evaluate.degradations import blurred, checkered, compressed, noisy
from tests.evaluate.helpers import compare
from wavegan_dist.evaluate.compression import bits_per_pixel, compression_metric
from wavegan_dist.evaluate.metric import MetricResult


def compression(real: Tensor, generated: Tensor) -> MetricResult:
    return compare(compression_metric(), real, generated)


def pillow_bytes(image: Tensor) -> int:
    """Bytes of Pillow's JPEG file of quality 95 without its header of 623 bytes."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=95)
    return len(file.getvalue()) - 623


@pytest.mark.parametrize("size", [32, 256])
def test_bits_per_pixel_are_those_of_pillows_files(photos: Tensor, size: int) -> None:
    images = torch.nn.functional.interpolate(photos[:20].float(), size=size, mode="bilinear").round().to(torch.uint8)
    expected = [8 * pillow_bytes(image) / size**2 for image in images]
    assert bits_per_pixel(images)[:, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_distance_equals_scipy_and_the_ratio_that_of_all_bytes(photos: Tensor) -> None:
    real, generated = photos[:200], blurred(photos[200:500], 1.0)
    metrics = compression(real, generated).metrics
    sizes = [np.array([pillow_bytes(image) for image in images]) for images in (real, generated)]
    assert metrics["compression_bpp"] == pytest.approx(8 * scipy.stats.wasserstein_distance(*sizes) / 32**2)
    assert metrics["compression_bpp_signed"] == pytest.approx(8 * (sizes[1].mean() - sizes[0].mean()) / 32**2)
    assert metrics["compression_ratio"] == pytest.approx(generated.numel() / sizes[1].sum())


def test_blur_and_jpeg_take_bits_away_and_noise_and_checkerboards_add_some(photos: Tensor) -> None:
    real, others = photos.split(300)
    floor = compression(real, others).metrics["compression_bpp_signed"]
    softer = [compression(real, blurred(others, sigma)).metrics["compression_bpp_signed"] for sigma in (0.4, 0.7, 1.0, 2.0)]
    blocks = [
        compression(real, compressed(others, loss)).metrics["compression_bpp_signed"] for loss in (20.0, 50.0, 80.0, 97.0)
    ]
    rougher = [compression(real, noisy(others, sigma)).metrics["compression_bpp_signed"] for sigma in (2.0, 6.0, 12.0, 24.0)]
    boards = [compression(real, checkered(others, height)).metrics["compression_bpp_signed"] for height in (2.0, 4.0, 8.0)]
    for falling in (softer, blocks):
        assert floor > falling[0]
        assert falling == sorted(falling, reverse=True)
    for rising in (rougher, boards):
        assert floor < rising[0]
        assert rising == sorted(rising)


def test_flat_images_give_finite_numbers(photos: Tensor) -> None:
    assert np.isfinite(list(compression(photos, torch.full_like(photos, 90)).metrics.values())).all()
