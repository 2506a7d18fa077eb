"""WebDataset shards, named as those of `wavegan shards write`."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from wavegan_dist.data.tars import write_tar
from wavegan_dist.data.write import MAX_SHARD_IMAGES, SHARD_MULTIPLE
from wavegan_dist.sample.encoded import encoded
from wavegan_dist.sample.images import Images
from wavegan_dist.sample.workers import Workers

MAX_SHARD_PIXELS = 2**27  # an interrupted command generates the images of an unfinished shard again


def write_sample_shards(workers: Workers, images: Images, folder: Path) -> None:
    """Write the shards that `folder` lacks: shard-000000.tar, ..., with members KEY.cls (a model with classes) and KEY.png.

    A shard appears when it is complete. The key of image i is `images.names[i]`, its number or seed, in eight digits or more.

    Args:
        workers: the threads.
        images: the images; `divide` says which are in which shard.
        folder: the folder of the shards; created if it does not exist.

    Raises:
        WaveganError: an image is not finite.
        OSError: a shard cannot be written.
    """
    shards = {folder / f"shard-{number:06d}.tar": part for number, part in enumerate(divide(images.count, images.resolution))}
    missing = {path: part for path, part in shards.items() if not path.exists()}
    contents = encoded(workers, images, {number for part in missing.values() for number in part})
    classes = images.classes()
    for path, part in missing.items():
        write_tar(path, _members(islice(contents, len(part)), images, classes))


def divide(count: int, resolution: int) -> list[range]:
    """Divide the numbers of `count` images into shards of nearly equal size: a multiple of 8 shards, or `count` if it is less.

    A shard has at most 2048 images, and at most 2**27 pixels: 512 images of 512 px, 128 of 1024 px.
    """
    largest = min(MAX_SHARD_IMAGES, MAX_SHARD_PIXELS // resolution**2)
    shards = min(count, SHARD_MULTIPLE * math.ceil(count / (SHARD_MULTIPLE * largest)))
    return [range(count * number // shards, count * (number + 1) // shards) for number in range(shards)]


def _members(contents: Iterator[tuple[int, bytes]], images: Images, classes: list[int]) -> Iterator[tuple[str, bytes]]:
    for number, content in contents:
        key = f"{images.names[number]:08d}"
        if classes:
            yield f"{key}.cls", str(classes[number]).encode()
        yield f"{key}.png", content
