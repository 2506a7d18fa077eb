"""Shards of remote datasets are downloaded before training needs them."""

from collections.abc import Generator, Iterator
from itertools import islice
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import psutil
import pytest
import torch

from tests.data.servers import WebServer, serve
from tests.helpers import wait_for
from wavegan_dist.data import ImageBatch, Index, index_remote_shards, storage, training_batches
from wavegan_dist.data.prefetch import Prefetcher

TARS = "shard-{000000..000007}.tar"


@pytest.fixture
def web(numbered: Index) -> Iterator[WebServer]:
    """Server of 8 tars of 12 images."""
    with serve(numbered.folder) as server:
        yield server


def stream(index: Index, workers: int = 0, world_size: int = 1) -> Generator[ImageBatch, None, None]:
    return training_batches(
        index, batch_size=1, seed=0, start_nimg=0, rank=0, world_size=world_size, workers=workers, labels=False
    )


def remote(web: WebServer, folder: Path, shards: float = 100) -> Index:
    """The dataset on the server, with a cache for so many of its shards."""
    if not (folder / "index").exists():
        index_remote_shards(f"{web.url}/{TARS}", folder / "index")
        web.requests.clear()
    largest = max(shard.bytes for shard in Index.load(folder / "index").shards)
    return Index.load(folder / "index", folder / "cache", int(shards * largest))


def cached(folder: Path) -> list[Path]:
    return list((folder / "cache").glob("*.tar"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> "Synchronized[int]":
    """How many shards the process that fetches keeps for later batches when there is no room for another one; 0 before."""
    number: Synchronized[int] = get_context("fork").Value("i", 0)
    forget = Prefetcher._forget

    def counting(prefetcher: Prefetcher, taken: int) -> None:
        forget(prefetcher, taken)
        number.value = len(prefetcher._last_use)

    monkeypatch.setattr(Prefetcher, "_forget", counting)
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_arrive_before_they_are_needed(web: WebServer, tmp_path: Path, workers: int) -> None:
    batches = stream(remote(web, tmp_path), workers)
    next(batches)  # one image, so one shard
    wait_for(lambda: len(cached(tmp_path)) == 8)
    asked = dict(web.requests)
    list(islice(batches, 95))
    assert web.requests == asked == {f"GET shard-{number:06d}.tar": 1 for number in range(8)}
    batches.close()


def test_no_more_is_fetched_than_the_cache_holds(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: "Synchronized[int]"
) -> None:
    monkeypatch.setattr(storage, "GRACE", 0.0)
    batches = stream(remote(web, tmp_path, shards=3))
    next(batches)
    wait_for(lambda: len(cached(tmp_path)) >= 3 and kept.value == 3)
    assert len(web.requests) <= 4  # the shard of the first image may have made room
    batches.close()


def test_ranks_share_the_cache(web: WebServer, tmp_path: Path, kept: "Synchronized[int]") -> None:
    batches = stream(remote(web, tmp_path, shards=4), world_size=2)
    next(batches)
    wait_for(lambda: len(cached(tmp_path)) >= 2 and kept.value == 2)
    assert len(web.requests) <= 3
    batches.close()


@pytest.mark.parametrize("shards", [1.5, 3, 100])
def test_the_batches_are_those_of_the_shards_here(
    web: WebServer, numbered: Index, tmp_path: Path, shards: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "GRACE", 0.0)
    elsewhere = stream(remote(web, tmp_path, shards))
    for here, there in islice(zip(stream(numbered), elsewhere, strict=True), 150):
        assert torch.equal(here.images, there.images)
    elsewhere.close()


def test_training_goes_on_if_the_process_that_fetches_is_killed(web: WebServer, tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    batches = stream(remote(web, tmp_path))
    (fetching,) = set(psutil.Process().children()) - before
    fetching.kill()
    assert len(list(islice(batches, 96))) == 96
    batches.close()
    assert not fetching.is_running()


def test_the_process_that_fetches_ends_with_the_stream(web: WebServer, tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    batches = stream(remote(web, tmp_path))
    next(batches)
    assert len(set(psutil.Process().children()) - before) == 1
    batches.close()
    assert set(psutil.Process().children()) == before
