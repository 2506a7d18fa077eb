"""Images of a snapshot by number (`model.generate`)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from wavegan_dist.model.generate import (
    LATENT_STREAM,
    LabelSource,
    batch_that_fills_a_gpu,
    chunk_size,
    generated_images,
    labels_by_number,
    uses_exact_mode,
)
from wavegan_dist.model.snapshot import Snapshot

__all__ = [
    "LATENT_STREAM",
    "LabelSource",
    "batch_that_fills_a_gpu",
    "chunk_size",
    "generated_images",
    "labels_of_images",
    "snapshot_images",
    "uses_exact_mode",
]


def labels_of_images(snapshot: Snapshot, seed: int, classes: Sequence[int] = ()) -> LabelSource | None:
    """Return `model.generate.labels_by_number` of the snapshot's classes; None for a snapshot without classes."""
    return None if snapshot.classes is None else labels_by_number(snapshot.classes, seed, classes)


def snapshot_images(
    snapshot: Snapshot,
    numbers: range,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    *,
    exact: bool = True,
    classes: Sequence[int] = (),
) -> Iterator[Tensor]:
    """Generate images of a snapshot as `generated_images` does, with the classes of `labels_of_images`, on `device`."""
    model, labels = snapshot.config.model, labels_of_images(snapshot, seed, classes)
    generator, chunk = snapshot.generator.to(device), chunk_size(model.resolution)
    return generated_images(generator, numbers, seed, batch_size, model.z_dim, device, exact=exact, labels=labels, chunk=chunk)
