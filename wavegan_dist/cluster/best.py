"""The best snapshot of a run by one metric: RUN/best.json, and tags of the MLflow run."""

import json
from pathlib import Path

from wavegan_dist.evaluation_result import EvaluationResult, optimum
from wavegan_dist.files import atomic_file, locked
from wavegan_dist.log import log
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import log_tags


def tag_best(run_dir: Path, metric: str) -> None:
    """Find the snapshot whose `metric` is nearest to its optimum; name it in RUN/best.json and in tags of the MLflow run.

    Of equally good snapshots the oldest is chosen. Logs a warning if the metric has no optimum or no evaluation has it.
    """
    if (best_value := optimum(metric)) is None:
        log.warning("%s has no best value, so no snapshot is tagged as the best; choose its distance to real images", metric)
        return
    run = RunFolder(run_dir)
    with locked(run.cluster / "best.lock"):  # two evaluations may end together
        values = {}
        for file in run.evaluations():
            if (value := EvaluationResult.read(file).metrics.get(metric)) is not None:
                values[file.stem] = value
        if not values:
            log.warning("no evaluation has the metric %s, so no snapshot is tagged as the best", metric)
            return
        snapshot = min(values, key=lambda name: (abs(values[name] - best_value), name))
        best = {"snapshot": snapshot, "metric": metric, "value": values[snapshot]}
        with atomic_file(run.best) as out:
            json.dump(best, out)
        log_tags(run_dir, {f"best_{name}": str(value) for name, value in best.items()})
