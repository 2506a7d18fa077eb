"""The metrics by the names that the command line uses."""

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.bands import BandMetric
from wavegan_dist.evaluate.compression import compression_metric
from wavegan_dist.evaluate.extractors import Extractor, dinov2, efflite0, inception
from wavegan_dist.evaluate.glcm import glcm_metric
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.network_metrics import FrechetDistance, KernelDistance, PrecisionRecall
from wavegan_dist.evaluate.sliced_distance import SlicedDistance
from wavegan_dist.evaluate.spectrum import SpectrumError
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance
from wavegan_dist.log import log

METRICS = ("fwd", "fwd_db2", "swd", "spectrum", "bands", "glcm", "compression", "fd", "kid", "prc", "fid")
DEFAULT_METRICS = METRICS[:-1]
EXTRACTORS = ("efflite0", "inception", "dinov2")


@dataclass(frozen=True)
class ExtractorWeights:
    """The network that computes the features of fd, kid and prc, and the weight files that no Python package contains.

    Args:
        extractor: one of `EXTRACTORS`.
        inception: torch-fidelity's Inception weights; None: the file in torch.hub's folder.
        dinov2: a DINOv2 checkpoint; None: the extractor `dinov2` cannot be used.
    """

    extractor: str = "efflite0"
    inception: Path | None = None
    dinov2: Path | None = None


PACKAGED_WEIGHTS = ExtractorWeights()


def check_names(names: Sequence[str]) -> list[str]:
    """Return the names without duplicates, in the order of their first occurrences.

    Raises:
        UsageError: there is no name, or one is not in `METRICS`.
    """
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
) -> dict[str, Metric[Any]]:
    """Create the named metrics.

    Args:
        names: names from `METRICS`.
        size: side of the images in pixels.
        count: number of images in each set.
        seed: seed of KID's subsets and of the bootstrap, at least 0.
        weights: the extractor of fd, kid and prc, and weight files.
        device: device of the extractors.

    Returns:
        The metrics by name, in the order of `names`.

    Raises:
        UsageError: weights or packages are missing, or the image size is not one that a metric supports.
    """
    extractor = functools.cache(functools.partial(_extractor, weights=weights, device=device))
    factories: dict[str, Callable[[], Metric[Any]]] = {
        "fwd": lambda: WaveletDistance(size),
        "fwd_db2": lambda: WaveletDistance(size, "db2"),
        "swd": lambda: SlicedDistance(size),
        "spectrum": lambda: SpectrumError(size, seed),
        "bands": lambda: BandMetric(size, seed),
        "glcm": lambda: glcm_metric(size, seed),
        "compression": lambda: compression_metric(seed),
        "fd": lambda: FrechetDistance(extractor(weights.extractor), f"fd_{extractor(weights.extractor).name}"),
        "kid": lambda: KernelDistance(extractor(weights.extractor), count, seed),
        "prc": lambda: PrecisionRecall(extractor(weights.extractor)),
        "fid": lambda: FrechetDistance(extractor("inception"), "fid"),
    }
    return {name: factories[name]() for name in names}


def check_counts(metrics: Mapping[str, Metric[Any]], count: int, available: int) -> None:
    """Check that `count` images are enough for every metric.

    Args:
        metrics: the metrics by name.
        count: number of images in each set.
        available: number of real images of the data set, the largest count.

    Raises:
        UsageError: some metrics need more; the message names all of them.
    """
    minimums = {name: metric.minimum for name, metric in metrics.items() if metric.minimum > count}
    if not minimums:
        return
    reachable = [minimum for minimum in minimums.values() if minimum <= available]
    impossible = [name for name, minimum in minimums.items() if minimum > available]
    advice = [f"raise --count to {max(reachable)}"] if reachable else []
    if impossible:
        advice.append(f"leave {', '.join(impossible)} out of --metrics, because there are only {available} real images")
    needs = ", ".join(f"{name} needs at least {minimum} images" for name, minimum in minimums.items())
    raise UsageError(f"{needs}, got {count}; {' and '.join(advice)}")


def metrics_for_count(metrics: Mapping[str, Metric[Any]], count: int, *, warn: bool) -> dict[str, Metric[Any]]:
    """Return the metrics, by name, for which `count` images in each set are enough; they keep their order.

    With `warn`, a warning that names the others, if there are any, is logged.
    """
    left_out = [f"{name} (at least {metric.minimum})" for name, metric in metrics.items() if metric.minimum > count]
    if left_out and warn:
        log.warning("with %d images in each set, these metrics are left out: %s", count, ", ".join(left_out))
    return {name: metric for name, metric in metrics.items() if metric.minimum <= count}


def _extractor(name: str, weights: ExtractorWeights, device: torch.device) -> Extractor:
    if name == "inception":
        return inception(weights.inception, device)
    return dinov2(weights.dinov2, device) if name == "dinov2" else efflite0(device)
