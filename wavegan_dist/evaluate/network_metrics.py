"""Fréchet distance, KID, precision and recall of the features of a trained network, computed by torch-fidelity's functions.

The Fréchet distance is called FID only with the Inception weights that define FID; with EfficientNet-Lite0, it is
`fd_efflite0@128`. All of these depend strongly on the number of images: never compare values of different counts.
"""

import torch
from torch import Tensor

from wavegan_dist.counted import rng_at
from wavegan_dist.evaluate.bootstrap import RESAMPLES, percentile_interval, resample_counts
from wavegan_dist.evaluate.extractors import Extractor
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.require import require
from wavegan_dist.evaluate.statistics import FeatureRows

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
KID_BATCH = 500  # rows of a kernel matrix: 200 MB for 50,000 images
NEIGHBORS = 3
PRC_BATCH = 1000  # rows of a distance matrix: 200 MB for 50,000 images


class FrechetDistance:
    """Fréchet distance between Gaussians fitted to the features (Heusel et al. 2017).

    Args:
        extractor: the network that computes the features.
        name: name of the reported value.
    """

    def __init__(self, extractor: Extractor, name: str) -> None:
        self.name = name
        self.minimum = extractor.dims + 1  # the covariance of fewer images than features is singular
        self.feature = extractor.feature()
        self.protocol = {"extractor": extractor.name, **extractor.protocol}

    def compare(self, real: FeatureRows, generated: FeatureRows) -> MetricResult:
        """Compute the single value `name`.

        Args:
            real, generated: the rows of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            UsageError: torch-fidelity is not installed.
            WaveganError: a value is not finite.
        """
        return MetricResult({self.name: feature_frechet_distance(real.rows(), generated.rows())})


class KernelDistance:
    """Kernel Inception Distance (Binkowski et al. 2018), on the features of any extractor.

    Args:
        extractor: the network that computes the features.
        count: number of images in each set, which bounds the size of KID's subsets.
        seed: seed of the subsets and of the bootstrap.
    """

    minimum = 2

    def __init__(self, extractor: Extractor, count: int, seed: int = 0) -> None:
        self.name = f"kid_{extractor.name}"
        self.subset, self.seed = min(KID_SUBSET_SIZE, count), seed
        self.feature = extractor.feature()
        self.protocol = {
            "extractor": extractor.name, **extractor.protocol, "kid_subsets": KID_SUBSETS, "kid_subset_size": self.subset,
            "bootstrap": RESAMPLES,
        }  # fmt: skip

    def compare(self, real: FeatureRows, generated: FeatureRows) -> MetricResult:
        """Compute the single value `name`, and its interval unless there are too few images to resample.

        Args:
            real, generated: the rows of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            UsageError: torch-fidelity is not installed.
            WaveganError: a value is not finite.
        """
        features = real.rows(), generated.rows()
        resampled = resampled_kernel_distances(*features, self.seed)
        return MetricResult(
            {self.name: kernel_distance(*features, self.subset, self.seed)},
            intervals={} if resampled.isnan().any() else {self.name: percentile_interval(resampled)},
        )


class PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019); 1 is best.

    The ball of an image has the distance to the third nearest image of the same set as its radius. Precision is the fraction of
    generated images within the ball of a real image, recall the fraction of real images within the ball of a generated image.
    Recall falls when modes are missing.

    Args:
        extractor: the network that computes the features.
    """

    minimum = NEIGHBORS + 1

    def __init__(self, extractor: Extractor) -> None:
        self.name = "prc"
        self.suffix = extractor.name
        self.feature = extractor.feature()
        self.protocol = {"extractor": extractor.name, **extractor.protocol, "neighbours": NEIGHBORS}

    def compare(self, real: FeatureRows, generated: FeatureRows) -> MetricResult:
        """Compute the values `precision_EXTRACTOR` and `recall_EXTRACTOR`.

        Args:
            real, generated: the rows of `feature` over each set of images, at least `minimum` images each (not checked).

        Raises:
            UsageError: torch-fidelity is not installed.
            WaveganError: a value is not finite.
        """
        precision, recall = precision_recall(real.rows(), generated.rows())
        return MetricResult({f"precision_{self.suffix}": precision, f"recall_{self.suffix}": recall})


def feature_frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Return torch-fidelity's Fréchet distance between features [N, D] and [M, D] on the CPU, computed in float64.

    Raises:
        UsageError: torch-fidelity is not installed.
    """
    fid = require("torch_fidelity.metric_fid", "fd and fid")
    statistics = [fid.fid_features_to_statistics(features.double()) for features in (real, generated)]
    return float(fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID])


