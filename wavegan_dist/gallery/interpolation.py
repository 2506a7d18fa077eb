"""Images of latents between two latents."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.devices import full_float32
from wavegan_dist.errors import WaveganError
from wavegan_dist.images import to_uint8
from wavegan_dist.model.generate import LATENT_STREAM, chunk_size
from wavegan_dist.model.latents import slerp
from wavegan_dist.model.snapshot import Snapshot, labels_of_images

ROWS, STEPS = 4, 8  # their product is a multiple of every `chunk_size`


@dataclass(frozen=True)
class Interpolation:
    """Images of latents at equal angles from the latent of one image of `wavegan sample` to that of the next.

    Attributes:
        first: number of the image at the start; the image at the end is `first + 1`.
        label: class of all images, which is that of image `first`; None for a model without classes.
        images: uint8 [STEPS, 3, R, R].
    """

    first: int
    label: int | None
    images: Tensor


def interpolate(snapshot: Snapshot, seed: int) -> list[Interpolation]:
    """Interpolate between the images 0 and 1, 2 and 3, ... of `wavegan sample` on the CPU: `ROWS` interpolations, in order.

    Args:
        snapshot: the snapshot, with its generator on the CPU.
        seed: seed of the latents.

    Raises:
        WaveganError: an image is not finite.
    """
    model = snapshot.config.model
    ends = counted.normal(seed, LATENT_STREAM, range(2 * ROWS), model.z_dim)
    shares = [step / (STEPS - 1) for step in range(STEPS)]
    z = torch.stack([slerp(*pair, share) for pair in zip(ends[::2], ends[1::2], strict=True) for share in shares])
    source = labels_of_images(snapshot, seed)
    of_rows = None if source is None else source(range(2 * ROWS))[::2]
    images = _generate(snapshot, z, None if of_rows is None else of_rows.repeat_interleave(STEPS))
    return [
        Interpolation(2 * row, None if of_rows is None else int(of_rows[row]), of_row)
        for row, of_row in enumerate(images.split(STEPS))
    ]


def _generate(snapshot: Snapshot, z: Tensor, labels: Tensor | None) -> Tensor:
    """Generate the images of latents [B, z_dim], `chunk_size` at a time, as `wavegan sample` does: uint8 [B, 3, R, R].

    Raises:
        WaveganError: an image is not finite.
    """
    chunk = chunk_size(snapshot.config.model.resolution)
    images = []
    with torch.no_grad(), full_float32():
        for first in range(0, len(z), chunk):
            of_chunk = slice(first, first + chunk)
            images.append(snapshot.generator(z[of_chunk], None if labels is None else labels[of_chunk]))
    if not all(part.isfinite().all() for part in images):
        raise WaveganError(f"{snapshot.path} makes images that are not finite: the weights are unusable; take another snapshot")
    return torch.cat([to_uint8(part) for part in images])
