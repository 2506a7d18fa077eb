"""The real side of an evaluation, the same for every snapshot: two disjoint sets of images, and what is kept of them."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from wavegan_dist.counted import generator
from wavegan_dist.data import Index, images_at
from wavegan_dist.data.order import Rows as RowNumbers
from wavegan_dist.evaluate import cache
from wavegan_dist.evaluate.collect import BATCH, collect
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.quantity import Kept, Quantity
from wavegan_dist.processes import Group, on_main


def halves(index: Index, count: int, seed: int) -> list[RowNumbers]:
    """Rows of `count` random real images and, where the set has so many, of as many others: each ascending, without repeats."""
    first = np.sort(generator(seed, "real", 0).choice(index.count, count, replace=False))
    if 2 * count > index.count:
        return [first]
    others = np.setdiff1d(np.arange(index.count), first, assume_unique=True)
    return [first, np.sort(generator(seed, "real/floor", 0).choice(others, count, replace=False))]


def real_sides(index: Index, count: int, seed: int, quantities: Sequence[Quantity], group: Group) -> list[dict[str, Kept]]:
    """What is kept of each of the `halves`, by the quantity's name, from the cache where it is there; on rank 0.

    Raises:
        WaveganError: on all ranks, where an image cannot be read on any.
    """
    return [
        _side(index, rows, {"count": count, "seed": seed, "half": half}, quantities, group)
        for half, rows in enumerate(halves(index, count, seed))
    ]


def floors(
    metrics: Sequence[Metric], sides: Sequence[dict[str, Kept]], index: Index, count: int, seed: int, group: Group
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
            values = metric.compare(*(side[metric.quantity.name] for side in sides)).metrics
            known = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
            cache.write(key, known)
        found |= {name: value.item() for name, value in known.items()}
    return found


def _side(
    index: Index, rows: RowNumbers, drawn: dict[str, int], quantities: Sequence[Quantity], group: Group
) -> dict[str, Kept]:
    keys = {
        quantity.name: {
            "quantity": quantity.name, **quantity.protocol, "index": index.digest, "device": group.device.type, **drawn,
        }
        for quantity in quantities
    }  # fmt: skip
    known: dict[str, Kept] = {}
    if group.is_main_process:
        entries = {quantity.name: (quantity, cache.read(keys[quantity.name])) for quantity in quantities}
        known = {name: quantity.of_tensors(entry) for name, (quantity, entry) in entries.items() if entry is not None}
    here = on_main(group, lambda: set(known))
    missing = [quantity for quantity in quantities if quantity.name not in here]
    if missing:
        source = functools.partial(_images, index, rows)
        kept = collect(source, len(rows), missing, group, "real images")
        known |= {quantity.name: each for quantity, each in zip(missing, kept, strict=True)}
        if group.is_main_process:
            for quantity in missing:
                cache.write(keys[quantity.name], known[quantity.name].tensors())
    return known


def _images(index: Index, rows: RowNumbers, numbers: range) -> Iterator[Tensor]:
    return images_at(index, rows[numbers.start : numbers.stop], BATCH)
