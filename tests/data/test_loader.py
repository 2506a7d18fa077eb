import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from wavegan_dist.data import DataError, DataErrorLog, Index, flip, real_images, training_batches, write_shards
from wavegan_dist.data.loader import ErrorCallback
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.processes import join

Read = Callable[[Tensor], list[int]]


def batches(
    index: Index, rank: int = 0, world_size: int = 1, workers: int = 0, **settings: Any
) -> Generator[Tensor, None, None]:
    """The images of the training batches; closing the generator closes the loader."""
    chosen: dict[str, Any] = {"batch_size": 4, "seed": 0, "start_nimg": 0, **settings}
    loader = training_batches(index, rank=rank, world_size=world_size, workers=workers, **chosen)
    return (batch.images for batch in loader)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def first(count: int, stream: Iterator[Tensor], numbers: Read) -> list[int]:
    """Read the numbers of the first `count` images of a stream."""
    images: list[int] = []
    while len(images) < count:
        images += numbers(next(stream))
    return images


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (2, 1), (2, 2), (8, 0)])
def test_ranks_and_workers_see_each_image_of_an_epoch_once(
    numbered: Index, numbers: Read, world_size: int, workers: int
) -> None:
    share = 96 // world_size
    ranks = [first(2 * share, batches(numbered, rank, world_size, workers), numbers) for rank in range(world_size)]
    for epoch in (slice(0, share), slice(share, 2 * share)):
        assert sorted(number for rank in ranks for number in rank[epoch]) == list(range(96))


def test_same_seed_same_order_other_seed_other_order_and_every_epoch_its_own(numbered: Index, numbers: Read) -> None:
    for workers in (0, 2):
        one, again, other = (first(192, batches(numbered, workers=workers, seed=seed), numbers) for seed in (1, 1, 2))
        assert one == again != other
        assert one[:96] != one[96:]


def test_order_does_not_depend_on_the_global_randomness_and_leaves_it_alone(numbered: Index, numbers: Read) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = first(96, batches(numbered, workers=1), numbers)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert first(96, batches(numbered, workers=1), numbers) == one


def test_a_later_start_goes_on_exactly_there_with_any_ranks_and_workers(numbered: Index, numbers: Read) -> None:
    straight = first(288, batches(numbered), numbers)
    assert first(88, batches(numbered, start_nimg=200), numbers) == straight[200:288]
    ranks = [first(24, batches(numbered, rank, 2, 1, batch_size=2, start_nimg=200), numbers) for rank in range(2)]
    merged = [number for step in range(0, 24, 2) for rank in ranks for number in rank[step : step + 2]]
    assert merged == straight[200:248]


def test_batches_are_uint8_on_the_cpu_and_never_short(numbered: Index) -> None:
    for batch in islice(batches(numbered, batch_size=7), 40):  # 7 does not divide 96
        assert batch.shape == (7, 3, 32, 32)
        assert (batch.dtype, batch.device.type) == (torch.uint8, "cpu")
        assert batch.is_contiguous(memory_format=torch.channels_last)  # the layout of decoders and convolutions


def test_uneven_shards_stop_nobody(numbered_pictures: Path, tmp_path: Path, numbers: Read) -> None:
    index = write_shards(numbered_pictures, tmp_path / "set", 32, shard_images=40, progress=False)
    streams = [batches(index, rank, 2) for rank in range(2)]  # three shards of 32 images for two ranks
    seen = [Counter(first(960, stream, numbers)) for stream in streams]
    assert [sum(counts.values()) for counts in seen] == [960, 960]


def test_there_may_be_more_readers_than_shards(numbered: Index, numbers: Read) -> None:
    ranks = [first(8, batches(numbered, rank, 12, 1, batch_size=4), numbers) for rank in range(12)]
    assert sorted(number for rank in ranks for number in rank) == list(range(96))


def test_a_missing_shard_is_an_error_before_the_start_unless_it_is_allowed_for(numbered: Index, numbers: Read) -> None:
    (numbered.folder / "shard-000005.tar").unlink()
    for start in (lambda: batches(numbered), lambda: real_images(numbered, 5, 0, 5)):
        with pytest.raises(UsageError, match=r"1 of 8 shards \(12 images\) are missing from .*: shard-000005\.tar"):
            start()
    assert first(96, training(numbered, ignore, max_bad_fraction=0.2), numbers)


def ignore(errors: list[DataError]) -> None:
    pass


def training(index: Index, on_errors: ErrorCallback, **settings: Any) -> Iterator[Tensor]:
    chosen = {"batch_size": 8, "seed": 0, "start_nimg": 0, "rank": 0, "world_size": 1, "workers": 0, **settings}
    return (batch.images for batch in training_batches(index, on_errors=on_errors, **chosen))


def place(index: Index, row: int) -> tuple[Path, int, int]:
    """Shard, offset and size of an image."""
    number = int(np.searchsorted(index.starts, row, side="right")) - 1
    offset, size, _ = index.members[row].tolist()
    return index.folder / index.shards[number].file, offset, size


def overwrite(index: Index, row: int, content: bytes) -> None:
    """Overwrite an encoded image with `content`, padded with zeros."""
    path, offset, size = place(index, row)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content.ljust(size, b"\0")[:size])


def small_image() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


