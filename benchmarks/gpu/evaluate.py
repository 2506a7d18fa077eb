"""Images per second of `wavegan evaluate` and `wavegan sample`, compared with torch-fidelity's command on the same card.

Timed are complete commands without caches. The last column leaves out the start-up: the time in which this process has imported
the same packages and started CUDA. The extractor is EfficientNet-Lite0 on both sides. `wavegan evaluate` generates its images;
torch-fidelity reads those that `wavegan sample` has written. More than half of the packed images are evaluated, so that
`wavegan evaluate` computes no floor. The snapshot is untrained. If `tiny`, the metric is the spectrum:
fd needs at least 1281 images.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image

import wavegan_dist.evaluate.efflite0
import wavegan_dist.evaluate.evaluate  # noqa: F401
from gpu.common import Section, run_python
from gpu.training import save_untrained
from wavegan_dist.data import Index, real_images
from wavegan_dist.evaluate.accumulate import BATCH
from wavegan_dist.wavelet.cpu.build import library

TINY_COUNT = 32
FIDELITY = "import wavegan_dist.evaluate.efflite0; from torch_fidelity.fidelity import main; main()"


def main() -> None:
    """Measure all commands and print a table."""
    start_up = start_up_seconds()
    section = Section("evaluate", __doc__)
    count = TINY_COUNT if section.tiny else Index.load(section.data()).count // 2 + 1
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        cache = empty_cache(scratch)
        prepare(section, scratch, count)
        section.write(count=count, start_up_seconds=start_up)
        print(f"start-up {start_up:.1f} s")
        print(f"{'command':<18} {'images':>6} {'s':>6} {'images/s':>9} {'after start-up':>15}")
        for name, (images, command) in commands(section, scratch, count).items():
            seconds, _ = run_python(*command, XDG_CACHE_HOME=str(cache))
            rate = images / max(seconds - start_up, 0.1)
            section.add(command=name, images=images, seconds=seconds, images_per_second=images / seconds, rate=rate)
            print(f"{name:<18} {images:>6} {seconds:>6.1f} {images / seconds:>9.0f} {rate:>15.0f}", flush=True)


def start_up_seconds() -> float:
    """Start CUDA; return the seconds since the start of this process."""
    torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")
    return time.time() - psutil.Process().create_time()


def commands(section: Section, scratch: Path, count: int) -> dict[str, tuple[int, tuple[object, ...]]]:
    """Return the number of images and the arguments of Python for each command, by name, in the order in which they run."""
    snapshot, made = scratch / "snapshot", scratch / "made"
    metric = "spectrum" if section.tiny else "fd"
    data = ("--data", section.data(), "--count", count, "--metrics", metric, "--json", scratch / "result.json")
    fidelity: tuple[Any, ...] = ("-c", FIDELITY, "--fid", "--json", "--silent", "--no-cache", "--feature-extractor")
    fidelity += ("efflite0@128", "--input1", made, "--input2", scratch / "real")
    where = ("--cpu",) if section.device.type == "cpu" else ("--gpu", "0")
    return {
        "wavegan sample": (count, ("-m", "wavegan_dist", "sample", "--snapshot", snapshot, "--count", count, "--out", made)),
        "wavegan evaluate": (2 * count, ("-m", "wavegan_dist", "evaluate", "--snapshot", snapshot, *data)),
        "torch-fidelity": (2 * count, (*fidelity, *where)),
    }


def prepare(section: Section, scratch: Path, count: int) -> None:
    """Write an untrained snapshot, and `count` real images as PNGs."""
    index = Index.load(section.data())
    save_untrained(section, scratch / "snapshot")
    (scratch / "real").mkdir()
    images = (image_chw for batch_bchw in real_images(index, count, 0, BATCH) for image_chw in batch_bchw)
    for number, image_chw in enumerate(images):
        Image.fromarray(image_chw.permute(1, 2, 0).numpy()).save(scratch / "real" / f"{number:06d}.png")


def empty_cache(scratch: Path) -> Path:
    """Return a new XDG_CACHE_HOME that holds only the compiled kernels of the CPU."""
    kernels, link = library().parent, scratch / "cache" / "wavegan" / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True)
    link.symlink_to(kernels)
    return scratch / "cache"


if __name__ == "__main__":
    main()
