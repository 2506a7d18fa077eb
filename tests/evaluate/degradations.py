"""Real photographs, cut into patches and degraded by a known amount."""

import io

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor


def patches(stride: int) -> Tensor:
    """uint8 [N, 3, 32, 32]: patches of five photographs, cut at a fixed stride, in a fixed random order."""
    pictures = [
        skimage.data.astronaut(),
        skimage.data.coffee(),
        skimage.data.chelsea(),
        *sklearn.datasets.load_sample_images().images,
    ]
    cut = [
        picture[top : top + 32, left : left + 32]
        for picture in pictures
        for top in range(0, picture.shape[0] - 31, stride)
        for left in range(0, picture.shape[1] - 31, stride)
    ]
    order = np.random.default_rng(0).permutation(len(cut))
    return torch.from_numpy(np.stack(cut)[order]).permute(0, 3, 1, 2).contiguous()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels."""
    soft = gaussian_filter(images.numpy().astype(np.float64), (0, 0, sigma, sigma))
    return torch.from_numpy(soft.round().astype(np.uint8))


def noisy(images: Tensor, sigma: float) -> Tensor:
    """White noise of `sigma` gray levels."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + sigma * noise).round().clamp(0, 255).to(torch.uint8)


def sharpened(images: Tensor, amount: float) -> Tensor:
    """Unsharp mask of one pixel: adds a multiple of the difference to the blurred image."""
    soft = gaussian_filter(images.numpy().astype(np.float64), (0, 0, 1.0, 1.0))
    sharp = images.numpy() + amount * (images.numpy() - soft)
    return torch.from_numpy(sharp.round().clip(0, 255).astype(np.uint8))


def checkered(images: Tensor, height: float) -> Tensor:
    """The checkerboard of a transposed convolution: pixels alternately lighter and darker by a number of gray levels."""
    rows, columns = torch.meshgrid(torch.arange(images.shape[-2]), torch.arange(images.shape[-1]), indexing="ij")
    board = 1.0 - 2.0 * ((rows + columns) % 2)
    return (images + height * board).round().clamp(0, 255).to(torch.uint8)


def compressed(images: Tensor, loss: float) -> Tensor:
    """JPEG of quality 100 - loss."""

    def one(image: Tensor) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=int(100 - loss))
        return np.asarray(Image.open(file))

    return torch.from_numpy(np.stack([one(image) for image in images])).permute(0, 3, 1, 2)


def collapsed(rows: Tensor, modes: float) -> Tensor:
    """Only the first `modes` of the images, or of their features, over and over."""
    return rows[torch.arange(len(rows)) % int(modes)]
