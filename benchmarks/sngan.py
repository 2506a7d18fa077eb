"""Mimicry's SNGAN on CIFAR-10 for as many CPU seconds as a run of ours took seconds, measured by the same metrics.

    python benchmarks/sngan.py --seeds 0 1 2

SNGAN (Miyato et al., 2018) is trained by torch-mimicry 0.1.16 with its networks and the settings of its README, in an
environment of its own, on one thread (peers/with_mimicry.py). Our runs are the results of `benchmarks/ablations.py`; theirs are
written to benchmarks/peers/sngan.json. The table shows both, with the floors.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ablations import Ablations, read_json
from bench_common import argument_parser, write_json
from loaders import ADAPTERS, ENVIRONMENTS, ROOT, NotInstalledError, installed
from torch import Tensor

from wavegan_dist.data import Index, images_at
from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluate.accumulate import BATCH, compute_statistics
from wavegan_dist.evaluate.real_images import real_statistics
from wavegan_dist.evaluate.registry import PACKAGED_WEIGHTS, build_metrics
from wavegan_dist.processes import join
from wavegan_dist.provenance import provenance

REQUIREMENTS = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "tensorboard")
MIMICRY = "torch-mimicry==0.1.16"
RESULTS = ADAPTERS / "sngan.json"


def main() -> None:
    """Train and evaluate SNGAN with each seed, and print the table."""
    try:
        compare()
    except (WaveganError, NotInstalledError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"sngan: {error}")


def compare() -> None:
    """Run the command of the module's docstring."""
    parser = argument_parser(__doc__)
    parser.add_argument("--study", type=Path, default=ROOT / "configs" / "ablations" / "cifar10.yaml")
    parser.add_argument("--row", default="full", help="the row of the study whose training time SNGAN gets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="those that have a result are not run again")
    options = parser.parse_args()
    ablations = Ablations(options.study)
    known = read_json(RESULTS, "runs")["runs"] if RESULTS.exists() else {}
    print(f"| run | kimg | s | {' | '.join(ablations.study.shown)} |\n{'|---' * (3 + len(ablations.study.shown))}|")
    ours = {run.experiment.seed: run for run in ablations.runs() if run.row == options.row}
    for seed in options.seeds:
        result = ablations.result(ours[seed]) if seed in ours else None
        if result is None:
            sys.exit(f"sngan: no result of {options.row}, seed {seed}; run benchmarks/ablations.py first")
        if str(seed) not in known:
            index = Index.load(ROOT / ours[seed].experiment.data.index_for_evaluation())
            seconds = result["seconds_per_kimg"] * result["kimg"]
            known[str(seed)] = trained_and_evaluated(index, ablations, seconds, seed)
            write_json(RESULTS, {"runs": known, **provenance()})
        line(f"{options.row}, seed {seed}", ablations, result)
        line(f"SNGAN, seed {seed}", ablations, known[str(seed)])
        floors = result["floors"]
    line("floor", ablations, {"metrics": floors})


def trained_and_evaluated(index: Index, ablations: Ablations, seconds: float, seed: int) -> dict[str, Any]:
    """Train SNGAN for `seconds` of CPU time and compute the study's metrics of `count` of its images."""
    study = ablations.study
    python = installed(ENVIRONMENTS / "mimicry", REQUIREMENTS, (MIMICRY,))
    ablations.runs_folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=ablations.runs_folder) as folder:
        real, out = Path(folder) / "real.npy", Path(folder) / "generated.npy"
        rows = np.arange(index.count)
        np.save(real, torch.cat([batch.permute(0, 2, 3, 1) for batch in images_at(index, rows, BATCH)]).numpy())
        command = [python, ADAPTERS / "with_mimicry.py", real, seconds, study.count, seed, out]
        trained = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
        generated = torch.from_numpy(np.load(out))
    return {
        **json.loads(trained.stdout),
        "budget_seconds": round(seconds, 1),
        "metrics": evaluated(generated, index, study, seed),
    }


def evaluated(images: Tensor, index: Index, study: Any, seed: int) -> dict[str, float]:
    """Compute metrics of generated images, uint8 [N, 3, S, S], as `wavegan evaluate` does."""
    group = join()
    names = study.metrics.split(",")
    metrics = build_metrics(names, index.size, study.count, seed, PACKAGED_WEIGHTS, group.device).values()
    features = list({metric.feature.name: metric.feature for metric in metrics}.values())

    def source(numbers: range) -> Iterator[Tensor]:
        yield from images[numbers.start : numbers.stop].split(BATCH)

    real = real_statistics(index, study.count, seed, features, group)[0]
    generated = compute_statistics(source, study.count, features, group, "images of SNGAN")
    results = [metric.compare(real[metric.feature.name], generated[metric.feature.name]) for metric in metrics]
    return {name: value for result in results for name, value in result.metrics.items()}


def line(name: str, ablations: Ablations, result: dict[str, Any]) -> None:
    """Print a row of the table."""
    shown = ablations.study.shown
    seconds = result.get("cpu_seconds") or result.get("seconds_per_kimg", 0) * result.get("kimg", 0)
    values = [f"{result['metrics'][metric]:.4g}" for metric in shown]
    print(f"| {name} | {result.get('kimg', '')} | {seconds:.0f} | {' | '.join(values)} |", flush=True)


if __name__ == "__main__":
    main()
