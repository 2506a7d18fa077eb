"""Fréchet distance, KID, precision and recall on the features of a trained network, by torch-fidelity's own functions.

The distance is named FID only with the Inception weights that define it; with EfficientNet-Lite0 it is
`fd_efflite0@128`. All depend strongly on the number of images: never compare across counts.
"""

from torch import Tensor

from wavegan_dist.counted import rng_at
from wavegan_dist.evaluate.bootstrap import RESAMPLES, between, times_drawn
from wavegan_dist.evaluate.extractors import Extractor
from wavegan_dist.evaluate.feature import FeatureRows, Statistics
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.require import require

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
KID_BATCH = 500  # rows of a matrix of kernels: 200 MB at 50,000 images
NEIGHBOURS = 3
PRC_BATCH = 1000  # rows of a matrix of distances: 200 MB at 50,000 images


class FrechetDistance:
    """Fréchet distance between Gaussians fitted to the features (Heusel et al. 2017).

    Args:
        extractor: gives the features.
        name: under which it is reported.
    """

    def __init__(self, extractor: Extractor, name: str) -> None:
        self.name = name
        self.minimum = extractor.dims + 1  # a covariance of fewer images than features is singular
        self.feature = extractor.feature()
        self.protocol = {"extractor": extractor.name, **extractor.protocol}

    def compare(self, real: Statistics, generated: Statistics) -> MetricResult:
        """One number."""
        return MetricResult({self.name: feature_frechet_distance(*_features(real, generated))})


class KernelDistance:
    """KID (Binkowski et al. 2018).

    Args:
        extractor: gives the features.
        count: images of each kind: a subset is not larger.
        seed: of the subsets and of the bootstrap.
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

    def compare(self, real: Statistics, generated: Statistics) -> MetricResult:
        """One number."""
        sides = _features(real, generated)
        return MetricResult(
            {self.name: kernel_distance(*sides, self.subset, self.seed)},
            intervals={self.name: between(resampled_kernel_distances(*sides, self.seed))},
        )


class PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019): which share of the generated features lies within the real
    ones' third-neighbour balls, and the reverse. 1 is best. Recall falls when modes are missing.

    Args:
        extractor: gives the features.
    """

    minimum = NEIGHBOURS + 1

    def __init__(self, extractor: Extractor) -> None:
        self.name = "prc"
        self.suffix = extractor.name
        self.feature = extractor.feature()
        self.protocol = {"extractor": extractor.name, **extractor.protocol, "neighbours": NEIGHBOURS}

    def compare(self, real: Statistics, generated: Statistics) -> MetricResult:
        """Two numbers."""
        precision, recall = precision_recall(*_features(real, generated))
        return MetricResult({f"precision_{self.suffix}": precision, f"recall_{self.suffix}": recall})


def feature_frechet_distance(real: Tensor, generated: Tensor) -> float:
    """torch-fidelity's Fréchet distance between features [N, D] and [M, D], in float64 throughout."""
    fid = require("torch_fidelity.metric_fid", "fd and fid")
    statistics = [fid.fid_features_to_statistics(features.double()) for features in (real, generated)]
    return float(fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID])


def kernel_distance(real: Tensor, generated: Tensor, subset: int, seed: int) -> float:
    """torch-fidelity's KID between features [N, D] and [M, D], mean over 100 random subsets of that size.

    In float32, as its own: float64 would move it by about 4e-6 of its value.
    """
    kid = require("torch_fidelity.metric_kid", "kid")
    options = {"kid_subsets": KID_SUBSETS, "kid_subset_size": subset, "rng_seed": seed, "verbose": False}
    return float(kid.kid_features_to_metric(generated, real, **options)[kid.KEY_METRIC_KID_MEAN])


def resampled_kernel_distances(real: Tensor, generated: Tensor, seed: int) -> Tensor:
    """The unbiased squared MMD that KID estimates, between images drawn again with replacement: float64 [RESAMPLES].

    Each kernel is computed once and counts as often as its two images were drawn; pairs of an image with itself, its copies
    included, do not count, for they would widen the distance.

    Args:
        real, generated: features [N, D] and [M, D].
        seed: of the draws.
    """
    draws = rng_at(seed, "bootstrap", 0)
    x, y = (side.double() for side in (real, generated))
    times_x, times_y = (times_drawn(len(side), draws).double() for side in (real, generated))
    within = [_mean_kernel(side, side, times, times) for side, times in ((x, times_x), (y, times_y))]
    return within[0] + within[1] - 2 * _mean_kernel(x, y, times_x, times_y)


def precision_recall(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """torch-fidelity's precision and recall between features [N, D] and [M, D], each from 0 to 1."""
    prc = require("torch_fidelity.metric_prc", "prc")
    options = {"prc_neighborhood": NEIGHBOURS, "prc_batch_size": PRC_BATCH, "save_cpu_ram": True, "verbose": False}
    found = prc.prc_features_to_metric(generated, real, **options)
    return float(found[prc.KEY_METRIC_PRECISION]), float(found[prc.KEY_METRIC_RECALL])


def _features(real: Statistics, generated: Statistics) -> tuple[Tensor, Tensor]:
    assert isinstance(real, FeatureRows)
    assert isinstance(generated, FeatureRows)
    return real.all(), generated.all()


def _mean_kernel(a: Tensor, b: Tensor, times_a: Tensor, times_b: Tensor) -> Tensor:
    """Mean over the pairs of two images, each as often as it was drawn: [RESAMPLES]."""
    total, pairs = times_a.new_zeros(len(times_a)), times_a.sum(dim=1) * times_b.sum(dim=1)
    for rows, times in zip(a.split(KID_BATCH), times_a.split(KID_BATCH, dim=1), strict=True):
        total += ((times @ _kernel(rows @ b.T, a.shape[1])) * times_b).sum(dim=1)
    if a is b:
        alone = times_a.square()
        total, pairs = total - alone @ _kernel(a.square().sum(dim=1), a.shape[1]), pairs - alone.sum(dim=1)
    return total / pairs


def _kernel(products: Tensor, dims: int) -> Tensor:
    """KID's cubic kernel of scalar products of features."""
    return (products / dims + 1) ** 3
