"""Generated images by number: image i of a seed is the same whatever the batch size and the number of images."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from wavegan_dist import counted
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.images import save_grid, save_png, to_uint8
from wavegan_dist.model.snapshot import Snapshot

LATENT_STREAM = "latent/evaluate"
CHUNK = 16  # the network always gets 16 latents, because rounding in a convolution depends on the batch size


def generated_images(
    generator: nn.Module,
    numbers: range,
    seed: int,
    batch_size: int,
    z_dim: int,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Generate images by number in batches. Image i depends on (seed, i) only, bit for bit.

    Args:
        generator: latents [B, z_dim] to images in [-1, 1]; in eval mode and on `device`.
        numbers: numbers of the images.
        seed: seed of the latents.
        batch_size: images per batch, except for a smaller last batch; a multiple of 16 wastes no computation.
        z_dim: size of a latent.
        device: device of the computation.

    Yields:
        uint8 [batch_size, 3, R, R] on `device`.

    Raises:
        WaveganError: an image is not finite.
    """
    for first in numbers[::batch_size]:
        last = min(first + batch_size, numbers.stop)
        start = first - first % CHUNK
        chunks = (range(position, position + CHUNK) for position in range(start, last, CHUNK))
        with torch.no_grad():
            latents = (counted.normal(seed, LATENT_STREAM, chunk, z_dim) for chunk in chunks)
            images = torch.cat([generator(z.to(device)) for z in latents])[first - start : last - start]
        if not images.isfinite().all():
            raise WaveganError(
                f"generated images {first}..{last - 1} are not finite: the weights are unusable; take another snapshot"
            )
        yield to_uint8(images)


def sample(snapshot: Snapshot, count: int, seed: int, out: Path) -> None:
    """Write images of a snapshot: one square grid if `out` ends in .png, else a folder of 000000.png, 000001.png, ...

    Args:
        snapshot: the snapshot.
        count: number of images.
        seed: seed of the latents.
        out: a .png file or a folder.

    Raises:
        UsageError: count < 1, or `out` exists as a file where a folder must be written, or the reverse.
    """
    grid = out.suffix.lower() == ".png"
    if count < 1:
        raise UsageError(f"--count {count}: give at least one image")
    if out.exists() and out.is_dir() == grid:
        raise UsageError(f"--out {out} is a {'folder' if grid else 'file'}; name a path that ends in .png, or a folder")
    batches = generated_images(snapshot.generator, range(count), seed, 4 * CHUNK, snapshot.config.model.z_dim)
    if grid:
        save_grid(torch.cat(list(batches)), out, columns=math.ceil(math.sqrt(count)))
        return
    for number, image in enumerate(image for batch in batches for image in batch):
        save_png(image.permute(1, 2, 0), out / f"{number:06d}.png")
