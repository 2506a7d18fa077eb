import math

import numpy as np
import pytest
import torch
from skimage.feature import graycomatrix, graycoprops
from torch import Tensor

from tests.evaluate.degradations import blurred, checkered, compressed, noisy
from tests.evaluate.helpers import compare
from wavegan_dist.evaluate.glcm import entropies, glcm_metric
from wavegan_dist.evaluate.metric import MetricResult

ANGLES = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]


def glcm(real: Tensor, generated: Tensor) -> MetricResult:
    return compare(glcm_metric(real.shape[-1]), real, generated)


def skimage_score(image: Tensor) -> float:
    """Mean entropy in bits over patches of 64 px, distances 1 to 4 and four angles."""
    luma = (np.tensordot([299, 587, 114], image.numpy().astype(np.int64), 1) + 500) // 1000
    levels = (luma // 4).astype(np.uint8)
    side = levels.shape[0]
    cut = [levels[top : top + 64, left : left + 64] for top in range(0, side, 64) for left in range(0, side, 64)]
    return float(
        np.mean([graycoprops(graycomatrix(patch, [1, 2, 3, 4], ANGLES, 64), "entropy") for patch in cut]) / math.log(2)
    )


def test_the_score_of_small_images_equals_scikit_image(photos: Tensor) -> None:
    np.testing.assert_allclose(entropies(photos[:8])[:, 0], [skimage_score(photo) for photo in photos[:8]], rtol=1e-9)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_score_of_larger_images_is_the_mean_over_patches_of_64_px(size: int) -> None:
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[1, :, : size // 2] //= 8
    np.testing.assert_allclose(entropies(images)[:, 0], [skimage_score(image) for image in images], rtol=1e-9)


def test_a_flat_image_has_no_entropy_and_a_striped_one_has_that_of_its_pairs() -> None:
    stripes = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    stripes[1, :, :, ::2] = 255
    flat, striped = entropies(stripes)[:, 0].tolist()
    assert flat == 0
    assert striped == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_blur_and_jpeg_lower_the_score_and_noise_and_checkerboards_raise_it(photos: Tensor) -> None:
    real, others = photos.split(300)
    floor = glcm(real, others).metrics
    softer = [glcm(real, blurred(others, sigma)).metrics["glcm_bits_signed"] for sigma in (0.5, 0.7, 1.0, 2.0)]
    blocks = [glcm(real, compressed(others, loss)).metrics["glcm_bits_signed"] for loss in (80.0, 90.0, 97.0)]
    rougher = [glcm(real, noisy(others, sigma)).metrics["glcm_bits_signed"] for sigma in (3.0, 6.0, 12.0, 24.0)]
    boards = [glcm(real, checkered(others, height)).metrics["glcm_bits_signed"] for height in (4.0, 8.0, 16.0)]
    for falling in (softer, blocks):
        assert floor["glcm_bits_signed"] > falling[0]
        assert falling == sorted(falling, reverse=True)
    for rising in (rougher, boards):
        assert floor["glcm_bits_signed"] < rising[0]
        assert rising == sorted(rising)


def test_the_distance_sees_what_the_mean_does_not(photos: Tensor) -> None:
    half = len(photos) // 2
    mixed = torch.cat((blurred(photos[:half], 0.8), noisy(photos[half:], 2.5)))
    metrics = glcm(photos, mixed).metrics
    assert metrics["glcm_bits"] > 2 * abs(metrics["glcm_bits_signed"])


def test_values_agree_with_each_other_and_with_the_table_and_intervals_hold_them(photos: Tensor) -> None:
    outcome = glcm(photos[:300], noisy(photos[300:], 8.0))
    metrics, table = outcome.metrics, outcome.tables["glcm"]
    assert metrics["glcm_score"] == table["generated_glcm_score"]
    assert metrics["glcm_bits_signed"] == pytest.approx(metrics["glcm_score"] - table["real_glcm_score"])
    assert metrics["glcm_bits"] >= abs(metrics["glcm_bits_signed"])
    assert set(outcome.intervals) == {"glcm_bits_signed", "glcm_score"}
    for name, (low, high) in outcome.intervals.items():
        assert low < metrics[name] < high
