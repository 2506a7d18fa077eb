"""The order of an epoch: a pure function of (seed, epoch, index), whatever the batch, the ranks and the workers.

The shards are permuted and dealt to up to 64 logical streams. A stream goes through its shards in windows of 4 and permutes
the images of each window. Position p of the epoch is the next image of stream p mod (number of streams), streams that have
ended left out. So a position is found by arithmetic alone, and a run can go on at any of them, with any number of readers.

A global batch lays its images out by stream, and each rank takes an equal slice of it: where the numbers divide, a rank reads
the same few streams throughout, so a node with a cache of its own fetches its share of the shards and no more.
"""

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wavegan_dist.counted import rng_at

STREAMS = 64
WINDOW = 4  # shards whose images are permuted together, in each stream

RowIndices = NDArray[np.int64]
Value = TypeVar("Value")


class Order:
    """The endless order of a set of shards.

    Args:
        starts: int64 [shards + 1], row of each shard's first image, then the number of images (`Index.starts`).
        seed: of the permutations.
    """

    def __init__(self, starts: RowIndices, seed: int) -> None:
        self.starts, self.seed = starts, seed
        self.count = int(starts[-1])
        self._epochs: dict[int, _Epoch] = {}

    def batch(self, first: int, size: int) -> RowIndices:
        """Rows of the global batch of `size` images that begins at image `first` of the run (epoch 0 begins at 0)."""
        parts = []
        while size:
            epoch, position = divmod(first, self.count)
            taken = min(size, self.count - position)
            parts.append(_recall(self._epochs, epoch, self._plan).rows(position, taken))
            first, size = first + taken, size - taken
        return np.concatenate(parts)

    def _plan(self, epoch: int) -> "_Epoch":
        return _Epoch(self.starts, self.seed, epoch)


class _Epoch:
    def __init__(self, starts: RowIndices, seed: int, epoch: int) -> None:
        shards = rng_at(seed, "order/shards", epoch).permutation(len(starts) - 1)
        self.streams = [
            _Stream(starts, shards[number::STREAMS], seed, epoch, number) for number in range(min(STREAMS, len(shards)))
        ]
        # Rounds: in each, every stream that lasts gives one image. Between two lengths the streams that last are the same.
        self.lengths = np.array([stream.length for stream in self.streams])
        rounds = np.unique(self.lengths)
        self.begun = np.concatenate(([0], rounds[:-1]))
        self.lasting = [np.flatnonzero(self.lengths > first) for first in self.begun]
        self.ends = np.cumsum((rounds - self.begun) * [len(lasting) for lasting in self.lasting])

    def rows(self, first: int, size: int) -> RowIndices:
        """Rows of the images at positions first ... first + size - 1, laid out by stream."""
        turns = zip(self.streams, self._given(first), self._given(first + size), strict=True)
        return np.concatenate([part for stream, begin, end in turns for part in stream.rows(begin, end)])

    def _given(self, position: int) -> list[int]:
        """How many images each stream has given before this position of the epoch."""
        span = int(np.searchsorted(self.ends, position))
        lasting = self.lasting[span]
        rounds, more = divmod(position - (int(self.ends[span - 1]) if span else 0), len(lasting))
        given = np.minimum(self.lengths, self.begun[span] + rounds)
        given[lasting[:more]] += 1
        counts: list[int] = given.tolist()
        return counts


class _Stream:
    def __init__(self, starts: RowIndices, shards: RowIndices, seed: int, epoch: int, number: int) -> None:
        self.starts, self.seed, self.epoch, self.number = starts, seed, epoch, number
        self.windows = [shards[first : first + WINDOW] for first in range(0, len(shards), WINDOW)]
        sizes = [int((starts[window + 1] - starts[window]).sum()) for window in self.windows]
        self.begins = [0, *itertools.accumulate(sizes)]
        self.length = self.begins[-1]
        self._permuted: dict[int, RowIndices] = {}

    def rows(self, begin: int, end: int) -> Iterator[RowIndices]:
        """Rows of the stream's images from turn `begin` to before turn `end`, window by window."""
        while begin < end:
            window = bisect_right(self.begins, begin) - 1
            before, after = self.begins[window : window + 2]
            yield _recall(self._permuted, window, self._permute)[begin - before : end - before]
            begin = after

    def _permute(self, window: int) -> RowIndices:
        rows = np.concatenate([np.arange(self.starts[shard], self.starts[shard + 1]) for shard in self.windows[window]])
        return rng_at(self.seed, f"order/{self.number}/{window}", self.epoch).permutation(rows)


def _recall(memory: dict[int, Value], key: int, make: Callable[[int], Value]) -> Value:
    """What `make(key)` gives; the two newest are kept, as neighbours meet in one batch."""
    if key not in memory:
        if len(memory) == 2:
            del memory[min(memory)]
        memory[key] = make(key)
    return memory[key]
