"""Images per second of `wavegan evaluate` and `wavegan sample`, compared with torch-fidelity's command on the same card.

Timed are complete commands without caches, and "start-up": a process that imports the same packages and starts CUDA. The last
column leaves out the start-up. The extractor is EfficientNet-Lite0 on both sides, on the same real images. `wavegan evaluate`
generates its images; torch-fidelity reads those that `wavegan sample` has written. The snapshot is untrained. If `tiny`, the
metric is the spectrum instead of fd, which takes at least 1281 images.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from gpu.common import Section, run_python
from gpu.training import settings
from wavegan_dist.data import Index, real_images, write_shards
from wavegan_dist.evaluate.accumulate import BATCH
from wavegan_dist.images import save_png
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot

COUNT, TINY_COUNT = 3000, 32
FIDELITY = "import wavegan_dist.evaluate.efflite0; from torch_fidelity.fidelity import main; main()"
START_UP = "import torch, wavegan_dist.evaluate.efflite0, wavegan_dist.evaluate.evaluate; torch.zeros(1, device='{device}')"


def main() -> None:
    """Measure all commands and print a table."""
    section = Section("evaluate", __doc__)
    count = TINY_COUNT if section.tiny else min(COUNT, Index.load(section.data()).count)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        index = prepare(section, scratch, count)
        start_up = run_python("-c", START_UP.format(device=section.device.type))[0]
        section.write(count=count, start_up_seconds=start_up)
        print(f"start-up {start_up:.1f} s")
        print(f"{'command':<18} {'images':>6} {'s':>6} {'images/s':>9} {'after start-up':>15}")
        for name, (images, command) in commands(section, scratch, index, count).items():
            seconds, _ = run_python(*command, XDG_CACHE_HOME=str(scratch / "cache"))
            rate = images / max(seconds - start_up, 1e-3)
            section.add(command=name, images=images, seconds=seconds, images_per_second=images / seconds, rate=rate)
            print(f"{name:<18} {images:>6} {seconds:>6.1f} {images / seconds:>9.0f} {rate:>15.0f}", flush=True)


def commands(section: Section, scratch: Path, index: Path, count: int) -> dict[str, tuple[int, tuple[object, ...]]]:
    """Return the number of images and the arguments of Python for each command, by name, in the order in which they run."""
    snapshot, made = scratch / "snapshot", scratch / "made"
    metric = "spectrum" if section.tiny else "fd"
    data = ("--data", index, "--count", count, "--metrics", metric, "--json", scratch / "result.json")
    fidelity: tuple[Any, ...] = ("-c", FIDELITY, "--fid", "--json", "--silent", "--no-cache", "--feature-extractor")
    fidelity += ("efflite0@128", "--input1", made, "--input2", scratch / "real")
    where = ("--cpu",) if section.device.type == "cpu" else ("--gpu", "0")
    return {
        "wavegan sample": (count, ("-m", "wavegan_dist", "sample", "--snapshot", snapshot, "--count", count, "--out", made)),
        "wavegan evaluate": (2 * count, ("-m", "wavegan_dist", "evaluate", "--snapshot", snapshot, *data)),
        "torch-fidelity": (2 * count, (*fidelity, *where)),
    }


def prepare(section: Section, scratch: Path, count: int) -> Path:
    """Write an untrained snapshot, and `count` real images as PNGs and as shards.

    Returns:
        The index.json of the shards. They hold as many images as are evaluated, so that `wavegan evaluate` computes no floor.
    """
    index = Index.load(section.data())
    experiment = settings(section)
    torch.manual_seed(0)
    weights = build_generator(experiment).state_dict()
    save_snapshot(scratch / "snapshot", weights, weights.items(), experiment, 0, index.digest)
    number = 0
    for batch_bchw in real_images(index, count, 0, BATCH):
        for image_chw in batch_bchw:
            save_png(image_chw.permute(1, 2, 0), scratch / "real" / f"{number:06d}.png")
            number += 1
    write_shards(scratch / "real", scratch / "shards", index.size, workers=os.cpu_count() or 1, progress=False)
    return scratch / "shards" / "index.json"


if __name__ == "__main__":
    main()
