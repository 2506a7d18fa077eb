"""Statistics of the real images, which are the same for every snapshot and are therefore cached."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavegan_dist.config import DataConfig
from wavegan_dist.counted import rng_at
from wavegan_dist.data import Index, check_present, read_images
from wavegan_dist.data.order import RowIndices
from wavegan_dist.evaluate import cache
from wavegan_dist.evaluate.accumulate import BATCH, compute_statistics
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.processes import Group, on_all_ranks, on_main


def load_real_images(location: str | Path, data: DataConfig, cache_folder: Path | None = None) -> Index:
    """Read the index of the real images that a snapshot is compared with.

    Args:
        location: see `Index.load`.
        data: settings of the snapshot's run: the cache for remote files, and its size.
        cache_folder: the cache instead of `data.cache`.

    Raises:
        UsageError, WaveganError: the errors of `Index.load`.
    """
    return Index.load(location, cache_folder or data.cache, data.cache_bytes)


def draw_subsets(index: Index, count: int, seed: int) -> list[RowIndices]:
    """Draw two disjoint random subsets of the real images, or only one if the data set has fewer than 2 * count images.

    The subsets depend only on the number of images in the index, `count` and `seed`. `count` must be at most this number.

    Returns:
        For each subset, the ascending rows in the index of its `count` images, int64 [count].
    """
    first = np.sort(rng_at(seed, "real", 0).choice(index.count, count, replace=False))
    if 2 * count > index.count:
        return [first]
    others = np.sort(rng_at(seed, "real/floor", 0).choice(index.count - count, count, replace=False))  # numbers without `first`
    return [first, others + np.searchsorted(first - np.arange(count), others, side="right")]


def real_labels(index: Index, rows: RowIndices) -> Tensor:
    """Return the class of the images at `rows` of the index, int64 [len(rows)] on the CPU; -1 for an image without a label."""
    return torch.from_numpy(np.array(index.members[rows, 2]))


def real_statistics(
    index: Index,
    count: int,
    seed: int,
    features: Sequence[Feature[Any]],
    group: Group,
    class_features: Sequence[Feature[Any]] = (),
) -> list[dict[str, Any]]:
    """Compute the statistics of each subset that `draw_subsets` returns, or read them from the cache.

    Collective: every process of `group` must call it with the same arguments. Rank 0 reads and writes the cache.

    Args:
        index: index of the real images.
        count: number of images of each subset, at most that of the index.
        seed: seed of the choice of images.
        features: the features to compute for each subset.
        group: the processes that share the work.
        class_features: features of single classes. They are computed for the first subset only, because metrics of classes have
            no floors.

    Returns:
        For each subset, a dict of the name of each feature to its statistics, which are valid on rank 0 only.

    Raises:
        WaveganError: on all ranks, if any rank cannot read an image.
    """
    return [
        _subset_statistics(
            index,
            rows,
            {"count": count, "seed": seed, "half": number},
            features if number else [*features, *class_features],
            group,
        )
        for number, rows in enumerate(draw_subsets(index, count, seed))
    ]


def compute_floors(
    metrics: Sequence[Metric[Any]], subsets: Sequence[dict[str, Any]], index: Index, count: int, seed: int, group: Group
) -> dict[str, float]:
    """Compute the floors, or read them from the cache: every value of every metric between two subsets of real images.

    Not a collective call: only rank 0, which has the statistics, calls it.

    Args:
        metrics: the metrics.
        subsets: the result of `real_statistics` on rank 0.
        index, count, seed, group: the arguments of the call of `real_statistics` that returned `subsets`: parts of the cache's
            key.

    Returns:
        Name of the value to the value; empty if there is only one subset.

    Raises:
        WaveganError: a value is not finite.
    """
    if len(subsets) < 2:
        return {}
    floors: dict[str, float] = {}
    for metric in metrics:
        subset = {"index": index.digest, "device": group.device.type, "count": count, "seed": seed}
        key = {"floor": metric.name, **metric.protocol, **subset}
        values = cache.read(key)
        if values is None:
            computed = metric.compare(*(statistics[metric.feature.name] for statistics in subsets)).metrics
            values = {name: torch.tensor(value, dtype=torch.float64) for name, value in computed.items()}
            cache.write(key, values)
        floors |= {name: value.item() for name, value in values.items()}
    return floors


def _subset_statistics(
    index: Index, rows: RowIndices, subset: dict[str, int], features: Sequence[Feature[Any]], group: Group
) -> dict[str, Any]:
    shared = {"index": index.digest, "device": group.device.type, **subset}
    keys = {feature.name: {"feature": feature.name, **feature.protocol, **shared} for feature in features}
    statistics: dict[str, Any] = {}
    if group.is_main_process:
        entries = [(feature, cache.read(keys[feature.name])) for feature in features]
        statistics = {f.name: f.statistics.from_tensors(tensors) for f, tensors in entries if tensors is not None}
    cached = on_main(group, lambda: set(statistics), "reading the cache")
    missing = [feature for feature in features if feature.name not in cached]
    if missing:
        on_all_ranks(group, lambda: check_present(index, 0.0), "listing the shards")
        source = functools.partial(_images, index, rows)
        classes = real_labels(index, rows)
        computed = compute_statistics(source, len(rows), missing, group, "real images", classes)
        statistics |= computed
        if group.is_main_process:
            for name in computed:
                cache.write(keys[name], computed[name].to_tensors())
    return statistics


def _images(index: Index, rows: RowIndices, numbers: range) -> Iterator[Tensor]:
    return read_images(index, rows[numbers.start : numbers.stop], BATCH)
