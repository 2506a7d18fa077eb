"""Fréchet distance, KID, precision and recall on the features of a trained network, by torch-fidelity's own functions.

The distance is named FID only with the Inception weights that define it; with EfficientNet-Lite0 it is
`fd_efflite0@128`. All depend strongly on the number of images: never compare across counts.
"""

from torch import Tensor

from wavegan_dist.evaluate.extractors import Extractor
from wavegan_dist.evaluate.metric import Outcome
from wavegan_dist.evaluate.quantity import Kept, Rows
from wavegan_dist.evaluate.require import require

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
NEIGHBOURS = 3
PRC_BATCH = 1000  # rows of a matrix of distances: 200 MB at 50,000 images


class FrechetFeatures:
    """Fréchet distance between Gaussians fitted to the features (Heusel et al. 2017).

    Args:
        extractor: gives the features.
        name: under which it is reported.
    """

    def __init__(self, extractor: Extractor, name: str) -> None:
        self.name = name
        self.minimum = extractor.dims + 1  # a covariance of fewer images than features is singular
        self.quantity = extractor.quantity()
        self.protocol = {"extractor": extractor.name, **extractor.protocol}

    def compare(self, real: Kept, generated: Kept) -> Outcome:
        """One number."""
        return Outcome({self.name: frechet_distance(*_features(real, generated))})


class KernelDistance:
    """KID (Binkowski et al. 2018).

    Args:
        extractor: gives the features.
        count: images of each kind: a subset is not larger.
        seed: of the subsets.
    """

    minimum = 2

    def __init__(self, extractor: Extractor, count: int, seed: int = 0) -> None:
        self.name = f"kid_{extractor.name}"
        self.subset, self.seed = min(KID_SUBSET_SIZE, count), seed
        self.quantity = extractor.quantity()
        self.protocol = {
            "extractor": extractor.name, **extractor.protocol, "kid_subsets": KID_SUBSETS, "kid_subset_size": self.subset,
        }  # fmt: skip

    def compare(self, real: Kept, generated: Kept) -> Outcome:
        """One number."""
        return Outcome({self.name: kernel_distance(*_features(real, generated), self.subset, self.seed)})


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
        self.quantity = extractor.quantity()
        self.protocol = {"extractor": extractor.name, **extractor.protocol, "neighbours": NEIGHBOURS}

    def compare(self, real: Kept, generated: Kept) -> Outcome:
        """Two numbers."""
        precision, recall = precision_recall(*_features(real, generated))
        return Outcome({f"precision_{self.suffix}": precision, f"recall_{self.suffix}": recall})


def frechet_distance(real: Tensor, generated: Tensor) -> float:
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


def precision_recall(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """torch-fidelity's precision and recall between features [N, D] and [M, D], each from 0 to 1."""
    prc = require("torch_fidelity.metric_prc", "prc")
    options = {"prc_neighborhood": NEIGHBOURS, "prc_batch_size": PRC_BATCH, "save_cpu_ram": True, "verbose": False}
    found = prc.prc_features_to_metric(generated, real, **options)
    return float(found[prc.KEY_METRIC_PRECISION]), float(found[prc.KEY_METRIC_RECALL])


def _features(real: Kept, generated: Kept) -> tuple[Tensor, Tensor]:
    assert isinstance(real, Rows)
    assert isinstance(generated, Rows)
    return real.all(), generated.all()
