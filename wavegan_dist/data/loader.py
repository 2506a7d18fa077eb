"""Streams of uint8 batches: endless and exact for training, one subset for evaluation."""

import itertools
import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wavegan_dist.counted import generator
from wavegan_dist.data.account import Finding
from wavegan_dist.data.codec import decode_into
from wavegan_dist.data.index import Index
from wavegan_dist.data.order import Order, Rows
from wavegan_dist.data.read import Reader, UnreadableError, check_present
from wavegan_dist.data.tars import walk
from wavegan_dist.errors import UsageError, WaveganError

PREFETCH = 4  # batches that each worker prepares ahead

Item = TypeVar("Item")
Found = Callable[[list[Finding]], object]


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
    found: Found | None = None,
) -> Generator[Tensor, None, None]:
    """An endless stream of uint8 batches [batch_size, 3, size, size], channels last, on the CPU (pinned beside a GPU).

    All ranks' batches number n together are `Order.batch(start_nimg + n * world_size * batch_size, ...)`: a function of
    (seed, index) and the position, whatever the ranks and workers. So a run goes on at any image with other numbers of both,
    and each image of an epoch comes exactly once. An epoch's last images share a batch with the next one's first.

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
    batches = _Batches(index, seed, batch_size * world_size, share, _Decode(Reader(index), index.size))
    return _told(_stream(batches, start_nimg, workers), found)


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
    return images_at(index, np.sort(generator(seed, "real", 0).choice(index.count, count, replace=False)), batch_size)


def images_at(index: Index, rows: Rows, batch_size: int) -> Iterator[Tensor]:
    """The images of these rows of the index, in their order; yields and raises as `real_images` does."""
    check_present(index, 0.0)
    decode = _Decode(Reader(index), index.size)
    return _told((decode(rows[first : first + batch_size]) for first in range(0, len(rows), batch_size)), None)


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
    streams = [_stream(_Batches(index, seed, batch_size, share, _Rows()), first, workers) for share in shares]
    for left in range(index.count - start, 0, -batch_size):
        rows = [next(stream) for stream in streams]
        yield [
            [keys[row] for row in part[: max(left - share.start, 0)].tolist()] for part, share in zip(rows, shares, strict=True)
        ]


@dataclass
class _Batches(Dataset[Item], Generic[Item]):
    """A rank's share of the global batch that begins at an image of the run, made into something."""

    index: Index
    seed: int
    size: int
    share: slice
    make: Callable[[Rows], Item]

    def __post_init__(self) -> None:
        self.order = Order(self.index.starts, self.seed)

    def __getitem__(self, first: int) -> Item:
        return self.make(self.order.batch(first, self.size)[self.share])


@dataclass
class _Rows:
    def __call__(self, rows: Rows) -> Rows:
        return rows


@dataclass
class _Decode:
    """Rows -> their images, and what could not be read; None where nothing could."""

    reader: Reader
    size: int

    def __call__(self, rows: Rows) -> tuple[Tensor | None, list[Finding]]:
        pixels = torch.empty(len(rows), self.size, self.size, 3, dtype=torch.uint8)
        good, findings = [], []
        for slot, (place, out) in enumerate(zip(self.reader.places(rows), pixels.numpy(), strict=True)):
            try:
                decode_into(self.reader.read(place), out, "it")
                good.append(slot)
            except UnreadableError as error:
                findings += error.findings
            except WaveganError as error:
                findings.append(self.reader.finding(place, str(error).partition(";")[0].removeprefix("it ")))
        if not good:
            return None, findings
        if len(good) < len(rows):
            spare = itertools.cycle(good)
            for slot in set(range(len(rows))) - set(good):
                pixels[slot] = pixels[next(spare)]
        return pixels.permute(0, 3, 1, 2), findings


def _stream(batches: _Batches[Item], first: int, workers: int) -> Iterator[Item]:
    """Batch after batch from image `first` on, without end, in the same order however many workers make them."""
    loader = DataLoader(
        batches,
        sampler=_Positions(first, batches.size),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # of its own: the loader would draw its base seed from the global one
    )
    return iter(loader)


@dataclass
class _Positions:
    first: int
    step: int

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first, self.step)


def _told(batches: Iterator[tuple[Tensor | None, list[Finding]]], found: Found | None) -> Generator[Tensor, None, None]:
    for images, findings in batches:
        if findings and found is None:
            raise WaveganError(f"{findings[-1]}; find all damage with `wavegan shards verify`")
        if findings and found is not None:
            found(findings)
        if images is None:
            raise WaveganError(
                f"no image of a batch can be read, first {findings[0]}; find all damage with `wavegan shards verify`"
            )
        yield images


def _keys(index: Index) -> list[str]:
    """The key of each row: every tar is walked once."""
    keys: list[str] = []
    for shard, first, last in zip(index.shards, index.starts[:-1], index.starts[1:], strict=True):
        at = {member.offset: member.key for member in walk(index.storage.local(shard.file, shard.bytes, shard.sha256))}
        keys += [at[offset] for offset in index.members[first:last, 0].tolist()]
    return keys


def _as_it_is(item: Item) -> Item:
    return item


def _leave_signals_to_parent(_worker: int) -> None:
    """Ctrl-C and the signal that asks for a checkpoint reach the whole process group; the parent alone answers.

    (Torch itself keeps each worker to one thread and ends it when the parent dies.)
    """
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
