"""torchdata: StatefulDataLoader with StatefulDistributedSampler over a folder of files; each rank saves its own state."""

from pathlib import Path

import cv2
import numpy as np
from protocol import Dataset, Loading, Rank, RefusalError, main
from torch.utils import data
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler


class Files(data.Dataset):
    """A map-style dataset, which the user of torchdata writes."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(map(str, Path(folder).iterdir()))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[int, np.ndarray]:
        return int(Path(self.paths[number]).stem), cv2.imread(self.paths[number], cv2.IMREAD_COLOR_RGB)


def write(dataset: Dataset) -> None:
    """Write each image to a file."""
    dataset.folder.mkdir()
    for sample in dataset.samples():
        (dataset.folder / f"{sample.id:08d}.{dataset.encoding}").write_bytes(sample.content)


def load(rank: Rank) -> Loading:
    """Load the state of the rank."""
    if rank.source.startswith("s3://"):
        raise RefusalError("torchdata reads no object store: the dataset is the user's")
    files = Files(rank.source)
    sampler = StatefulDistributedSampler(files, rank.world, rank.rank)
    loader = StatefulDataLoader(files, rank.batch, sampler=sampler, num_workers=rank.workers)
    if rank.former:
        if rank.rank >= len(rank.former):
            raise RefusalError(f"state_dict() is that of one rank, and no rank {rank.rank} has saved one")
        loader.load_state_dict(rank.former[rank.rank])
    return Loading(loader, loader.state_dict)


if __name__ == "__main__":
    main(write, load)
