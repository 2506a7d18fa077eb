"""Accumulation of statistics over many images by several processes, with a result that does not depend on their number.

A set of images is cut into at most 64 segments of consecutive images, each processed in batches of 64. Rank r of n processes
takes the segments r, r + n, ..., and rank 0 merges the segments in order. Every feature is therefore computed from the same
batch and every sum over images is taken in the same order, whatever the number of processes. On GPUs, the power spectrum adds
the pixels of an image in an arbitrary order. Above 256 px, features are computed from smaller parts of a batch, which have as
many pixels as 64 images of 256 px. The generator has batches of its own: `model.generate`.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.devices import full_float32
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.progress import image_progress_bar
from wavegan_dist.evaluate.statistics import Statistics
from wavegan_dist.processes import Group, gather_to_main, on_all_ranks

BATCH = 64
BATCH_SIDE = 256  # largest side of images of which a whole batch is processed at once
SEGMENTS = 64  # few enough to send their statistics to rank 0, enough to divide the work evenly

ImageSource = Callable[[range], Iterator[Tensor]]  # image numbers -> uint8 [<= BATCH, 3, S, S], in order


def batch_size(side: int) -> int:
    """Number of images of `side` x `side` pixels that are processed at once: 64 up to 256 px, 16 at 512 px, 4 at 1024 px."""
    return min(BATCH, max(BATCH * BATCH_SIDE**2 // side**2, 1))


def compute_statistics(
    source: ImageSource,
    count: int,
    features: Sequence[Feature[Any]],
    group: Group,
    label: str,
    classes: Tensor | None = None,
) -> dict[str, Any]:
    """Compute every feature of the images 0..count-1 in one pass. Collective: every process of `group` must call it.

    Args:
        source: function from a range of image numbers to an iterator of batches of their images, in order: uint8 [B, 3, S, S]
            with B at most BATCH, on any device. Each rank calls it for its share of the images.
        count: number of images, at least 1.
        features: the features to compute, on the group's device.
        group: the processes that share the work.
        label: text before the progress bar, which rank 0 shows.
        classes: the class of each image, int64 [count] on the CPU. Only features with a `label` use it; None if there are none.

    Returns:
        The statistics of each feature by the feature's name; on ranks other than 0, statistics of no images.

    Raises:
        WaveganError: on all ranks, if the source raises a WaveganError or an OSError on any rank.
    """
    totals = _empty(features)
    segment = BATCH * math.ceil(count / (BATCH * SEGMENTS))
    round_size = segment * group.num_processes
    with image_progress_bar(count, label, enabled=group.is_main_process) as bar:
        for start in range(0, count, round_size):
            first = start + group.process_index * segment
            numbers = range(min(first, count), min(first + segment, count))
            local = on_all_ranks(
                group, functools.partial(_segment_statistics, source, numbers, features, group.device, classes)
            )
            for of_rank in gather_to_main(group, local):
                for name, statistics in of_rank.items():
                    totals[name].merge(statistics)
            bar.update(min(round_size, count - start))
    return totals


@torch.inference_mode()
@full_float32()
def _segment_statistics(
    source: ImageSource,
    numbers: range,
    features: Sequence[Feature[Any]],
    device: torch.device,
    classes: Tensor | None,
) -> dict[str, Statistics]:
    statistics, first = _empty(features), numbers.start
    by_function: dict[Callable[[Tensor], Tensor], list[Feature[Any]]] = {}
    for feature in features:
        by_function.setdefault(feature.extract, []).append(feature)
    for batch in source(numbers):
        for images in batch.split(batch_size(batch.shape[-1])):
            labels = None if classes is None else classes[first : first + len(images)]
            images_on_device = images.to(device)
            for extract, same in by_function.items():
                values = extract(images_on_device)
                for feature in same:
                    _update(statistics[feature.name], feature.label, values, labels)
            first += len(images)
    return statistics


def _update(statistics: Statistics, label: int | None, features: Tensor, labels: Tensor | None) -> None:
    """Add the features of a batch to `statistics`; if `label` is a class, only those of the images whose `labels` equal it."""
    if label is not None:
        assert labels is not None
        entries = (labels == label).repeat_interleave(features.shape[statistics.image_axis] // len(labels))
        if not entries.any():
            return
        features = features.index_select(statistics.image_axis, entries.nonzero().flatten().to(features.device))
    statistics.update(features)


def _empty(features: Sequence[Feature[Any]]) -> dict[str, Statistics]:
    return {feature.name: feature.statistics() for feature in features}
