"""The full model and the base generator with the image discriminator alone, trained for equal seconds on the packed images.

Settings are those of configs/photos64.yaml, and the same with the changes of configs/base_only.yaml; two seeds each. The clock
of a training starts after its third step and includes the loader. All trainings and evaluations run in this process. Values
compare half of the packed images with as many generated ones, as `wavegan evaluate` does by default.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from gpu.common import Section
from gpu.training import settings, train
from wavegan_dist.config import Experiment
from wavegan_dist.data import Index
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.model.snapshot import save_snapshot
from wavegan_dist.processes import cores

MODELS = {"full": [], "image only": ["model.base_only=true", "loss.weights.low=0", "loss.weights.high=0"]}
SEEDS = (0, 1)
METRICS, TINY_METRICS = ("fwd", "fwd_db2", "spectrum", "bands", "fd"), ("spectrum", "bands")  # kid takes as long as all others
SHOWN = ("fwd", "fwd_db2", "spectrum_db", "spectrum_db_top_half", "fd_efflite0@128")
TRAINING_SHARE = 0.6  # of the section's time; the rest is for the evaluations


def main() -> None:
    """Train and evaluate all runs; print a line for each, and the means of each model."""
    section = Section("quality", __doc__)
    seconds = 0.5 if section.tiny else max(TRAINING_SHARE * section.remaining() / len(MODELS) / len(SEEDS), 1)
    section.write(training_seconds=seconds)
    print(f"{seconds:.1f} s of training each")
    for seed in SEEDS[: 1 if section.tiny else None]:
        if seed and section.remaining() < len(MODELS) * seconds:
            print(f"seed {seed} left out for lack of time")
            break
        for model, overrides in MODELS.items():
            experiment = settings(section, [f"seed={seed}", f"data.workers={cores() // 2}", *overrides])
            row = section.add(model=model, seed=seed, **train_and_evaluate(section, experiment, seconds))
            print(f"{model:<10} seed {seed} {row['kimg']:>7.1f} kimg  {format_metrics(row['metrics'])}", flush=True)
    for model in MODELS:
        runs = [row["metrics"] for row in section.rows if row["model"] == model]
        means = {name: statistics.fmean(run[name] for run in runs) for name in runs[0]}
        print(f"{model:<10} mean                 {format_metrics(means)}")
    print(f"{'floor':<32}{format_metrics(section.rows[-1]['floors'])}")


def train_and_evaluate(section: Section, experiment: Experiment, seconds: float) -> dict[str, Any]:
    """Train for some seconds and evaluate the EMA; return the images seen, lam, the metrics and their floors."""
    trainer, _ = train(section, experiment, seconds)
    digest = Index.load(experiment.data.index).digest
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "snapshot"
        save_snapshot(snapshot, trainer.ema.layout, trainer.ema.iter_full_tensors(), experiment, trainer.nimg, digest)
        result = evaluate_snapshot(snapshot, section.data(), TINY_METRICS if section.tiny else METRICS)
    assert result is not None
    values = result.model_dump(include={"metrics", "floors", "intervals", "protocol"})
    return {"kimg": trainer.nimg / 1000, "lam": trainer.lam(), **values}


def format_metrics(metrics: dict[str, float]) -> str:
    """Format the metrics of SHOWN that there are."""
    return "  ".join(f"{name.removesuffix('_efflite0@128')} {metrics[name]:.3g}" for name in SHOWN if name in metrics)


if __name__ == "__main__":
    main()
