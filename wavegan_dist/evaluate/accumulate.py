"""Accumulation of statistics over many images by several processes, with a result that does not depend on their number.

A set of images is cut into at most 64 segments of consecutive images, each processed in batches of 64. Rank r of n processes
takes the segments r, r + n, ..., and rank 0 merges the segments in order. Every convolution therefore sees the same batch and
every sum is taken in the same order, whatever the number of processes.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.progress import image_progress_bar
from wavegan_dist.evaluate.statistics import Statistics
from wavegan_dist.processes import Group, gather_to_main, on_all_ranks

BATCH = 64
SEGMENTS = 64  # few enough to send to rank 0, enough to share out evenly

ImageSource = Callable[[range], Iterator[Tensor]]  # image numbers -> uint8 [<= BATCH, 3, S, S], in order


def compute_statistics(
    source: ImageSource, count: int, features: Sequence[Feature[Any]], group: Group, label: str
) -> dict[str, Any]:
    """Compute every feature of the images 0..count-1 in one pass. Collective.

    Args:
        source: yields the images of a range of numbers.
        count: number of images.
        features: the features to compute.
        group: the processes that share the work.
        label: text before the progress bar.

    Returns:
        On rank 0, the statistics of each feature by the feature's name; on other ranks, empty statistics.

    Raises:
        WaveganError: on all ranks, if the source fails on any rank.
    """
    totals = _empty(features)
    segment = BATCH * math.ceil(count / (BATCH * SEGMENTS))
    round_size = segment * group.num_processes
    with image_progress_bar(count, label, enabled=group.is_main_process) as bar:
        for start in range(0, count, round_size):
            first = start + group.process_index * segment
            numbers = range(min(first, count), min(first + segment, count))
            local = on_all_ranks(group, functools.partial(_segment_statistics, source, numbers, features, group.device))
            for of_rank in gather_to_main(group, local):
                for name, statistics in of_rank.items():
                    totals[name].merge(statistics)
            bar.update(min(round_size, count - start))
    return totals


@torch.inference_mode()
def _segment_statistics(
    source: ImageSource, numbers: range, features: Sequence[Feature[Any]], device: torch.device
) -> dict[str, Statistics]:
    statistics = _empty(features)
    for images in source(numbers):
        for feature in features:
            statistics[feature.name].update(feature.extract(images.to(device)))
    return statistics


def _empty(features: Sequence[Feature[Any]]) -> dict[str, Statistics]:
    return {feature.name: feature.statistics() for feature in features}
