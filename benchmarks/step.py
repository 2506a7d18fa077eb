"""The cost of the two band generators and the two band discriminators: a step of the full model, compared with its base alone.

    make bench            or: python benchmarks/step.py --config configs/demo.yaml --steps 20

All models train in one process on one thread. Their steps are interleaved, so that other load on the machine slows all of them
alike. Reports medians and writes benchmarks/results/step.json.

    python benchmarks/step.py --sizes 32 64 128 256 512 1024 --width 8 --batch 4

trains the full model at each image size instead, each in a process of its own, and writes seconds of a step, peak memory and
the estimate of the check before training to benchmarks/results/step-sizes.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from bench_common import argument_parser, fake_index, write_result

from wavegan_dist import config
from wavegan_dist.config import Experiment
from wavegan_dist.data import ImageBatch
from wavegan_dist.plan.fits import step_bytes
from wavegan_dist.provenance import provenance
from wavegan_dist.train.progress import peak_memory
from wavegan_dist.train.trainer import Trainer

BASE_ONLY = ["model.base_only=true", "loss.weights.low=0", "loss.weights.high=0"]
VARIANTS = {
    "base only": BASE_ONLY,
    "full, no attention": ["model.attention=none"],
    "full": [],
    "full, bf16": ["train.precision=bf16"],
    "full, compiled": ["train.compile=default"],
}
WARM_UP = 3


def main() -> None:
    """Measure all variants, print a table and write the result."""
    options = parse_arguments()
    torch.set_num_threads(1)
    if options.one_size:
        print(json.dumps(measure_size(options, options.one_size)))
        return
    if options.sizes:
        compare_sizes(options)
        return
    experiments = {name: config.load(options.config, overrides) for name, overrides in VARIANTS.items()}
    times = measure(experiments, options.steps)
    batch = experiments["full"].train.batch_size
    baseline = times["base only"]
    rows: list[dict[str, Any]] = [
        {"model": name, "seconds_per_step": seconds, "images_per_second": batch / seconds, "ratio": seconds / baseline}
        for name, seconds in times.items()
    ]
    print(f"{'model':<20} {'s/step':>8} {'img/s':>8} {'ratio to base only':>20}")
    for row in rows:
        print("{model:<20} {seconds_per_step:>8.4f} {images_per_second:>8.1f} {ratio:>20.2f}".format(**row))
    settings = {"config": str(options.config), "steps": options.steps, "threads": 1, "cores": os.cpu_count()}
    write_result("step", settings | {"rows": rows} | provenance())


def measure(experiments: dict[str, Experiment], steps: int) -> dict[str, float]:
    """Return the median seconds of a step of each experiment, on one random batch: the loader is not measured."""
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    trainers = {
        name: Trainer(experiment, fake_index(experiment.model.resolution, 0.1), accelerator)
        for name, experiment in experiments.items()
    }
    batches = {name: random_batches(experiment) for name, experiment in experiments.items()}
    times: dict[str, list[float]] = {name: [] for name in experiments}
    for _ in range(WARM_UP + steps):
        for name, trainer in trainers.items():
            began = time.perf_counter()
            trainer.step(batches[name])
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds[WARM_UP:]) for name, seconds in times.items()}


def compare_sizes(options: argparse.Namespace) -> None:
    """Measure the full model at each size in a process of its own, print a table and write the result."""
    rows = []
    print(f"{'size':>6} {'s/step':>9} {'s/image':>9} {'peak GiB':>9} {'estimate GiB':>13}")
    for size in options.sizes:
        command = [sys.executable, __file__, *sys.argv[1:], "--one-size", str(size)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        row = json.loads(lines[-1])
        print(
            "{size:>6} {seconds_per_step:>9.3f} {seconds_per_image:>9.4f} {peak_gib:>9.2f} {estimate_gib:>13.2f}".format(**row)
        )
        rows.append(row)
    settings = {"config": str(options.config), "steps": options.steps, "width": options.width, "batch": options.batch}
    write_result("step-sizes", settings | {"threads": 1, "rows": rows} | provenance())


def measure_size(options: argparse.Namespace, size: int) -> dict[str, float]:
    """Return seconds of a step, this process's peak memory above that before the model was built, and the plan's estimate."""
    overrides = [f"model.resolution={size}", f"model.width={options.width}", f"train.batch_size={options.batch}"]
    experiment = config.load(options.config, overrides)
    before = peak_memory()
    seconds = measure({"full": experiment}, options.steps)["full"]
    peak = peak_memory() - before
    return {
        "size": size,
        "seconds_per_step": seconds,
        "seconds_per_image": seconds / options.batch,
        "peak_gib": peak / 2**30,
        "estimate_gib": step_bytes(experiment, options.batch, 1) / 2**30,
    }


def random_batches(experiment: Experiment) -> Iterator[ImageBatch]:
    """Yield the same random batch without end."""
    side = experiment.model.resolution
    batch_bchw = torch.randint(0, 256, (experiment.train.batch_size, 3, side, side), dtype=torch.uint8)
    while True:
        yield ImageBatch(batch_bchw)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"), metavar="FILE")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed steps of each model (default: 20)")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="PX", help="compare these image sizes instead")
    parser.add_argument("--width", type=int, default=8, metavar="N", help="model.width with --sizes (default: 8)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="train.batch_size with --sizes (default: 4)")
    parser.add_argument("--one-size", type=int, metavar="PX", help=argparse.SUPPRESS)  # in the processes of --sizes
    return parser.parse_args()


if __name__ == "__main__":
    main()
