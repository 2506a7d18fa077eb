"""`wavegan shards write`: images into WebDataset tars and an index, all or nothing."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm
from webdataset import TarWriter

from wavegan_dist.config import RESOLUTIONS
from wavegan_dist.counted import generator
from wavegan_dist.data.bands import BandStatistics
from wavegan_dist.data.codec import ENCODINGS, decode, encode
from wavegan_dist.data.index import Index, Shard
from wavegan_dist.data.sources import Source
from wavegan_dist.data.spool import Spool
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_dir, sha256

Encoding = Literal["png", "jpg"]

SHARD_IMAGES = 2048  # at most so many images a shard, unless asked otherwise
SHARD_MULTIPLE = 8  # shards come in multiples of this, so that 2, 4 or 8 readers share them evenly


def write_shards(
    source: str | Path,
    out: Path,
    size: int,
    *,
    patches: bool = False,
    encoding: Encoding = "png",
    shard_images: int | None = None,
    progress: bool = True,
) -> Index:
    """Write the images of `source` as shards into the new folder `out`; the same source gives the same bytes.

    The images are spread over the shards, and within each, in a fixed random order: every shard is a fair sample.

    Args:
        source: a folder of pictures or "embedded"; see `sources.Source`, also for `patches`.
        out: a folder that does not exist or is empty. It appears when all is written; a failure leaves nothing.
        size: image side in pixels, a power of two from 32 to 256.
        patches: cut patches out of the pictures instead of resizing them.
        encoding: "png" (lossless) or "jpg" (quality 95).
        shard_images: at most so many images a shard; None chooses, with at least 8 shards if there are 8 images.
        progress: show bars on stderr where that is a terminal.

    Raises:
        UsageError: an impossible size or encoding, `out` holds something, or the source gives no image.
        WaveganError: a picture cannot be decoded; the message names it.
        OSError: the disk is full, a folder is not writable and the like.
    """
    _check(out, size, encoding, shard_images)
    pictures = Source(source, size, patches=patches)
    bands = BandStatistics()
    with atomic_dir(out.absolute()) as folder:
        with Spool(folder) as spool:
            for picture in tqdm(pictures.pictures, "read", unit="picture", disable=None if progress else True):
                for image in pictures.images(picture):
                    content = encode(image, encoding)
                    spool.append(content)
                    bands.add(decode(content, size, str(picture[0])))
            if not len(spool):
                raise UsageError(
                    f"{source} gives no image: every picture is smaller than {size}x{size} px or flat; choose a smaller size"
                )
            shards = _write_tars(folder, spool, encoding, shard_images, progress)
        index = Index(size=size, count=len(spool), encoding=encoding, band_std=bands.std(), shards=shards)
        index.save(folder)
    return Index.load(out)


def _check(out: Path, size: int, encoding: str, shard_images: int | None) -> None:
    if size not in RESOLUTIONS:
        nearest = min(RESOLUTIONS, key=lambda side: abs(side - size))
        raise UsageError(f"image size {size} is not a power of two from 32 to 256; the nearest is {nearest}")
    if encoding not in ENCODINGS:
        raise UsageError(f"encoding '{encoding}' is unknown; choose from {', '.join(ENCODINGS)}")
    if shard_images is not None and shard_images < 1:
        raise UsageError(f"{shard_images} images a shard is impossible; ask for 1 or more")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose a folder for the shards")
    if out.is_dir() and any(out.iterdir()):
        held = "shards" if (out / "index.json").exists() else "files"
        raise UsageError(f"{out} already holds {held}; remove it or choose another folder")


def _write_tars(folder: Path, spool: Spool, encoding: Encoding, shard_images: int | None, progress: bool) -> list[Shard]:
    order = generator(0, "shards/write", 0).permutation(len(spool))
    parts = np.array_split(order, _shard_count(len(spool), shard_images))
    shards, first = [], 0
    for number, part in enumerate(tqdm(parts, "write", unit="shard", disable=None if progress else True)):
        path = folder / f"shard-{number:06d}.tar"
        _write_tar(path, first, [int(position) for position in part], spool, encoding)
        shards.append(Shard(file=path.name, images=len(part), bytes=path.stat().st_size, sha256=sha256(path)))
        first += len(part)
    return shards


def _write_tar(path: Path, first: int, positions: Sequence[int], spool: Spool, encoding: Encoding) -> None:
    """A tar whose bytes depend on the images alone; keys count on from `first`."""
    with path.open("wb") as file, TarWriter(file, user="", group="", mode=0o644, encoder=False, mtime=0) as tar:
        for key, position in enumerate(positions, first):
            tar.write({"__key__": f"{key:08d}", encoding: spool[position]})


def _shard_count(images: int, shard_images: int | None) -> int:
    if shard_images is not None:
        return math.ceil(images / shard_images)
    return min(images, SHARD_MULTIPLE * math.ceil(images / (SHARD_MULTIPLE * SHARD_IMAGES)))
