"""The order in which training sees the images: a pure function of (seed, epoch, index), which every process computes by itself.

`Order` plays the role of `DistributedSampler`, with two differences. It permutes shards and windows of shards rather than
single images, so that reading stays local and a node caches few shards. And it answers "which images does the global batch at
position n hold?" without generating the positions before n, so that training resumes at any image with any number of ranks.

How an epoch is ordered:

1. Permute the shards.
2. Deal them to S = min(64, number of shards) streams, as cards are dealt: stream s gets shards s, s + S, s + 2S, ... of the
   permutation.
3. Cut each stream into windows of 4 shards and permute the images within each window. A stream is the sequence of its windows.
4. Interleave the streams in rounds: round r takes image r of every stream that has more than r images, in the order of the
   streams. This sequence of all images is the epoch.
5. The global batch of B images at position n takes images n, ..., n + B - 1 of the epoch and sorts them by stream. Of W ranks,
   rank k reads the slice [k * B / W : (k + 1) * B / W]. If W divides S and S divides B, each rank reads the same S / W streams
   until the first stream ends, and so only its share of the shards.

Example: three shards with the images a0 a1, b0 b1 b2 and c0, a global batch of 4 and two ranks. Suppose that the permutation of
the shards is c, a, b. Each of the 3 streams has one shard, which is also its only window; suppose these permutations:

    stream 0:  c0
    stream 1:  a1 a0
    stream 2:  b2 b0 b1

    round 0:   c0 a1 b2
    round 1:   a0 b0           stream 0 has ended
    round 2:   b1              stream 1 has ended

    epoch:     c0 a1 b2 a0 b0 b1

    batch at position 0:  c0 a1 b2 a0, sorted by stream: c0 a1 a0 b2.  Rank 0 reads c0 a1, rank 1 reads a0 b2.
    batch at position 4:  b0 b1, followed by the first two images of the next epoch.
"""

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wavegan_dist.counted import rng_at

STREAMS = 64  # largest number of streams of an epoch
WINDOW = 4  # shards of a stream whose images are permuted together

RowIndices = NDArray[np.int64]  # rows of `Index.members`
Value = TypeVar("Value")


class Order:
    """The endless order of the images of a dataset: one epoch after another, each with its own permutations.

    Args:
        starts: int64 [shards + 1], the row of each shard's first image, then the number of images (`Index.starts`).
        seed: seed of all permutations.
    """

    def __init__(self, starts: RowIndices, seed: int) -> None:
        self.starts, self.seed = starts, seed
        self.count = int(starts[-1])
        self._epochs: dict[int, _Epoch] = {}

    def batch(self, first: int, size: int) -> RowIndices:
        """Compute which images a global batch holds.

        Args:
            first: position of the batch: the number of images seen before it, over all epochs.
            size: images of the batch, at least 1. A batch at the end of an epoch continues with the next epoch.

        Returns:
            The row of each image in the index, int64 [size], the images of each epoch sorted by stream.
        """
        parts = []
        while size:
            epoch, position = divmod(first, self.count)
            length = min(size, self.count - position)
            parts.append(_cached(self._epochs, epoch, self._make_epoch).rows(position, length))
            first, size = first + length, size - length
        return np.concatenate(parts)

    def _make_epoch(self, epoch: int) -> "_Epoch":
        return _Epoch(self.starts, self.seed, epoch)


class _Epoch:
    """The interleaved streams of one epoch."""

    def __init__(self, starts: RowIndices, seed: int, epoch: int) -> None:
        shards = rng_at(seed, "order/shards", epoch).permutation(len(starts) - 1)
        self.streams = [
            _Stream(starts, shards[number::STREAMS], seed, epoch, number) for number in range(min(STREAMS, len(shards)))
        ]
        # A segment is a run of rounds that take images from the same streams: a new segment begins whenever a stream ends.
        # With k active streams, round i of a segment covers positions i * k ... i * k + k - 1 of the segment.
        self.lengths = np.array([stream.length for stream in self.streams])
        end_rounds = np.unique(self.lengths)
        self.first_rounds = np.concatenate(([0], end_rounds[:-1]))
        self.active = [np.flatnonzero(self.lengths > first) for first in self.first_rounds]
        self.segment_ends = np.cumsum((end_rounds - self.first_rounds) * [len(active) for active in self.active])

    def rows(self, first: int, size: int) -> RowIndices:
        """Rows of the images at positions first ... first + size - 1 of the epoch, sorted by stream."""
        slices = zip(self.streams, self._images_before(first), self._images_before(first + size), strict=True)
        return np.concatenate([part for stream, begin, end in slices for part in stream.rows(begin, end)])

    def _images_before(self, position: int) -> list[int]:
        """Return, for each of the epoch's shard streams, how many of its images come before `position`.

        Args:
            position: index of an image in the epoch's order, from 0 to the number of images.
        """
        segment = int(np.searchsorted(self.segment_ends, position))
        active = self.active[segment]
        segment_start = int(self.segment_ends[segment - 1]) if segment else 0
        complete_rounds, remainder = divmod(position - segment_start, len(active))
        counts = np.minimum(self.lengths, self.first_rounds[segment] + complete_rounds)
        counts[active[:remainder]] += 1
        as_list: list[int] = counts.tolist()
        return as_list


class _Stream:
    """The images of some shards, permuted window by window; a window is permuted when it is first read."""

    def __init__(self, starts: RowIndices, shards: RowIndices, seed: int, epoch: int, number: int) -> None:
        self.starts, self.seed, self.epoch, self.number = starts, seed, epoch, number
        firsts = range(0, len(shards), WINDOW)
        self.windows = [shards[first : first + WINDOW] for first in firsts]
        sizes: list[int] = np.add.reduceat(starts[shards + 1] - starts[shards], firsts).tolist()
        self.window_starts = [0, *itertools.accumulate(sizes)]
        self.length = self.window_starts[-1]
        self._permuted: dict[int, RowIndices] = {}

    def rows(self, begin: int, end: int) -> Iterator[RowIndices]:
        """Yield the rows of images begin ... end - 1 of the stream, one array for each window."""
        while begin < end:
            window = bisect_right(self.window_starts, begin) - 1
            window_start, window_end = self.window_starts[window : window + 2]
            yield _cached(self._permuted, window, self._permute)[begin - window_start : end - window_start]
            begin = window_end

    def _permute(self, window: int) -> RowIndices:
        rows = np.concatenate([np.arange(self.starts[shard], self.starts[shard + 1]) for shard in self.windows[window]])
        return rng_at(self.seed, f"order/{self.number}/{window}", self.epoch).permutation(rows)


def _cached(cache: dict[int, Value], key: int, make: Callable[[int], Value]) -> Value:
    """Return `make(key)`, from `cache` if it is there. A third key replaces the smaller of two in the cache.

    Consecutive batches need one window or epoch and the next.
    """
    if key not in cache:
        if len(cache) == 2:
            del cache[min(cache)]
        cache[key] = make(key)
    return cache[key]
