"""`wavegan shards write`: turn pictures into WebDataset tars with an index; `OUT` appears only when it is complete."""

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
from wavegan_dist.data.bands import BandSums, band_std, no_sums
from wavegan_dist.data.chunks import Chunk, encode_chunk, split_into_chunks
from wavegan_dist.data.codec import ENCODINGS
from wavegan_dist.data.index import Index, Members, save_members
from wavegan_dist.data.left_out import LeftOut, by_reason, save_left_out, summary
from wavegan_dist.data.picture import BadPictureError
from wavegan_dist.data.shards import Shard
from wavegan_dist.data.sources import list_pictures
from wavegan_dist.data.tars import read_at, write_tar
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import check_folder, fsync, sha256
from wavegan_dist.processes import parallel_map
from wavegan_dist.work_folder import work_folder

Encoding = Literal["png", "jpg", "webp"]

MAX_SHARD_IMAGES = 2048  # images per shard unless `shard_images` is given
SHARD_MULTIPLE = 8  # the number of shards is a multiple of this, so that 2, 4 or 8 ranks share them evenly

EncodedImages = NDArray[np.int64]  # [images, 4]; columns: chunk, offset in the chunk's .bin file, size in bytes, label


def write_shards(
    source: str | Path,
    out: Path,
    size: int,
    *,
    patches: bool = False,
    encoding: Encoding = "png",
    labels: bool = False,
    shard_images: int | None = None,
    max_bad_fraction: float = 0.0,
    workers: int = 1,
    progress: bool = True,
) -> Index:
    """Write the images of `source` as shards into the new folder `out`; the same source gives the same bytes. Return the index.

    Images are distributed over the shards in a fixed random order: every shard is a random sample of the dataset. Until the
    write ends, `.OUT.partial` beside `out` holds the encoded images, from which an interrupted write resumes. `left_out.jsonl`
    in `out` lists all files of the source that are not in the dataset.

    Args:
        source: a folder, a zip, tars, a torchvision dataset or "embedded"; see `list_pictures`.
        out: a folder that does not exist or is empty, or a link to an empty one.
        size: image side in pixels, one of `config.RESOLUTIONS`.
        patches: cut patches out of the pictures instead of cropping and resizing them.
        encoding: "png" or "webp" (both lossless) or "jpg" (quality 95).
        labels: store the class of each image; see `list_pictures`.
        shard_images: largest number of images per shard. None: MAX_SHARD_IMAGES, and the number of shards is a multiple of
            SHARD_MULTIPLE, or the number of images if that is smaller.
        max_bad_fraction: largest fraction of the pictures that may be left out because they cannot be decoded.
        workers: number of worker processes; it does not affect the result.
        progress: show progress bars if stderr is a terminal.

    Raises:
        UsageError: an argument is invalid, `out` is a mount point or the working folder, `source` gives no image, another
            process writes to `out`, or `.OUT.partial` holds a write with other arguments.
        WaveganError: more pictures than `max_bad_fraction` cannot be decoded, or an archive is damaged or unsafe (the message
            names one); or a worker process died or lacks memory.
        OSError: a file or folder of the source cannot be read, or `out` cannot be written.
    """
    _check(out.absolute(), size, encoding, shard_images, max_bad_fraction)
    out = out.resolve()  # through a link to an empty folder: a link cannot be replaced by a folder
    listing = list_pictures(str(source), size, cut_patches=patches, labels=labels)
    settings = {"source": str(source), "size": size, "patches": patches, "encoding": encoding, "labels": labels}
    with work_folder(out, "shards write", settings, "*.bin") as work:
        chunks = split_into_chunks(listing.pictures, work, size, encoding)
        _encode(chunks, max_bad_fraction, workers, progress)
        images, sums, left_out = _encoded_images(chunks, source)
        with _complete_folder(out, work / "set") as folder:
            save_left_out(folder, [entry._replace(by="write") for entry in (*listing.left_out, *left_out)])
            jobs = _shard_jobs(folder, chunks, images, shard_images)
            _write_dataset(jobs, listing.classes, sums, workers, progress)
    return Index.load(out)


def _check(out: Path, size: int, encoding: str, shard_images: int | None, max_bad_fraction: float) -> None:
    if size not in RESOLUTIONS:
        nearest = min(RESOLUTIONS, key=lambda side: abs(side - size))
        raise UsageError(
            f"image size {size} is not a power of two from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]}; the nearest is {nearest}"
        )
    if encoding not in ENCODINGS:
        raise UsageError(f"encoding '{encoding}' is unknown; choose from {', '.join(ENCODINGS)}")
    if shard_images is not None and shard_images < 1:
        raise UsageError(f"{shard_images} images per shard is impossible; give 1 or more")
    if not 0 <= max_bad_fraction <= 1:
        raise UsageError(f"a fraction of {max_bad_fraction} bad pictures is impossible; give 0 to 1")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose a folder for the shards")
    check_folder(out, f"OUT {out}")
    if out.is_dir() and any(out.iterdir()):
        content = "shards" if (out / "index.json").exists() else "files"
        raise UsageError(f"{out} already holds {content}; remove it or choose another folder")
    if out.is_dir() and (out.resolve().is_mount() or out.samefile(Path.cwd())):
        raise UsageError(f"{out} is a mount point or the working folder, which cannot be replaced; name a new folder in it")


