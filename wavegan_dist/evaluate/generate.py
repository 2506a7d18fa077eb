"""Images out of a generator: image i of a seed is always the same, however many are asked for at a time."""

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
CHUNK = 16  # the last bit of a convolution depends on how many images are in the batch: the network always gets 16


def generated_images(
    generator: nn.Module,
    numbers: range,
    seed: int,
    batch_size: int,
    z_dim: int,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Yield images by their numbers in batches: uint8 [B, 3, R, R] on `device`. Image i depends on (seed, i) only, to the bit.

    Args:
        generator: latents [B, z_dim] -> images in [-1, 1]; in eval mode and on `device`.
        numbers: which images.
        seed: of the latents' stream.
        batch_size: the last batch may be smaller; a multiple of 16 wastes nothing.
        z_dim: size of a latent.
        device: where to compute.

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

    Raises:
        UsageError: count < 1, or `out` is a file where a folder has to be, or the reverse.
    """
    grid = out.suffix.lower() == ".png"
    if count < 1:
        raise UsageError(f"--count {count}: ask for at least one image")
    if out.exists() and out.is_dir() == grid:
        raise UsageError(f"--out {out} is a {'folder' if grid else 'file'}; name a path that ends in .png, or a folder")
    batches = generated_images(snapshot.generator, range(count), seed, 4 * CHUNK, snapshot.config.model.z_dim)
    if grid:
        save_grid(torch.cat(list(batches)), out, columns=math.ceil(math.sqrt(count)))
        return
    for number, image in enumerate(image for batch in batches for image in batch):
        save_png(image.permute(1, 2, 0), out / f"{number:06d}.png")
