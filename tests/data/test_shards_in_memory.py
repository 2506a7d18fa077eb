"""Indexes of many shards: what they take in memory, and the images drawn while tars pass."""

import pickle
import tracemalloc
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from wavegan_dist.data import Index
from wavegan_dist.data.bands import BandStdAccumulator, DrawnBands, DrawnSums, band_std
from wavegan_dist.data.index import BandStd
from wavegan_dist.data.shards import Shard, Shards

BANDS = BandStd(low=1, lh=1, hl=1, hh=1)


def listed(count: int) -> list[dict[str, object]]:
    """`count` shards as index.json lists them."""
    draws = np.random.default_rng(0)
    return [
        {"file": f"s{number:06d}.tar", "images": number % 7 + 1, "bytes": number + 1, "sha256": draws.bytes(32).hex()}
        for number in range(count)
    ]


def index_of(shards: list[dict[str, object]]) -> Index:
    return with_shards(shards, sum(int(str(shard["images"])) for shard in shards))


def with_shards(shards: object, count: int) -> Index:
    content = {"size": 32, "count": count, "encoding": "png", "band_std": BANDS, "members_sha256": "0" * 64, "shards": shards}
    return Index.model_validate(content)


def test_shards_behave_as_the_list_that_they_were() -> None:
    rows = listed(2500)
    shards, expected = index_of(rows).shards, [Shard.model_validate(row) for row in rows]
    assert list(shards) == expected
    assert [shards[0], shards[-1], shards[1234]] == [expected[0], expected[-1], expected[1234]]
    assert shards[10:20:3] == expected[10:20:3]
    with pytest.raises(IndexError):
        shards[2500]
    assert index_of(rows).content()["shards"] == rows
    assert shards == Shards(expected) == pickle.loads(pickle.dumps(shards))
    assert shards != Shards(expected[:-1])
    assert shards.total_bytes() == sum(shard.bytes for shard in expected)
    assert index_of(rows).starts.tolist() == [0, *np.cumsum([shard.images for shard in expected]).tolist()]


@pytest.mark.parametrize("place", [0, 1999])
def test_a_wrong_shard_is_named_by_its_place(place: int) -> None:
    rows = listed(2000)
    rows[place]["sha256"] = "x"
    with pytest.raises(ValidationError) as caught:
        index_of(rows)
    assert [error["loc"] for error in caught.value.errors()] == [("shards", place, "sha256")]
    wrongs: list[object] = [[], {}, "x", None]
    for wrong in wrongs:
        with pytest.raises(ValidationError, match="shards"):
            with_shards(wrong, 1)


def test_a_hundred_thousand_shards_take_little_memory() -> None:
    rows = listed(100_000)
    tracemalloc.start()
    index = index_of(rows)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(index.shards) == 100_000
    assert held < 16e6  # the names are those of `rows`
    assert len(pickle.dumps(index)) < 16e6


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 5))
def test_images_drawn_while_they_pass_are_at_most_the_limit_or_all(count: int, limit: int, shard: int) -> None:
    decoded = 0
    bands = DrawnBands(32, limit, shard)
    images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)

    def decode(number: int) -> NDArray[np.uint8]:
        nonlocal decoded
        decoded += 1
        return images[number]

    for number in range(count):
        bands.add(partial(decode, number))
    drawn = bands.sums()
    assert 1 <= drawn.drawn <= decoded
    if count <= limit:
        assert drawn.drawn == count
        whole = BandStdAccumulator(32)
        for one in images:
            whole.add(one)
        assert band_std(drawn.of_all(count)) == band_std(whole.sums())


def test_every_image_is_equally_likely_to_be_drawn() -> None:
    pixels = np.zeros((40, 32, 32, 3), dtype=np.uint8)
    pixels[np.arange(40), 0, 0, 0] = np.arange(40) + 1
    totals, squares, drawn = 0.0, 0.0, list[int]()
    for shard in range(400):
        bands = DrawnBands(32, 10, shard)
        for image in pixels:
            bands.add(partial(np.array, image))
        sums = bands.sums()
        estimate = float(sums.of_all(40)[0, 0, 1])  # of the sum over all low bands
        totals, squares, drawn = totals + estimate, squares + estimate**2, [*drawn, sums.drawn]
    mean = totals / 400
    error = np.sqrt((squares / 400 - mean**2) / 400)
    low = 2 * sum(range(1, 41)) / 2  # the low band is the sum of 4 pixels / 2, and the sums are times 2
    assert abs(mean - low) < 4 * error
    assert 4 < np.mean(drawn) <= 10


def test_the_sums_of_drawn_images_are_scaled_exactly() -> None:
    sums = DrawnSums(np.full((1, 4, 3), 3, dtype=object), 7)
    assert sums.of_all(7)[0, 0, 0] == 3
    assert sums.of_all(10)[0, 0, 0] == Fraction(30, 7)
