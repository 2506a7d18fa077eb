"""Real photographs, cut into patches and degraded by a known amount."""

from collections.abc import Iterable

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from wavegan_dist.evaluate.metric import Metric, Outcome


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """uint8 [600, 3, 32, 32]: patches of five photographs in a fixed random order."""
    pictures = [
        skimage.data.astronaut(),
        skimage.data.coffee(),
        skimage.data.chelsea(),
        *sklearn.datasets.load_sample_images().images,
    ]
    patches = [
        picture[top : top + 32, left : left + 32]
        for picture in pictures
        for top in range(0, picture.shape[0] - 31, 32)
        for left in range(0, picture.shape[1] - 31, 32)
    ]
    order = np.random.default_rng(0).permutation(len(patches))[:600]
    return torch.from_numpy(np.stack(patches)[order]).permute(0, 3, 1, 2).contiguous()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels."""
    soft = gaussian_filter(images.numpy().astype(np.float64), (0, 0, sigma, sigma))
    return torch.from_numpy(soft.round().astype(np.uint8))


def noisy(images: Tensor, sigma: float) -> Tensor:
    """White noise of `sigma` grey levels."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + sigma * noise).round().clamp(0, 255).to(torch.uint8)


def compare(metric: Metric, real: Iterable[Tensor], generated: Iterable[Tensor]) -> Outcome:
    """Feed a fresh metric with batches of uint8 images [B, 3, H, W] and report."""
    for images in real:
        metric.real.update(images)
    for images in generated:
        metric.generated.update(images)
    return metric.result()
