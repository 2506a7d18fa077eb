"""Streams of uint8 batches: endless and exact for training, one subset for evaluation."""

import itertools
import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wavegan_dist.counted import rng_at
from wavegan_dist.data.decode_batch import fill, shared_pixels
from wavegan_dist.data.error_log import DataError
from wavegan_dist.data.index import Index
from wavegan_dist.data.order import Order, RowIndices
from wavegan_dist.data.read import Reader, check_present
from wavegan_dist.data.tars import walk
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.processes import exit_with_parent, signals_blocked

PREFETCH = 4  # batches that each worker prepares ahead
# They ask a run to leave and reach the whole process group; the parent alone answers.
LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

Item = TypeVar("Item")
ErrorCallback = Callable[[list[DataError]], object]


def training_batches(
    index: Index,
    *,
    batch_size: int,
    seed: int,
    start_nimg: int,
    rank: int,
    world_size: int,
    workers: int,
    max_bad_fraction: float = 0.0,
    found: ErrorCallback | None = None,
) -> Generator[Tensor, None, None]:
    """An endless stream of uint8 batches [batch_size, 3, size, size], channels last, on the CPU (pinned beside a GPU).

    All ranks' batches number n together are `Order.batch(start_nimg + n * world_size * batch_size, ...)`: a function of
    (seed, index) and the position, whatever the ranks and workers. So a run goes on at any image with other numbers of both,
    and each image of an epoch comes exactly once. An epoch's last images share a batch with the next one's first.

    A batch may be overwritten once the next one is asked for: the memory is used again. Clone what is to be kept.

    Args:
        batch_size: images of this rank's batch.
        start_nimg: images already seen by all ranks together.
        workers: decoding processes of this rank; 0 decodes in the calling process. They start here; closing the generator
            ends them.
        max_bad_fraction: missing shards with a larger share of the images are an error at once.
        found: called in this process with what could not be read in a batch; such an image is replaced by its neighbour
            in the batch. None: the first one is an error.

    Raises:
        UsageError: at once: too much is missing.
        WaveganError: while iterating: an image cannot be read and `found` is None, or none of a batch can.
    """
    check_present(index, max_bad_fraction)
    share = slice(rank * batch_size, (rank + 1) * batch_size)
    batches = _Batches(index, seed, start_nimg, batch_size * world_size, share)
    # A loader asks for the next PREFETCH batches of each worker when it hands one out: the one before may be overwritten.
    buffers = shared_pixels(workers * PREFETCH + 1, batch_size, index.size)
    stream = _stream(_Filled(batches, Reader(index), buffers), workers)
    return _told(((_pinned(buffers[slot]), findings) for slot, findings in stream), found)


def real_images(index: Index, count: int, seed: int, batch_size: int) -> Iterator[Tensor]:
    """A random subset of `count` images without replacement, in the order of the shards; a pure function of (seed, index).

    Yields:
        uint8 [<= batch_size, 3, size, size], channels last, on the CPU; only the last is shorter.

    Raises:
        UsageError: at once, where the set has fewer images or a shard is missing.
        WaveganError: while iterating: an image cannot be read; the message names it.
    """
    if count > index.count:
        raise UsageError(
            f"{count} real images were asked for but {index.storage.base} holds {index.count}; ask for at most those"
        )
    return images_at(index, np.sort(rng_at(seed, "real", 0).choice(index.count, count, replace=False)), batch_size)


def images_at(index: Index, rows: RowIndices, batch_size: int) -> Iterator[Tensor]:
    """The images of these rows of the index, in their order; yields and raises as `real_images` does."""
    check_present(index, 0.0)
    return _told(_read((rows[first : first + batch_size] for first in range(0, len(rows), batch_size)), index), None)


