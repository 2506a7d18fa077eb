"""Streams of uint8 batches: endless for training, over a fixed set of images for evaluation."""

import itertools
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wavegan_dist.counted import rng_at
from wavegan_dist.data.decode_batch import Buffers, ImageBatch, decode_batch, shared_buffers
from wavegan_dist.data.error_log import DataError, cause
from wavegan_dist.data.forward_file import ForwardFile
from wavegan_dist.data.index import Index
from wavegan_dist.data.mixture import TrainingData
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.prefetch import Prefetcher
from wavegan_dist.data.read import Reader, check_present
from wavegan_dist.data.remote import Answer
from wavegan_dist.data.storage import Storage
from wavegan_dist.data.tars import walk, walk_file
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.processes import STOP_SIGNALS, exit_with_parent, signals_blocked

PREFETCH = 4  # batches that each worker prepares ahead

Item = TypeVar("Item")
ErrorCallback = Callable[[list[DataError]], object]


def training_batches(
    index: TrainingData,
    *,
    batch_size: int,
    seed: int,
    start_nimg: int,
    rank: int,
    world_size: int,
    workers: int,
    labels: bool = False,
    max_bad_fraction: float = 0.0,
    on_errors: ErrorCallback | None = None,
    pinned: bool = False,
) -> Generator[ImageBatch, None, None]:
    """Stream this rank's training batches without end, on the CPU: images uint8 [batch_size, 3, size, size], channels-last.

    Batch number n of rank r holds images r * batch_size to (r + 1) * batch_size - 1 of the global batch
    `index.order(seed).batch(start_nimg + n * B, B)` with B = world_size * batch_size, whatever the number of workers. Training
    therefore resumes at any image, and each image of an epoch is seen once, even if the number of ranks changes. The ranks
    do not communicate.

    The memory of a batch may be overwritten when the next batch is requested: clone a batch to keep it.

    Args:
        index: the dataset or datasets.
        batch_size: images per rank.
        seed: seed of the data order.
        start_nimg: number of images that all ranks together have seen before.
        rank: this rank.
        world_size: number of ranks.
        workers: decoding processes, started immediately and stopped by closing the generator; 0 decodes in this process. If a
            dataset is remote, there is one more process: see `Prefetcher`.
        labels: also yield the label of each image, int64 [batch_size], -1 for an image without one. An image that replaces an
            unreadable one comes with its own label. False: `ImageBatch.labels` is None.
        max_bad_fraction: largest fraction of the images of each dataset that may be in missing shards.
        on_errors: called in this process, before a batch is yielded, with the errors of this batch, if there are any; its
            unreadable images are replaced by others of the batch. If none of them can be read, the images are those of the
            next rank's batch, and so on. None raises the error instead.
        pinned: copy batches to pinned memory, so that the copy to a GPU is asynchronous. Needs a GPU.

    Raises:
        UsageError: at once, if too many shards are missing, or a remote dataset has no cache.
        OSError: at once, if the folder of a dataset cannot be listed.
        WaveganError: while iterating, if an image cannot be read and `on_errors` is None, if no image of a global batch can be
            read, or if members.npy cannot be read (see `Index.members`).
        RuntimeError: while iterating, if a worker process has died.
    """
    check_present(index, max_bad_fraction)
    share = slice(rank * batch_size, (rank + 1) * batch_size)
    batch_rows = _BatchRows(index, seed, start_nimg, batch_size * world_size, share)
    prefetcher = None
    if any(one.storage.is_remote for one in index.sets):
        prefetcher = _prefetch(index, batch_rows, workers * PREFETCH + 1, world_size)
    # DataLoader requests a worker's next batch while the current batch is in use, so one extra buffer is needed.
    buffers = shared_buffers(workers * PREFETCH + 1, batch_size, index.size)
    decoded = _iterate(_DecodedBatches(batch_rows, Reader(index), buffers), workers)
    copy = _pinned if pinned else _identity
    return _batches(decoded, buffers, batch_size * world_size, labels, on_errors, prefetcher, copy)


def real_images(index: Index, count: int, seed: int, batch_size: int) -> Iterator[Tensor]:
    """Draw `count` images without replacement, as a pure function of (seed, `index.count`), in the order of the index.

    Yields:
        New tensors, uint8 [batch_size, 3, size, size], channels-last, on the CPU; the last batch may be smaller.

    Raises:
        UsageError: at once, if the dataset has fewer images, a shard is missing, or a remote dataset has no cache.
        OSError: at once, if the folder of the dataset cannot be listed.
        WaveganError: while iterating, if an image cannot be read (the message names the image or its shard), or if members.npy
            cannot be read (see `Index.members`).
    """
    if count > index.count:
        raise UsageError(
            f"{count} real images were requested but {index.location} holds {index.count}; request at most that many"
        )
    return images_at(index, np.sort(rng_at(seed, "real", 0).choice(index.count, count, replace=False)), batch_size)


