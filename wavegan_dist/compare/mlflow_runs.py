"""Runs in MLflow: artifacts and metrics, downloaded into the layout of a run folder."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from wavegan_dist.config import check_store, is_database
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import ensure_home
from wavegan_dist.redact import redacted
from wavegan_dist.run_folder import RunFolder, ema_of

LONGEST_NAME = 200  # bytes of the name of a folder; most file systems allow 255


def fetch(run_id: str, scratch: Path) -> Path:
    """Download a run from the store that MLFLOW_TRACKING_URI names.

    The configuration, environment, evaluations and the newest snapshot of each EMA are artifacts with the names that they have
    in a run folder; metrics.jsonl is rebuilt from the history of the metrics.

    Sets environment variables that limit MLflow's retries and hide its progress bars, unless they are set, and those of
    `ensure_home`.

    Args:
        run_id: MLflow's id of the run.
        scratch: folder in which the new run folder RUN_ID/NAME_OF_RUN is created; each run can be fetched into it once.

    Returns:
        The run folder.

    Raises:
        UsageError: the variable is not set to an MLflow store, or the store has no such run.
        WaveganError: the store does not answer or is damaged.
    """
    uri = _store(run_id)
    ensure_home()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # by default, a server that is down takes minutes
    from mlflow import MlflowClient

    with _translated_errors(run_id, uri):
        client = MlflowClient()
        run = client.get_run(run_id)
        folder = RunFolder(scratch / run_id / _folder_name(run_id, run.info.run_name))
        folder.path.mkdir(parents=True)
        for artifact in _artifacts(client, run_id, folder):
            target = folder.path / artifact
            target.parent.mkdir(exist_ok=True)
            downloaded = client.download_artifacts(run_id, artifact, str(folder.path))
            Path(downloaded).rename(target)  # a store of local files leaves out the folders above the artifact
        lines = (f"{json.dumps(point)}\n" for point in _points(client, run_id, run.data.metrics))
        folder.metrics.write_text("".join(lines))
    return folder.path


def _store(run_id: str) -> str:
    """Return MLFLOW_TRACKING_URI without its password.

    Raises:
        UsageError: it is not set, not the URI of an MLflow store, or that of a missing SQLite file; the message names `run_id`.
    """
    try:
        uri = check_store(os.environ["MLFLOW_TRACKING_URI"])
    except KeyError as error:
        advice = "set MLFLOW_TRACKING_URI to the run's store, for example sqlite:///runs/mlflow.db"
        raise UsageError(f"mlflow:{run_id}: {advice}") from error
    except ValueError as error:
        raise UsageError(f"mlflow:{run_id}: MLFLOW_TRACKING_URI: {error}") from error
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not (file.is_file() and is_database(file)):  # MLflow would create a missing one
        reason = "is not a SQLite database" if file.exists() else "does not exist"
        raise UsageError(f"mlflow:{run_id}: MLFLOW_TRACKING_URI: {file} {reason}")
    return redacted(uri)


@contextmanager
def _translated_errors(run_id: str, uri: str) -> Iterator[None]:
    """Turn every Exception of the block into a UsageError if MLflow has no such run, else into a WaveganError.

    The messages name `run_id` and `uri`, which must not hold a password.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except Exception as error:
        if isinstance(error, MlflowException) and error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UsageError(f"mlflow:{run_id}: {uri} has no such run") from error
        reason = " ".join(str(error).split())[:300]
        raise WaveganError(f"mlflow:{run_id}: {uri} cannot be read ({reason}); try again when it is available") from error


def _folder_name(run_id: str, run_name: str | None) -> str:
    """Return a name for the folder of a run, whose name in MLflow anybody may choose: it must not lead to another folder."""
    name = re.sub(r"[/\0]", "_", run_name or "").encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore")
    return run_id if name in ("", ".", "..") else name


def _artifacts(client: Any, run_id: str, folder: RunFolder) -> Iterator[str]:
    """Yield the artifacts that a comparison reads: files, the folder of evaluations, and the newest snapshot of each EMA.

    Raises:
        ValueError: one of them holds a folder. MLflow would follow a server that lists folders without end.
    """

    def names(path: str | None = None) -> list[str]:
        return [PurePosixPath(entry.path).name for entry in client.list_artifacts(run_id, path)]

    top = names()
    evaluations, snapshots = folder.evaluation("").parent, folder.snapshot(0).parent.name
    paths = [path.name for path in (folder.config, folder.environment, evaluations) if path.name in top]
    if snapshots in top:
        paths += {ema_of(name): f"{snapshots}/{name}" for name in sorted(names(snapshots)) if name.startswith("kimg-")}.values()
    for path in paths:
        if any(entry.is_dir for entry in client.list_artifacts(run_id, path)):
            raise ValueError(f"its artifact {path} holds folders")
        yield path


def _points(client: Any, run_id: str, metrics: Iterable[str]) -> Iterator[dict[str, float]]:
    """Yield the values of all metrics but those of evaluations (eval/..., best/...): one dict per step, by ascending step.

    Each dict has the step as `nimg` and as `kimg`, and the metrics that have a value at the step, by name.
    """
    points: dict[int, dict[str, float]] = defaultdict(dict)
    for name in metrics:
        if not name.startswith(("eval/", "best/")):
            for metric in client.get_metric_history(run_id, name):
                points[metric.step][name] = metric.value
    for step in sorted(points):
        yield {"nimg": step, "kimg": step / 1000, **points[step]}
