"""Streams of uint8 batches: endless for training, one subset for evaluation."""

import itertools
import random
import signal
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from wavegan_dist.counted import generator
from wavegan_dist.data.codec import decode
from wavegan_dist.data.index import Index
from wavegan_dist.data.read import check_present, read_shard
from wavegan_dist.errors import UsageError, WaveganError

SHUFFLE_BUFFER = 1000  # encoded images


def training_batches(
    index: Index, *, batch_size: int, seed: int, start_nimg: int, rank: int, world_size: int, workers: int
) -> Generator[Tensor, None, None]:
    """An endless stream of uint8 batches [batch_size, 3, size, size] on the CPU, none ever shorter.

    Each epoch the shards are permuted and dealt to all readers (ranks x workers); a reader shuffles its images through a
    buffer and goes on to the next epoch by itself, so uneven shards make nobody wait. Order is a pure function of
    (seed, index, ranks, workers). The worker processes start here; closing the generator ends them.

    Args:
        batch_size: images of this rank's batch.
        start_nimg: images already seen by all ranks together. The stream starts at the beginning of the epoch in which
            that falls: images of a half-seen epoch come again.
        workers: decoding processes of this rank; 0 decodes in the calling process.

    Raises:
        UsageError: more readers than shards, or a shard is missing.
        WaveganError: while iterating: a shard or an image in it is damaged; the message names both.
    """
    _check_readers(index, world_size, workers)
    check_present(index)
    stream = _Stream(index, batch_size, seed, start_nimg // index.count, rank, world_size)
    # A generator of its own keeps the loader from drawing its base seed from the global one.
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, worker_init_fn=_leave_signals_to_parent, generator=torch.Generator()
    )
    return _raise_errors(iter(loader))


def real_images(index: Index, count: int, seed: int, batch_size: int) -> Iterator[Tensor]:
    """A random subset of `count` images without replacement, in the order of the shards; a pure function of (seed, index).

    Yields:
        uint8 [<= batch_size, 3, size, size] on the CPU; only the last is shorter.

    Raises:
        UsageError: at once, where the set has fewer images or a shard is missing.
        WaveganError: while iterating: a shard or an image in it is damaged; the message names both.
    """
    if count > index.count:
        raise UsageError(f"{count} real images were asked for but {index.folder} holds {index.count}; ask for at most those")
    check_present(index)
    wanted = np.zeros(index.count, dtype=bool)
    wanted[generator(seed, "real", 0).choice(index.count, count, replace=False)] = True
    return _subset_batches(index, wanted, batch_size)


@dataclass(frozen=True)
class _Stream(IterableDataset[Tensor | WaveganError]):
    """The batches of one reader. An error comes as the last item: a raised one would reach the parent as a traceback."""

    index: Index
    batch_size: int
    seed: int
    first_epoch: int
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[Tensor | WaveganError]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        try:
            samples = self._samples(self.rank * workers + worker, self.world_size * workers)
            while True:
                yield _batch(itertools.islice(samples, self.batch_size), self.index.size)
        except WaveganError as error:
            yield error

    def _samples(self, reader: int, readers: int) -> Iterator[tuple[str, bytes]]:
        for epoch in itertools.count(self.first_epoch):
            order = generator(self.seed, "shards", epoch).permutation(len(self.index.shards))
            shards = [self.index.shards[number] for number in order[reader::readers]]
            samples = itertools.chain.from_iterable(read_shard(self.index, shard) for shard in shards)
            draws = generator(self.seed, f"shuffle/{reader}", epoch)
            yield from webdataset.shuffle(SHUFFLE_BUFFER, rng=random.Random(int(draws.integers(2**63))))(samples)


def _subset_batches(index: Index, wanted: NDArray[np.bool_], batch_size: int) -> Iterator[Tensor]:
    parts = np.split(wanted, np.cumsum([shard.images for shard in index.shards])[:-1])
    chosen = itertools.chain.from_iterable(
        itertools.compress(read_shard(index, shard), part)
        for shard, part in zip(index.shards, parts, strict=True)
        if part.any()
    )
    for _ in range(0, int(wanted.sum()), batch_size):
        yield _batch(itertools.islice(chosen, batch_size), index.size)


def _batch(samples: Iterable[tuple[str, bytes]], size: int) -> Tensor:
    """Decoded: uint8 [B, 3, size, size]."""
    images = np.stack([decode(content, size, name) for name, content in samples])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _raise_errors(batches: Iterator[Tensor | WaveganError]) -> Generator[Tensor, None, None]:
    try:
        for batch in batches:
            if isinstance(batch, WaveganError):
                raise batch
            yield batch
    finally:
        del batches  # the last reference: the workers end now, not when an error's traceback is collected


def _check_readers(index: Index, world_size: int, workers: int) -> None:
    readers, shards = world_size * max(workers, 1), len(index.shards)
    if readers > shards:
        raise UsageError(
            f"{world_size} ranks x {max(workers, 1)} workers = {readers} readers but only {shards} shards in {index.folder};"
            f" lower data.workers or the number of processes, or write the set in more shards"
        )


def _leave_signals_to_parent(_worker: int) -> None:
    """Ctrl-C and the signal that asks for a checkpoint reach the whole process group; the parent alone answers.

    (Torch itself keeps each worker to one thread and ends it when the parent dies.)
    """
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