def images_at(index: Index, rows: RowIndices, batch_size: int) -> Iterator[Tensor]:
    """Read the images at `rows` of the index, in the order of `rows`, in which a row may occur several times.

    Yields batches as `real_images` does, and raises the same errors, except for the number of images.
    """
    check_present(index, 0.0)
    return read_images(index, rows, batch_size)


def read_images(index: Index, rows: RowIndices, batch_size: int) -> Iterator[Tensor]:
    """Read images as `images_at` does, but without listing the folder of the dataset.

    For many calls with few images each: call `check_present` once before them. Yields batches as `real_images` does, and raises
    its errors while iterating only.
    """
    reader = Reader(index)
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        batch_bhwc = torch.empty(len(part), index.size, index.size, 3, dtype=torch.uint8)
        _, errors = decode_batch(reader, part, batch_bhwc)
        _handle(errors, len(part), None)
        yield batch_bhwc.permute(0, 3, 1, 2)


def epoch_keys(
    index: Index, *, seed: int, epoch: int, world_size: int, workers: int, batch_size: int, start: int = 0
) -> Iterator[list[list[str]]]:
    """List the keys of an epoch's images in the order of training.

    The order is computed by data loader processes, as in training. The keys are read from the headers of all tars before the
    first batch; no image is decoded. Remote tars are read where they are, and the cache is not used.

    Args:
        index: the dataset.
        seed: seed of the data order.
        epoch: number of the epoch, from 0.
        world_size: number of ranks.
        workers: loader processes per rank; 0: this process computes the order.
        batch_size: images of the global batch.
        start: number of images of the epoch to skip.

    Yields:
        For each global batch, one list of keys per rank. The last batch is not filled up from the next epoch: it may be
        shorter, and the lists of the last ranks may be empty.

    Raises:
        UsageError: when the first batch is requested, if `batch_size` is not a multiple of `world_size`, or the epoch has no
            more than `start` images.
        UsageError, WaveganError, OSError: when the first batch is requested, if a tar or members.npy cannot be read.
    """
    if batch_size % world_size:
        raise UsageError(f"a batch of {batch_size} images does not divide among {world_size} ranks; make it a multiple")
    if start >= index.count:
        raise UsageError(f"an epoch has {index.count} images; start before image {start}")
    local, keys = batch_size // world_size, _all_keys(index)
    shares = [slice(rank * local, (rank + 1) * local) for rank in range(world_size)]
    first = epoch * index.count + start
    streams = [_iterate(_BatchRows(index, seed, first, batch_size, share), workers) for share in shares]
    for remaining in range(index.count - start, 0, -batch_size):
        rows_of_ranks = [next(stream) for stream in streams]
        yield [
            [keys[row] for row in rows[: max(remaining - share.start, 0)].tolist()]
            for rows, share in zip(rows_of_ranks, shares, strict=True)
        ]


@dataclass
class _BatchRows(Dataset[RowIndices]):
    """Dataset whose item n is one rank's share of global batch n, as rows of the index, int64 [share]; endless.

    Global batch 0 begins at position `first` of the order.
    """

    index: TrainingData
    seed: int
    first: int
    global_batch: int
    share: slice

    def __post_init__(self) -> None:
        self.order = self.index.order(self.seed)

    def __getitem__(self, number: int) -> RowIndices:
        return next(self.shares(number))

    def shares(self, number: int) -> Iterator[RowIndices]:
        """Yield the shares of all ranks in global batch `number`, this rank's first, then those of the ranks after it."""
        rows, local = self.order.batch(self.first + number * self.global_batch, self.global_batch), self.share
        for begin in range(local.start, local.start + self.global_batch, local.stop - local.start):
            yield rows[begin % self.global_batch :][: local.stop - local.start]


@dataclass
class _DecodedBatches(Dataset[tuple[int, list[DataError]]]):
    """Dataset whose item n decodes batch n into a shared buffer, with labels: the item is (number of the buffer, errors).

    If no image of this rank's share can be read, the batch is the share of the next rank of which an image can be read.
    """

    batch_rows: _BatchRows
    reader: Reader
    buffers: Buffers

    def __getitem__(self, number: int) -> tuple[int, list[DataError]]:
        slot = number % len(self.buffers.images)
        errors: list[DataError] = []
        for share in self.batch_rows.shares(number):
            rows, of_share = decode_batch(self.reader, share, self.buffers.images[slot])
            errors += of_share
            if _images(of_share) < len(share):
                break
        self.buffers.labels[slot] = torch.from_numpy(self.reader.index.entries(rows)[:, 2])
        return slot, errors


