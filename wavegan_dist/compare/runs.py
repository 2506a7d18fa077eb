"""Runs to compare, read from their folders or from MLflow."""

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wavegan_dist import config
from wavegan_dist.compare.mlflow_runs import fetch
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluation_result import EvaluationResult
from wavegan_dist.files import parse_json
from wavegan_dist.model.snapshot import Snapshot, load_snapshot
from wavegan_dist.run_folder import RunFolder, ema_label, ema_of

MLFLOW = "mlflow:"
_POINT = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class LoadedRun:
    """The data of one run that a comparison uses.

    Args:
        name: name of the run folder, or of the run in MLflow; followed by the half-life if the run has several EMAs.
        settings: the complete configuration, dotted key to value.
        environment: content of environment.json.
        points: the reports in metrics.jsonl, metrics by name, by ascending image number.
        evaluations: results of `wavegan evaluate`, by ascending image number.
        snapshot: the newest snapshot; None if there is none.
        is_first: False for the other EMAs of a run with several: they have `points` and costs in common with the first.
    """

    name: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    points: list[dict[str, float]]
    evaluations: list[EvaluationResult]
    snapshot: Snapshot | None
    is_first: bool = True

    @property
    def hours(self) -> float:
        """Hours that training has taken up to the last report, by the clock: with data loading, without start-up."""
        kimg = [0.0, *(point["kimg"] for point in self.points)]
        spans = (after - before for before, after in pairwise(kimg))
        seconds_per_kimg = (point.get("speed/seconds_per_kimg", 0.0) for point in self.points)
        return sum(span * seconds for span, seconds in zip(spans, seconds_per_kimg, strict=True)) / 3600

    @property
    def kimg(self) -> float:
        """Number of training images up to the last report, in thousands; 0 without reports."""
        return self.points[-1]["kimg"] if self.points else 0.0


def read_run(source: str, scratch: Path) -> list[LoadedRun]:
    """Read a run. Return a `LoadedRun` for each half-life of `ema.half_life_kimg`, in order, with this one in its settings.

    So a run with two EMAs is compared like two runs, and each of them is grouped with runs that have only this EMA.

    Args:
        source: a run folder, or mlflow:RUN_ID.
        scratch: folder for the artifacts of a run in MLflow; must exist as long as the run's snapshot is used.

    Raises:
        UsageError: `source` is not a run, its configuration is not valid, or MLflow has no such run.
        WaveganError: a file of the run is damaged, or the MLflow store does not answer.
        OSError: a file of the run cannot be read.
    """
    run = RunFolder(fetch(source.removeprefix(MLFLOW), scratch) if source.startswith(MLFLOW) else Path(source))
    if not run.config.is_file():
        raise UsageError(f"{source} is not a run: it has no config.yaml; give a folder such as runs/demo, or mlflow:RUN_ID")
    settings, half_lives = config.load(run.config).flat(), config.load(run.config).ema.half_lives_kimg
    environment, points = _environment(run.environment), _points(run.metrics)
    evaluations = {path.stem: EvaluationResult.read(path) for path in run.evaluations()}
    runs = []
    for number, half_life_kimg in enumerate(half_lives):
        ema = ema_label(half_life_kimg) if number else ""
        results = [result for name, result in evaluations.items() if ema_of(name) == ema]
        snapshots = [path for path in run.snapshots() if ema_of(path.name) == ema]
        runs.append(
            LoadedRun(
                name=run.path.resolve().name + (f", EMA {half_life_kimg:g} kimg" if len(half_lives) > 1 else ""),
                settings=settings | {"ema.half_life_kimg": half_life_kimg},
                environment=environment,
                points=points,
                evaluations=sorted(results, key=lambda result: result.protocol.nimg),
                snapshot=load_snapshot(snapshots[-1]) if snapshots else None,
                is_first=number == 0,
            )
        )
    return runs


def _environment(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content = _json_object(path.read_bytes())
    if content is None:
        raise WaveganError(f"{path} is damaged: it is not a JSON object; delete it")
    return content


def _points(path: Path) -> list[dict[str, float]]:
    """Return the reports in the file metrics.jsonl, each with "kimg"; an empty list if the file does not exist.

    Leaves out a last line that is not a JSON object: the run may still be writing it.

    Raises:
        WaveganError: any other line is not a JSON object, or a line has no "kimg".
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    points = []
    for number, line in enumerate(lines, 1):
        try:
            point = _POINT.validate_json(line)
            point["kimg"]
        except (ValidationError, KeyError) as error:
            if number < len(lines) or _json_object(line) is not None:
                raise WaveganError(f"{path}: line {number} is damaged; delete it") from error
        else:
            points.append(point)
    return points


def _json_object(content: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        value = parse_json(content)
        return value if isinstance(value, dict) else None
    return None
