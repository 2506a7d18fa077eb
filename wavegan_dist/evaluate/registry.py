"""The metrics by their names on the command line."""

import difflib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.bands import BandMetric
from wavegan_dist.evaluate.extractors import Extractor, dinov2, efflite0, inception
from wavegan_dist.evaluate.features import FrechetDistance, KernelDistance, PrecisionRecall
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.spectrum import SpectrumError
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance

METRICS = ("fwd", "fwd_db2", "spectrum", "bands", "fd", "kid", "prc", "fid")
DEFAULT_METRICS = METRICS[:-1]
EXTRACTORS = ("efflite0", "inception", "dinov2")


@dataclass(frozen=True)
class ExtractorWeights:
    """Which network gives the features of fd, kid and prc, and where weights lie that come in no package."""

    extractor: str = "efflite0"
    inception: Path | None = None
    dinov2: Path | None = None


OFFLINE = ExtractorWeights()


def check_names(names: Sequence[str]) -> list[str]:
    """The names without repeats; UsageError for none at all and for one that is not in `METRICS`."""
    for name in names:
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, 1, 0.4)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise UsageError(f"unknown metric '{name}'; {hint}there are {', '.join(METRICS)}")
    if not names:
        raise UsageError(f"no metric named; choose from {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def build_metrics(
    names: Sequence[str], size: int, count: int, seed: int, weights: ExtractorWeights, device: torch.device
) -> list[Metric]:
    """The metrics of images of `size` pixels; UsageError where `count` is too small or weights are missing."""

    @functools.cache
    def extractor(name: str) -> Extractor:
        if name == "inception":
            return inception(weights.inception, device)
        return dinov2(weights.dinov2, device) if name == "dinov2" else efflite0(device)

    def frechet() -> Metric:
        features = extractor(weights.extractor)
        return FrechetDistance(features, f"fd_{features.name}")

    makers: dict[str, Callable[[], Metric]] = {
        "fwd": lambda: WaveletDistance(size),
        "fwd_db2": lambda: WaveletDistance(size, "db2"),
        "spectrum": lambda: SpectrumError(size, seed),
        "bands": lambda: BandMetric(size, seed),
        "fd": frechet,
        "kid": lambda: KernelDistance(extractor(weights.extractor), count, seed),
        "prc": lambda: PrecisionRecall(extractor(weights.extractor)),
        "fid": lambda: FrechetDistance(extractor("inception"), "fid"),
    }
    metrics = [makers[name]() for name in names]
    for metric in metrics:
        if count < metric.minimum:
            raise UsageError(
                f"{metric.name} needs at least {metric.minimum} images, got {count}; raise --count or leave it out of --metrics"
            )
    return metrics
