"""What the two band generators and the two band discriminators cost: a training step of the full model against its base alone.

    make bench            or: python benchmarks/step.py --config configs/demo.yaml --steps 20

Both models train in one process on one thread, their steps interleaved, so that a busy neighbour slows both; medians.
Writes benchmarks/results/step.json.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator

from wavegan_dist import config
from wavegan_dist.config import Experiment
from wavegan_dist.data import Index
from wavegan_dist.data.index import BandStd, Shard
from wavegan_dist.files import atomic_file
from wavegan_dist.provenance import provenance
from wavegan_dist.train.trainer import Trainer

ABLATION = ["model.base_only=true", "loss.weights.low=0", "loss.weights.high=0"]
WARM_UP = 3


def main() -> None:
    """Measure, print a table, write JSON."""
    options = parse()
    torch.set_num_threads(1)
    variants = {"base only": ABLATION, "full, no attention": ["model.attention=none"], "full": []}
    variants |= {"full, bf16": ["train.precision=bf16"]}
    experiments = {name: config.load(options.config, overrides) for name, overrides in variants.items()}
    times = measure(experiments, options.steps)
    batch = experiments["full"].train.batch_size
    baseline = times["base only"]
    rows = [
        {"model": name, "seconds_per_step": seconds, "images_per_second": batch / seconds, "ratio": seconds / baseline}
        for name, seconds in times.items()
    ]
    print(f"{'model':<20} {'s/step':>8} {'img/s':>8} {'ratio to base only':>20}")
    for row in rows:
        print("{model:<20} {seconds_per_step:>8.4f} {images_per_second:>8.1f} {ratio:>20.2f}".format(**row))
    result = {"config": str(options.config), "steps": options.steps, "threads": 1, "cores": os.cpu_count(), "rows": rows}
    out = Path(__file__).parent / "results" / "step.json"
    with atomic_file(out) as file:
        json.dump(result | provenance(), file, indent=2)
    print(out)


def measure(experiments: dict[str, Experiment], steps: int) -> dict[str, float]:
    """Median seconds of a step of each experiment, on made-up images: the loader is not measured."""
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    trainers = {name: Trainer(experiment, made_up_index(experiment), accelerator) for name, experiment in experiments.items()}
    batches = {name: made_up_batches(experiment) for name, experiment in experiments.items()}
    times: dict[str, list[float]] = {name: [] for name in experiments}
    for _ in range(WARM_UP + steps):
        for name, trainer in trainers.items():
            began = time.perf_counter()
            trainer.step(batches[name])
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds[WARM_UP:]) for name, seconds in times.items()}


def made_up_batches(experiment: Experiment) -> Iterator[torch.Tensor]:
    """One random batch, over and over."""
    side = experiment.model.resolution
    batch = torch.randint(0, 256, (experiment.train.batch_size, 3, side, side), dtype=torch.uint8)
    while True:
        yield batch


def made_up_index(experiment: Experiment) -> Index:
    """An index of the right size, of no shards that exist."""
    shard = Shard(file="none.tar", images=1, bytes=1, sha256="0" * 64)
    std = BandStd(low=1, lh=0.1, hl=0.1, hh=0.1)
    return Index(size=experiment.model.resolution, count=1, encoding="png", band_std=std, shards=[shard])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"), metavar="FILE")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed steps of each model (default: 20)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
