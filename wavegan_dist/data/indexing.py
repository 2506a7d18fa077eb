"""`wavegan shards index`: an index for tars that somebody else wrote; the tars stay as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavegan_dist.config import RESOLUTIONS
from wavegan_dist.counted import rng_at
from wavegan_dist.data.bands import BandStdAccumulator, BandSums, band_std
from wavegan_dist.data.codec import decode
from wavegan_dist.data.index import Index, Members, Shard, save_members
from wavegan_dist.data.pixels import open_picture
from wavegan_dist.data.tars import key_at, pair, read_at, walk
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import sha256
from wavegan_dist.processes import parallel_map

# Extensions of the images that training reads, and what the index calls them.
TRAINABLE = {"png": "png", "jpg": "jpg", "jpeg": "jpg", "webp": "webp"}
MEASURED = 10_000  # images at most, drawn at random, from which the standard deviations of the bands are taken


def index_shards(folder: Path, *, workers: int = 1) -> Index:
    """Write index.json and members.npy beside the tars of a folder, replacing older ones.

    Members other than images and their labels (KEY.cls) are left aside.

    Raises:
        UsageError: no tars; or an image that is not square, not of one size with the rest, or not of a power of two from
            32 to 256 pixels: named.
        WaveganError: a tar is damaged, holds no image, a link, a device, a name that leads out of it or a key twice; or
            an image cannot be read: named.
    """
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise UsageError(f"{folder} holds no .tar; give the folder of the shards, or make some with `wavegan shards write`")
    found = list(tqdm(parallel_map(_survey, paths, workers), "index", len(paths), unit="shard", disable=None))
    side = found[0].side
    for path, other in zip(paths, found, strict=True):
        if other.side != side:
            raise UsageError(f"images are {side} px in {paths[0].name} but {other.side} px in {path.name}; {_rewrite(path)}")
    members = np.concatenate([one.members for one in found])
    encodings = set().union(*(one.encodings for one in found))
    index = Index(
        size=side,
        count=len(members),
        encoding=encodings.pop() if len(encodings) == 1 else "mixed",
        band_std=band_std(_measure(paths, found, side, workers)),
        members_sha256=save_members(members, folder),
        shards=[one.shard for one in found],
    )
    index.save(folder)
    return Index.load(folder)


class _ShardScan(NamedTuple):
    shard: Shard
    members: Members
    side: int
    encodings: set[str]


class _Draw(NamedTuple):
    path: Path
    side: int
    members: Members


def _survey(path: Path) -> _ShardScan:
    samples = pair(path, walk(path), TRAINABLE)
    if not samples:
        raise WaveganError(f"{path} holds no image; looked for {', '.join(f'.{kind}' for kind in TRAINABLE)}; take it away")
    sides = {_side(path, image.name, image.offset, image.size) for image, _ in samples[:1]}
    for image, _ in samples:
        if _side(path, image.name, image.offset, image.size) not in sides:
            raise UsageError(f"{image.name} in {path} has another size than the images before it; {_rewrite(path)}")
    shard = Shard(file=path.name, images=len(samples), bytes=path.stat().st_size, sha256=sha256(path))
    rows = np.array([(image.offset, image.size, label) for image, label in samples], dtype=np.int64)
    return _ShardScan(shard, rows, sides.pop(), {TRAINABLE[image.extension] for image, _ in samples})


def _side(path: Path, name: str, offset: int, size: int) -> int:
    """Side of a square image in pixels, from its header."""
    try:
        width, height = open_picture(read_at(path, offset, size)).size
    except Exception as error:  # Pillow raises almost anything on broken bytes
        raise WaveganError(f"{name} in {path} cannot be read as an image ({error}); mend it or take it away") from error
    if width != height or width not in RESOLUTIONS:
        sides = ", ".join(map(str, RESOLUTIONS))
        raise UsageError(f"{name} in {path} is {width}x{height} px, not square with a side of {sides}; {_rewrite(path)}")
    return width


def _rewrite(path: Path) -> str:
    return f"make them one size with `wavegan shards write {path.parent} OUT --size N`"


def _measure(paths: Sequence[Path], found: Sequence[_ShardScan], side: int, workers: int) -> BandSums:
    """Sums over the bands of MEASURED images, or of all."""
    count = sum(len(one.members) for one in found)
    drawn = np.zeros(count, dtype=bool)
    drawn[rng_at(0, "shards/index", 0).permutation(count)[:MEASURED]] = True
    parts: list[NDArray[np.bool_]] = np.split(drawn, np.cumsum([len(one.members) for one in found])[:-1])
    draws = [_Draw(path, side, one.members[part]) for path, one, part in zip(paths, found, parts, strict=True)]
    total: BandSums = sum(
        tqdm(parallel_map(_bands, draws, workers), "measure", len(draws), unit="shard", disable=None), np.zeros((4, 3))
    )
    return total


def _bands(draw: _Draw) -> BandSums:
    bands = BandStdAccumulator()
    for offset, size, _ in draw.members.tolist():
        name = f"image {key_at(draw.path, offset)} of {draw.path}"
        bands.add(decode(read_at(draw.path, offset, size), draw.side, name))
    return bands.sums()