def _encode(chunks: Sequence[Chunk], max_bad_fraction: float, workers: int, progress: bool) -> None:
    missing = [chunk for chunk in chunks if not chunk.done]
    bad = [entry for chunk in chunks if chunk.done for entry in chunk.read().bad]
    pictures = sum(len(chunk.pictures) for chunk in chunks)
    with tqdm(total=pictures, desc="read", unit="picture", disable=None if progress else True) as bar:
        bar.update(pictures - sum(len(chunk.pictures) for chunk in missing))
        _check_bad(bad, pictures, max_bad_fraction)
        for chunk, new in zip(missing, parallel_map(encode_chunk, missing, workers), strict=True):
            bad += new
            _check_bad(bad, pictures, max_bad_fraction)
            bar.update(len(chunk.pictures))


def _check_bad(bad: Sequence[LeftOut], pictures: int, max_bad_fraction: float) -> None:
    """Raise WaveganError if more of the pictures than `max_bad_fraction` are bad."""
    if len(bad) <= max_bad_fraction * pictures:
        return
    error = BadPictureError(bad[-1].file, bad[-1].detail)
    if max_bad_fraction == 0:
        raise WaveganError(f"{error}, or leave such pictures out with --max-bad-fraction")
    raise WaveganError(
        f"{len(bad)} of {pictures} pictures cannot be decoded, more than --max-bad-fraction {max_bad_fraction:g} allows; "
        f"last {error}, or raise the fraction"
    )


def _encoded_images(chunks: Sequence[Chunk], source: str | Path) -> tuple[EncodedImages, BandSums, list[LeftOut]]:
    """Collect the results of chunks that are all `done`.

    Args:
        chunks: the chunks, at least one, in the order of the pictures.
        source: what the error message calls the source.

    Returns:
        The position and label of every encoded image, in the order of the pictures; the sums over the bands of all images; and
        the pictures that gave no image.

    Raises:
        UsageError: no picture gave an image.
    """
    parts, total, left_out = [], no_sums(chunks[0].size), list[LeftOut]()
    for number, chunk in enumerate(chunks):
        ends, labels, sums, bad, without_image = chunk.read()
        left_out += bad + without_image
        starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        parts.append(np.stack((np.full_like(ends, number), starts, ends - starts, labels), axis=1))
        total = total + sums
    images = np.concatenate(parts)
    if not len(images):
        raise UsageError(
            f"{source} gives no image: {'; '.join(summary(by_reason(left_out)))}; choose other pictures or a smaller size"
        )
    return images, total, left_out


class _ShardJob(NamedTuple):
    """One shard to write. Its keys are consecutive numbers from `first_key`."""

    path: Path
    size: int
    encoding: str
    first_key: int
    images: EncodedImages
    contents: Sequence[Path]  # .bin files, to which the first column of `images` refers

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of each member: the label, if there is one, and then its image."""
        for key, (chunk, offset, size, label) in enumerate(self.images.tolist(), self.first_key):
            if label >= 0:
                yield f"{key:08d}.cls", str(label).encode()
            yield f"{key:08d}.{self.encoding}", read_at(self.contents[chunk], offset, size)


def _shard_jobs(folder: Path, chunks: Sequence[Chunk], images: EncodedImages, shard_images: int | None) -> list[_ShardJob]:
    """Divide the images, in a fixed random order, into shards of nearly equal size: shard-000000.tar, ... in `folder`.

    `shard_images` is the largest number of images per shard; None: see `write_shards`.
    """
    _, size, encoding, _ = chunks[0]
    contents = [chunk.path.with_suffix(".bin") for chunk in chunks]
    order = rng_at(0, "shards/write", 0).permutation(len(images))
    parts = np.array_split(images[order], _shard_count(len(images), shard_images))
    first_keys = np.cumsum([0, *map(len, parts)]).tolist()
    return [
        _ShardJob(folder / f"shard-{number:06d}.tar", size, encoding, first_key, part, contents)
        for number, (first_key, part) in enumerate(zip(first_keys, parts, strict=False))
    ]


def _shard_count(images: int, shard_images: int | None) -> int:
    if shard_images is not None:
        return math.ceil(images / shard_images)
    return min(images, SHARD_MULTIPLE * math.ceil(images / (SHARD_MULTIPLE * MAX_SHARD_IMAGES)))


def _write_dataset(jobs: Sequence[_ShardJob], classes: list[str], sums: BandSums, workers: int, progress: bool) -> None:
    """Write all shards of a dataset in worker processes, then members.npy and index.json beside them.

    `sums` are the sums over the bands of all images in `jobs`; the index gets its standard deviations from them.
    """
    results = parallel_map(_write_shard, jobs, workers)
    bar = tqdm(results, "write", len(jobs), unit="shard", disable=None if progress else True)
    shards, members = zip(*bar, strict=True)
    folder = jobs[0].path.parent
    first_level, *deeper = band_std(sums)
    Index(
        size=jobs[0].size,
        count=sum(shard.images for shard in shards),
        encoding=jobs[0].encoding,
        classes=classes,
        band_std=first_level,
        deeper_band_std=deeper,
        members_sha256=save_members(members, folder),
        shards=list(shards),
    ).save(folder)


def _write_shard(job: _ShardJob) -> tuple[Shard, Members]:
    written = write_tar(job.path, job.files())
    rows = np.array([position for name, position in written if not name.endswith(".cls")], dtype=np.int64)
    shard = Shard(file=job.path.name, images=len(rows), bytes=job.path.stat().st_size, sha256=sha256(job.path))
    return shard, np.column_stack((rows, job.images[:, 3]))


@contextmanager
def _complete_folder(out: Path, work: Path) -> Iterator[Path]:
    """Yield the empty folder `work`, which is renamed to `out` when the block ends without an error.

    The block must fsync the files that it writes. After an error, `work` is deleted.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        fsync(work)
        work.rename(out)
        fsync(out.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