def epoch_keys(
    index: Index, *, seed: int, epoch: int, world_size: int, workers: int, batch_size: int, start: int = 0
) -> Iterator[list[list[str]]]:
    """The keys of an epoch's images as training would see them, through the same loaders.

    Args:
        batch_size: of all ranks together.
        start: images of the epoch that were seen before.

    Yields:
        For each global batch a list of keys for each rank; the last is cut at the end of the epoch.

    Raises:
        UsageError: the ranks cannot share the batch, or the epoch ends before `start`.
    """
    if batch_size % world_size:
        raise UsageError(f"a batch of {batch_size} does not divide among {world_size} ranks; make it a multiple")
    if start >= index.count:
        raise UsageError(f"an epoch has {index.count} images; start before image {start}")
    local, keys = batch_size // world_size, _keys(index)
    shares = [slice(rank * local, (rank + 1) * local) for rank in range(world_size)]
    first = epoch * index.count + start
    streams = [_stream(_Batches(index, seed, first, batch_size, share), workers) for share in shares]
    for left in range(index.count - start, 0, -batch_size):
        rows = [next(stream) for stream in streams]
        yield [
            [keys[row] for row in part[: max(left - share.start, 0)].tolist()] for part, share in zip(rows, shares, strict=True)
        ]


@dataclass
class _Batches(Dataset[RowIndices]):
    """A rank's share of one global batch after another, from image `first` of the run on."""

    index: Index
    seed: int
    first: int
    size: int
    share: slice

    def __post_init__(self) -> None:
        self.order = Order(self.index.starts, self.seed)

    def __getitem__(self, number: int) -> RowIndices:
        return self.order.batch(self.first + number * self.size, self.size)[self.share]


@dataclass
class _Filled(Dataset[tuple[int, list[DataError]]]):
    """The images of those rows: in which of the buffers, used in turn, they are, and what could not be read."""

    batches: _Batches
    reader: Reader
    buffers: Tensor

    def __getitem__(self, number: int) -> tuple[int, list[DataError]]:
        slot = number % len(self.buffers)
        return slot, fill(self.buffers[slot], self.batches[number], self.reader)


def _stream(batches: Dataset[Item], workers: int) -> Iterator[Item]:
    """Item after item from number 0 on, without end, in the same order however many workers make them."""
    numbers = itertools.count()
    if not workers:
        return map(batches.__getitem__, numbers)  # a loader would take 3 % of the time here
    loader = DataLoader(
        batches,
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH,
        collate_fn=_as_it_is,
        worker_init_fn=_prepare_worker,
        multiprocessing_context="fork",  # the buffers are memory that only a fork shares
        generator=torch.Generator(),  # of its own: the loader would draw its base seed from the global one
    )
    with signals_blocked(*LEAVE):
        return iter(loader)


def _read(parts: Iterator[RowIndices], index: Index) -> Iterator[tuple[Tensor, list[DataError]]]:
    reader = Reader(index)
    for rows in parts:
        pixels = torch.empty(len(rows), index.size, index.size, 3, dtype=torch.uint8)
        yield pixels, fill(pixels, rows, reader)


def _pinned(pixels: Tensor) -> Tensor:
    """A copy in pinned memory, from which a GPU copies while the CPU goes on; the same tensor where there is none."""
    return torch.empty_like(pixels, pin_memory=True).copy_(pixels) if torch.cuda.is_available() else pixels


def _told(batches: Iterator[tuple[Tensor, list[DataError]]], found: ErrorCallback | None) -> Generator[Tensor, None, None]:
    for pixels, findings in batches:
        if findings and found is None:
            raise WaveganError(f"{findings[-1]}; find all damage with `wavegan shards verify`")
        if findings and found is not None:
            found(findings)
        if sum(finding.row is not None for finding in findings) == len(pixels):
            raise WaveganError(
                f"no image of a batch can be read, first {findings[0]}; find all damage with `wavegan shards verify`"
            )
        yield pixels.permute(0, 3, 1, 2)


def _keys(index: Index) -> list[str]:
    """The key of each row: every tar is walked once."""
    keys: list[str] = []
    for shard, first, last in zip(index.shards, index.starts[:-1], index.starts[1:], strict=True):
        at = {member.offset: member.key for member in walk(index.storage.local(shard.file, shard.bytes, shard.sha256))}
        keys += [at[offset] for offset in index.members[first:last, 0].tolist()]
    return keys


def _as_it_is(item: Item) -> Item:
    return item


def _prepare_worker(_worker: int) -> None:
    """Torch itself keeps each worker to one thread, but looks only every 5 seconds whether the parent lives."""
    exit_with_parent()
