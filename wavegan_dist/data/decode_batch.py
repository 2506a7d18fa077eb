"""Decode batches into preallocated memory that the loader's worker processes share."""

import itertools
import math
from mmap import mmap

import torch
from torch import Tensor

from wavegan_dist.data.codec import DecodeError, decode_into
from wavegan_dist.data.error_log import DataError
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.read import Reader, UnreadableError


def shared_buffers(count: int, batch_size: int, size: int) -> Tensor:
    """Allocate `count` batches that processes forked later share: uint8 [count, batch_size, size, size, 3].

    The memory is an anonymous mapping: unlike PyTorch's shared tensors it does not count against /dev/shm, which is small in
    containers. Workers reuse it, because sending freshly allocated batches to the parent would cost a third of a worker's
    time at 64 px, mostly in page faults.
    """
    shape = (count, batch_size, size, size, 3)
    return torch.frombuffer(mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape)


def decode_batch(reader: Reader, rows: RowIndices, out_bhwc: Tensor) -> list[DataError]:
    """Read the images at `rows` of the index and decode them into `out_bhwc`, uint8 [len(rows), S, S, 3], in that order.

    An image that cannot be read is replaced by another image of the batch. If no image can be read, `out_bhwc` is left with
    arbitrary values.

    Returns:
        The errors, one or more for each image that could not be read; empty if all images were read.
    """
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
            out_bhwc[slot] = out_bhwc[next(replacement)]
    return errors
