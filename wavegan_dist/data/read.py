"""Read the encoded bytes of an image, given its row in the index, with one `pread`: no tar is parsed."""

import os
import time
from collections import OrderedDict
from typing import BinaryIO, NamedTuple

import numpy as np

from wavegan_dist.data.error_log import SHARD_UNREADABLE, DataError
from wavegan_dist.data.mixture import TrainingData
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.tars import key_at
from wavegan_dist.errors import UsageError, WaveganError

OPEN_FILES = 128  # largest number of shards that a reader keeps open
MAX_IMAGE_BYTES = 2**30  # of an encoded image
IDLE = 30.0  # seconds without a read after which a reader closes a shard that the cache has deleted
PAUSE = 60.0  # seconds until a shard whose download has failed is requested again


class ImageLocation(NamedTuple):
    """Where the encoded image of one row of the index is stored."""

    row: int
    shard: int  # number of the shard, for `locate_shard` of the dataset or mixture
    offset: int  # of the image in the shard, in bytes
    size: int  # of the encoded image, in bytes


class UnreadableError(WaveganError):
    """An encoded image that cannot be read.

    Args:
        errors: the error of the shard, which is missing, unreadable or cut short, and then the error of the image.
    """

    def __init__(self, errors: list[DataError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class Reader:
    """Reads encoded images by row and keeps the last OPEN_FILES shards open. An unpickled copy opens its own files.

    When it opens a shard, it closes those that the cache has deleted and that were not read for IDLE seconds: a deleted file
    occupies its space until it is closed.

    Args:
        index: the dataset or datasets; shards of a remote dataset are downloaded into its cache when they are first read.
    """

    def __init__(self, index: TrainingData) -> None:
        self.index = index
        # By shard, least recently read first: the open file, and when it was read last.
        self._open: OrderedDict[int, tuple[BinaryIO, float]] = OrderedDict()
        self._failed: dict[int, tuple[float, WaveganError]] = {}  # by shard: when a download has failed, and why

    def locations(self, rows: RowIndices) -> list[ImageLocation]:
        """Look up where the images at `rows` of the index are stored, in the order of `rows`. No shard is opened.

        Raises:
            UsageError, WaveganError: members.npy cannot be read; see `Index.members`.
        """
        shards = np.searchsorted(self.index.starts, rows, side="right") - 1
        offsets, sizes, _ = self.index.entries(rows).T.tolist()
        return list(map(ImageLocation, rows.tolist(), shards.tolist(), offsets, sizes))

    def read(self, location: ImageLocation) -> bytes:
        """Read the encoded file of one image from its tar shard.

        A remote shard is downloaded whole on first use and kept in the cache of the dataset. If the download fails, which
        `remote.read` has then tried several times, all images of the shard are unreadable for PAUSE seconds.

        Raises:
            UnreadableError: the shard cannot be opened, read or downloaded, or ends before the image does, or the index is
                damaged.
        """
        _, number, offset, size = location
        if offset < 0 or not 0 < size <= MAX_IMAGE_BYTES:
            raise UnreadableError([self.image_error(location, f"is {size:,} bytes at byte {offset:,}, which is impossible")])
        try:
            descriptor = self._file(number).fileno()
            content = os.pread(descriptor, size, offset)
        except (WaveganError, OSError) as error:
            reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            shard_error = DataError(self.index.locate_shard(number)[2], reason)
            image_error = self.image_error(location, SHARD_UNREADABLE)
            raise UnreadableError([shard_error, image_error]) from error
        if len(content) < size:
            _, shard, name = self.index.locate_shard(number)
            reason = f"is cut short: {os.fstat(descriptor).st_size:,} of {shard.bytes:,} bytes"
            image_error = self.image_error(location, "is beyond the end of its shard")
            raise UnreadableError([DataError(name, reason), image_error])
        return content

    def image_error(self, location: ImageLocation, reason: str) -> DataError:
        """Return the `DataError` of an image with `reason`. Reads the key of the image from its tar header.

        If the header cannot be read, the key is "image N" instead, with the number of the image in its shard from 0.
        """
        storage, shard, name = self.index.locate_shard(location.shard)
        try:
            self._file(location.shard)  # raises the error of a failed download again, instead of another attempt
            key = key_at(storage.local(shard.file, shard.bytes, shard.sha256), location.offset)
        except (WaveganError, OSError):
            key = f"image {location.row - int(self.index.starts[location.shard])}"
        return DataError(name, reason, location.row, key)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict(), "_failed": {}}  # files cannot be pickled

    def _file(self, number: int) -> BinaryIO:
        file = self._open.pop(number)[0] if number in self._open else self._opened(number)
        self._open[number] = file, time.monotonic()
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1][0].close()
        return file

    def _close_deleted(self) -> None:
        for number, (file, read) in list(self._open.items()):
            if time.monotonic() < read + IDLE:
                return  # the files after it were read later
            if not os.fstat(file.fileno()).st_nlink:
                del self._open[number]
                file.close()

    def _opened(self, number: int) -> BinaryIO:
        when, failure = self._failed.get(number, (-PAUSE, None))
        if failure and time.monotonic() < when + PAUSE:
            raise failure
        self._close_deleted()
        storage, shard, _ = self.index.locate_shard(number)
        try:
            return storage.open(shard.file, shard.bytes, shard.sha256)
        except WaveganError as error:
            self._failed[number] = (time.monotonic(), error)
            raise


def check_present(index: TrainingData, max_bad_fraction: float) -> None:
    """Check that the shards of each local dataset exist, and that each remote dataset has a cache; no shard is opened.

    Raises:
        UsageError: the missing shards of a dataset hold more than the fraction `max_bad_fraction` of the images of this
            dataset, or a remote dataset has no cache.
        OSError: the folder of a dataset cannot be listed.
    """
    for one in index.sets:
        if one.storage.is_remote:
            one.storage.check_cache()
            continue
        with os.scandir(one.folder) as entries:  # asking for 100,000 files one by one takes seconds, or minutes on a network
            files = {entry.name for entry in entries if entry.is_file()}
        missing = [number for number, file in enumerate(one.shards.files) if file not in files]
        images = int(one.shards.images[missing].sum())
        if images > max_bad_fraction * one.count:
            names = ", ".join(one.shards.files[number] for number in missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise UsageError(
                f"{len(missing)} of {len(one.shards)} shards ({images} images) are missing from {one.folder}: {names}; "
                "copy or write them again, or raise data.max_bad_fraction"
            )
