"""MLflow: one run per run folder, points at their image number, pictures with a step slider."""

import json
import os
import time
from pathlib import Path
from typing import Any

from wavegan_dist.config import Experiment
from wavegan_dist.files import atomic_file
from wavegan_dist.train.run_folder import RunFolder


class Tracker:
    """The MLflow run of a run folder; only rank 0 makes one.

    Uses the client with an explicit run id: MLflow's fluent functions keep global state and are not thread-safe.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient

        self.uri, self.run_id = uri, run_id
        self.client = MlflowClient(tracking_uri=uri)

    @classmethod
    def open(cls, folder: RunFolder, experiment: Experiment) -> "Tracker":
        """Go on in the MLflow run of this folder, or make one and note its id in tracking.json."""
        if (known := cls.of_run(folder)) is not None:
            known.client.update_run(known.run_id, status="RUNNING")
            return known
        uri = tracking_uri(folder, experiment)
        tracker = cls(uri, "")
        tracker.run_id = tracker._create(folder, experiment)
        with atomic_file(folder.tracking) as file:
            json.dump({"uri": uri, "run_id": tracker.run_id}, file)
        tracker._log_parameters(experiment)
        return tracker

    @classmethod
    def of_run(cls, folder: RunFolder) -> "Tracker | None":
        """The tracker of a folder that has a run already, None where there is none."""
        if not folder.tracking.exists():
            return None
        return cls(**json.loads(folder.tracking.read_text()))

    def metrics(self, point: dict[str, float], nimg: int) -> None:
        """Log each value at step `nimg`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(name, value, now, nimg) for name, value in point.items()])

    def picture(self, path: Path, name: str, nimg: int) -> None:
        """Log an image file under `name` at step `nimg`."""
        from PIL import Image

        with Image.open(path) as image:
            self.client.log_image(self.run_id, image, key=name, step=nimg, synchronous=True)

    def file(self, path: Path, under: str | None = None) -> None:
        """Log a file, or a folder with all in it, as an artifact."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(self.run_id, str(path), under)

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)

    def _create(self, folder: RunFolder, experiment: Experiment) -> str:
        name = experiment.tracking.experiment
        known = self.client.get_experiment_by_name(name)
        if known is not None:
            experiment_id = known.experiment_id
        else:
            store = self.uri.removeprefix("sqlite:///")
            artifacts = None if store == self.uri else str(Path(store).parent.resolve() / "mlartifacts")
            experiment_id = self.client.create_experiment(name, artifact_location=artifacts)
        run_id: str = self.client.create_run(experiment_id, run_name=folder.path.name).info.run_id
        return run_id

    def _log_parameters(self, experiment: Experiment) -> None:
        from mlflow.entities import Param

        self.client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in experiment.flat().items()])


def tracking_uri(folder: RunFolder, experiment: Experiment) -> str:
    """`tracking.uri`, else MLFLOW_TRACKING_URI, else a SQLite file beside the run folder."""
    default = f"sqlite:///{folder.path.resolve().parent / 'mlflow.db'}"
    return experiment.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or default


def log_evaluation(run: Path, result: dict[str, Any]) -> None:
    """Log an evaluation's metrics to the MLflow run of the run folder `run`, at the snapshot's own image number."""
    tracker = Tracker.of_run(RunFolder(run))
    if tracker is not None:
        point = {f"eval/{name.replace('@', '_at_')}": value for name, value in result["metrics"].items()}
        tracker.metrics(point, result["protocol"]["nimg"])
