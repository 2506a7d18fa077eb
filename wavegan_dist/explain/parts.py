"""The parts of generated images: the outputs of the three networks, and the images that the generator blends from them.

The band networks are `low` and `high`; a model with `model.base_only` has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist.devices import full_float32
from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluate.progress import image_progress_bar
from wavegan_dist.model.generate import chunk_size, latents_of_images
from wavegan_dist.model.snapshot import Snapshot, labels_of_images
from wavegan_dist.wavelet import waverec


@dataclass(frozen=True)
class Parts:
    """Outputs of the networks for B latents, float32, for pixels in [-1, 1] and not clamped.

    Attributes:
        base: images of the base network [B, 3, R, R].
        low: low band of the last level [B, 3, R / 2**levels, R / 2**levels]; None without band networks.
        highs: high bands of every level, the coarsest first, as `WaveletGenerator.components` returns them; empty without band
            networks.
        fused: the generator's images [B, 3, R, R], blended from the other parts.
        lam: the effective lam of the blend; 0 without band networks.
    """

    base: Tensor
    low: Tensor | None
    highs: list[Tensor]
    fused: Tensor
    lam: float

    def first(self, count: int) -> "Parts":
        """Return the parts of the first `count` images."""
        low = None if self.low is None else self.low[:count]
        return Parts(self.base[:count], low, [high[:count] for high in self.highs], self.fused[:count], self.lam)

    def wavelet_image(self) -> Tensor | None:
        """Return the inverse transform of the bands [B, 3, R, R]; None without band networks."""
        return None if self.low is None else waverec(self.low, self.highs)

    def difference(self) -> Tensor:
        """Return `fused - (1 - lam) * base`, what the band networks add to the scaled base image: [B, 3, R, R]."""
        return self.fused - (1 - self.lam) * self.base

    def contributions(self) -> dict[str, Tensor]:
        """Return the terms of the fused image by name, each [B, 3, R, R]; their sum is the fused image.

        The terms are the base image, the inverse transform of the low band alone and that of the high bands alone, each times
        its factor. Without band networks, there are no terms: the fused image is the base image.
        """
        if self.low is None:
            return {}
        zeros = [torch.zeros_like(high) for high in self.highs]
        return {
            "(1 - lam) * base": (1 - self.lam) * self.base,
            "lam * low network": self.lam * waverec(self.low, zeros),
            "lam * high network": self.lam * waverec(torch.zeros_like(self.low), self.highs),
        }


def parts_of_images(snapshot: Snapshot, count: int, seed: int, classes: Sequence[int] = ()) -> tuple[Parts, Tensor | None]:
    """Compute the parts of images 0, 1, ..., at least `count` of them, and their classes.

    The fused images are equal bit for bit to those of `wavegan sample` on a CPU. As there, the networks always get `chunk_size`
    latents at a time, so `count` is rounded up to a multiple of it.

    Args:
        snapshot: the snapshot, with its generator on the CPU.
        count: number of images.
        seed: seed of the latents.
        classes: image i gets class `classes[i % len(classes)]`; empty: classes are drawn with the frequencies of the training
            data.

    Returns:
        The parts of n >= `count` images, and their classes, int64 [n]; None for a model without classes.

    Raises:
        WaveganError: an image is not finite.
    """
    chunk = chunk_size(snapshot.config.model.resolution)
    numbers = range(-(-count // chunk) * chunk)
    source = labels_of_images(snapshot, seed, classes)
    labels = None if source is None else source(numbers)
    z = latents_of_images(seed, snapshot.config.model.z_dim)(numbers)
    return run_networks(snapshot, z, labels), labels


def run_networks(snapshot: Snapshot, z: Tensor, labels: Tensor | None) -> Parts:
    """Compute the parts of the images of latents [B, z_dim] and, for a model with classes, labels int64 [B]; else None.

    The latents and labels must be on the device of the generator, and so are the parts. The networks get `chunk_size` latents
    at a time, as in exact mode. Shows a progress bar if stderr is a terminal.

    Raises:
        WaveganError: an image is not finite.
    """
    generator, chunk = snapshot.generator, chunk_size(snapshot.config.model.resolution)
    bases, lows, highs, fused = [], [], [], []
    with torch.no_grad(), full_float32(), image_progress_bar(len(z), "generated images") as bar:
        for first in range(0, len(z), chunk):
            of_chunk = slice(first, first + chunk)
            base, low, high = generator.components(z[of_chunk], None if labels is None else labels[of_chunk])
            bases.append(base)
            highs.append(high)
            fused.append(base if low is None else generator.blend(base, low, high))
            lows += [] if low is None else [low]
            bar.update(len(base))
        parts = Parts(
            base=torch.cat(bases),
            low=torch.cat(lows) if lows else None,
            highs=[torch.cat(level) for level in zip(*highs, strict=True)],
            fused=torch.cat(fused),
            lam=generator.effective_lam().item(),
        )
    if not parts.fused.isfinite().all():
        raise WaveganError(f"{snapshot.path} makes images that are not finite: the weights are unusable; take another snapshot")
    return parts
