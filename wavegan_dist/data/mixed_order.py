"""The order of the images of several datasets in training: a pure function of (seed, position), as that of one dataset.

The share of a set is an integer, its quota: of each `sum(quotas)` images from a multiple of this number on, the set has exactly
`quota`. `images_before` computes how many of the first n images are of each set: it divides n between the set of the largest
quota and all others, rounded to the nearest integer, then the rest between the set of the next quota and those after it, and so
on. Of k sets, each count differs from the exact share by at most (1 + 1 + 1/2 + ... + 1/(k - 1)) / 2. From n to n + 1, exactly
one count grows by 1, and the others stay: image n is of this set. It is the image that the set's own order (`Order`) has at the
position "images of this set before n". So each set has its own epochs, in each of which every image is seen exactly once, and a
batch is computed without the batches before it.

Example: the sets a and b with the quotas 1 and 2. Before image 0, 1, 2, ..., there are 0, 0, 1, 1, 1, 2, ... images of a.

    image                    0  1  2  3  4  5
    set                      b  a  b  b  a  b
    position in its order    0  0  1  2  1  3
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wavegan_dist.data.order import Order, RowIndices


class MixedOrder:
    """The endless order of the images of several datasets.

    Args:
        starts: `Index.starts` of each set.
        quotas: share of each set, integers above 0 whose sum is at most `config.sets.LARGEST_CYCLE`.
        seed: seed of the order of each set.
    """

    def __init__(self, starts: Sequence[RowIndices], quotas: Sequence[int], seed: int) -> None:
        self.quotas = quotas
        self.orders = [Order(of_set, seed) for of_set in starts]
        self.first_rows = np.cumsum([0, *(order.count for order in self.orders)], dtype=np.int64)

    def batch(self, first: int, size: int) -> RowIndices:
        """Compute which images a global batch holds.

        Args:
            first: position of the batch: the number of images of all sets seen before it, over all epochs.
            size: images of the batch.

        Returns:
            The row of each image in the mixture, int64 [size]; the rows of a set continue those of the sets before it. The set
            of each position is that of the mixture's order; the images of one set are in the order of `Order.batch`: sorted by
            stream, so that each rank reads few streams.
        """
        before = images_before(self.quotas, first, size)
        own_firsts, own_ends = before[:, 0].tolist(), before[:, -1].tolist()
        set_of_image = np.diff(before).argmax(axis=0)
        rows = np.empty(size, dtype=np.int64)
        for number, (order, own_first, own_end) in enumerate(zip(self.orders, own_firsts, own_ends, strict=True)):
            if own_first < own_end:
                own_rows = order.batch(own_first, own_end - own_first)
                rows[set_of_image == number] = self.first_rows[number] + own_rows
        return rows


def images_before(quotas: Sequence[int], first: int, size: int = 0) -> NDArray[np.int64]:
    """Count the images of each set before the positions first, first + 1, ..., first + size.

    Args:
        quotas: share of each set, as for `MixedOrder`.
        first: the first position.
        size: number of further positions.

    Returns:
        int64 [sets, size + 1]; the counts of a position add up to the position.
    """
    cycle = sum(quotas)
    cycles, start = divmod(first, cycle)  # the shares are exact after each cycle, so only the position within it is divided
    rest, rest_quota = start + np.arange(size + 1, dtype=np.int64), cycle
    counts = np.empty((len(quotas), size + 1), dtype=np.int64)
    for number in sorted(range(len(quotas)), key=lambda number: -quotas[number]):
        quota = quotas[number]
        own = (rest * quota + rest_quota // 2) // rest_quota
        counts[number] = cycles * quota + own
        rest, rest_quota = rest - own, rest_quota - quota
    return counts
