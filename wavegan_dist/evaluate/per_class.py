"""Metrics of each class of a conditional snapshot: the images of an evaluation, real and generated, divided by class.

Only metrics that use no trained network are computed: they are defined for the few hundred images that a class has in an
evaluation.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.classes import Classes
from wavegan_dist.data import Index
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance
from wavegan_dist.evaluation_result import ClassResult

CLASS_METRICS = ("fwd", "swd", "spectrum", "bands", "glcm", "compression")
MAX_STATISTICS_BYTES = 2**31  # of all classes and one set of images


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class.

    Attributes:
        label: number of the class.
        name: name of the class.
        images_real, images_generated: number of images in each set.
        metrics: the metrics, whose features use the images of this class only.
        left_out: name of each metric that is left out -> the reason.
    """

    label: int
    name: str
    images_real: int
    images_generated: int
    metrics: Sequence[Metric[Any]]
    left_out: Mapping[str, str]

    @property
    def features(self) -> list[Feature[Any]]:
        """The feature of each of `metrics`, in the same order."""
        return [metric.feature for metric in self.metrics]

    def result(self, real: Mapping[str, Any], generated: Mapping[str, Any]) -> ClassResult:
        """Compare real and generated images of the class by each of `metrics`.

        Args:
            real, generated: the statistics of each of `features` over one set of images, by the name of the feature.

        Raises:
            WaveganError: a value is not finite.
        """
        results = [metric.compare(real[metric.feature.name], generated[metric.feature.name]) for metric in self.metrics]
        return ClassResult(
            label=self.label,
            name=self.name,
            images_real=self.images_real,
            images_generated=self.images_generated,
            metrics={name: value for result in results for name, value in result.metrics.items()},
            intervals={name: interval for result in results for name, interval in result.intervals.items()},
            left_out=dict(self.left_out),
        )


def check_classes(classes: Classes, index: Index, real: Tensor) -> None:
    """Check that the labels of real images mean the classes of a snapshot.

    Args:
        classes: the classes of the snapshot.
        index: index of the real images.
        real: the class of each real image of the evaluation, int64 [N]; -1 for an image without a label.

    Raises:
        UsageError: no image has a label, a label is not below the number of classes, or both sides name their classes, and the
            names differ.
    """
    if not (real >= 0).any():
        raise UsageError("--per-class: the real images have no labels; give the shards that the snapshot was trained on")
    advice = "choose the classes of the snapshot with `wavegan shards index DIR` and --classes or --class-names"
    if (largest := int(real.max())) >= len(classes.counts):
        raise UsageError(
            f"--per-class: {index.location} has the label {largest}, and the classes of the snapshot end at "
            f"{len(classes.counts) - 1}; {advice}"
        )
    for label, (first, other) in enumerate(zip_longest(classes.names, index.classes, fillvalue="without a name")):
        if classes.names and index.classes and first != other:
            raise UsageError(f"--per-class: class {label} is {first} in the snapshot and {other} in {index.location}; {advice}")


def class_metrics(
    metrics: Mapping[str, Metric[Any]], classes: Classes, real: Tensor, generated: Tensor, minimum: int
) -> list[ClassMetrics]:
    """Select the metrics of each class.

    Args:
        metrics: the metrics of the evaluation, by name.
        classes: the classes of the snapshot.
        real, generated: the class of each image of both sets, int64 [N], below the number of classes; -1 for an image without
            a label.
        minimum: smallest number of images that a class must have in each set, besides `Metric.minimum`.

    Returns:
        One `ClassMetrics` for each class, by ascending label, with copies of those metrics that are in CLASS_METRICS. A metric
        is left out of a class that has too few images in a set, and of all classes if its statistics of those that have enough
        would together take more than MAX_STATISTICS_BYTES.

    Raises:
        UsageError: none of the metrics is in CLASS_METRICS.
    """
    chosen = {name: metric for name, metric in metrics.items() if name in CLASS_METRICS}
    if not chosen:
        raise UsageError(
            f"--per-class needs one of {', '.join(CLASS_METRICS)} among --metrics; other metrics need too many images"
        )
    of_sets = [torch.bincount(labels[labels >= 0], minlength=len(classes.counts)).tolist() for labels in (real, generated)]
    counts = list(zip(*of_sets, strict=True))
    needed = {name: max(minimum, metric.minimum) for name, metric in chosen.items()}
    sizes = {
        name: _statistics_bytes(metric) * sum(min(of_class) >= needed[name] for of_class in counts)
        for name, metric in chosen.items()
    }
    return [_of_class(chosen, label, classes, of_class, needed, sizes) for label, of_class in enumerate(counts)]


def _of_class(
    metrics: Mapping[str, Metric[Any]],
    label: int,
    classes: Classes,
    counts: tuple[int, int],
    needed: Mapping[str, int],
    sizes: Mapping[str, int],
) -> ClassMetrics:
    """Select the metrics of a class with `counts` images in each set.

    Args:
        metrics, label, classes, counts: the metrics, and the class.
        needed: fewest images, by name of the metric.
        sizes: bytes of the statistics of all classes that have enough images, by name of the metric.
    """
    measured, left_out = [], {}
    for name, metric in metrics.items():
        if min(counts) < needed[name]:
            left_out[name] = f"fewer than {needed[name]} images"
        elif sizes[name] > MAX_STATISTICS_BYTES:
            left_out[name] = f"statistics of all classes would take {sizes[name] / 2**30:.1f} GiB"
        else:
            measured.append(_restricted(metric, label))
    return ClassMetrics(label, classes.name(label), *counts, measured, left_out)


def _restricted(metric: Metric[Any], label: int) -> Metric[Any]:
    """Return a copy of a metric whose feature uses the images of one class only, under a name of its own."""
    restricted = copy.copy(metric)
    feature = metric.feature
    restricted.feature = replace(
        feature, name=f"{feature.name} of class {label}", protocol={**feature.protocol, "class": label}, label=label
    )
    return restricted


def _statistics_bytes(metric: Metric[Any]) -> int:
    """Return the bytes of a metric's covariances over one set of images; 0 for a metric that keeps features of each image."""
    if not isinstance(metric, WaveletDistance):
        return 0
    variables: int = metric.protocol["variables"]
    return int(8 * 4**metric.level * variables**2)