def kernel_distance(real: Tensor, generated: Tensor, subset: int, seed: int) -> float:
    """Return torch-fidelity's KID between features [N, D] and [M, D] on the CPU.

    The mean over 100 random subsets of `subset` images of each set; `subset` must be at most N and M. Computed in the dtype of
    the features, float32 as in torch-fidelity; float64 would change the value by a relative 4e-6. The seed of the subsets is
    `seed` modulo 2**32, the range of NumPy's RandomState.

    Raises:
        UsageError: torch-fidelity is not installed.
    """
    kid = require("torch_fidelity.metric_kid", "kid")
    options = {"kid_subsets": KID_SUBSETS, "kid_subset_size": subset, "rng_seed": seed % 2**32, "verbose": False}
    return float(kid.kid_features_to_metric(generated, real, **options)[kid.KEY_METRIC_KID_MEAN])


def resampled_kernel_distances(real: Tensor, generated: Tensor, seed: int) -> Tensor:
    """Compute the unbiased squared MMD that KID estimates, for images resampled with replacement.

    Each kernel value is computed once and weighted by how often its two images were drawn. Pairs of an image with itself or
    with a copy of itself are left out: these pairs would bias the distance upwards.

    Args:
        real, generated: features [N, D] and [M, D] on the CPU.
        seed: seed of the draws.

    Returns:
        float64 [RESAMPLES]; NaN for a resample in which all draws of a set are the same image, so that it has no pair. This
        happens with fewer than about 8 images.
    """
    rng = rng_at(seed, "bootstrap", 0)
    x, y = real.double(), generated.double()
    counts_x, counts_y = (resample_counts(len(features), rng).double() for features in (x, y))
    within = [_mean_kernel(features, features, counts, counts) for features, counts in ((x, counts_x), (y, counts_y))]
    return within[0] + within[1] - 2 * _mean_kernel(x, y, counts_x, counts_y)


def precision_recall(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """Return torch-fidelity's precision and recall between features [N, D] and [M, D] on the CPU, each from 0 to 1.

    `real` and `generated` must have at least 4 rows: a ball reaches to the third nearest other image (NEIGHBORS).

    Raises:
        UsageError: torch-fidelity is not installed.
    """
    prc = require("torch_fidelity.metric_prc", "prc")
    options = {"prc_neighborhood": NEIGHBORS, "prc_batch_size": PRC_BATCH, "save_cpu_ram": True, "verbose": False}
    values = prc.prc_features_to_metric(generated, real, **options)
    return float(values[prc.KEY_METRIC_PRECISION]), float(values[prc.KEY_METRIC_RECALL])


def _mean_kernel(a: Tensor, b: Tensor, counts_a: Tensor, counts_b: Tensor) -> Tensor:
    """Mean kernel over all pairs of an image of `a` and an image of `b`, weighted by how often each was drawn.

    Args:
        a, b: features [N, D] and [M, D]; if both are the same object, pairs of equal images are left out.
        counts_a, counts_b: float64 [RESAMPLES, N] and [RESAMPLES, M].

    Returns:
        float64 [RESAMPLES]; NaN where there is no pair.
    """
    total, pairs = counts_a.new_zeros(len(counts_a)), counts_a.sum(dim=1) * counts_b.sum(dim=1)
    for rows, counts in zip(a.split(KID_BATCH), counts_a.split(KID_BATCH, dim=1), strict=True):
        total += ((counts @ _kernel(rows @ b.T, a.shape[1])) * counts_b).sum(dim=1)
    if a is b:
        equal = counts_a.square()
        total, pairs = total - equal @ _kernel(a.square().sum(dim=1), a.shape[1]), pairs - equal.sum(dim=1)
    return total / pairs.where(pairs > 0, torch.nan)


def _kernel(products: Tensor, dims: int) -> Tensor:
    """Apply KID's cubic kernel, elementwise, to scalar products of features with `dims` dimensions."""
    return (products / dims + 1) ** 3
