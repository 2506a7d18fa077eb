"""The cost of the two band generators and the two band discriminators: a step of the full model, compared with its base alone.
Also the cost of levels, of precision and of compilation, and of gradient penalties, compared with the same model without them.
The rows of `plain` are a plain version of the full model (`gpu/plain.py`).

    make bench            or: python benchmarks/step.py --config configs/demo.yaml --steps 20

All models train in one process on one thread. Their steps are interleaved, so that other load on the machine slows all of them
alike. Reports medians and writes benchmarks/results/step-RESOLUTION.json. "flops" and "bytes" are the ratios of what `wavegan
plan` counts in a step without penalties: floating-point operations, and the operators' inputs and outputs.

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
from gpu.plain import PlainTrainer

from wavegan_dist import config
from wavegan_dist.config import Experiment
from wavegan_dist.data import ImageBatch
from wavegan_dist.plan.count import count_step
from wavegan_dist.plan.fits import step_bytes
from wavegan_dist.provenance import provenance
from wavegan_dist.train.launch import keep_freed_memory
from wavegan_dist.train.progress import peak_memory
from wavegan_dist.train.trainer import Trainer

BASE_ONLY = ["model.base_only=true", "loss.weights.low=0", "loss.weights.high=0"]
RESIDUAL = ["model.backbone=residual"]
HAAR = [*RESIDUAL, "model.resample=haar"]
PLAIN = ("plain", "plain, bf16")
# The first of each group is the baseline of its ratios.
DCGAN_MODELS = {
    "dcgan, base only": BASE_ONLY,
    "dcgan, full": [],
    "dcgan, full, no attention": ["model.attention=none"],
    "dcgan, full, 2 levels": ["model.levels=2"],
    "dcgan, full, bf16": ["train.precision=bf16"],
    "dcgan, full, compiled": ["train.compile=default"],
    "plain": [],
    "plain, bf16": ["train.precision=bf16"],
}
RESIDUAL_MODELS = {
    "residual haar, base only": [*HAAR, *BASE_ONLY],
    "residual haar, full": HAAR,
    "residual haar, full, 2 levels": [*HAAR, "model.levels=2"],
    "residual bilinear, full": RESIDUAL,
}
NO_PENALTY = ["model.spectral_norm=false", "loss.objective=relativistic"]
PENALTIES = {
    "no penalty": NO_PENALTY,
    "exact": [*NO_PENALTY, "loss.r1=1", "loss.r2=1"],
    "approximate": [*NO_PENALTY, "loss.r1=1", "loss.r2=1", "loss.penalty=approximate"],
}
INTERVALS = (4, 8, 16)  # of lazy penalties
WARM_UP = 3


def main() -> None:
    """Measure all variants, print a table and write the result."""
    options = parse_arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    if options.one_size:
        print(json.dumps(measure_size(options, options.one_size)))
        return
    if options.sizes:
        compare_sizes(options)
        return
    parts = [PENALTIES] if options.penalties else [DCGAN_MODELS, RESIDUAL_MODELS, PENALTIES]
    size = [f"model.resolution={options.resolution}"] if options.resolution else []
    variants = {name: [*size, *overrides] for part in parts for name, overrides in part.items()}
    experiments = {name: config.load(options.config, overrides) for name, overrides in variants.items()}
    times = measure(experiments, options.steps)
    batch = experiments["no penalty"].train.batch_size
    groups = [{name: times[name] for name in part} for part in parts]
    groups[-1] = with_lazy_penalties(groups[-1])
    work = {
        name: counted_work(experiments[name]) for part in parts if part is not PENALTIES for name in part if name not in PLAIN
    }
    rows: list[dict[str, Any]] = [
        {"model": name, "seconds_per_step": seconds, "images_per_second": batch / seconds, "ratio": seconds / group[baseline]}
        | {kind: value / work[baseline][kind] for kind, value in work.get(name, {}).items()}
        for group in groups
        for baseline in [next(iter(group))]
        for name, seconds in group.items()
    ]
    print(f"{'model':<30} {'s/step':>8} {'img/s':>8} {'ratio to base only or no penalty':>34} {'flops':>7} {'bytes':>7}")
    for row in rows:
        print(
            "{model:<30} {seconds_per_step:>8.4f} {images_per_second:>8.1f} {ratio:>34.2f}".format(**row),
            *(f"{row[kind]:>7.2f}" for kind in ("flops", "bytes") if kind in row),
        )
    resolution = experiments["no penalty"].model.resolution
    settings = {
        "config": str(options.config),
        "resolution": resolution,
        "steps": options.steps,
        "threads": 1,
        "cores": os.cpu_count(),
    }
    write_result("penalties" if options.penalties else f"step-{resolution}", settings | {"rows": rows} | provenance())


def counted_work(experiment: Experiment) -> dict[str, float]:
    """Return the floating-point operations and the bytes of a step, as `wavegan plan` counts them."""
    _, step = count_step(experiment, experiment.train.batch_size)
    operators = [operator for phase in step.phases for operator in phase.operators]
    return {"flops": step.flops, "bytes": sum(operator.bytes for operator in operators)}


def with_lazy_penalties(times: dict[str, float]) -> dict[str, float]:
    """Add the mean seconds of a step with lazy penalties: of n steps, one has them.

    Computed from the medians of steps with and without penalties, because the median of lazy steps is that of the more
    frequent kind.
    """
    lazy = {
        f"{kind}, every {n}th step": ((n - 1) * times["no penalty"] + times[kind]) / n
        for kind in ("exact", "approximate")
        for n in INTERVALS
    }
    return times | lazy


def measure(experiments: dict[str, Experiment], steps: int) -> dict[str, float]:
    """Return the median seconds of a step of each experiment, on one random batch: the loader is not measured."""
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    trainers = {
        name: PlainTrainer(experiment, accelerator.device)
        if name in PLAIN
        else Trainer(experiment, fake_index(experiment.model.resolution, 0.1), accelerator)
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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = peak_memory(device)
    seconds = measure({"full": experiment}, options.steps)["full"]
    peak = peak_memory(device) - before
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
    parser.add_argument("--resolution", type=int, metavar="PX", help="model.resolution (default: that of the config)")
    parser.add_argument("--penalties", action="store_true", help="measure only gradient penalties: results/penalties.json")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="PX", help="compare these image sizes instead")
    parser.add_argument("--width", type=int, default=8, metavar="N", help="model.width with --sizes (default: 8)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="train.batch_size with --sizes (default: 4)")
    parser.add_argument("--one-size", type=int, metavar="PX", help=argparse.SUPPRESS)  # in the processes of --sizes
    return parser.parse_args()


if __name__ == "__main__":
    main()
