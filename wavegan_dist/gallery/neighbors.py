"""The nearest training images of generated images: does the generator copy?

Images are compared by the cosine distance of their EfficientNet-Lite0 features: 1 - cos of the angle between them. The length
of the features grows with contrast and detail, so that by Euclidean distance a smooth sample is near to every smooth image.

How near is near? The real images themselves answer: the distance from each to the nearest other real image, measured in the
same way. A sample is marked if it is as near to a real image as only `QUANTILE` of the real images are to another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist.data import Index, images_at
from wavegan_dist.data.order import RowIndices
from wavegan_dist.devices import full_float32
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.accumulate import batch_size
from wavegan_dist.evaluate.extractors import Extractor, efflite0
from wavegan_dist.evaluate.progress import image_progress_bar
from wavegan_dist.evaluate.real_images import draw_subsets

MAX_REAL = 20_000  # most real images to compare with
NEIGHBORS = 4  # per sample
QUANTILE = 0.05
ROUNDING = 1e-5  # smaller distances are rounding errors and count as 0
QUERIES = 512  # rows of a distance matrix that are in memory at once


@dataclass(frozen=True)
class RealFeatures:
    """Features of real images, and how far they are from each other.

    Attributes:
        index: the data set.
        rows: rows of the images in the index, [N].
        features: features of unit length, float32 [N, dims].
        mirrored: features of the mirror images; None if mirror images are not training images.
        median: median of the distance from a real image to the nearest other real image.
        quantile: the `QUANTILE` quantile of that distance.
        extractor: the network that computes the features.
    """

    index: Index
    rows: RowIndices
    features: Tensor
    mirrored: Tensor | None
    median: float
    quantile: float
    extractor: Extractor


@dataclass(frozen=True)
class Neighbors:
    """The nearest real images of B samples, K = `NEIGHBORS` each, nearest first.

    Attributes:
        samples: the samples, uint8 [B, 3, R, R].
        rows: rows of the neighbors in the index, int64 [B, K].
        distances: their distances, float32 [B, K].
        mirrored: whether the mirror image of the neighbor is the nearer, bool [B, K].
        pictures: the neighbors, mirrored where `mirrored` is, uint8 [B, K, 3, R, R].
        marked: whether the nearest neighbor is at most `RealFeatures.quantile` away, bool [B].
    """

    samples: Tensor
    rows: Tensor
    distances: Tensor
    mirrored: Tensor
    pictures: Tensor
    marked: Tensor


def read_real_features(index: Index, seed: int, *, mirror: bool) -> RealFeatures:
    """Compute the features of 20,000 random real images (`MAX_REAL`), or all if there are fewer, and how near they are.

    Args:
        index: the data set.
        seed: seed of the choice of images.
        mirror: count mirror images as training images.

    Raises:
        UsageError: the data set has no more images than `NEIGHBORS`, a shard is missing, or the extra `eval` is not installed.
        WaveganError: an image cannot be read.
    """
    if index.count <= NEIGHBORS:
        raise UsageError(
            f"--data {index.location} holds {index.count} images, too few for {NEIGHBORS} neighbors; give the run's data"
        )
    rows, extractor = draw_subsets(index, min(MAX_REAL, index.count), seed)[0], efflite0()
    plain, mirrored, size = [], [], batch_size(index.size)
    with image_progress_bar(len(rows), "features of real images") as bar:
        for images in images_at(index, rows, size):
            plain.append(unit_features(extractor, images))
            mirrored += [unit_features(extractor, images.flip(-1))] if mirror else []
            bar.update(len(images))
    features, of_mirrored = torch.cat(plain), torch.cat(mirrored) if mirror else None
    nearest = nearest_other(features, of_mirrored)
    quantile = torch.quantile(nearest, QUANTILE).item()
    return RealFeatures(index, rows, features, of_mirrored, nearest.median().item(), quantile, extractor)


def find_neighbors(samples: Tensor, real: RealFeatures) -> Neighbors:
    """Find the nearest real images of samples uint8 [B, 3, R, R] on the CPU, B > 0, which have the size of the real images.

    Raises:
        UsageError: a shard is missing.
        WaveganError: a real image cannot be read.
    """
    parts = samples.split(batch_size(samples.shape[-1]))
    features = torch.cat([unit_features(real.extractor, part) for part in parts])
    nearest, positions, mirrored = _nearest(features, real)
    rows = torch.from_numpy(real.rows)[positions]
    pictures = torch.cat(list(images_at(real.index, rows.flatten().numpy(), rows.numel()))).unflatten(0, rows.shape)
    pictures = torch.where(mirrored[:, :, None, None, None], pictures.flip(-1), pictures)
    return Neighbors(samples, rows, nearest, mirrored, pictures, nearest[:, 0] <= real.quantile)


def _nearest(features: Tensor, real: RealFeatures) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances, positions in `real.rows` and `Neighbors.mirrored` of the nearest images, each [B, K]."""
    parts = []
    for part in features.split(QUERIES):
        matrix, mirrored = distances(part, real.features, real.mirrored)
        nearest, positions = matrix.topk(NEIGHBORS, dim=1, largest=False)
        parts.append((nearest, positions, mirrored.gather(1, positions)))
    nearest, positions, mirrored = map(torch.cat, zip(*parts, strict=True))
    return nearest, positions, mirrored


def unit_features(extractor: Extractor, images: Tensor) -> Tensor:
    """Compute the features of uint8 images [B, 3, R, R], scaled to unit length: float32 [B, dims]."""
    with torch.inference_mode(), full_float32():
        return torch.nn.functional.normalize(extractor.features(images))


def distances(queries: Tensor, plain: Tensor, mirrored: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the cosine distances of M images to N others. A mirror image of the others counts if it is nearer.

    Args:
        queries: features of unit length [M, dims].
        plain: features of unit length of the others [N, dims].
        mirrored: features of their mirror images; None: only `plain` counts.

    Returns:
        The distances [M, N], 0 where they are below ROUNDING; and whether the mirror image is the nearer, bool [M, N].
    """
    cosines = queries @ plain.T
    of_mirrored = cosines if mirrored is None else queries @ mirrored.T
    nearer = of_mirrored > cosines
    distance = 1 - torch.maximum(cosines, of_mirrored)
    return distance.masked_fill(distance < ROUNDING, 0), nearer


def nearest_other(features: Tensor, mirrored: Tensor | None) -> Tensor:
    """Compute the cosine distance from each of N images to the nearest other image or mirror image of another: float32 [N].

    An image's own mirror image does not count.

    Args:
        features: features of unit length, float32 [N, dims].
        mirrored: features of the mirror images [N, dims]; None: mirror images do not count.
    """
    nearest = []
    for first in range(0, len(features), QUERIES):
        matrix, _ = distances(features[first : first + QUERIES], features, mirrored)
        own = torch.arange(len(matrix))
        matrix[own, first + own] = torch.inf
        nearest.append(matrix.amin(dim=1))
    return torch.cat(nearest)
