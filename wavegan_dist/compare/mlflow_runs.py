"""A run that is in MLflow alone: its artifacts and metrics, laid out as a run folder."""

import json
import os
from collections import defaultdict
from pathlib import Path

from wavegan_dist.errors import UsageError


def fetch(run_id: str, scratch: Path) -> Path:
    """Bring a run of the store that MLFLOW_TRACKING_URI names into a folder of its name in `scratch`.

    Its configuration, environment, snapshots and evaluations are artifacts of the names they have in a run folder;
    metrics.jsonl is made of the metrics' history.

    Raises:
        UsageError: the variable is not set, or there is no such run.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ:
        raise UsageError(f"mlflow:{run_id}: say in which store, for example MLFLOW_TRACKING_URI=sqlite:///runs/mlflow.db")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UsageError(f"mlflow:{run_id}: {os.environ['MLFLOW_TRACKING_URI']} has no such run") from error
    folder = scratch / run_id / str(run.info.run_name)
    folder.mkdir(parents=True)
    for artifact in client.list_artifacts(run_id):
        if artifact.path in ("config.yaml", "environment.json", "evaluations", "snapshots"):
            client.download_artifacts(run_id, artifact.path, str(folder))
    points: dict[int, dict[str, float]] = defaultdict(dict)
    for name in run.data.metrics:
        if not name.startswith("eval/"):
            for metric in client.get_metric_history(run_id, name):
                points[metric.step][name] = metric.value
    lines = [json.dumps({"nimg": step, "kimg": step / 1000, **points[step]}) for step in sorted(points)]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder
