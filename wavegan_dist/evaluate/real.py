"""The real side of an evaluation, the same for every snapshot: two disjoint sets of images, and what is kept of them."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from wavegan_dist.counted import rng_at
from wavegan_dist.data import Index, images_at
from wavegan_dist.data.order import RowIndices
from wavegan_dist.evaluate import cache
from wavegan_dist.evaluate.feature import Feature, Statistics
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.statistics import BATCH, compute_statistics
from wavegan_dist.processes import Group, on_main


def halves(index: Index, count: int, seed: int) -> list[RowIndices]:
    """Rows of `count` random real images and, where the set has so many, of as many others: each ascending, without repeats."""
    first = np.sort(rng_at(seed, "real", 0).choice(index.count, count, replace=False))
    if 2 * count > index.count:
        return [first]
    others = np.setdiff1d(np.arange(index.count), first, assume_unique=True)
    return [first, np.sort(rng_at(seed, "real/floor", 0).choice(others, count, replace=False))]


def real_sides(index: Index, count: int, seed: int, features: Sequence[Feature], group: Group) -> list[dict[str, Statistics]]:
    """What is kept of each of the `halves`, by the feature's name, from the cache where it is there; on rank 0.

    Raises:
        WaveganError: on all ranks, where an image cannot be read on any.
    """
    return [
        _side(index, rows, {"count": count, "seed": seed, "half": half}, features, group)
        for half, rows in enumerate(halves(index, count, seed))
    ]


def floors(
    metrics: Sequence[Metric], sides: Sequence[dict[str, Statistics]], index: Index, count: int, seed: int, group: Group
) -> dict[str, float]:
    """Every number of every metric between the two real halves, from the cache where it is there; {} without a second half."""
    if len(sides) < 2:
        return {}
    found: dict[str, float] = {}
    for metric in metrics:
        drawn = {"index": index.digest, "device": group.device.type, "count": count, "seed": seed}
        key = {"floor": metric.name, **metric.protocol, **drawn}
        known = cache.read(key)
        if known is None:
            values = metric.compare(*(side[metric.feature.name] for side in sides)).metrics
            known = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
            cache.write(key, known)
        found |= {name: value.item() for name, value in known.items()}
    return found


def _side(
    index: Index, rows: RowIndices, drawn: dict[str, int], features: Sequence[Feature], group: Group
) -> dict[str, Statistics]:
    keys = {
        feature.name: {
            "feature": feature.name, **feature.protocol, "index": index.digest, "device": group.device.type, **drawn,
        }
        for feature in features
    }  # fmt: skip
    known: dict[str, Statistics] = {}
    if group.is_main_process:
        entries = {feature.name: (feature, cache.read(keys[feature.name])) for feature in features}
        known = {name: feature.from_tensors(entry) for name, (feature, entry) in entries.items() if entry is not None}
    here = on_main(group, lambda: set(known))
    missing = [feature for feature in features if feature.name not in here]
    if missing:
        source = functools.partial(_images, index, rows)
        kept = compute_statistics(source, len(rows), missing, group, "real images")
        known |= {feature.name: each for feature, each in zip(missing, kept, strict=True)}
        if group.is_main_process:
            for feature in missing:
                cache.write(keys[feature.name], known[feature.name].tensors())
    return known


def _images(index: Index, rows: RowIndices, numbers: range) -> Iterator[Tensor]:
    return images_at(index, rows[numbers.start : numbers.stop], BATCH)
