"""A walk through latents as an animation that loops without a seam."""

from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from wavegan_dist.files import atomic_file
from wavegan_dist.model.latents import slerp
from wavegan_dist.sample.images import Images
from wavegan_dist.sample.workers import Workers

ANIMATIONS: dict[str, dict[str, Any]] = {".gif": {"format": "GIF"}, ".webp": {"format": "WEBP", "lossless": True}}
FRAME_MS = 40  # 25 frames a second; GIF counts in units of 10 ms


def write_walk(workers: Workers, images: Images, frames: int, out: Path) -> None:
    """Write an animation that passes through the latents of `images` in order and returns to the first.

    The number of frames between two latents is the same for all pairs, up to rounding. All frames have the class of image 0.

    Args:
        workers: the threads.
        images: the images whose latents the walk passes through, at least two.
        frames: number of frames, at least one per image.
        out: a .gif or .webp file, which is replaced.

    Raises:
        WaveganError: an image is not finite.
        OSError: the file cannot be written.
    """
    ends, labels = images.latents(range(images.count)), images.labels
    walk = replace(
        images,
        names=range(frames),
        latents=partial(walk_latents, ends, frames),
        labels=None if labels is None else lambda numbers: labels(range(1)).expand(len(numbers)),
    )
    first, *others = chain.from_iterable(workers.results(walk, walk.batches(), _pictures))
    options = {**ANIMATIONS[out.suffix.lower()], "duration": FRAME_MS, "loop": 0}
    with atomic_file(out, "wb") as file:
        first.save(file, save_all=True, append_images=others, **options)


def walk_latents(ends: Tensor, frames: int, numbers: range) -> Tensor:
    """Return the latents of some frames of a closed walk: float32 [len(numbers), z_dim].

    Args:
        ends: latents that the walk passes through at equal intervals of time, float32 [K, z_dim].
        frames: number of frames of one round of the walk; frame `frames` is frame 0 again.
        numbers: numbers of the frames whose latents to return.
    """
    positions = [divmod(number % frames * len(ends), frames) for number in numbers]
    steps = [(ends[end], ends[(end + 1) % len(ends)], rest / frames) for end, rest in positions]
    return torch.stack([slerp(first, second, share) for first, second, share in steps])


def _pictures(numbers: range, images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(image_hwc) for image_hwc in images.permute(0, 2, 3, 1).numpy()]
