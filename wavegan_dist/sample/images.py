"""Which images `wavegan sample` makes, by number, and how a batch of them is generated."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.model.generate import (
    CLASS_STREAM,
    LATENT_STREAM,
    LabelSource,
    LatentSource,
    batch_that_fills_a_gpu,
    chunk_size,
    generated_images,
)
from wavegan_dist.model.snapshot import Snapshot


@dataclass(frozen=True)
class Images:
    """Images 0, 1, ..., count - 1 of a snapshot.

    Attributes:
        snapshot: the snapshot; its generator must be on `device`.
        names: the number in the file name of each image: the image's number, or its seed.
        latents: function from image numbers to latents. Numbers >= `count` have a latent, too: exact mode fills its last chunk
            with these.
        labels: function from image numbers to classes, also of numbers >= `count`; None for a model without classes.
        device: device of the computation.
        exact: generate in exact mode (`model.generate`).
    """

    snapshot: Snapshot
    names: Sequence[int]
    latents: LatentSource
    labels: LabelSource | None
    device: torch.device
    exact: bool

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def resolution(self) -> int:
        """Height and width of an image, in pixels."""
        return self.snapshot.config.model.resolution

    def batches(self) -> list[range]:
        """Return the numbers of the images of each batch, in order: 0 to `count` - 1.

        In exact mode, a batch is a chunk (`chunk_size`), else as many images as fill a GPU. The last batch may be smaller.
        """
        size = chunk_size(self.resolution)
        if not self.exact:
            size = batch_that_fills_a_gpu(self.resolution, self.snapshot.config.model.width)
        return [range(first, min(first + size, self.count)) for first in range(0, self.count, size)]

    def classes(self) -> list[int]:
        """Return the class of each of the `count` images, in order; an empty list for a model without classes."""
        return [] if self.labels is None else self.labels(range(self.count)).tolist()

    def generate(self, batch: range) -> Tensor:
        """Generate one of `batches()`: uint8 [len(batch), 3, R, R] on the CPU.

        Raises:
            WaveganError: an image is not finite.
        """
        (images,) = generated_images(
            self.snapshot.generator,
            batch,
            seed=0,
            batch_size=len(batch),
            z_dim=self.snapshot.config.model.z_dim,
            device=self.device,
            exact=self.exact,
            labels=self.labels,
            chunk=chunk_size(self.resolution),
            latents=self.latents,
        )
        return images.cpu()


def latents_of_seeds(seeds: Sequence[int], z_dim: int) -> LatentSource:
    """Return the function from image numbers to latents: image i has the latent of image 0 of the seed `seeds[i % len(seeds)]`.

    The function returns float32 [len(numbers), z_dim] on the CPU.
    """

    def latents(numbers: range) -> Tensor:
        draws = [counted.normal(seeds[number % len(seeds)], LATENT_STREAM, range(1), z_dim) for number in numbers]
        return torch.cat(draws)

    return latents


def labels_of_seeds(snapshot: Snapshot, seeds: Sequence[int], classes: Sequence[int]) -> LabelSource | None:
    """Return the function from image numbers to classes, int64 [len(numbers)] on the CPU; None for a snapshot without classes.

    Args:
        snapshot: the snapshot.
        seeds: image i has the seed `seeds[i % len(seeds)]`.
        classes: image i gets class `classes[i % len(classes)]`; empty: the class of image 0 of its seed.
    """
    known = snapshot.classes
    if known is None:
        return None

    def labels(numbers: range) -> Tensor:
        if classes:
            return torch.tensor([classes[number % len(classes)] for number in numbers])
        return torch.cat([known.draw(seeds[number % len(seeds)], CLASS_STREAM, range(1)) for number in numbers])

    return labels
