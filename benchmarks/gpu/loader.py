"""Can the host feed the GPU? Images per second of the loader alone, and the data wait of a run at the fastest step.

The loader is that of training (`training_batches`) on the packed data set, whose files are in the page cache. The run uses the
number of workers that was fastest, and the precision and `train.compile` that the section `step` found fastest at this
resolution (bf16 and off if that section has not run).
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing

from gpu.common import Section
from gpu.step import PRECISIONS, compile_override
from gpu.training import settings, train
from wavegan_dist.data import ImageBatch, Index, training_batches

WORKERS = (1, 8, 15)
BATCH = 256
WARM_UP_SECONDS, SECONDS, RUN_SECONDS = 1.0, 2.0, 5.0


def main() -> None:
    """Measure the loader with each number of workers, then the run."""
    section = Section("loader", __doc__)
    index = Index.load(section.data())
    batch_size, scale = (8, 0.1) if section.tiny else (BATCH, 1)
    section.write(encoding=index.encoding, size=index.size, images=index.count, batch=batch_size, cores=os.cpu_count())
    print(f"{index.encoding} {index.size} px, batches of {batch_size}, {os.cpu_count()} cores")
    for workers in WORKERS[: 2 if section.tiny else None]:
        loader = training_batches(
            index, batch_size=batch_size, seed=0, start_nimg=0, rank=0, world_size=1, workers=workers, pinned=not section.tiny
        )
        with closing(loader):
            _images_per_second(loader, WARM_UP_SECONDS * scale)
            row = section.add(workers=workers, images_per_second=_images_per_second(loader, SECONDS * scale))
        print(f"{workers:>3} workers {row['images_per_second']:>10,.0f} images/s", flush=True)
    best = max(section.rows, key=lambda row: float(row["images_per_second"]))
    measure_run(section, index.size, batch_size, best["workers"], RUN_SECONDS * scale)


def measure_run(section: Section, side: int, batch_size: int, workers: int, seconds: float) -> None:
    """Measure the speed and the data wait of a run, and print them."""
    precision, mode = fastest_step(section, side)
    overrides = [f"data.workers={workers}", f"train.batch_size={batch_size}", "train.precision=fp32"]
    experiment = settings(section, [*overrides, *PRECISIONS[precision], *compile_override(mode)])
    _, metrics = train(section, experiment, lambda: seconds)
    speed, wait = metrics["speed/images_per_second"], metrics["speed/data_wait_percent"]
    section.add(workers=workers, precision=precision, mode=mode, run_images_per_second=speed, data_wait_percent=wait)
    print(f"run, {precision}, compile {mode}, {workers} workers: {speed:,.0f} images/s, data wait {wait:.1f}%")


def fastest_step(section: Section, side: int) -> tuple[str, str]:
    """Return precision and mode of the fastest row of step.json at a resolution, for a `dcgan` model."""
    path = section.out / "step.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    dcgan = [row for row in rows if row["model"] == "dcgan" and "error" not in row]
    ours = [row for row in dcgan if row["side"] == side and row["mode"] != "plain"]
    best = max(ours, key=lambda row: float(row["images_per_second"]), default={"precision": "bf16", "mode": "off"})
    return best["precision"], best["mode"]


def _images_per_second(batches: Iterator[ImageBatch], seconds: float) -> float:
    images, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        images += len(next(batches).images)
    return images / elapsed


if __name__ == "__main__":
    main()