def _iterate(dataset: Dataset[Item], workers: int) -> Iterator[Item]:
    """Yield items 0, 1, 2, ... of an endless dataset in that order, prepared by `workers` processes; 0: in this process."""
    numbers = itertools.count()
    if not workers:
        return map(dataset.__getitem__, numbers)  # a DataLoader without workers would take 3 % longer
    loader = DataLoader(
        dataset,
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH,
        collate_fn=_identity,
        worker_init_fn=_prepare_worker,
        multiprocessing_context="fork",  # only forked processes share the buffers
        generator=torch.Generator(),  # otherwise DataLoader would draw its base seed from the global generator
    )
    with signals_blocked(*STOP_SIGNALS):
        return iter(loader)


def _batches(
    decoded: Iterator[tuple[int, list[DataError]]],
    buffers: Buffers,
    global_batch: int,
    labels: bool,
    on_errors: ErrorCallback | None,
    prefetcher: Prefetcher | None,
    copy: Callable[[Tensor], Tensor],
) -> Generator[ImageBatch, None, None]:
    """Yield the decoded batches, after the errors of each have been handled; `copy` is called on their tensors."""
    with closing(prefetcher) if prefetcher else nullcontext():
        for slot, errors in decoded:
            batch_bhwc = buffers.images[slot]
            _handle(errors, global_batch, on_errors)
            if prefetcher:
                prefetcher.advance()
            images = copy(batch_bhwc).permute(0, 3, 1, 2)
            yield ImageBatch(images, copy(buffers.labels[slot]) if labels else None)


def _prefetch(index: TrainingData, batch_rows: _BatchRows, decoded: int, world_size: int) -> Prefetcher:
    """Look ahead into remote shards by up to an epoch, with this rank's share of the cache of its node."""
    ahead = index.count // batch_rows.global_batch + 1
    share = 1 / int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return Prefetcher(index, batch_rows.__getitem__, decoded=decoded, ahead=ahead, share=share)


def _pinned(batch: Tensor) -> Tensor:
    """Copy to pinned memory by NumPy, with one thread: PyTorch would wait for those cores on which a worker is decoding."""
    pinned = torch.empty_like(batch, pin_memory=True)
    np.copyto(pinned.numpy(), batch.numpy())
    return pinned


def _handle(errors: list[DataError], tried: int, on_errors: ErrorCallback | None) -> None:
    """Pass the errors of a batch, if there are any, to `on_errors`.

    Raises:
        WaveganError: there are errors, and either `on_errors` is None, or none of the `tried` images can be read.
    """
    if not errors:
        return
    if on_errors is None:
        raise WaveganError(f"{cause(errors[-1], errors)}; find all damage with `wavegan shards verify`")
    on_errors(errors)
    if _images(errors) == tried:
        raise WaveganError(f"no image of a batch can be read, first {errors[0]}; find all damage with `wavegan shards verify`")


def _images(errors: list[DataError]) -> int:
    return sum(error.row is not None for error in errors)


def _all_keys(index: Index) -> list[str]:
    """Return the key of each row of the index, from the tar headers."""
    keys: list[str] = []
    for shard, first, last in zip(index.shards, index.starts[:-1], index.starts[1:], strict=True):
        name, key_at_offset = index.storage.url(shard.file), _keys_by_offset(index.storage, shard.file)
        offsets = index.members[first:last, 0].tolist()
        if missing := set(offsets) - key_at_offset.keys():
            raise WaveganError(f"{name} has no member at byte {min(missing):,}; find all damage with `wavegan shards verify`")
        keys += [key_at_offset[offset] for offset in offsets]
    return keys


def _keys_by_offset(storage: Storage, file: str) -> dict[int, str]:
    """Return the key of each member of a tar by its offset; a remote tar is read where it is, and the cache is not used."""
    if not storage.is_remote:
        return {member.offset: member.key for member in walk(Path(storage.url(file)))}

    def keys(answer: Answer) -> dict[int, str]:
        return {member.offset: member.key for member in walk_file(ForwardFile(answer.blocks), storage.url(file))}

    return storage.stream(file, keys)


def _identity(item: Item) -> Item:
    return item


def _prepare_worker(_worker: int) -> None:
    exit_with_parent()  # PyTorch's own watchdog checks only every 5 seconds whether the parent is alive
