"""The best snapshot of a run by one metric: RUN/best.json, and tags and a metric of the MLflow run."""

import json
from contextlib import suppress

from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluation_result import EvaluationResult, optimum
from wavegan_dist.files import atomic_file, locked, parse_json
from wavegan_dist.log import log
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.sync import log_best


def best_metric(run: RunFolder) -> str | None:
    """Return the name of the metric by which RUN/best.json was chosen; None if that file is missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(parse_json(run.best.read_text())["metric"])
    return None


def update_best(run: RunFolder, result: EvaluationResult) -> None:
    """Choose the run's best snapshot anew after an evaluation: call `tag_best` with the metric of best.json.

    Without best.json, the metric is `fwd` or, if `result` does not have it, the first metric of `result` that has an optimum.
    Does nothing if `result` does not have the metric or the metric has no optimum. Logs a warning instead of raising an OSError
    or WaveganError, for example if another result is damaged or the disk is full.

    Args:
        run: the run.
        result: the newest result; its file must already be in `run.evaluations()`.
    """
    names = [name for name in result.metrics if optimum(name) is not None]
    metric = best_metric(run) or next((name for name in ("fwd", *names) if name in names), None)
    if metric in names:
        try:
            tag_best(run, result, metric)
        except (OSError, WaveganError) as error:
            log.warning("%s", error)


def tag_best(run: RunFolder, result: EvaluationResult, metric: str) -> None:
    """Find the snapshot whose `metric` is nearest to its optimum; name it in RUN/best.json and in tags of the MLflow run.

    The MLflow run gets the value as the metric best/METRIC, too, at the image number of the newest snapshot that was compared,
    so that its table of runs can sort by the value. Of equally good snapshots the oldest is chosen. If the metric has no
    optimum or `result` does not have it, nothing is chosen and a warning is logged. If MLflow does not accept the value now, a
    warning is logged, and the value stays in the run folder for `wavegan track sync`. If the run is not tracked, only best.json
    is written. Waits while another process runs this function for the same run. Does nothing if no file has a result to compare
    any longer.

    Args:
        run: the run.
        result: the newest result; its file must already be in `run.evaluations()`. Results under other conditions
            (`EvaluationResult.conditions`) are not compared.
        metric: name of the metric.

    Raises:
        WaveganError: the file of another result is damaged.
        OSError: a result cannot be read, or best.json cannot be written.
    """
    if (best_value := optimum(metric)) is None:
        log.warning("%s has no best value, so no snapshot is tagged as the best; choose its distance to real images", metric)
        return
    if metric not in result.metrics:
        log.warning("the evaluation has no metric %s, so no snapshot is tagged as the best", metric)
        return
    conditions = result.conditions(metric)
    with locked(run.best_lock):  # two evaluations may end together
        results = {file.stem: EvaluationResult.read(file) for file in run.evaluations()}
        values = {
            name: other.metrics[metric]
            for name, other in results.items()
            if metric in other.metrics and other.conditions(metric) == conditions
        }
        if not values:  # an evaluation of this snapshot under other conditions has replaced the result meanwhile
            return
        snapshot = min(values, key=lambda name: (abs(values[name] - best_value), name))
        best = {"snapshot": snapshot, "metric": metric, "value": values[snapshot]}
        with atomic_file(run.best) as out:
            json.dump(best, out)
        log_best(run.path, best, max(results[name].protocol.nimg for name in values))
