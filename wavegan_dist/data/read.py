"""Read the encoded bytes of an image, given its row in the index, with one `pread`: no tar is parsed."""

import os
from collections import OrderedDict
from typing import BinaryIO, NamedTuple

import numpy as np

from wavegan_dist.data.error_log import DataError
from wavegan_dist.data.mixture import TrainingData
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.tars import key_at
from wavegan_dist.errors import UsageError, WaveganError

OPEN_FILES = 128  # largest number of shards that a reader keeps open


class ImageLocation(NamedTuple):
    """Where the encoded image of one row of the index is stored."""

    row: int
    shard: int  # position of the shard in `Index.shards`
    offset: int  # of the image in the shard, in bytes
    size: int  # of the encoded image, in bytes


class UnreadableError(WaveganError):
    """An encoded image that cannot be read.

    Args:
        errors: the error of the image and, if the whole shard is missing or cut short, the error of the shard.
    """

    def __init__(self, errors: list[DataError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class Reader:
    """Reads encoded images by row and keeps recently used shards open. An unpickled copy opens its own files.

    Args:
        index: the dataset or datasets; shards of a remote dataset are downloaded into its cache when they are first read.
    """

    def __init__(self, index: TrainingData) -> None:
        self.index = index
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()  # by shard, least recently used first

    def locations(self, rows: RowIndices) -> list[ImageLocation]:
        """Look up where the images of `rows` are stored; no shard is opened."""
        shards = np.searchsorted(self.index.starts, rows, side="right") - 1
        offsets, sizes, _ = self.index.entries(rows).T.tolist()
        return list(map(ImageLocation, rows.tolist(), shards.tolist(), offsets, sizes))

    def read(self, location: ImageLocation) -> bytes:
        """Read the encoded file of one image from its tar shard.

        A remote shard is downloaded whole on first use and kept in the cache of the dataset.

        Raises:
            UnreadableError: the shard cannot be opened, read or downloaded, or ends before the image does.
        """
        _, number, offset, size = location
        try:
            descriptor = self._file(number).fileno()
            content = os.pread(descriptor, size, offset)
        except (WaveganError, OSError) as error:
            reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            shard_error = DataError(self.index.locate_shard(number)[2], reason)
            image_error = self.image_error(location, "is in a shard that cannot be read")
            raise UnreadableError([shard_error, image_error]) from error
        if len(content) < size:
            _, shard, name = self.index.locate_shard(number)
            reason = f"is cut short: {os.fstat(descriptor).st_size:,} of {shard.bytes:,} bytes"
            image_error = self.image_error(location, "is beyond the end of its shard")
            raise UnreadableError([DataError(name, reason), image_error])
        return content

    def image_error(self, location: ImageLocation, reason: str) -> DataError:
        """Describe an image that cannot be used, named by its key or, if its tar header is unreadable, by its position."""
        storage, shard, name = self.index.locate_shard(location.shard)
        try:
            key = key_at(storage.local(shard.file, shard.bytes, shard.sha256), location.offset)
        except (WaveganError, OSError):
            key = f"image {location.row - int(self.index.starts[location.shard])}"
        return DataError(name, reason, location.row, key)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}  # files cannot be pickled

    def _file(self, number: int) -> BinaryIO:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            storage, shard, _ = self.index.locate_shard(number)
            self._open[number] = storage.open(shard.file, shard.bytes, shard.sha256)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        return self._open[number]


def check_present(index: TrainingData, max_bad_fraction: float) -> None:
    """Check that the shards of each local dataset exist; nothing is read, and remote datasets are not checked.

    Raises:
        UsageError: the missing shards of a dataset hold more than the fraction `max_bad_fraction` of its images.
    """
    for one in index.sets:
        if one.storage.is_remote:
            continue
        missing = [shard for shard in one.shards if not (one.folder / shard.file).is_file()]
        images = sum(shard.images for shard in missing)
        if images > max_bad_fraction * one.count:
            names = ", ".join(shard.file for shard in missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise UsageError(
                f"{len(missing)} of {len(one.shards)} shards ({images} images) are missing from {one.folder}: {names}; "
                "copy or write them again, or raise data.max_bad_fraction"
            )
