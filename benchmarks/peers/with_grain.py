"""Grain: an ArrayRecord file, a shuffled MapDataset, ElasticIterator; the state of any rank restores all ranks."""

from pathlib import Path

import cv2
import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from grain.experimental import ElasticIterator
from protocol import Dataset, Loading, Rank, RefusalError, main


def write(dataset: Dataset) -> None:
    """Write records that begin with the id, in files of one record per group, which random access needs."""
    dataset.folder.mkdir()
    paths = [dataset.folder / f"{number:05d}.array_record" for number in range(dataset.shards)]
    writers = [ArrayRecordWriter(str(path), "group_size:1") for path in paths]
    for number, sample in enumerate(dataset.samples()):
        writers[number % len(writers)].write(sample.id.to_bytes(8, "big") + sample.content)
    for writer in writers:
        writer.close()


class Decode(grain.transforms.Map):
    """Decodes a record."""

    def map(self, record: bytes) -> tuple[int, np.ndarray]:
        """Return the id and uint8 [S, S, 3]."""
        return int.from_bytes(record[:8], "big"), cv2.imdecode(np.frombuffer(record, np.uint8, offset=8), cv2.IMREAD_COLOR_RGB)


def load(rank: Rank) -> Loading:
    """Load the state of rank 0."""
    if rank.source.startswith("s3://"):
        raise RefusalError("its documentation mounts the bucket with Mountpoint for Amazon S3, which is not here")
    source = grain.sources.ArrayRecordDataSource(sorted(map(str, Path(rank.source).iterdir())))
    dataset = grain.MapDataset.source(source).shuffle(seed=0).map(Decode())
    workers = grain.multiprocessing.MultiprocessingOptions(num_workers=rank.workers) if rank.workers else None
    iterator = ElasticIterator(
        dataset,
        rank.batch * rank.world,
        grain.sharding.ShardOptions(shard_index=rank.rank, shard_count=rank.world),
        multiprocessing_options=workers,
    )
    if rank.former:
        iterator.set_state(rank.former[0])
    return Loading(iterator, iterator.get_state)


if __name__ == "__main__":
    main(write, load)
