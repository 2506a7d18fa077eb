"""A run as a comparison sees it, read from its folder or from MLflow."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from wavegan_dist import config
from wavegan_dist.compare.mlflow_runs import fetch
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.model.snapshot import Snapshot, load_snapshot

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
    evaluations: list[dict[str, Any]]
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
    folder = fetch(source.removeprefix(MLFLOW), scratch) if source.startswith(MLFLOW) else Path(source)
    if not (folder / "config.yaml").is_file():
        raise UsageError(f"{source} is not a run: config.yaml is not there; give a folder such as runs/demo, or mlflow:RUN_ID")
    results = [_json(path) for path in sorted(folder.glob("evaluations/*.json"))]
    snapshots = sorted(folder.glob("snapshots/kimg-*"))
    environment = folder / "environment.json"
    return LoadedRun(
        name=folder.resolve().name,
        settings=config.load(folder / "config.yaml").flat(),
        environment=_json(environment) if environment.exists() else {},
        points=_points(folder / "metrics.jsonl"),
        evaluations=sorted(results, key=lambda result: int(result["protocol"]["nimg"])),
        snapshot=load_snapshot(snapshots[-1]) if snapshots else None,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if path.parent.name == "evaluations":
            _ = content["metrics"], content["tables"], content["protocol"]["nimg"], content["protocol"]["metrics"]
    except (ValueError, KeyError, TypeError) as error:
        raise WaveganError(f"{path} is damaged or no result of `wavegan evaluate`; delete it, or evaluate again") from error
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
