"""webdataset: the usual pipeline. It has no state, so a resumed run begins the epoch again."""

from pathlib import Path

import webdataset
from protocol import Dataset, Loading, Rank, main

SHUFFLE_BUFFER = 1000  # images


def write(_dataset: Dataset) -> None:
    """Do nothing: the driver's tars are WebDataset shards."""


def load(rank: Rank) -> Loading:
    """Split the shards by rank and worker, shuffle, decode, batch."""
    if rank.source.startswith("s3://"):
        folder = f"{rank.endpoint}/{rank.source.removeprefix('s3://')}"
        names = Path(rank.cache.parent, "tars.txt").read_text().split()
        shards = [f"pipe:curl -s -L {folder}/{name}" for name in names]
    else:
        shards = sorted(map(str, Path(rank.source).glob("*.tar")))
    dataset = webdataset.WebDataset(
        shards, nodesplitter=webdataset.split_by_node, shardshuffle=len(shards), seed=0, detshuffle=True
    )
    images = dataset.shuffle(SHUFFLE_BUFFER).decode("torchrgb8").to_tuple("cls", rank.encoding).batched(rank.batch)
    return Loading(webdataset.WebLoader(images, batch_size=None, num_workers=rank.workers), lambda: None)


if __name__ == "__main__":
    main(write, load)
