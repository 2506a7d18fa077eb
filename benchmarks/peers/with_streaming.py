"""MosaicML streaming: MDS shards, StreamingDataLoader; rank 0's state_dict, as documented, is loaded by every rank."""

from typing import Any

import cv2
import numpy as np
from protocol import Dataset, Loading, Rank, main
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.util import clean_stale_shared_memory


class Images(StreamingDataset):
    """Decodes the images."""

    def __getitem__(self, at: Any) -> Any:
        sample = super().__getitem__(at)
        return sample["id"], cv2.imdecode(np.frombuffer(sample["image"], np.uint8), cv2.IMREAD_COLOR_RGB)


def write(dataset: Dataset) -> None:
    """Write MDS shards."""
    columns = {"id": "int", "image": "bytes"}
    with MDSWriter(out=str(dataset.folder), columns=columns, size_limit=dataset.shard_bytes) as writer:
        for sample in dataset.samples():
            writer.write({"id": sample.id, "image": sample.content})


def load(rank: Rank) -> Loading:
    """Load the state of rank 0."""
    remote = rank.source if rank.source.startswith("s3://") else None
    local = str(rank.cache) if remote else rank.source
    dataset = Images(remote=remote, local=local, shuffle=True, batch_size=rank.batch)
    loader = StreamingDataLoader(dataset, batch_size=rank.batch, num_workers=rank.workers)
    if rank.former:
        loader.load_state_dict(rank.former[0])
    return Loading(loader, loader.state_dict)


if __name__ == "__main__":
    clean_stale_shared_memory()  # of killed runs
    main(write, load)
