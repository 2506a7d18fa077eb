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

from wavegan_dist.evaluate.quantity import Kept, Quantity
from wavegan_dist.processes import Group, gather_to_main, on_each

BATCH = 64
SEGMENTS = 64

Source = Callable[[range], Iterator[Tensor]]  # image numbers -> uint8 [<= BATCH, 3, S, S], in order


def collect(source: Source, count: int, quantities: Sequence[Quantity], group: Group, told: str) -> list[Kept]:
    """Look at the images 0..count-1 once; what is kept for each quantity is on rank 0, elsewhere it is empty.

    Args:
        source: gives images by their numbers.
        count: how many there are.
        quantities: what to look at.
        group: the processes that share the work.
        told: what the progress bar says.

    Raises:
        WaveganError: on all ranks, where the source fails on any.
    """
    whole = [quantity.empty() for quantity in quantities]
    segment = BATCH * math.ceil(count / (BATCH * SEGMENTS))
    round_size = segment * group.num_processes
    with tqdm(total=count, unit="img", desc=told, disable=None if group.is_main_process else True, leave=False) as bar:
        for start in range(0, count, round_size):
            first = start + group.process_index * segment
            numbers = range(min(first, count), min(first + segment, count))
            share = on_each(group, functools.partial(_look, source, numbers, quantities, group.device))
            for part in gather_to_main(group, share):
                for kept, more in zip(whole, part, strict=True):
                    kept.merge(more)  # type: ignore[arg-type]
            bar.update(min(round_size, count - start))
    return whole


@torch.inference_mode()
def _look(source: Source, numbers: range, quantities: Sequence[Quantity], device: torch.device) -> list[Kept]:
    share = [quantity.empty() for quantity in quantities]
    for images in source(numbers):
        for kept, quantity in zip(share, quantities, strict=True):
            kept.update(quantity.of(images.to(device)))
    return share
