"""What ranks do for each other: they replace a batch of which nothing can be read, and share the cache of their node."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from wavegan_dist.data import DataError, DataErrorLog, ImageBatch, Index, loader, training_batches
from wavegan_dist.errors import WaveganError
from wavegan_dist.processes import join

Read = Callable[[Tensor], list[int]]
RANKS = 8


def epoch(index: Index, rank: int, images: int, workers: int = 0) -> tuple[list[ImageBatch], list[DataError]]:
    """The batches of `images` images that one of 8 ranks gets in the first epoch, and the errors."""
    errors: list[DataError] = []
    stream = training_batches(
        index,
        batch_size=images,
        seed=0,
        start_nimg=0,
        rank=rank,
        world_size=RANKS,
        workers=workers,
        labels=True,
        max_bad_fraction=0.2,
        on_errors=errors.extend,
    )
    batches = [
        ImageBatch(batch.images.clone(), batch.labels.clone())
        for batch in islice(stream, index.count // (images * RANKS))
        if batch.labels is not None
    ]
    stream.close()
    return batches, errors


def shown(batches: list[ImageBatch], numbers: Read) -> list[list[int]]:
    return [numbers(batch.images) for batch in batches]


@pytest.mark.parametrize("images", [1, 3])
def test_a_rank_whose_shard_is_missing_takes_the_images_of_the_next_rank(numbered: Index, numbers: Read, images: int) -> None:
    before = [shown(epoch(numbered, rank, images)[0], numbers) for rank in range(RANKS)]
    (numbered.folder / numbered.shards[5].file).unlink()
    after = [epoch(numbered, rank, images) for rank in range(RANKS)]
    (poor,) = [rank for rank in range(RANKS) if after[rank][1]]  # a rank reads one shard: eight ranks, shards and streams
    for rank in range(RANKS):
        assert shown(after[rank][0], numbers) == before[(rank + 1) % RANKS if rank == poor else rank]
    assert {error.row for error in after[poor][1]} == {None, *range(60, 72)}
    again = epoch(numbered, poor, images, workers=2)
    assert shown(again[0], numbers) == shown(after[poor][0], numbers)
    assert again[1] == after[poor][1]


def test_images_of_another_rank_come_with_their_labels(numbered: Index, numbers: Read) -> None:
    members = np.array(numbered.members)
    members[:, 2] = np.arange(96)
    np.save(numbered.folder / "members.npy", members)
    (numbered.folder / numbered.shards[5].file).unlink()
    index = Index.load(numbered.folder)
    pairs = set[tuple[int, int]]()
    for rank in range(RANKS):
        for images, labels in epoch(index, rank, 3)[0]:
            assert labels is not None
            pairs |= set(zip(numbers(images), labels.tolist(), strict=True))
    assert len(pairs) == 84  # each image always has its own label


def test_what_ends_a_run_because_no_rank_can_read_an_image_is_listed(numbered: Index, tmp_path: Path) -> None:
    for shard in numbered.folder.glob("*.tar"):
        shard.write_bytes(b"")
    log = DataErrorLog(join(), tmp_path / "data_errors.jsonl", numbered, 1.0)
    stream = training_batches(
        numbered, batch_size=2, seed=0, start_nimg=0, rank=3, world_size=RANKS, workers=0, on_errors=log.record
    )
    with pytest.raises(WaveganError, match="no image of a batch can be read"), log.listed():
        next(stream)
    listed = [json.loads(line) for line in (tmp_path / "data_errors.jsonl").read_text().splitlines()]
    assert len({error["row"] for error in listed if error["row"] is not None}) == 2 * RANKS
    assert len([error for error in listed if error["row"] is None]) == 8


@pytest.mark.parametrize(("on_this_node", "share"), [("2", 1 / 2), (None, 1 / RANKS)])
def test_the_ranks_of_a_node_share_its_cache(
    numbered: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_this_node: str | None, share: float
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if on_this_node:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", on_this_node)
    shares: list[float] = []
    monkeypatch.setattr(loader, "Prefetcher", lambda *_, share, **settings: shares.append(share))
    remote = Index.load(f"pipe:cat '{numbered.folder}'/{{file}}", tmp_path / "cache", 2**20)
    training_batches(remote, batch_size=1, seed=0, start_nimg=0, rank=0, world_size=RANKS, workers=0)
    assert shares == [share]
