"""A run as a comparison sees it, read from its folder or from MLflow."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from wavegan_dist import config
from wavegan_dist.compare.mlflow_runs import fetch
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate.result import EvaluationResult
from wavegan_dist.model.snapshot import Snapshot, load_snapshot
from wavegan_dist.run_folder import RunFolder

MLFLOW = "mlflow:"


@dataclass(frozen=True)
class LoadedRun:
    """One run.

    Args:
        name: of its folder, or in MLflow.
        settings: dotted key -> value of the whole configuration.
        environment: environment.json.
        points: the lines of metrics.jsonl.
        evaluations: results of `wavegan evaluate`, by ascending image number.
        snapshot: the newest, if there is any.
    """

    name: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    points: list[dict[str, float]]
    evaluations: list[EvaluationResult]
    snapshot: Snapshot | None

    @property
    def hours(self) -> float:
        """Of training, loading included."""
        kimg = [0.0, *(point["kimg"] for point in self.points)]
        spans = (after - before for before, after in pairwise(kimg))
        pace = (point.get("speed/seconds_per_kimg", 0.0) for point in self.points)
        return sum(span * seconds for span, seconds in zip(spans, pace, strict=True)) / 3600

    @property
    def kimg(self) -> float:
        """Images shown so far, in thousands."""
        return self.points[-1]["kimg"] if self.points else 0.0


def read_run(source: str, scratch: Path) -> LoadedRun:
    """The run at a folder, or mlflow:RUN_ID, whose artifacts go to a folder of their own in `scratch`.

    Raises:
        UsageError: no run is there.
        WaveganError: a file of it is damaged.
    """
    run = RunFolder(fetch(source.removeprefix(MLFLOW), scratch) if source.startswith(MLFLOW) else Path(source))
    if not run.config.is_file():
        raise UsageError(f"{source} is not a run: config.yaml is not there; give a folder such as runs/demo, or mlflow:RUN_ID")
    snapshots = run.snapshots()
    return LoadedRun(
        name=run.path.resolve().name,
        settings=config.load(run.config).flat(),
        environment=_environment(run.environment),
        points=_points(run.metrics),
        evaluations=sorted(map(EvaluationResult.read, run.evaluations()), key=lambda result: result.protocol.nimg),
        snapshot=load_snapshot(snapshots[-1]) if snapshots else None,
    )


def _environment(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise WaveganError(f"{path} is damaged: it is not JSON; delete it") from error
    return content


def _points(path: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl; the last may be half-written where the run goes on."""
    lines = path.read_text().splitlines() if path.exists() else []
    points = []
    for number, line in enumerate(lines, 1):
        try:
            points.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise WaveganError(f"{path}: line {number} is not JSON; delete it") from error
    return points
