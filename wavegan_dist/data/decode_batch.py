"""Decode batches into preallocated memory that the loader's worker processes share."""

import itertools
import math
from collections.abc import Sequence
from mmap import mmap
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavegan_dist.data.codec import DecodeError, decode_into
from wavegan_dist.data.error_log import DataError
from wavegan_dist.data.mixture import TrainingData
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.read import Reader, UnreadableError


class ImageBatch(NamedTuple):
    """Images and their labels.

    Attributes:
        images: uint8 [B, 3, S, S].
        labels: the class of each image, int64 [B], -1 for an image without one; None if the labels were not requested.
    """

    images: Tensor
    labels: Tensor | None = None


class Buffers(NamedTuple):
    """Preallocated batches on the CPU: images uint8 [count, batch_size, size, size, 3], labels int64 [count, batch_size]."""

    images: Tensor
    labels: Tensor


def shared_buffers(count: int, batch_size: int, size: int) -> Buffers:
    """Allocate `count` batches of `batch_size` images of `size` x `size` pixels, which processes forked later share.

    The memory is an anonymous mapping: unlike PyTorch's shared tensors it does not count against /dev/shm, which is small in
    containers. Workers reuse it, because sending freshly allocated batches to the parent would cost a third of a worker's
    time at 64 px, mostly in page faults.
    """
    return Buffers(_shared(torch.uint8, count, batch_size, size, size, 3), _shared(torch.int64, count, batch_size))


def _shared(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.frombuffer(mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


def decode_batch(reader: Reader, rows: RowIndices, out_bhwc: Tensor) -> tuple[RowIndices, list[DataError]]:
    """Read the images at `rows` of the index and decode them into `out_bhwc`, in the order of `rows`.

    An image that cannot be read or decoded is replaced by another image of the batch. If no image can be read, `out_bhwc` is
    left with arbitrary values.

    Args:
        reader: reads the encoded images.
        rows: rows of the index, int64 [B].
        out_bhwc: contiguous uint8 [B, S, S, 3] on the CPU, with the side S of the images.

    Returns:
        The row of each image that `out_bhwc` now holds: `rows` with replacements, or without any if no image can be read. And
        the errors: for each image that could not be read or decoded, the error of the image, and before it the error of the
        shard if the shard is the cause; empty if all images were decoded.

    Raises:
        UsageError, WaveganError: members.npy cannot be read; see `Index.members`.
    """
    decoded_rows = rows.copy()
    decoded, errors = [], []
    for slot, (location, out_hwc) in enumerate(zip(reader.locations(rows), out_bhwc.numpy(), strict=True)):
        try:
            decode_into(reader.read(location), out_hwc)
            decoded.append(slot)
        except UnreadableError as error:
            errors += error.errors
        except DecodeError as error:
            errors.append(reader.image_error(location, error.reason))
    if 0 < len(decoded) < len(rows):
        replacement = itertools.cycle(decoded)
        for slot in sorted(set(range(len(rows))) - set(decoded)):
            other = next(replacement)
            out_bhwc[slot], decoded_rows[slot] = out_bhwc[other], rows[other]
    return decoded_rows, errors


def unreadable_rows(index: TrainingData, rows: Sequence[int]) -> list[int]:
    """Return those of the `rows` of the dataset whose images cannot be read or decoded. Not collective.

    Raises:
        UsageError, WaveganError: members.npy cannot be read; see `Index.members`.
    """
    reader, out_bhwc = Reader(index), torch.empty(1, index.size, index.size, 3, dtype=torch.uint8)
    return [row for row in rows if decode_batch(reader, np.array([row]), out_bhwc)[1]]
