"""tracking.json: which MLflow run belongs to a run folder."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from wavegan_dist.config import Experiment
from wavegan_dist.files import atomic_file


@dataclass
class Record:
    """What a sender must know to find the MLflow run, or to make it once.

    Args:
        uri: MLflow's store.
        experiment: the name of MLflow's experiment.
        name: the name of the MLflow run.
        key: a tag that the run carries: it finds the run when the answer to its creation was lost.
        started: when, in milliseconds since 1970.
        run_id: None until a sender has made the run.
    """

    uri: str
    experiment: str
    name: str
    key: str
    started: int
    run_id: str | None = None

    @classmethod
    def of(cls, run: Path) -> "Record | None":
        """The record of a run folder; None where there is none."""
        path = run / "tracking.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None

    @classmethod
    def new(cls, run: Path, experiment: Experiment) -> "Record":
        """The record of a run that starts now."""
        name = experiment.tracking.experiment
        return cls(tracking_uri(run, experiment), name, run.name, uuid4().hex, int(time.time() * 1000))

    def save(self, run: Path) -> None:
        """Write tracking.json."""
        with atomic_file(run / "tracking.json") as file:
            json.dump(asdict(self), file, indent=2)


def tracking_uri(run: Path, experiment: Experiment) -> str:
    """`tracking.uri`, else MLFLOW_TRACKING_URI, else a SQLite file beside the run folder; a file's path is absolute."""
    uri = experiment.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.resolve().parent / 'mlflow.db'}"
    return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}" if uri.startswith("sqlite:///") else uri
