"""The content of tracking.json: which MLflow run belongs to a run folder."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from wavegan_dist.config import Experiment
from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file
from wavegan_dist.run_folder import RunFolder


@dataclass
class TrackingInfo:
    """What is needed to find the MLflow run of a run folder, or to create it exactly once.

    Args:
        uri: tracking URI of the MLflow server or database.
        experiment: name of the MLflow experiment.
        name: name of the MLflow run.
        key: value of the MLflow run's tag `wavegan.key`, by which the run is found if the answer to its creation was lost.
        started: start time in milliseconds since 1970.
        run_id: id of the MLflow run; None until a sender has created it.
    """

    uri: str
    experiment: str
    name: str
    key: str
    started: int
    run_id: str | None = None

    @classmethod
    def load(cls, folder: RunFolder) -> "TrackingInfo | None":
        """Read tracking.json; return None if the run is not tracked. Raises WaveganError if the file is damaged."""
        if not folder.tracking.exists():
            return None
        try:
            return cls(**json.loads(folder.tracking.read_text()))
        except (ValueError, TypeError) as error:
            advice = "copy it from a backup, or delete it: the next start then begins another run in MLflow"
            raise WaveganError(f"{folder.tracking} is damaged; {advice}") from error

    @classmethod
    def create(cls, folder: RunFolder, experiment: Experiment) -> "TrackingInfo":
        """Return the information for a run that starts now, with a new key and no MLflow run yet."""
        uri, name = tracking_uri(folder, experiment), folder.path.name
        return cls(uri, experiment.tracking.experiment, name, uuid4().hex, int(time.time() * 1000))

    def save(self, folder: RunFolder) -> None:
        """Write tracking.json."""
        with atomic_file(folder.tracking) as file:
            json.dump(asdict(self), file, indent=2)


def tracking_uri(folder: RunFolder, experiment: Experiment) -> str:
    """Return `tracking.uri`, else MLFLOW_TRACKING_URI, else the URI of a SQLite file next to the run folder.

    The path of a SQLite file is made absolute.
    """
    default = f"sqlite:///{folder.path.resolve().parent / 'mlflow.db'}"
    uri = experiment.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or default
    return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}" if uri.startswith("sqlite:///") else uri
