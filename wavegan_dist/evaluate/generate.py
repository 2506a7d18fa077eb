"""Generated images by number: image i depends on the seed and on i, not on the number of images or of processes.

Rounding in a convolution depends on the batch size. In exact mode the network therefore always gets the same 16 latents with
image i, and the image is the same bit for bit. Otherwise it gets as many latents as fill a GPU, and some pixels of an image may
differ from those of exact mode by TOLERANCE gray level. CPUs always use exact mode: there, larger batches are
faster at few sizes only (docs/LOG.md, 2026-11-27).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wavegan_dist import counted
from wavegan_dist.errors import WaveganError
from wavegan_dist.images import to_uint8

LATENT_STREAM = "latent/evaluate"
CHUNK = 16  # latents of one forward in exact mode
TOLERANCE = 1  # largest difference of a pixel between a large batch and exact mode, out of 255 gray levels
FORWARD_PIXELS, FORWARD_WIDTH = 2**22, 64  # pixels of the images of one forward on a GPU, for networks of at most this width


def uses_exact_mode(device: torch.device, requested: bool) -> bool:
    """Whether images are generated in exact mode: if it was requested, and always on CPUs."""
    return requested or device.type == "cpu"


def batch_that_fills_a_gpu(resolution: int, width: int) -> int:
    """Number of images per forward on a GPU outside exact mode: a multiple of 16, at least 16.

    The images of one forward have 2**22 pixels: 4096 images of 32 px, 1024 of 64 px, 256 of 128 px, 64 of 256 px. Networks
    wider than 64 channels get fewer images in proportion. The largest feature map (`width` channels at half the resolution)
    thus has 2**26 values, 256 MiB in float32; the peak is a few times as much.

    Args:
        resolution: `model.resolution`.
        width: `model.width`.
    """
    images = FORWARD_PIXELS * FORWARD_WIDTH // (resolution**2 * max(width, FORWARD_WIDTH))
    return max(images - images % CHUNK, CHUNK)


def generated_images(
    generator: nn.Module,
    numbers: range,
    seed: int,
    batch_size: int,
    z_dim: int,
    device: torch.device | str = "cpu",
    *,
    exact: bool = True,
) -> Iterator[Tensor]:
    """Generate images by number in batches.

    Args:
        generator: latents [B, z_dim] to images in [-1, 1]; in eval mode and on `device`.
        numbers: numbers of the images.
        seed: seed of the latents.
        batch_size: images per batch, except for a smaller last batch; in exact mode, a multiple of 16 wastes no computation.
        z_dim: size of a latent.
        device: device of the computation.
        exact: run the generator on 16 latents at a time, so that image i is the same bit for bit with any `batch_size` and
            `numbers`; False: one forward per batch, and images of other batch sizes differ by at most TOLERANCE.

    Yields:
        uint8 [batch_size, 3, R, R] on `device`.

    Raises:
        WaveganError: an image is not finite.
    """
    for first in numbers[::batch_size]:
        last = min(first + batch_size, numbers.stop)
        start = first - first % CHUNK if exact else first
        size = CHUNK if exact else last - first
        chunks = (range(position, position + size) for position in range(start, last, size))
        with torch.no_grad(), full_float32():
            latents = (counted.normal(seed, LATENT_STREAM, chunk, z_dim) for chunk in chunks)
            images = torch.cat([generator(z.to(device)) for z in latents])[first - start : last - start]
        if not images.isfinite().all():
            raise WaveganError(
                f"generated images {first}..{last - 1} are not finite: the weights are unusable; take another snapshot"
            )
        yield to_uint8(images)


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 convolutions and products without TF32, and with cuDNN kernels that give equal results in each call.

    By default PyTorch allows TF32 in convolutions on GPUs, whose rounding errors are 8,000 times those of float32.
    """
    backends = torch.backends
    before = backends.fp32_precision, backends.cudnn.deterministic  # type: ignore[attr-defined]
    backends.fp32_precision, backends.cudnn.deterministic = "ieee", True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        backends.fp32_precision, backends.cudnn.deterministic = before  # type: ignore[attr-defined]
