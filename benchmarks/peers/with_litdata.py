"""LitData: optimized chunks, StreamingDataLoader; the documented single state file is loaded by every rank."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from litdata import StreamingDataLoader, StreamingDataset, optimize
from litdata.streaming import downloader
from protocol import Dataset, Loading, Rank, main, read_tar


def write(dataset: Dataset) -> None:
    """Write chunks from the driver's tars."""
    tars = sorted(map(str, dataset.tars.glob("*.tar")))
    optimize(fn=records, inputs=tars, output_dir=str(dataset.folder), chunk_bytes=dataset.shard_bytes, num_workers=1)


def records(tar: str) -> Iterator[dict[str, Any]]:
    """Yield the records of one tar."""
    for sample in read_tar(Path(tar)):
        yield {"id": sample.id, "image": sample.content}


def decoded(sample: dict[str, Any]) -> tuple[int, np.ndarray]:
    """Decode a record."""
    return sample["id"], cv2.imdecode(np.frombuffer(sample["image"], np.uint8), cv2.IMREAD_COLOR_RGB)


def load(rank: Rank) -> Loading:
    """Load the state of rank 0."""
    options = {"endpoint_url": rank.endpoint} if rank.endpoint else {}
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # the server of the benchmark has no TLS
    make = partial(StreamingDataset, rank.source, shuffle=True, drop_last=True, transform=decoded, storage_options=options)
    dataset = make(cache_dir=str(rank.cache)) if rank.endpoint else make()
    loader = StreamingDataLoader(dataset, num_workers=rank.workers, batch_size=rank.batch)
    if rank.former:
        loader.load_state_dict(rank.former[0])
    return Loading(loader, loader.state_dict)


if __name__ == "__main__":
    os.environ.setdefault("DATA_OPTIMIZER_NUM_WORKERS", "1")
    main(write, load)
