"""Downloads of remote shards before they are needed, so that training does not wait for the network."""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from mmap import mmap
from multiprocessing import get_context

import numpy as np

from wavegan_dist.data.mixture import TrainingData
from wavegan_dist.data.order import RowIndices
from wavegan_dist.errors import WaveganError
from wavegan_dist.processes import STOP_SIGNALS, exit_with_parent, signals_blocked

DOWNLOADS = 16  # shards that are downloaded at the same time
POLL = 0.02  # seconds between looks at how far training has come


class Prefetcher:
    """A process that downloads the shards of the coming batches into the cache, in the order in which they are needed.

    A shard that cannot be downloaded is left to the reader, which requests it again and reports the error.

    Args:
        index: the dataset or datasets.
        rows: returns the rows of the index that this rank reads for batch number n.
        decoded: how many batches the workers decode ahead of the current one. Their shards are downloaded in any case.
        ahead: how many batches the process looks ahead at most.
        share: share of the cache that the shards of this rank may fill. The ranks of a node have one cache.
    """

    def __init__(
        self, index: TrainingData, rows: Callable[[int], RowIndices], *, decoded: int, ahead: int, share: float
    ) -> None:
        self.index, self.rows, self.decoded, self.ahead = index, rows, decoded, ahead
        self.room = share * max(one.storage.cache_bytes for one in index.sets)
        self._taken = np.frombuffer(mmap(-1, 8), dtype=np.int64)  # batches that training has taken, shared with the process
        self._last_use: dict[int, int] = {}  # by shard: the last of the batches looked at that needs it
        self._bytes = 0  # of the shards in `_last_use`
        self._process = get_context("fork").Process(target=self._run, daemon=True)
        with signals_blocked(*STOP_SIGNALS):
            self._process.start()

    def advance(self) -> None:
        """Report that training takes the next batch."""
        self._taken[0] += 1

    def close(self) -> None:
        """End the process; the next download removes what it leaves unfinished."""
        self._process.kill()
        self._process.join()

    def _run(self) -> None:
        exit_with_parent()
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            for number in itertools.count():
                shards = np.searchsorted(self.index.starts, self.rows(number), side="right") - 1
                needed = list(dict.fromkeys(shards.tolist()))
                new = [shard for shard in needed if shard not in self._last_use]
                self._wait(number, sum(map(self._size, new)))
                self._bytes += sum(self._size(shard) for shard in needed if shard not in self._last_use)
                self._last_use |= dict.fromkeys(needed, number)
                for shard in new:
                    pool.submit(self._download, shard)

    def _wait(self, number: int, new_bytes: int) -> None:
        """Wait until batch `number` is near, and its new shards fit into the cache beside those that are still in use."""
        while number > (taken := int(self._taken[0])) + self.decoded:
            if number <= taken + self.ahead:
                if self._bytes + new_bytes > self.room:
                    self._forget(taken)
                if self._bytes + new_bytes <= self.room:
                    return
            time.sleep(POLL)

    def _forget(self, taken: int) -> None:
        """Stop to count the shards that no batch from number `taken` on needs, as far as the process has looked."""
        for shard in [shard for shard, last in self._last_use.items() if last < taken]:
            del self._last_use[shard]
            self._bytes -= self._size(shard)

    def _size(self, shard: int) -> int:
        storage, described, _ = self.index.locate_shard(shard)
        return described.bytes if storage.is_remote else 0

    def _download(self, shard: int) -> None:
        storage, described, _ = self.index.locate_shard(shard)
        with suppress(WaveganError):
            if storage.is_remote:
                storage.local(described.file, described.bytes, described.sha256)