DAMAGE: dict[str, tuple[Callable[[Index], object], str]] = {
    "zeros": (lambda index: overwrite(index, 15, b""), r"shard-000001\.tar: 00000015 cannot be decoded"),
    "not an image": (lambda index: overwrite(index, 15, b"hello"), r"shard-000001\.tar: 00000015 cannot be decoded"),
    "wrong size": (
        lambda index: overwrite(index, 15, small_image()),
        r"shard-000001\.tar: 00000015 is 8x8 px but the index says 32x32",
    ),
    "cut": (
        lambda index: os.truncate(place(index, 15)[0], place(index, 15)[1] + 9),
        r"shard-000001\.tar: .* is beyond the end of its shard",
    ),
    "empty": (lambda index: os.truncate(place(index, 15)[0], 0), r"shard-000001\.tar: image \d+ is beyond the end"),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_that_names_shard_and_member(numbered: Index, kind: str, workers: int) -> None:
    damage, message = DAMAGE[kind]
    damage(numbered)
    before = children()
    for start in (lambda: batches(numbered, workers=workers), lambda: real_images(numbered, 96, 0, 5)):
        with pytest.raises(WaveganError, match=message) as caught:
            for _ in islice(start(), 24):
                pass
        assert (type(caught.value), "\n" in str(caught.value)) == (WaveganError, False)
    assert children() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_the_error_log_is_exact_to_the_image_and_the_bad_are_replaced(
    numbered: Index, numbers: Read, workers: int, tmp_path: Path
) -> None:
    cut, offset, _ = place(numbered, 3 * 12 + 7)
    os.truncate(cut, offset)  # images 7 to 11 of shard 3 are gone
    (numbered.folder / "shard-000005.tar").unlink()
    for row in (0, 13, 95):
        overwrite(numbered, row, b"")
    lost = {*range(3 * 12 + 7, 48), *range(60, 72), 0, 13, 95}
    log = DataErrorLog(join(), tmp_path / "errors.jsonl", numbered, 0.5)
    stream = training(numbered, log.record, max_bad_fraction=0.5, workers=workers)
    seen = Counter(first(2 * 96, stream, numbers))
    assert log.sync() == {"data/bad_images": len(lost), "data/bad_shards": 2}
    errors = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert sorted(error["row"] for error in errors if error["row"] is not None) == sorted(lost)
    reasons = {error["shard"]: error["reason"] for error in errors if error["row"] is None}
    assert "cut short" in reasons["shard-000003.tar"]
    assert "No such file" in reasons["shard-000005.tar"]
    assert len(seen) == 96 - len(lost)  # all readable pictures were seen
    assert sum(seen.values()) == 2 * 96  # and no batch was short


def test_a_set_elsewhere_trains_as_a_local_one_does(numbered: Index, numbers: Read, tmp_path: Path) -> None:
    piped = Index.load(f"pipe:cat {numbered.folder}/{{file}}", tmp_path / "cache", 2**20)
    assert piped.digest == numbered.digest
    for workers in (0, 2):
        assert first(192, batches(piped, workers=workers), numbers) == first(192, batches(numbered), numbers)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 8


def test_a_batch_of_which_nothing_can_be_read_is_an_error(numbered: Index) -> None:
    stream = training(numbered, ignore, max_bad_fraction=1)
    for shard in numbered.folder.glob("*.tar"):
        shard.unlink()
    with pytest.raises(WaveganError, match="no image of a batch can be read"):
        next(stream)


def test_memory_and_open_files_stay_flat_over_twenty_epochs(numbered: Index) -> None:
    process, stream = psutil.Process(), batches(numbered, batch_size=96)
    for _ in islice(stream, 3):
        pass
    files, memory = process.num_fds(), process.memory_info().rss
    for _ in islice(stream, 20):
        pass
    assert process.num_fds() == files
    assert process.memory_info().rss < memory + 8 * 2**20


def test_workers_outlive_ctrl_c_from_their_start_and_end_when_the_stream_is_closed(numbered: Index, numbers: Read) -> None:
    before = children()
    stream = batches(numbered, workers=2)
    workers = children() - before
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGINT)
    assert len(first(192, stream, numbers)) == 192
    stream.close()
    assert children() == before


def test_real_images_are_drawn_without_replacement_and_again_the_same(numbered: Index, numbers: Read) -> None:
    one, again, other = ([numbers(batch) for batch in real_images(numbered, 50, seed, 16)] for seed in (1, 1, 2))
    assert [len(batch) for batch in one] == [16, 16, 16, 2]
    assert one == again
    assert len({number for batch in one for number in batch}) == 50
    assert {number for batch in one for number in batch} != {number for batch in other for number in batch}


def test_real_images_do_not_depend_on_the_batch_size(numbered: Index) -> None:
    assert torch.equal(torch.cat(list(real_images(numbered, 50, 3, 7))), torch.cat(list(real_images(numbered, 50, 3, 50))))


def test_more_real_images_than_there_are_is_a_clear_error(numbered: Index) -> None:
    with pytest.raises(UsageError, match=r"97 real images were requested but .* holds 96"):
        real_images(numbered, 97, 0, 16)


def test_flip_mirrors_exactly_the_images_asked_for() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    flipped = flip(images, torch.tensor([True, False]))
    assert torch.equal(flipped[0, :, :, 0], images[0, :, :, 3])
    assert torch.equal(flipped[1], images[1])
    assert torch.equal(flip(flipped, torch.tensor([True, False])), images)


def test_batches_are_pinned_only_for_a_run_on_a_gpu(numbered: Index, numbers: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Tensor] = []

    def copy(batch: Tensor) -> Tensor:
        copies.append(batch)
        return batch

    monkeypatch.setattr("wavegan_dist.data.loader._pinned", copy)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_cpu = first(4, batches(numbered), numbers)
    assert not copies
    assert first(4, batches(numbered, pinned=True), numbers) == on_cpu
    assert len(copies) == 1
