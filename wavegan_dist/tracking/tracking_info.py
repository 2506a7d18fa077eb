"""The content of tracking.json: which MLflow run belongs to a run folder."""

import json
import os
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from wavegan_dist.config import Experiment, check_store, is_database
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import atomic_file, parse_json
from wavegan_dist.redact import redacted
from wavegan_dist.run_folder import RunFolder

DRIVERS = {"postgresql": "psycopg2", "mysql": "MySQLdb"}  # the modules that SQLAlchemy uses by default


@dataclass
class TrackingInfo:
    """What is needed to find the MLflow run of a run folder, or to create it exactly once.

    Args:
        uri: tracking URI of the MLflow server or database; may hold a password.
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
        """Read tracking.json; return None if there is no such file: the run is not tracked.

        Raises:
            WaveganError: the file is damaged.
            OSError: the file cannot be read.
        """
        if not folder.tracking.exists():
            return None
        try:
            return cls(**parse_json(folder.tracking.read_text()))
        except (ValueError, TypeError) as error:
            advice = "copy it from a backup, or delete it: the next start then begins another run in MLflow"
            raise WaveganError(f"{folder.tracking} is damaged; {advice}") from error

    @classmethod
    def create(cls, folder: RunFolder, experiment: Experiment) -> "TrackingInfo":
        """Return the information for a run that starts now, with a new key and no MLflow run yet. Writes no file.

        Raises:
            UsageError: see `requested_uri`.
        """
        uri, name = requested_uri(experiment) or default_uri(folder), folder.path.name
        return cls(uri, experiment.tracking.experiment, name, uuid4().hex, int(time.time() * 1000))

    @classmethod
    def for_start(cls, folder: RunFolder, experiment: Experiment) -> "TrackingInfo":
        """Return the information for a start of the run, which may be its first. Writes no file.

        Another store or MLflow experiment than that of the last start is used if the run is in no store yet.

        Raises:
            UsageError: the store cannot work here (`requested_uri`, `check_usable`), or the run is in another store or MLflow
                experiment.
            WaveganError: tracking.json is damaged.
            OSError: tracking.json cannot be read.
        """
        info, new = cls.load(folder), cls.create(folder, experiment)
        if info is None:
            info = new
        if requested_uri(experiment) is None or (redacted(new.uri) == redacted(info.uri) and not has_password(new.uri)):
            new.uri = info.uri  # the password is in tracking.json only
        if info.run_id is not None:
            info.refuse_changes(folder, new)
        info.uri, info.experiment = new.uri, new.experiment
        check_usable(info.uri)
        return info

    def refuse_changes(self, folder: RunFolder, new: "TrackingInfo") -> None:
        """Raise UsageError if `new` has another store (apart from the password) or MLflow experiment than this information.

        The message names `folder`, the run folder.
        """
        pairs = (("store", redacted(self.uri), redacted(new.uri)), ("experiment", self.experiment, new.experiment))
        for name, old, requested in pairs:
            if old != requested:
                raise UsageError(
                    f"{folder.path} is tracked in the MLflow {name} {old}, not {requested}; "
                    f"set tracking.uri={redacted(self.uri)} and tracking.experiment={self.experiment}, or use another --run-dir"
                )

    def save(self, folder: RunFolder) -> None:
        """Write tracking.json, which only the user can read if it holds a password. Raises OSError if that is impossible."""
        with atomic_file(folder.tracking, permissions=0o600 if has_password(self.uri) else 0o666) as file:
            json.dump(asdict(self), file, indent=2)


def check_tracking(folder: RunFolder, experiment: Experiment) -> None:
    """Check that a start of the run can be tracked as requested. Makes no request to MLflow; does nothing without tracking.

    Raises:
        UsageError: the errors of `TrackingInfo.for_start`, or MLflow's environment variables name another experiment or a run.
        WaveganError: tracking.json is damaged.
        OSError: tracking.json cannot be read.
    """
    if not experiment.tracking.enabled:
        return
    TrackingInfo.for_start(folder, experiment)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name and name != experiment.tracking.experiment:
        raise UsageError(
            f"MLFLOW_EXPERIMENT_NAME={name} is set, but tracking.experiment = {experiment.tracking.experiment}; "
            f"set tracking.experiment={name}, or unset the variable"
        )
    for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        if os.environ.get(variable):
            raise UsageError(
                f"{variable} is set, but a run creates its own MLflow run, in the experiment named tracking.experiment = "
                f"{experiment.tracking.experiment}; unset the variable"
            )


def save_password(folder: RunFolder, experiment: Experiment) -> None:
    """Write tracking.json for a later start if `requested_uri` holds a password, which no other file of the run will hold.

    Does nothing if there is no password or `tracking.enabled` is false.

    Raises:
        UsageError, WaveganError: see `TrackingInfo.for_start`.
        OSError: the file cannot be read or written.
    """
    if experiment.tracking.enabled and has_password(requested_uri(experiment) or ""):
        TrackingInfo.for_start(folder, experiment).save(folder)


def requested_uri(experiment: Experiment) -> str | None:
    """Return `tracking.uri`, else MLFLOW_TRACKING_URI, else None. The path of a SQLite file is made absolute.

    Raises:
        UsageError: MLFLOW_TRACKING_URI is not the URI of an MLflow store.
    """
    uri = experiment.tracking.uri or environment_uri()
    if uri is not None and uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    return uri


def environment_uri() -> str | None:
    """Return MLFLOW_TRACKING_URI, or None if it is not set. Raises UsageError if it is not the URI of an MLflow store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    try:
        return None if uri is None else check_store(uri)
    except ValueError as error:
        raise UsageError(f"MLFLOW_TRACKING_URI: {error}") from error


def default_uri(folder: RunFolder) -> str:
    """Return the URI of the SQLite file mlflow.db beside the run folder, with its absolute path. The file need not exist."""
    return f"sqlite:///{folder.path.resolve().parent / 'mlflow.db'}"


def has_password(uri: str) -> bool:
    """Return whether a URI holds a password."""
    return redacted(uri) != uri


def check_usable(uri: str) -> None:
    """Check that a store may work on this machine. Makes no request.

    Raises:
        UsageError: `uri` is no MLflow store, the Python module for its database is missing, or it names a SQLite file that this
            user cannot write or create, or a path that is not a SQLite file.
    """
    try:
        check_store(uri)
    except ValueError as error:
        raise UsageError(f"tracking.uri: {error}") from error
    dialect, _, driver = uri.partition("://")[0].partition("+")
    module = driver or DRIVERS.get(dialect)
    if module is not None and find_spec(module) is None:
        raise UsageError(f"{redacted(uri)} needs the Python module {module}, which is not installed")
    if dialect == "sqlite":
        _check_file(Path(uri.removeprefix("sqlite:///")))


def _check_file(path: Path) -> None:
    """Raise UsageError unless `path` is a SQLite file that this user may write to, or can be created.

    It can be created if the nearest existing folder above it is one that this user may write to.
    """
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    is_right_kind = existing.is_file() if existing == path else existing.is_dir()
    if not is_right_kind:
        reason = "is a folder" if existing == path else "is not a folder"
    elif not os.access(existing, os.W_OK):
        reason = "cannot be written to"
    elif existing == path and not is_database(path):
        reason = "is not a SQLite database"
    else:
        return
    raise UsageError(f"the MLflow store sqlite:///{path} cannot work: {existing} {reason}; set tracking.uri to another file")
