"""`wavegan shards write`: images into WebDataset tars and an index, all or nothing."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavegan_dist.config import RESOLUTIONS
from wavegan_dist.counted import rng_at
from wavegan_dist.data.bands import BandSums, band_std
from wavegan_dist.data.codec import ENCODINGS
from wavegan_dist.data.index import Index, Members, Shard, save_members
from wavegan_dist.data.pieces import Piece, make_piece, split, work_folder
from wavegan_dist.data.sources import find
from wavegan_dist.data.tars import read_at, write_tar
from wavegan_dist.errors import UsageError
from wavegan_dist.files import fsync, sha256
from wavegan_dist.processes import parallel_map

Encoding = Literal["png", "jpg", "webp"]

SHARD_IMAGES = 2048  # at most so many images a shard, unless asked otherwise
SHARD_MULTIPLE = 8  # shards come in multiples of this, so that 2, 4 or 8 readers share them evenly


Places = NDArray[np.int64]  # [images, 4]: piece, offset and size in it, label


class _Shard(NamedTuple):
    """One tar to write: keys count on from `first`; `places` point into the files `contents`."""

    path: Path
    first: int
    contents: Sequence[Path]
    encoding: str
    places: Places

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of each member: the label, where there is one, beside its image."""
        for key, (piece, offset, size, label) in enumerate(self.places.tolist(), self.first):
            if label >= 0:
                yield f"{key:08d}.cls", str(label).encode()
            yield f"{key:08d}.{self.encoding}", read_at(self.contents[piece], offset, size)


def write_shards(
    source: str | Path,
    out: Path,
    size: int,
    *,
    patches: bool = False,
    encoding: Encoding = "png",
    labels: bool = False,
    shard_images: int | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Index:
    """Write the images of `source` as shards into the new folder `out`; the same source gives the same bytes.

    The images are spread over the shards, and within each, in a fixed random order: every shard is a fair sample. What is
    encoded is kept in `.OUT.partial` beside `out` until all is done: a write that was stopped goes on from there.

    Args:
        source: a folder, a zip, tars, a torchvision dataset or "embedded"; see `sources.find`, also for `labels`.
        out: a folder that does not exist or is empty. It appears when all is written.
        size: image side in pixels, a power of two from 32 to 256.
        patches: cut patches out of the pictures instead of cropping and resizing them.
        encoding: "png" or "webp" (both lossless) or "jpg" (quality 95).
        labels: write each image's class as a .cls member and into the index.
        shard_images: at most so many images a shard; None chooses, with at least 8 shards if there are 8 images.
        workers: processes; their number does not change a byte.
        progress: show bars on stderr where that is a terminal.

    Raises:
        UsageError: an impossible size or encoding, `out` holds something, the source gives no image, or a write of other
            settings waits to be finished.
        WaveganError: a picture cannot be decoded or an archive is unsafe; the message names it.
        OSError: the disk is full, a folder is not writable and the like.
    """
    out = out.absolute()
    _check(out, size, encoding, shard_images)
    found = find(str(source), size, cut=patches, labels=labels)
    settings = {"source": str(source), "size": size, "patches": patches, "encoding": encoding, "labels": labels}
    with work_folder(out, settings) as work:
        pieces = split(found.pictures, work, size, encoding)
        _make(pieces, workers, progress)
        places, sums = _gather(pieces)
        if not len(places):
            raise UsageError(
                f"{source} gives no image: every picture is smaller than {size}x{size} px or flat; choose a smaller size"
            )
        with _appearing(out, work / "set") as folder:
            jobs = _plan(folder, pieces, places, shard_images)
            bar = tqdm(
                parallel_map(_write_shard, jobs, workers), "write", len(jobs), unit="shard", disable=None if progress else True
            )
            shards, members = zip(*bar, strict=True)
            Index(
                size=size,
                count=len(places),
                encoding=encoding,
                classes=found.classes,
                band_std=band_std(sums),
                members_sha256=save_members(np.concatenate(members), folder),
                shards=list(shards),
            ).save(folder)
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


def _make(pieces: Sequence[Piece], workers: int, progress: bool) -> None:
    missing = [piece for piece in pieces if not piece.done]
    pictures = sum(len(piece.pictures) for piece in pieces)
    with tqdm(total=pictures, desc="read", unit="picture", disable=None if progress else True) as bar:
        bar.update(pictures - sum(len(piece.pictures) for piece in missing))
        for piece, _ in zip(missing, parallel_map(make_piece, missing, workers), strict=True):
            bar.update(len(piece.pictures))


def _gather(pieces: Sequence[Piece]) -> tuple[Places, BandSums]:
    """Where all encoded images lie, in the order of the pictures, and the sums over their bands."""
    places, total = [], np.zeros((4, 3))
    for number, piece in enumerate(pieces):
        ends, labels, sums = piece.read()
        starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        places.append(np.stack((np.full_like(ends, number), starts, ends - starts, labels), axis=1))
        total += sums
    return np.concatenate(places), total


def _plan(folder: Path, pieces: Sequence[Piece], places: Places, shard_images: int | None) -> list[_Shard]:
    """What goes into each shard: equal parts of a fixed random order."""
    contents = [piece.path.with_suffix(".bin") for piece in pieces]
    order = rng_at(0, "shards/write", 0).permutation(len(places))
    parts = np.array_split(places[order], _shard_count(len(places), shard_images))
    firsts = np.cumsum([0, *map(len, parts)]).tolist()
    return [
        _Shard(folder / f"shard-{number:06d}.tar", first, contents, pieces[0].encoding, part)
        for number, (first, part) in enumerate(zip(firsts, parts, strict=False))
    ]


def _write_shard(job: _Shard) -> tuple[Shard, Members]:
    placed = write_tar(job.path, job.files())
    rows = np.array([place for name, place in placed if not name.endswith(".cls")], dtype=np.int64)
    shard = Shard(file=job.path.name, images=len(rows), bytes=job.path.stat().st_size, sha256=sha256(job.path))
    return shard, np.column_stack((rows, job.places[:, 3]))


def _shard_count(images: int, shard_images: int | None) -> int:
    if shard_images is not None:
        return math.ceil(images / shard_images)
    return min(images, SHARD_MULTIPLE * math.ceil(images / (SHARD_MULTIPLE * SHARD_IMAGES)))


@contextmanager
def _appearing(out: Path, work: Path) -> Iterator[Path]:
    """An empty folder that becomes `out` when the block ends well; its files must be safe on the disk by then."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        fsync(work)
        work.rename(out)
        fsync(out.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
