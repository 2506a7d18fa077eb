import os
import shutil
import signal
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from wavegan_dist.data import Index, flip, real_images, training_batches, write_shards
from wavegan_dist.errors import UsageError, WaveganError

Read = Callable[[Tensor], list[int]]


def batches(
    index: Index, rank: int = 0, world_size: int = 1, workers: int = 0, **settings: int
) -> Generator[Tensor, None, None]:
    chosen = {"batch_size": 4, "seed": 0, "start_nimg": 0, **settings}
    return training_batches(index, rank=rank, world_size=world_size, workers=workers, **chosen)


def children() -> set[int]:
    """Process ids of the living children."""
    return {child.pid for child in psutil.Process().children()}


def first(count: int, stream: Iterator[Tensor], numbers: Read) -> list[int]:
    """The numbers of the first `count` images."""
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


def test_a_later_start_begins_with_the_epoch_that_it_falls_in(numbered: Index, numbers: Read) -> None:
    straight = first(288, batches(numbered), numbers)
    assert first(96, batches(numbered, start_nimg=200), numbers) == straight[192:288]


def test_batches_are_uint8_on_the_cpu_and_never_short(numbered: Index) -> None:
    for batch in islice(batches(numbered, batch_size=7), 40):  # 7 does not divide 96
        assert batch.shape == (7, 3, 32, 32)
        assert (batch.dtype, batch.device.type, batch.is_contiguous()) == (torch.uint8, "cpu", True)


def test_uneven_shards_stop_nobody(numbered_pictures: Path, tmp_path: Path, numbers: Read) -> None:
    index = write_shards(numbered_pictures, tmp_path / "set", 32, shard_images=40, progress=False)
    streams = [batches(index, rank, 2) for rank in range(2)]  # 64 images to 32
    seen = [Counter(first(960, stream, numbers)) for stream in streams]
    assert [sum(counts.values()) for counts in seen] == [960, 960]


def test_more_readers_than_shards_is_a_clear_error(numbered: Index) -> None:
    with pytest.raises(UsageError, match="3 ranks x 3 workers = 9 readers but only 8 shards"):
        batches(numbered, world_size=3, workers=3)


def test_a_missing_shard_is_an_error_before_the_start(numbered: Index) -> None:
    (numbered.folder / "shard-000005.tar").unlink()
    for start in (lambda: batches(numbered), lambda: real_images(numbered, 5, 0, 5)):
        with pytest.raises(UsageError, match=r"1 of 8 shards are missing from .*: shard-000005\.tar"):
            start()


def rewrite(path: Path, change: Callable[[int, bytes], bytes | None]) -> None:
    """Write a tar again with every member changed or left out."""
    with tarfile.open(path) as old:
        members = [(member, old.extractfile(member).read()) for member in old]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as new:
        for number, (member, content) in enumerate(members):
            changed = change(number, content)
            if changed is not None:
                member.size = len(changed)
                new.addfile(member, BytesIO(changed))


def small_image() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    return buffer.getvalue()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "corrupt image": (
        lambda path: rewrite(path, lambda number, png: png[:40] if number == 3 else png),
        r"image 00000015\.png of .*shard-000001\.tar cannot be decoded",
    ),
    "not an image": (
        lambda path: rewrite(path, lambda number, png: b"hello" if number == 3 else png),
        r"image 00000015\.png of .*shard-000001\.tar cannot be decoded",
    ),
    "wrong size": (
        lambda path: rewrite(path, lambda number, png: small_image() if number == 3 else png),
        r"image 00000015\.png of .*shard-000001\.tar is 16x16 px but the index says 32x32",
    ),
    "image left out": (
        lambda path: rewrite(path, lambda number, png: None if number == 3 else png),
        r"shard-000001\.tar holds 11 images but the index says 12",
    ),
    "cut in a member": (
        lambda path: os.truncate(path, 3 * 1024 + 530),
        r"shard-000001\.tar cannot be read beyond image 2 of 12 ",
    ),
    "cut between members": (lambda path: os.truncate(path, 3 * 1024), r"shard-000001\.tar holds 3 images but .* 12"),
    "empty": (lambda path: os.truncate(path, 0), r"shard-000001\.tar (holds|cannot be read beyond image) 0 "),
    "not a tar": (lambda path: path.write_bytes(b"x" * 5000), r"shard-000001\.tar cannot be read beyond image 0 of 12"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_that_names_shard_and_member(numbered: Index, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(numbered.folder / "shard-000001.tar")
    for start in (lambda: batches(numbered), lambda: real_images(numbered, 96, 0, 5)):
        with pytest.raises(WaveganError, match=message) as caught:
            for _ in islice(start(), 24):
                pass
        assert "\n" not in str(caught.value)


def test_damage_met_by_a_worker_reaches_the_parent_as_the_same_one_line(numbered: Index) -> None:
    before = children()
    DAMAGE["corrupt image"][0](numbered.folder / "shard-000001.tar")
    for workers in (0, 2):
        with pytest.raises(WaveganError, match=DAMAGE["corrupt image"][1]) as caught:
            for _ in islice(batches(numbered, workers=workers), 24):
                pass
        assert children() == before
        assert (type(caught.value), "\n" in str(caught.value)) == (WaveganError, False)


def test_a_shard_that_goes_away_while_it_is_read_is_named(numbered: Index) -> None:
    stream = batches(numbered)
    shutil.rmtree(numbered.folder)
    with pytest.raises(WaveganError, match=r"shard-00000\d\.tar cannot be read beyond image 0 of 12 \(FileNotFoundError\)"):
        next(stream)


def test_workers_outlive_ctrl_c_and_end_when_the_stream_is_closed(numbered: Index, numbers: Read) -> None:
    before = children()
    stream = batches(numbered, workers=2)
    next(stream)
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
    with pytest.raises(UsageError, match=r"97 real images were asked for but .* holds 96"):
        real_images(numbered, 97, 0, 16)


def test_flip_mirrors_exactly_the_images_asked_for() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    flipped = flip(images, torch.tensor([True, False]))
    assert torch.equal(flipped[0, :, :, 0], images[0, :, :, 3])
    assert torch.equal(flipped[1], images[1])
    assert torch.equal(flip(flipped, torch.tensor([True, False])), images)
