"""The labels of a dataset: the class of each image, how often each class occurs, and whether they fit a model."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from wavegan_dist.classes import Classes
from wavegan_dist.config import LARGEST_COUNT
from wavegan_dist.data.index import Index
from wavegan_dist.data.mixture import Mixture, TrainingData
from wavegan_dist.errors import UsageError
from wavegan_dist.log import log


def count_classes(index: Index) -> list[int]:
    """Return the number of images of each class 0, 1, ..., up to the largest label or the last named class, if that is larger.

    Images without a label are not counted. Without labels and names, the list is empty. Raises the errors of `Index.members`.
    """
    labels = _labels(index)
    counts: list[int] = np.bincount(labels[labels >= 0], minlength=len(index.classes)).tolist()
    return counts


def classes_for_training(index: TrainingData, num_classes: int) -> Classes:
    """Return the classes of a dataset or a mixture for a model with `num_classes` classes, at least 1.

    Returns:
        `num_classes` counts, 0 for a class without images, and the names in the index, which may be fewer or none. The counts
        of a mixture have the frequencies of the mixture, and add up to about the images of all sets.

    Raises:
        UsageError: an image has no label, a dataset has more classes than the model, the names of two sets' classes differ, or
            members.npy cannot be read.
        WaveganError: a remote members.npy cannot be downloaded; see `Index.members`.
    """
    classes = [_classes_of_set(one, num_classes) for one in index.sets]
    if not isinstance(index, Mixture):
        return classes[0]
    for one, of_set in zip(index.sets, classes, strict=True):
        for label, (first, other) in enumerate(zip_longest(classes[0].names, of_set.names, fillvalue="without a name")):
            if first != other:
                base = index.sets[0].location
                raise UsageError(
                    f"model.num_classes = {num_classes}, but class {label} is {first} in {base} and {other} in "
                    f"{one.location}; give both the same classes with `wavegan shards index DIR` and --classes or "
                    "--class-names, or set model.num_classes=0"
                )
    return Classes(_mixed_counts(index, [of_set.counts for of_set in classes]), classes[0].names)


def _mixed_counts(mixture: Mixture, counts: Sequence[Sequence[int]]) -> list[int]:
    """Return how many of the first `mixture.count` images of training are of each class on average, rounded.

    A class that has images counts at least 1.

    Args:
        mixture: the sets.
        counts: for each set, the number of images of each class.
    """
    factors = [quota / one.count for one, quota in zip(mixture.sets, mixture.quotas, strict=True)]
    mixed = np.array(factors) @ np.array(counts) * mixture.count / sum(mixture.quotas)
    rounded: list[int] = np.where(mixed > 0, np.maximum(mixed.round(), 1), 0).astype(int).tolist()
    return rounded


def _classes_of_set(index: Index, num_classes: int) -> Classes:
    labels = _labels(index)
    where = f"model.num_classes = {num_classes}, but {index.location}"
    if without := int((labels < 0).sum()):
        found = "has no labels" if without == len(labels) else f"has no label for {without:,} of {len(labels):,} images"
        raise UsageError(
            f"{where} {found}; write the shards with --labels, give each image of the tars a .cls member and index them, or "
            "set model.num_classes=0"
        )
    needed = max(int(labels.max()) + 1, len(index.classes))
    if needed > num_classes:
        found = f"names {needed} classes" if needed > labels.max() + 1 else f"has labels up to {needed - 1}"
        raise UsageError(f"{where} {found}; set model.num_classes={needed}")
    return Classes(np.bincount(labels, minlength=num_classes).tolist(), index.classes)


def _labels(index: Index) -> NDArray[np.int64]:
    """Return the label of each image, int64 [images]. Raises UsageError if one is LARGEST_COUNT or more."""
    labels = index.members[:, 2]
    if len(labels) and (largest := int(labels.max())) >= LARGEST_COUNT:
        raise UsageError(
            f"{index.location} has the label {largest:,}; labels end at {LARGEST_COUNT - 1:,}: number the classes from 0 on"
        )
    return labels


def warn_of_unused_classes(classes: Classes) -> None:
    """Log a warning if classes have no image, with the first five: what the model generates for these will mean nothing."""
    unused = [classes.name(label) for label, count in enumerate(classes.counts) if not count]
    if unused:
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        log.warning("%d of %d classes have no image: %s", len(unused), len(classes.counts), shown)
