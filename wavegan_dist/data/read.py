"""The bytes of an image by its row in the index: one `pread`, no tar is parsed."""

import os
from collections import OrderedDict
from typing import BinaryIO, NamedTuple

import numpy as np

from wavegan_dist.data.error_log import DataError
from wavegan_dist.data.index import Index
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.tars import key_at
from wavegan_dist.errors import UsageError, WaveganError

OPEN_FILES = 128  # shards that a reader keeps open


class Place(NamedTuple):
    """Where an image lies: its row in the index, its shard's number, offset and size in bytes."""

    row: int
    shard: int
    offset: int
    size: int


class UnreadableError(WaveganError):
    """An image that cannot be read; `findings` says why, and of its shard if that is at fault."""

    def __init__(self, findings: list[DataError]) -> None:
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

    def places(self, rows: RowIndices) -> list[Place]:
        """Where the images of these rows lie."""
        shards = np.searchsorted(self.index.starts, rows, side="right") - 1
        offsets, sizes, _ = self.index.members[rows].T.tolist()
        return list(map(Place, rows.tolist(), shards.tolist(), offsets, sizes))

    def read(self, place: Place) -> bytes:
        """The encoded image. Raises UnreadableError where its shard is missing or ends before it."""
        _, number, offset, size = place
        try:
            descriptor = self._file(number).fileno()
            content = os.pread(descriptor, size, offset)
        except (WaveganError, OSError) as error:
            gone = DataError(self.index.shards[number].file, f"cannot be read: {getattr(error, 'strerror', None) or error}")
            raise UnreadableError([gone, self.finding(place, "lies in a shard that cannot be read")]) from error
        if len(content) < size:
            shard = self.index.shards[number]
            cut = DataError(shard.file, f"is cut short: {os.fstat(descriptor).st_size:,} of {shard.bytes:,} bytes")
            raise UnreadableError([cut, self.finding(place, "lies beyond the end of its shard")])
        return content

    def finding(self, place: Place, reason: str) -> DataError:
        """What to say of an image; its key where its header can still be read."""
        shard = self.index.shards[place.shard]
        try:
            key = key_at(self.index.storage.local(shard.file, shard.bytes, shard.sha256), place.offset)
        except (WaveganError, OSError):
            key = f"image {place.row - int(self.index.starts[place.shard])}"
        return DataError(shard.file, reason, place.row, key)

    def __getstate__(self) -> dict[str, object]:
        """For another process: which opens its own files."""
        return {**self.__dict__, "_open": OrderedDict()}

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
