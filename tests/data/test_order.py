"""The order of training: exact for any shards, ranks, workers, batch sizes, restarts and changes of the world size."""

from collections import Counter
from itertools import chain, islice, repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegan_dist.counted import rng_at
from wavegan_dist.data import Index, epoch_keys
from wavegan_dist.data.order import STREAMS, WINDOW, Order, RowIndices

SHARDS = st.lists(st.integers(1, 20), min_size=1, max_size=150)


def starts(sizes: list[int]) -> RowIndices:
    return np.cumsum([0, *sizes])


def stretches(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Draw the parts of a run between restarts, each as (global batch size, number of batches), for 1 to 8 ranks."""
    worlds = st.tuples(st.integers(1, 8), st.integers(1, 12), st.integers(1, 30))
    return [(ranks * local, batches) for ranks, local, batches in draw(st.lists(worlds, min_size=1, max_size=6))]


@given(sizes=SHARDS, seed=st.integers(0, 2**63 - 1), run=st.composite(stretches)())
@settings(max_examples=60, deadline=None)
def test_whatever_the_ranks_and_kills_each_image_of_an_epoch_is_seen_once(
    sizes: list[int], seed: int, run: list[tuple[int, int]]
) -> None:
    images, nimg = sum(sizes), 0
    seen: list[int] = []
    whole_run = chain(*(repeat(batch, times) for batch, times in run), repeat(64))
    while nimg < 2 * images:  # every batch comes from a new Order, as after a restart
        batch = next(whole_run)
        seen += Order(starts(sizes), seed).batch(nimg, batch).tolist()
        nimg += batch
    for epoch in range(2):
        assert sorted(seen[epoch * images : (epoch + 1) * images]) == list(range(images))


@given(sizes=SHARDS, seed=st.integers(0, 99), first=st.integers(0, 5000), batch=st.integers(1, 64))
@settings(max_examples=40, deadline=None)
def test_a_batch_depends_on_its_position_only(sizes: list[int], seed: int, first: int, batch: int) -> None:
    walked = Order(starts(sizes), seed)
    for earlier in range(max(0, first - 3 * batch), first, batch):
        walked.batch(earlier, batch)
    assert np.array_equal(walked.batch(first, batch), Order(starts(sizes), seed).batch(first, batch))


def plain_epoch(sizes: list[int], seed: int, epoch: int) -> list[tuple[int, int]]:
    """The epoch by the rules of data/order.py, one loop for each rule: (stream, row) of each image."""
    first_rows = starts(sizes)
    shards = rng_at(seed, "order/shards", epoch).permutation(len(sizes))
    streams: list[list[int]] = []
    for number in range(min(STREAMS, len(sizes))):
        dealt, stream = shards[number::STREAMS], []
        for window, begin in enumerate(range(0, len(dealt), WINDOW)):
            rows = [row for shard in dealt[begin : begin + WINDOW] for row in range(first_rows[shard], first_rows[shard + 1])]
            stream += rng_at(seed, f"order/{number}/{window}", epoch).permutation(np.array(rows)).tolist()
        streams.append(stream)
    rounds = range(max(map(len, streams)))
    return [(number, stream[turn]) for turn in rounds for number, stream in enumerate(streams) if turn < len(stream)]


@given(sizes=SHARDS, seed=st.integers(0, 99), epoch=st.integers(0, 3), batch=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_batches_are_slices_of_the_interleaved_streams_sorted_by_stream(
    sizes: list[int], seed: int, epoch: int, batch: int
) -> None:
    order, images = Order(starts(sizes), seed), plain_epoch(sizes, seed, epoch)
    for first in range(0, len(images) - batch + 1, batch):
        expected = sorted(images[first : first + batch], key=lambda image: image[0])
        assert order.batch(epoch * len(images) + first, batch).tolist() == [row for _, row in expected]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    order, other = Order(starts([30] * 20), 1), Order(starts([30] * 20), 2)
    epochs = [order.batch(0, 600), order.batch(600, 600), other.batch(0, 600)]
    for one in range(3):
        for two in range(one):
            assert (epochs[one] == epochs[two]).mean() < 0.05


def test_images_are_displaced_by_a_third_of_the_set_as_in_a_perfect_shuffle() -> None:
    """Also, the images of a batch come from many shards: the mixing quality that docs/data.md states."""
    for sizes in ([100] * 400, [1500] * 16):
        order, images = Order(starts(sizes), 0), sum(sizes)
        batches = [order.batch(first, 64) for first in range(0, images - 63, 64)]
        rows = np.concatenate(batches)
        assert np.abs(rows - np.arange(len(rows))).mean() / images == pytest.approx(1 / 3, abs=0.03)
        assert np.mean([len(set(batch // sizes[0])) for batch in batches]) > 0.7 * min(64, len(sizes))


def test_a_rank_reads_few_streams_where_the_numbers_divide() -> None:
    order = Order(starts([100] * 640), 0)
    shards: set[int] = set()
    for step in range(100):
        shards |= {row // 100 for row in order.batch(step * 512, 512)[:64].tolist()}  # rank 0 of 8
    assert len(shards) <= 640 / 8


def test_the_first_thousand_keys_are_the_same_for_all_ranks_and_workers(index: Index) -> None:
    def merged(world_size: int, workers: int) -> list[str]:
        batches = epoch_keys(index, seed=3, epoch=1, world_size=world_size, workers=workers, batch_size=40)
        return [key for batch in islice(batches, 25) for rank in batch for key in rank]

    single_rank = merged(1, 0)
    assert len(single_rank) == len(set(single_rank)) == 1000
    for world_size, workers in ((2, 1), (4, 2), (8, 0), (1, 4)):
        assert merged(world_size, workers) == single_rank


def test_an_epoch_goes_on_from_any_image_with_another_world(numbered: Index) -> None:
    def keys(world_size: int, batch_size: int, start: int, batches: int | None = None) -> list[str]:
        stream = epoch_keys(numbered, seed=0, epoch=0, world_size=world_size, workers=0, batch_size=batch_size, start=start)
        return [key for batch in islice(stream, batches) for rank in batch for key in rank]

    seen = keys(2, 8, 0, 3) + keys(1, 7, 24, 2) + keys(3, 9, 38)
    assert Counter(seen) == Counter(keys(1, 96, 0))


def test_shares_of_the_ranks_are_equal_but_in_the_last_batch_of_an_epoch(numbered: Index) -> None:
    batches = list(epoch_keys(numbered, seed=0, epoch=0, world_size=4, workers=0, batch_size=20))
    assert [[len(rank) for rank in batch] for batch in batches] == [[5] * 4] * 4 + [[5, 5, 5, 1]]
