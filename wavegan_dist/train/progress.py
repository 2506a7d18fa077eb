"""What a person sees of a run: status lines, the shares of the generator's output, the time spent waiting for data."""

import resource
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from wavegan_dist.model import WaveletGenerator
from wavegan_dist.train.collapse import diversity
from wavegan_dist.wavelet import dwt, fuse, idwt

LOSSES = ("image", "low", "high")


class ThroughputTimer:
    """Seconds and images since the last report, and the share of them spent waiting for the next batch."""

    def __init__(self, nimg: int) -> None:
        self.restart(nimg)

    def restart(self, nimg: int) -> None:
        """Begin a new interval at image `nimg`."""
        self.began, self.nimg, self.waited = time.perf_counter(), nimg, 0.0

    def waiting(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same batches; the time until each arrives is counted."""
        while True:
            asked = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - asked
            yield batch

    def read(self, nimg: int) -> dict[str, float]:
        """Speed since the last call, which begins a new interval."""
        seconds = time.perf_counter() - self.began
        speed = {
            "speed/seconds_per_kimg": 1000 * seconds / (nimg - self.nimg),
            "speed/images_per_second": (nimg - self.nimg) / seconds,
            "speed/data_wait_percent": 100 * self.waited / seconds,
            "memory/gib": peak_memory() / 2**30,
        }
        self.restart(nimg)
        return speed


def peak_memory() -> int:
    """Bytes: the most this process held so far, on the GPU where there is one, else in RAM."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@torch.no_grad()
def grid_report(ema: WaveletGenerator, z: Tensor, real: Tensor) -> dict[str, float]:
    """What the EMA's samples of the fixed latents `z` tell, beside real images: float [B, 3, R, R] in [-1, 1].

    The standard deviation of the low and high bands of each term of the output: base, idwt of the branches, fused,
    which are watched apart from the first day, since a blend can lose detail that each of its terms has; and the
    samples' diversity as a share of the real images'.
    """
    base, low, high = ema.parts(z)
    terms = {"base": base}
    if low is not None and high is not None:
        terms |= {"branches": idwt(low, high), "fused": fuse(base, low, high, ema.mix())}
    told: dict[str, float] = {}
    for name, image in terms.items():
        low_band, high_bands = dwt(image)
        told |= {f"std_low/{name}": low_band.std().item(), f"std_high/{name}": high_bands.std().item()}
    images = list(terms.values())[-1]
    return {**told, "watch/diversity": diversity(images) / diversity(real)}


def status(point: dict[str, float], total_kimg: float) -> str:
    """One line for people."""
    losses = "  ".join(
        f"{phase.upper()} " + " ".join(_number(point.get(f"loss/{phase}_{name}")) for name in LOSSES) for phase in ("d", "g")
    )
    images, shards = (int(point[f"data/bad_{kind}"]) for kind in ("images", "shards"))
    bad = f"  bad {images} images {shards} shards" if images or shards else ""
    return (
        f"kimg {point['kimg']:.1f}/{total_kimg:g}  {point['speed/seconds_per_kimg']:.1f} s/kimg  "
        f"{point['speed/images_per_second']:.0f} img/s  lam {point['lam']:+.4f}  {losses}  "
        f"wait {point['speed/data_wait_percent']:.1f}%  mem {point['memory/gib']:.2f} GiB{bad}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
