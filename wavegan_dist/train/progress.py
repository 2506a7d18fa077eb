"""Progress metrics: throughput, time spent waiting for data, statistics of generated images, the status line."""

import resource
import sys
import time
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from wavegan_dist.data import SHOWN
from wavegan_dist.model import WaveletGenerator
from wavegan_dist.train.collapse import coarse, diversity
from wavegan_dist.wavelet import wavedec, waverec

LOSSES = ("image", "low", "high")
TERMS = {"D": "loss/d", "G": "loss/g", "R1": "penalty/r1", "R2": "penalty/r2"}  # in the status line, if the run has them
Batch = TypeVar("Batch")


class ThroughputTimer:
    """Measures seconds and images since the last `read`, and the time spent waiting for batches.

    Args:
        nimg: image number at which the first interval begins.
        device: the device of the training, for `memory/gib`.
    """

    def __init__(self, nimg: int, device: torch.device) -> None:
        self.device = device
        self._restart(nimg)

    def _restart(self, nimg: int) -> None:
        self.start, self.start_nimg, self.waited = time.perf_counter(), nimg, 0.0

    def time_batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, which must be endless, unchanged, and accumulate the time spent waiting for them."""
        while True:
            requested = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - requested
            yield batch

    def read(self, nimg: int) -> dict[str, float]:
        """Return the speed in the interval that ends at image number `nimg`, and begin the next interval.

        Args:
            nimg: image number, above that of the last `read`.

        Returns:
            `speed/seconds_per_kimg` (seconds per 1000 images), `speed/images_per_second`, `speed/data_wait_percent` (percentage
            of the time spent waiting for batches), and `memory/gib` (`peak_memory` of this process since its start, in GiB).
            The images are those that `nimg` counts.
        """
        seconds = time.perf_counter() - self.start
        images = nimg - self.start_nimg
        metrics = {
            "speed/seconds_per_kimg": 1000 * seconds / images,
            "speed/images_per_second": images / seconds,
            "speed/data_wait_percent": 100 * self.waited / seconds,
            "memory/gib": peak_memory(self.device) / 2**30,
        }
        self._restart(nimg)
        return metrics


def peak_memory(device: torch.device) -> int:
    """Return this process's peak memory in bytes: allocated memory of `device` if it is a CUDA GPU, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@torch.no_grad()
def image_metrics(
    generator: WaveletGenerator, z: Tensor, coarse_real: Tensor, labels: Tensor | None = None, levels: int = 1
) -> dict[str, float]:
    """Compare generated images with real ones.

    Args:
        generator: a generator in eval mode.
        z: latents, float32 [N, z_dim], N > 1.
        coarse_real: what `coarse` returns for B real images in [-1, 1].
        labels: classes of the generated images, int64 [N]; None for a model without classes.
        levels: `model.levels`.

    Returns:
        `NAME/TERM`, such as `std_low/base`: the standard deviations that `band_stds` returns, of each term of the output
        (`base`, `branches` = waverec of the low and high generators, `fused`; with `model.base_only`, `base` alone), because
        the fused image can lose detail that each of its terms has.
        `watch/diversity`: diversity of the generated images divided by that of the real ones; only if B > 1 and the real ones
        differ.
    """
    base, low, highs = generator.components(z, labels)
    terms = {"base": base}
    if low is not None:
        terms |= {"branches": waverec(low, highs), "fused": generator.blend(base, low, highs)}
    metrics: dict[str, float] = {}
    for term, image in terms.items():
        metrics |= {f"{name}/{term}": std for name, std in band_stds(image, levels).items()}
    if len(coarse_real) > 1 and (real := diversity(coarse_real)):
        metrics["watch/diversity"] = diversity(coarse(list(terms.values())[-1])) / real
    return metrics


def band_stds(images: Tensor, levels: int) -> dict[str, float]:
    """Return the standard deviation, over all elements, of the Haar bands of images, float [B, 3, R, R], by name.

    `std_low` is that of the low band of the deepest level, `std_high` that of the three high bands of level 1 together. With
    several levels, `std_lh1`, `std_hl1`, `std_hh1`, `std_lh2`, ... are those of each high band of each level.
    """
    low, highs = wavedec(images, levels)
    stds = {"std_low": low.std().item(), "std_high": highs[-1].std().item()}
    if levels > 1:
        for level, high in enumerate(reversed(highs), start=1):
            bands = zip(("lh", "hl", "hh"), high.chunk(3, dim=1), strict=True)
            stds |= {f"std_{name}{level}": band.std().item() for name, band in bands}
    return stds


def status_line(metrics: dict[str, float], total_kimg: float) -> str:
    """Format the metrics of a report, as `RunWriter.report` writes them to metrics.jsonl, as one line for people.

    Args:
        metrics: metrics by name. A kind of loss or penalty of which they have none is left out; one of a network that they lack
            is shown as "-".
        total_kimg: length of the run, in thousands of images.
    """
    losses = "  ".join(
        f"{title} " + " ".join(_format_loss(metrics.get(f"{term}_{name}")) for name in LOSSES)
        for title, term in TERMS.items()
        if any(f"{term}_{name}" in metrics for name in LOSSES)
    )
    images, shards = (int(metrics[f"data/bad_{kind}"]) for kind in ("images", "shards"))
    bad = f"  bad {images} images {shards} shards" if images or shards else ""
    counts = {name.removeprefix(SHOWN): int(count) for name, count in metrics.items() if name.startswith(SHOWN)}
    sets = "  sets " + " ".join(f"{name} {count:,}" for name, count in counts.items()) if counts else ""
    return (
        f"kimg {metrics['kimg']:.1f}/{total_kimg:g}  {metrics['speed/seconds_per_kimg']:.1f} s/kimg  "
        f"{metrics['speed/images_per_second']:.0f} img/s  lam {metrics['lam']:+.4f}  {losses}  "
        f"wait {metrics['speed/data_wait_percent']:.1f}%  mem {metrics['memory/gib']:.2f} GiB{sets}{bad}"
    )


def _format_loss(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
