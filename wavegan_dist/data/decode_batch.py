"""Batches in place: images are decoded into memory that is there already and that all processes share."""

import itertools
import math
from mmap import mmap

import torch
from torch import Tensor

from wavegan_dist.data.codec import decode_into
from wavegan_dist.data.error_log import DataError
from wavegan_dist.data.order import RowIndices
from wavegan_dist.data.read import Reader, UnreadableError
from wavegan_dist.errors import WaveganError


def shared_pixels(batches: int, images: int, size: int) -> Tensor:
    """Memory for batches that processes forked later share, uint8 [batches, images, size, size, 3].

    It is of no file, so /dev/shm, which containers keep small, does not bound it. Fresh memory for each batch would cost a
    third of a worker's time at 64 px: handing it over, and a page fault every 4 KiB.
    """
    shape = (batches, images, size, size, 3)
    return torch.frombuffer(mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape)


def fill(pixels: Tensor, rows: RowIndices, reader: Reader) -> list[DataError]:
    """Decode the images of `rows` into `pixels`, uint8 [len(rows), S, S, 3], each into its place.

    Returns:
        What could not be read. A neighbour takes the place of such an image, unless nothing could be read at all: `pixels`
        hold anything then.
    """
    good, findings = [], []
    for slot, (place, out) in enumerate(zip(reader.places(rows), pixels.numpy(), strict=True)):
        try:
            decode_into(reader.read(place), out, "it")
            good.append(slot)
        except UnreadableError as error:
            findings += error.findings
        except WaveganError as error:
            findings.append(reader.finding(place, str(error).partition(";")[0].removeprefix("it ")))
    if 0 < len(good) < len(rows):
        spare = itertools.cycle(good)
        for slot in sorted(set(range(len(rows))) - set(good)):
            pixels[slot] = pixels[next(spare)]
    return findings
