"""Reading one shard, every image accounted for."""

import tarfile
from collections.abc import Iterator

from webdataset.tariterators import tarfile_samples

from wavegan_dist.data.index import Index, Shard
from wavegan_dist.errors import UsageError, WaveganError


def read_shard(index: Index, shard: Shard) -> Iterator[tuple[str, bytes]]:
    """(name, encoded image) of each image of a shard, in the tar's order; the name is for messages.

    Raises:
        WaveganError: the tar is damaged, cut short or gone, or does not hold as many images as the index says: the
            stock reader would end early without a word.
    """
    path = index.folder / shard.file
    images = 0
    try:
        for sample in tarfile_samples([{"url": str(path)}]):
            if index.encoding in sample:
                yield f"image {sample['__key__']}.{index.encoding} of {path}", sample[index.encoding]
                images += 1
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        reason = type(error).__name__
        raise WaveganError(f"{path} cannot be read beyond image {images} of {shard.images} ({reason}); {_ADVICE}") from error
    if images != shard.images:
        raise WaveganError(f"{path} holds {images} images but the index says {shard.images}; {_ADVICE}")


def check_present(index: Index) -> None:
    """Raises UsageError where a shard of the index is missing."""
    missing = [shard.file for shard in index.shards if not (index.folder / shard.file).is_file()]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{len(missing)} of {len(index.shards)} shards are missing from {index.folder}: {names}; copy or write them again"
        )


_ADVICE = "find all damage with `wavegan shards verify`, then copy or write the set again"
