"""Generates images by number: image i depends on the seed and on i, not on the number of images or of processes.

The class of image i of a model with classes is drawn with the frequencies of the training data, or given by a list of classes.

Rounding in a convolution depends on the batch size. In exact mode, image i is therefore always computed in the same batch of 16
latents (fewer above 256 px, see `chunk_size`), and is the same bit for bit. Without exact mode, the network gets as many
latents as fill a GPU, and a pixel may differ from that of exact mode by TOLERANCE gray level. CPUs always use exact mode,
because larger batches are faster on CPUs at few sizes only (docs/LOG.md, 2026-11-27).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from wavegan_dist import counted
from wavegan_dist.classes import Classes
from wavegan_dist.devices import full_float32
from wavegan_dist.errors import WaveganError
from wavegan_dist.images import to_uint8

LATENT_STREAM, CLASS_STREAM = "latent/evaluate", "class/evaluate"
CHUNK = 16  # latents of one forward in exact mode
CHUNK_SIDE = 256  # larger images come in smaller chunks of as many pixels
TOLERANCE = 1  # largest difference of a pixel between a large batch and exact mode, out of 255 gray levels
FORWARD_PIXELS, FORWARD_WIDTH = 2**22, 64  # pixels of the images of one forward on a GPU, for networks of at most this width

LatentSource = Callable[[range], Tensor]  # numbers of images -> their latents, float32 [len(numbers), z_dim] on the CPU
LabelSource = Callable[[range], Tensor]  # numbers of images -> their classes, int64 [len(numbers)]


def uses_exact_mode(device: torch.device, requested: bool) -> bool:
    """Return whether a generator on `device` runs in exact mode: if exact mode was requested, and always on CPUs."""
    return requested or device.type == "cpu"


def chunk_size(resolution: int) -> int:
    """Number of latents of one forward in exact mode: 16 up to 256 px, 4 at 512 px, 1 at 1024 px."""
    return min(CHUNK, max(CHUNK * CHUNK_SIDE**2 // resolution**2, 1))


def batch_that_fills_a_gpu(resolution: int, width: int) -> int:
    """Number of images per forward on a GPU outside exact mode: a multiple of `chunk_size`, and at least `chunk_size`.

    The images of one forward have 2**22 pixels: 4096 images of 32 px, 1024 of 64 px, 64 of 256 px, 4 of 1024 px. Networks
    wider than 64 channels get fewer images in proportion. The largest feature map (`width` channels at half the resolution)
    thus has 2**26 values, 256 MiB in float32; the peak is a few times as much.

    Args:
        resolution: `model.resolution`.
        width: `model.width`.
    """
    images = FORWARD_PIXELS * FORWARD_WIDTH // (resolution**2 * max(width, FORWARD_WIDTH))
    chunk = chunk_size(resolution)
    return max(images - images % chunk, chunk)


def latents_of_images(seed: int, z_dim: int) -> LatentSource:
    """Return the function from a range of image numbers to their latents, float32 [len(numbers), z_dim] on the CPU.

    The latents are standard normal draws. The latent of an image depends only on `seed`, `z_dim` and the image's number.
    """
    return partial(counted.normal, seed, LATENT_STREAM, dim=z_dim)


def labels_by_number(classes: Classes, seed: int, chosen: Sequence[int] = ()) -> LabelSource:
    """Return the function from a range of image numbers to the classes of these images, int64 [len(numbers)] on the CPU.

    Args:
        classes: the classes of the model; unused with `chosen`.
        seed: seed of the draws; unused with `chosen`.
        chosen: image i gets class `chosen[i % len(chosen)]`, which is not checked; empty: classes are drawn with the
            frequencies of `classes`.
    """
    if chosen:
        return lambda numbers: torch.tensor([chosen[number % len(chosen)] for number in numbers], dtype=torch.int64)
    return partial(classes.draw, seed, CLASS_STREAM)


def generated_images(
    generator: nn.Module,
    numbers: range,
    seed: int,
    batch_size: int,
    z_dim: int,
    device: torch.device | str = "cpu",
    *,
    exact: bool = True,
    labels: LabelSource | None = None,
    chunk: int = CHUNK,
    latents: LatentSource | None = None,
) -> Iterator[Tensor]:
    """Generate images by number in batches, without gradients, TF32 and autocast. Each batch is computed when it is requested.

    Args:
        generator: module from latents float32 [B, z_dim], and classes int64 [B] if there are `labels`, to images float
            [B, 3, R, R] in about [-1, 1]. It must be in eval mode and on `device`, which is not checked.
        numbers: consecutive numbers of the images; empty: nothing is yielded.
        seed: seed of the latents; unused with `latents`.
        batch_size: images per batch, except for a smaller last batch. In exact mode, a multiple of `chunk` avoids computing
            chunks twice.
        z_dim: size of a latent.
        device: device of the computation.
        exact: run the generator on `chunk` latents at a time, so that image i is the same bit for bit with any `batch_size`
            and `numbers`; False: one forward per batch, and pixels of other batch sizes differ by at most TOLERANCE gray level.
        labels: classes of the images by number; None for a generator without classes.
        chunk: latents of one forward in exact mode; unused without exact mode.
        latents: latents of the images by number; None: those of `seed`.

    Yields:
        Batches of images, uint8 [batch_size, 3, R, R] on `device`, in the order of `numbers`; values outside [-1, 1] are
        clamped.

    Raises:
        WaveganError: an image is not finite.
    """
    latents = latents or latents_of_images(seed, z_dim)
    for first in numbers[::batch_size]:
        last = min(first + batch_size, numbers.stop)
        start = first - first % chunk if exact else first
        size = chunk if exact else last - first
        chunks = (range(position, position + size) for position in range(start, last, size))
        with torch.no_grad(), full_float32(), torch.autocast(torch.device(device).type, enabled=False):
            parts = [_forward(generator, latents(part), None if labels is None else labels(part), device) for part in chunks]
            images = torch.cat(parts)[first - start : last - start]
        if not images.isfinite().all():
            raise WaveganError(
                f"generated images {first}..{last - 1} are not finite: the weights are unusable; take another snapshot"
            )
        yield to_uint8(images)


def _forward(generator: nn.Module, z: Tensor, labels: Tensor | None, device: torch.device | str) -> Tensor:
    images: Tensor = generator(z.to(device)) if labels is None else generator(z.to(device), labels.to(device))
    return images
