"""Many images, several processes, one answer: sets are cut into segments that do not depend on who works on them.

A segment is a run of image numbers, looked at in batches of 64; a set has up to 64 of them, few enough to send and enough to
share out evenly. Rank r of n takes the segments r, r + n, ... and rank 0 puts them together in their order. So every
convolution sees the same batch and every sum is taken in the same order, whatever the number of processes.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from wavegan_dist.evaluate.feature import Feature, Statistics
from wavegan_dist.processes import Group, gather_to_main, on_all_ranks

BATCH = 64
SEGMENTS = 64

Source = Callable[[range], Iterator[Tensor]]  # image numbers -> uint8 [<= BATCH, 3, S, S], in order


def compute_statistics(source: Source, count: int, features: Sequence[Feature], group: Group, told: str) -> list[Statistics]:
    """Look at the images 0..count-1 once; what is kept for each feature is on rank 0, elsewhere it is empty.

    Args:
        source: gives images by their numbers.
        count: how many there are.
        features: what to look at.
        group: the processes that share the work.
        told: what the progress bar says.

    Raises:
        WaveganError: on all ranks, where the source fails on any.
    """
    whole = [feature.empty() for feature in features]
    segment = BATCH * math.ceil(count / (BATCH * SEGMENTS))
    round_size = segment * group.num_processes
    with tqdm(total=count, unit="img", desc=told, disable=None if group.is_main_process else True, leave=False) as bar:
        for start in range(0, count, round_size):
            first = start + group.process_index * segment
            numbers = range(min(first, count), min(first + segment, count))
            share = on_all_ranks(group, functools.partial(_look, source, numbers, features, group.device))
            for part in gather_to_main(group, share):
                for kept, more in zip(whole, part, strict=True):
                    kept.merge(more)  # type: ignore[arg-type]
            bar.update(min(round_size, count - start))
    return whole


@torch.inference_mode()
def _look(source: Source, numbers: range, features: Sequence[Feature], device: torch.device) -> list[Statistics]:
    share = [feature.empty() for feature in features]
    for images in source(numbers):
        for kept, feature in zip(share, features, strict=True):
            kept.update(feature.of(images.to(device)))
    return share
