"""The full model and the base generator with the image discriminator alone, trained for equal seconds on the packed images.

Settings are those of configs/photos64.yaml, the same with the changes of configs/photos64_image_only.yaml, and the same with
the logit gain and the learning rates of configs/cifar10.yaml; three seeds each. Every training has a process of its own
(`quality_run.py`), and all run at the same time, from the third step on until the seconds are over: they share the GPU and the
cores. Meanwhile this process computes the statistics of the real images. Values compare half of the packed images with as many
generated ones, as `wavegan evaluate` does by default. Each run leaves its snapshot and a grid of samples in quality/.
"""

import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu.common import Helper, Section
from gpu.training import save_untrained
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.processes import cores

MODELS = {
    "full": [],
    "image only": ["model.base_only=true", "loss.weights.low=0", "loss.weights.high=0"],
    "full, gain 16": ["model.logit_gain=16", "optim.lr_g=6e-4", "optim.lr_d=12e-4"],
}
SEEDS = (0, 1, 2)
SHOWN = ("fwd", "fwd_high", "fwd_db2_high", "spectrum_db", "spectrum_db_top_half", "fd_efflite0@128")
WARM_UP_SECONDS = 60  # that the processes may take until their third step
EVALUATION_SECONDS = 60  # that all evaluations may take, at the same time
METRICS, TINY_METRICS = ("fwd", "fwd_db2", "spectrum", "bands", "fd"), ("spectrum", "bands")  # kid takes as long as all others


def main() -> None:
    """Train and evaluate all runs; print a line for each, and the means of each model."""
    section = Section("quality", __doc__)
    section.data()  # before the processes would all write it
    (section.out / "quality").mkdir(exist_ok=True)
    threads = str(max(cores() // (len(MODELS) * len(SEEDS)), 1))
    tasks = {
        (model, seed): {"model": model, "seed": seed, "overrides": overrides}
        for seed in (SEEDS[:1] if section.tiny else SEEDS)
        for model, overrides in MODELS.items()
    }
    runs = {run: Helper(section, "gpu.quality_run", task, OMP_NUM_THREADS=threads) for run, task in tasks.items()}
    try:
        train_and_evaluate(section, runs)
    finally:
        for helper in runs.values():
            helper.kill()
    for model in MODELS:
        metrics = [row["metrics"] for row in section.rows if row["model"] == model]
        means = {name: statistics.fmean(run[name] for run in metrics) for name in metrics[0]}
        print(f"{model:<10} mean                 {format_metrics(means)}")
    print(f"{'floor':<32}{format_metrics(section.rows[-1]['floors'])}")


def train_and_evaluate(section: Section, runs: Mapping[tuple[str, int], Helper]) -> None:
    """Let all processes train at the same time, then evaluate; add a row for each.

    Raises:
        SystemExit: a process failed, or was not ready in time.
    """
    for (model, seed), helper in runs.items():
        if not helper.is_ready(time.monotonic() + WARM_UP_SECONDS):
            raise SystemExit(f"quality: {model}, seed {seed}, was not ready after {WARM_UP_SECONDS} s")
    seconds = 0.5 if section.tiny else max(section.remaining() - EVALUATION_SECONDS, 1)
    section.write(training_seconds=seconds)
    print(f"{seconds:.1f} s of training, {len(runs)} runs at the same time", flush=True)
    for helper in runs.values():
        helper.begin(seconds)
    fill_cache(section)
    failed = 0
    for (model, seed), helper in runs.items():
        try:
            row = section.add(model=model, seed=seed, **helper.result(max(section.remaining(), 1)))
        except (RuntimeError, subprocess.TimeoutExpired):
            traceback.print_exc()
            failed += 1
            continue
        print(f"{model:<10} seed {seed} {row['kimg']:>7.1f} kimg  {format_metrics(row['metrics'])}", flush=True)
    if failed:
        raise SystemExit(f"quality: {failed} runs failed")


def fill_cache(section: Section) -> None:
    """Compute the statistics of the real images and the floors, which all runs then find in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "snapshot"
        save_untrained(section, snapshot)
        evaluate_snapshot(snapshot, section.data(), metric_names(section))


def metric_names(section: Section) -> Sequence[str]:
    """Return the metrics of the evaluations."""
    return TINY_METRICS if section.tiny else METRICS


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Format the metrics of SHOWN that there are."""
    return "  ".join(f"{name.removesuffix('_efflite0@128')} {metrics[name]:.3g}" for name in SHOWN if name in metrics)


if __name__ == "__main__":
    main()
