"""The best snapshot of a run by one metric: RUN/best.json, and tags of the MLflow run."""

import json
from pathlib import Path

from wavegan_dist.evaluate.result import EvaluationResult
from wavegan_dist.files import atomic_file, locked
from wavegan_dist.tracking import log_tags


def tag_best(run_dir: Path, metric: str) -> None:
    """Look at all evaluations of the run and tag the snapshot whose `metric` is nearest to 0, which is where all are good."""
    with locked(run_dir / "cluster" / "best.lock"):  # two evaluations may end together
        values = {}
        for file in run_dir.glob("evaluations/kimg-*.json"):
            if (value := EvaluationResult.read(file).metrics.get(metric)) is not None:
                values[file.stem] = value
        if not values:
            print(f"wavegan: no evaluation has the metric {metric}, so no snapshot is tagged as the best")
            return
        snapshot = min(values, key=lambda name: (abs(values[name]), name))
        best = {"snapshot": snapshot, "metric": metric, "value": values[snapshot]}
        with atomic_file(run_dir / "best.json") as out:
            json.dump(best, out)
        log_tags(run_dir, {f"best_{name}": str(value) for name, value in best.items()})
