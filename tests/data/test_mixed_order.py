"""The order of several datasets: exact shares and epochs for any weights, ranks, batch sizes and restarts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegan_dist.config import integer_weights
from wavegan_dist.config.sets import LARGEST_CYCLE
from wavegan_dist.data.mixed_order import MixedOrder, images_before
from wavegan_dist.data.order import Order, RowIndices

SETS = st.lists(
    st.tuples(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.integers(1, 40)), min_size=1, max_size=4
)  # of each set: the images of its shards, and its weight in steps of 0.25
# Between restarts: ranks, images of a rank's batch, batches.
STRETCHES = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 12), st.integers(1, 5)), min_size=1, max_size=4)
QUOTAS = st.lists(st.integers(1, 200), min_size=1, max_size=6)


def largest_deviation(sets: int) -> float:
    """Largest difference between a count and the exact share, by the docstring of `mixed_order`."""
    return (1 + sum(1 / number for number in range(1, sets))) / 2


def starts(sizes: list[int]) -> RowIndices:
    return np.cumsum([0, *sizes])


@pytest.mark.slow
@given(sets=SETS, seed=st.integers(0, 2**63 - 1), run=STRETCHES)
@settings(max_examples=1000, deadline=None)
def test_whatever_the_ranks_and_restarts_each_set_has_whole_epochs_and_its_share(
    sets: list[tuple[list[int], int]], seed: int, run: list[tuple[int, int, int]]
) -> None:
    sizes = [sum(shards) for shards, _ in sets]
    quotas = integer_weights([weight / 4 for _, weight in sets])
    end = min(max(math.ceil(size * sum(quotas) / quota) for size, quota in zip(sizes, quotas, strict=True)), 300)
    seen: list[int] = []
    for ranks, local, batches in [*run, (1, 64, end)]:
        order = MixedOrder([starts(shards) for shards, _ in sets], quotas, seed)
        for _ in range(batches):
            if len(seen) < end:
                seen += order.batch(len(seen), ranks * local).tolist()  # of which each rank takes a slice
    first_row = 0
    for (shards, _), size, quota in zip(sets, sizes, quotas, strict=True):
        own = [row - first_row for row in seen if first_row <= row < first_row + size]
        assert abs(len(own) - len(seen) * quota / sum(quotas)) <= largest_deviation(len(sets)) + 1e-9
        for epoch in range(len(own) // size):
            assert sorted(own[epoch * size : (epoch + 1) * size]) == list(range(size))
        assert sorted(own) == sorted(Order(starts(shards), seed).batch(0, len(own)).tolist())  # the set's own order
        first_row += size


@given(quotas=QUOTAS, first=st.integers(0, 2**50), size=st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_each_image_is_of_one_set_and_shares_are_exact_after_each_cycle(quotas: list[int], first: int, size: int) -> None:
    counts, cycle = images_before(quotas, first, size), sum(quotas)
    assert counts.sum(axis=0).tolist() == list(range(first, first + size + 1))
    assert set(np.diff(counts).flatten().tolist()) <= {0, 1}
    assert counts[:, -1].tolist() == images_before(quotas, first + size)[:, 0].tolist()
    assert images_before(quotas, first * cycle)[:, 0].tolist() == [first * quota for quota in quotas]
    cycles, within = np.divmod(first + np.arange(size + 1), cycle)
    off = counts - np.array(quotas)[:, None] * cycles - np.array(quotas)[:, None] * within / cycle
    assert np.abs(off).max() <= largest_deviation(len(quotas)) + 1e-9


def test_the_example_of_the_docstring() -> None:
    before = images_before([1, 2], 0, 6)
    sets = np.diff(before).argmax(axis=0).tolist()
    assert "".join("ab"[number] for number in sets) == "babbab"
    assert [int(before[number, image]) for image, number in enumerate(sets)] == [0, 0, 1, 2, 1, 3]


def test_small_sets_are_spread_between_the_images_of_a_large_one() -> None:
    sets = np.diff(images_before([1] * 5 + [200], 0, 2050)).argmax(axis=0)
    gaps = np.diff(np.flatnonzero(sets < 5))
    assert 40 <= gaps.min() <= gaps.max() <= 42


def test_the_largest_cycle_does_not_overflow() -> None:
    quotas = [LARGEST_CYCLE - 1, 1]
    counts = images_before(quotas, 2**62 - 2**20, 2**20)
    assert (counts.sum(axis=0) == 2**62 - 2**20 + np.arange(2**20 + 1)).all()
    assert (counts >= 0).all()
    assert set(np.diff(counts).flatten().tolist()) <= {0, 1}


def test_one_set_is_ordered_as_without_a_mixture() -> None:
    sizes, batch = starts([7, 3, 12, 1]), 10
    for first in range(0, 100, batch):
        assert MixedOrder([sizes], [1], 5).batch(first, batch).tolist() == Order(sizes, 5).batch(first, batch).tolist()


def test_every_slice_of_a_batch_has_the_shares_of_the_mixture() -> None:
    order = MixedOrder([starts([100] * 40), starts([50] * 16)], [3, 1], 0)
    for first in range(0, 6400, 64):
        for share in order.batch(first, 64).reshape(8, 8):  # of 8 ranks, or micro-batches
            assert (share < 4000).sum() == 6


def test_a_rank_reads_few_streams_of_each_set() -> None:
    order = MixedOrder([starts([100] * 640), starts([100] * 640)], [1, 1], 0)
    shards = {row // 100 for step in range(100) for row in order.batch(step * 512, 512)[:64].tolist()}  # rank 0 of 8
    assert len(shards) <= 2 * 640 / 8


@pytest.mark.parametrize(
    ("weights", "quotas"),
    [([0.7, 0.3], [7, 3]), ([2, 4.0], [1, 2]), ([1e-5, 1], [1, 100000]), ([0.1, 0.2, 0.3], [1, 2, 3]), ([5], [1])],
)
def test_weights_are_read_as_decimal_numbers(weights: list[float], quotas: list[int]) -> None:
    assert integer_weights(weights) == quotas
