"""This package: the state is the number of images seen."""

from collections.abc import Iterator

from protocol import Batch, Dataset, Loading, Rank, main

from wavegan_dist.data import Index, training_batches


def write(_dataset: Dataset) -> None:
    """Do nothing: the driver's tars are already indexed."""


def load(rank: Rank) -> Loading:
    """Continue at the saved position."""
    index = Index.load(rank.source, rank.cache, 2**40)
    start = rank.former[rank.rank % len(rank.former)] if rank.former else 0
    seen = start

    def batches() -> Iterator[Batch]:
        nonlocal seen
        stream = training_batches(
            index,
            batch_size=rank.batch,
            seed=0,
            start_nimg=start,
            rank=rank.rank,
            world_size=rank.world,
            workers=rank.workers,
            labels=True,
        )
        while seen < rank.images:
            images, labels = next(stream)
            seen += rank.batch * rank.world
            assert labels is not None
            yield labels.tolist(), images

    return Loading(batches(), lambda: seen)


if __name__ == "__main__":
    main(write, load)
