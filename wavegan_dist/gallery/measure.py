"""Everything that the page of a gallery shows, as numbers and tensors."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wavegan_dist.data import Index
from wavegan_dist.errors import UsageError
from wavegan_dist.gallery.frames import Frame, read_frames
from wavegan_dist.gallery.interpolation import Interpolation, interpolate
from wavegan_dist.gallery.neighbors import Neighbors, RealFeatures, find_neighbors, read_real_features
from wavegan_dist.model.generate import chunk_size
from wavegan_dist.model.snapshot import Snapshot, labels_of_images, load_snapshot, snapshot_images
from wavegan_dist.run_folder import RunFolder, ema_of

SEED = 0  # of latents and of the choice of real images


@dataclass(frozen=True)
class RunPictures:
    """The pictures of one run.

    Attributes:
        path: the run folder as the user named it.
        frames: sample grids over training, oldest first.
        grids: number of sample grids in the run folder, of which `frames` may be a part.
        snapshot: the newest snapshot of the run's first EMA (the first of `ema.half_life_kimg`).
        interpolations: interpolations between latents of this snapshot.
        labels: classes of samples 0, 1, 2, ..., int64; None for a model without classes.
        neighbors: samples 0, 1, 2, ... of this snapshot and their nearest real images; None without data.
        real: the real images; None without data.
    """

    path: Path
    frames: list[Frame]
    grids: int
    snapshot: Snapshot
    interpolations: list[Interpolation]
    labels: Tensor | None
    neighbors: Neighbors | None
    real: RealFeatures | None


def newest_snapshot(run: RunFolder) -> Snapshot:
    """Read the newest snapshot of a run's first EMA.

    Raises:
        UsageError: `run` is not a run, or has no snapshot.
        WaveganError: the snapshot is damaged.
    """
    if not run.config.is_file():
        raise UsageError(f"{run.path} is not a run: it has no config.yaml; give a folder such as runs/demo")
    snapshots = [path for path in run.snapshots() if not ema_of(path.name)]
    if not snapshots:
        raise UsageError(f"{run.path} has no snapshot; let it train until the first one (train.snapshot_kimg)")
    return load_snapshot(snapshots[-1])


def measure(snapshots: dict[Path, Snapshot], count: int, index: Index | None) -> list[RunPictures]:
    """Make the pictures of runs; computes on the CPU.

    Args:
        snapshots: run folder to newest snapshot, with its generator on the CPU; the result has the order of the runs.
        count: number of samples whose neighbors are searched, at least 1.
        index: training data of all runs; None: no neighbors are searched.

    Raises:
        UsageError: the data is of another size, has too few images or lacks a shard, or the extra `eval` is not installed.
        WaveganError: a grid is damaged, an image is not finite, or a real image cannot be read.
        OSError: a grid cannot be read.
    """
    if index is not None:
        _check_sizes(snapshots.values(), index)
    frames = {path: read_frames(RunFolder(path)) for path in snapshots}
    interpolations = {path: interpolate(snapshot, SEED) for path, snapshot in snapshots.items()}
    flips = {snapshot.config.data.horizontal_flip for snapshot in snapshots.values()}
    real = {} if index is None else {mirror: read_real_features(index, SEED, mirror=mirror) for mirror in flips}
    pictures = []
    for path, snapshot in snapshots.items():
        of_run, labels = real.get(snapshot.config.data.horizontal_flip), labels_of_images(snapshot, SEED)
        pictures.append(
            RunPictures(
                path=path,
                frames=frames[path][0],
                grids=frames[path][1],
                snapshot=snapshot,
                interpolations=interpolations[path],
                labels=None if labels is None else labels(range(count)),
                neighbors=None if of_run is None else find_neighbors(_samples(snapshot, count), of_run),
                real=of_run,
            )
        )
    return pictures


def _check_sizes(snapshots: Iterable[Snapshot], index: Index) -> None:
    for snapshot in snapshots:
        if index.size != (resolution := snapshot.config.model.resolution):
            raise UsageError(
                f"--data {index.location} holds images of {index.size} px, but {snapshot.path} makes {resolution} px; "
                "give the run's data"
            )


def _samples(snapshot: Snapshot, count: int) -> Tensor:
    size = chunk_size(snapshot.config.model.resolution)
    return torch.cat(list(snapshot_images(snapshot, range(count), SEED, size)))
