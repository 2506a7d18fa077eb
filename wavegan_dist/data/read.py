"""The bytes of an image by its row in the index: one `pread`, no tar is parsed."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wavegan_dist.data.account import Finding
from wavegan_dist.data.index import Index
from wavegan_dist.data.tars import key_at
from wavegan_dist.errors import UsageError, WaveganError

OPEN_FILES = 128  # shards that a reader keeps open


class UnreadableError(WaveganError):
    """An image that cannot be read; `findings` says why, and of its shard if that is at fault."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


class Reader:
    """Reads images of a set by row; each process has its own.

    Args:
        index: the set; its storage fetches what lies elsewhere.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()

    def read(self, row: int) -> bytes:
        """The encoded image. Raises UnreadableError where its shard is missing or ends before it."""
        number = self._shard_of(row)
        shard = self.index.shards[number]
        offset, size, _ = self.index.members[row].tolist()
        try:
            descriptor = self._file(number).fileno()
            content = os.pread(descriptor, size, offset)
        except (WaveganError, OSError) as error:
            gone = Finding(shard.file, f"cannot be read: {getattr(error, 'strerror', None) or error}")
            raise UnreadableError([gone, self.finding(row, "lies in a shard that cannot be read")]) from error
        if len(content) < size:
            cut = Finding(shard.file, f"is cut short: {os.fstat(descriptor).st_size:,} of {shard.bytes:,} bytes")
            raise UnreadableError([cut, self.finding(row, "lies beyond the end of its shard")])
        return content

    def finding(self, row: int, reason: str) -> Finding:
        """What to say of the image of this row; its key where its header can still be read."""
        number = self._shard_of(row)
        shard = self.index.shards[number]
        try:
            key = key_at(self._local(number), int(self.index.members[row, 0]))
        except (WaveganError, OSError):
            key = f"image {row - int(self.index.starts[number])}"
        return Finding(shard.file, reason, row, key)

    def __getstate__(self) -> dict[str, object]:
        """For another process: which opens its own files."""
        return {**self.__dict__, "_open": OrderedDict()}

    def _shard_of(self, row: int) -> int:
        return int(np.searchsorted(self.index.starts, row, side="right")) - 1

    def _local(self, number: int) -> Path:
        shard = self.index.shards[number]
        return self.index.storage.local(shard.file, shard.bytes, shard.sha256)

    def _file(self, number: int) -> BinaryIO:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            shard = self.index.shards[number]
            self._open[number] = self.index.storage.open(shard.file, shard.bytes, shard.sha256)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        return self._open[number]


def check_present(index: Index, max_bad_fraction: float) -> None:
    """Raises UsageError where shards of a local set are missing that hold more than this share of the images."""
    if index.storage.is_remote:
        return
    missing = [shard for shard in index.shards if not (index.folder / shard.file).is_file()]
    lost = sum(shard.images for shard in missing)
    if lost > max_bad_fraction * index.count:
        names = ", ".join(shard.file for shard in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{len(missing)} of {len(index.shards)} shards ({lost} images) are missing from {index.folder}: {names}; "
            "copy or write them again, or allow for it with data.max_bad_fraction"
        )
