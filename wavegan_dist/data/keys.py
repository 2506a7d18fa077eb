"""Names of the images of a batch, for error messages and diagnostics."""

from wavegan_dist.data.mixture import TrainingData
from wavegan_dist.data.read import Reader


def batch_keys(index: TrainingData, seed: int, first: int, batch_size: int, share: slice) -> list[str]:
    """Name the images of one rank's share of a global batch.

    Reads a tar header for each image, and no pixels. A remote shard that is not in the cache is downloaded.

    Args:
        index: the dataset or datasets.
        seed: seed of the data order.
        first: number of images that all ranks together have seen before this batch.
        batch_size: images of the global batch.
        share: the rank's slice of the global batch.

    Returns:
        `SHARD: KEY` of each image, in the order of the batch; `SHARD: image N`, with its number in the shard from 0, for an
        image whose header cannot be read.

    Raises:
        UsageError, WaveganError: members.npy cannot be read; see `Index.members`.
    """
    reader = Reader(index)
    rows = index.order(seed).batch(first, batch_size)[share]
    images = [reader.image_error(location, "") for location in reader.locations(rows)]
    return [f"{image.shard}: {image.image}" for image in images]
