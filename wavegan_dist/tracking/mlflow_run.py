"""The MLflow run of a run folder, to which events are sent. The only module that calls MLflow.

Every request is safe to repeat if its answer was lost: MLflow's database stores the same metric at the same step and time once,
files keep their names, and a run is searched for by its tag before it is created.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_OID, uuid5

from wavegan_dist.files import ensure_home, locked
from wavegan_dist.log import log
from wavegan_dist.redact import redacted
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.mlflow_page import dataset_input, experiment_tags, run_tags
from wavegan_dist.tracking.spool import Event
from wavegan_dist.tracking.tracking_info import TrackingInfo

MAX_METRICS, MAX_PARAMS = 1000, 100  # MLflow's limits for one request
THUMBNAIL_SIZE = 256  # px, of the image that MLflow's page shows first
REASON_SHOWN = 1000  # characters of an error's message
REJECTED_CODES = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
TEMPORARY_HTTP_ERRORS = (401, 403, 404, 408, 429)  # not caused by the content of the request


class EventRejectedError(Exception):
    """MLflow will never accept the content of this request, or the file to upload cannot be read."""


class MlflowUnavailableError(Exception):
    """MLflow cannot be reached, fails or no longer has the run; the same request may succeed later."""


class MlflowRun:
    """The MLflow run of a run folder. The constructor makes no request; it sets MLflow's variables in `os.environ`.

    Args:
        folder: the run folder, which must have a tracking.json.
    """

    def __init__(self, folder: RunFolder) -> None:
        ensure_home()  # for MLflow's import
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # `Sender` retries
        self.folder, self.run_id, self.uri = folder, "", ""

    @cached_property
    def client(self) -> Any:
        """MLflow's client, created when it is first used: this may raise any error of MLflow or of `TrackingInfo.load`."""
        self.uri = self._info().uri
        address, credentials = split_credentials(self.uri)
        os.environ.update(credentials)  # no message of MLflow holds what is not in its URI
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=address)

    def set_timeout(self, seconds: int) -> None:
        """Set the timeout in seconds of each following HTTP request to MLflow, for all objects of this class in the process."""
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(seconds)

    def send(self, events: Sequence[Event]) -> int:
        """Send events of the spool to MLflow. The first call finds the run in MLflow or creates it.

        Args:
            events: at least one event; several only if all are of kind `metrics`.

        Returns:
            The number of values or files that MLflow rejected for good; a warning names each of them.

        Raises:
            MlflowUnavailableError: MLflow does not answer, fails or no longer has the run. Some of the events may have been
                stored; sending all events again stores none of them twice.
        """
        with _translated_errors(rejected=MlflowUnavailableError):
            self.run_id = self.run_id or self._find_or_create()
        match events[0]["kind"]:
            case "metrics":
                return self._log_batches("metrics", [metric for event in events for metric in _metrics(event)], MAX_METRICS)
            case "params":
                return self._log_batches("params", _params(events[0]), MAX_PARAMS)
        rejection = self._try(partial(self._send_event, events[0]))
        return _warn_of_rejection(events[0], rejection) if rejection else 0

    def check(self) -> None:
        """Raise MlflowUnavailableError unless MLflow answers and the run exists and is not deleted.

        Call it after `send` failed: if it returns, the request itself is at fault. If `send` has never found or created the
        run, the error is raised, too.
        """
        with _translated_errors(rejected=MlflowUnavailableError):
            stage = self.client.get_run(self.run_id).info.lifecycle_stage
        if stage != "active":
            raise MlflowUnavailableError(f"run {self.run_id} was deleted; `mlflow runs restore` brings it back")

    def _try(self, request: Callable[[], object]) -> EventRejectedError | None:
        """Make a request; return the error if MLflow rejected the content, else None.

        Raises:
            MlflowUnavailableError: MLflow does not answer, fails or no longer has the run.
        """
        try:
            with _translated_errors():
                request()
        except EventRejectedError as error:
            self.check()
            return error
        return None

    def _log_batches(self, name: str, values: Sequence[Any], limit: int) -> int:
        """Log metrics or params in batches; halve a rejected batch until only the invalid values are left out.

        Args:
            name: "metrics" or "params".
            values: MLflow's Metric or Param objects.
            limit: largest number of values in a request.

        Returns:
            The number of values that were left out; a warning names each of them.

        Raises:
            MlflowUnavailableError: see `send`.
        """
        rejected = 0
        for start in range(0, len(values), limit):
            batch = values[start : start + limit]
            rejection = self._try(partial(self.client.log_batch, self.run_id, **{name: batch}))
            if rejection and len(batch) > 1:
                rejected += self._log_batches(name, batch, (len(batch) + 1) // 2)
            elif rejection:
                rejected += _warn_of_rejection(batch[0], rejection)
        return rejected

    def _send_event(self, event: Event) -> None:
        match event["kind"]:
            case "picture":
                self._log_image(event)
            case "file":
                path = self.folder.path / event["path"]
                log_file = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
                log_file(self.run_id, str(path), event["under"])
            case "tags":
                for name, value in event["values"].items():
                    self.client.set_tag(self.run_id, name, value)
            case "status" if event["status"] in ("RUNNING", "SCHEDULED"):
                self.client.update_run(self.run_id, status=event["status"])
            case "status":
                self.client.set_terminated(self.run_id, event["status"], event["time"])
            case kind:
                raise EventRejectedError(f"unknown kind of event: {kind}")

    def _log_image(self, event: Event) -> None:
        """Log an image like MlflowClient.log_image (MLflow 3.17), but a repeated request uses the same file name."""
        from PIL import Image

        key = uuid5(NAMESPACE_OID, f"{event['name']}/{event['nimg']}")
        stem = f"{event['name']}+step+{event['nimg']}+timestamp+{event['time']}+{key}"
        with TemporaryDirectory() as folder, Image.open(self.folder.path / event["path"]) as image:
            image.save(Path(folder, f"{stem}.png"))
            image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
            image.save(Path(folder, f"{stem}+compressed.webp"))
            self.client.log_artifacts(self.run_id, folder, "images")
        self.client.set_tag(self.run_id, "mlflow.loggedImages", "True")

    def _find_or_create(self) -> str:
        if run_id := self._info().run_id:
            return run_id
        try:
            with locked(self.folder.tracking_lock, wait=False):
                return self._info().run_id or self._create()
        except BlockingIOError as error:  # for minutes if MLflow does not answer
            raise MlflowUnavailableError("another process is creating the run in MLflow") from error

    def _create(self) -> str:
        """Find the run by its key or create it, and write its id to tracking.json. For the holder of `tracking_lock` only."""
        info = self._info()
        database = _database(info.uri)
        if database is not None and not database.exists():
            _create_tables(database, info.key)
        if self.client and info.uri != self.uri:
            raise MlflowUnavailableError(f"the run is tracked in {redacted(info.uri)} since its last start")
        experiment = self._experiment_id(info)
        tags = {"wavegan.key": info.key, **run_tags(self.folder)}
        runs = self.client.search_runs([experiment], f"tags.`wavegan.key` = '{info.key}'")
        run = runs[0] if runs else self.client.create_run(experiment, info.started, tags, info.name)
        if dataset := dataset_input(self.folder):
            self.client.log_inputs(run.info.run_id, datasets=[dataset])
        info.run_id = str(run.info.run_id)
        info.save(self.folder)
        return info.run_id

    def _experiment_id(self, info: TrackingInfo) -> str:
        experiment = self.client.get_experiment_by_name(info.experiment)
        if experiment is None:
            database = _database(info.uri)
            artifacts = None if database is None else str(database.parent / "mlartifacts")
            number = str(self.client.create_experiment(info.experiment, artifact_location=artifacts))
            tags: dict[str, str] = {}
        else:
            number, tags = str(experiment.experiment_id), experiment.tags
        for name, value in experiment_tags(number).items():
            if name not in tags:
                self.client.set_experiment_tag(number, name, value)
        return number

    def _info(self) -> TrackingInfo:
        info = TrackingInfo.load(self.folder)
        assert info is not None
        return info


def split_credentials(uri: str) -> tuple[str, dict[str, str]]:
    """Return a server's URI without its user and password, and the environment variables that pass these to MLflow.

    A URI without a password, or of another scheme than http and https, is returned as it is, with no variables.
    """
    address = urlsplit(uri)
    if address.scheme not in ("http", "https") or address.password is None:
        return uri, {}
    names = {"MLFLOW_TRACKING_USERNAME": address.username or "", "MLFLOW_TRACKING_PASSWORD": address.password}
    return redacted(uri), {name: unquote(value) for name, value in names.items()}


def _metrics(event: Event) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name, value, event["time"], event["nimg"]) for name, value in event["values"].items()]


def _params(event: Event) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in event["values"].items()]


def _database(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for another store."""
    path = uri.removeprefix("sqlite:///")
    return None if path == uri else Path(path)


def _create_tables(database: Path, key: str) -> None:
    """Create a SQLite store with all of MLflow's tables, or nothing.

    MLflow alone creates one table after the other in the file itself. If it is killed meanwhile, as a sidecar is that has no
    time left, it refuses the file for ever.

    Args:
        database: the file; if another process creates it meanwhile, that one stays.
        key: a name that no other process uses at the same time.
    """
    from mlflow import MlflowClient

    temporary = database.with_name(f".{database.name}.{key}.tmp")
    database.parent.mkdir(parents=True, exist_ok=True)
    try:
        for suffix in ("", "-journal", "-wal", "-shm"):  # what a killed process has left: the file, and SQLite's beside it
            temporary.with_name(f"{temporary.name}{suffix}").unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{temporary}").search_experiments()
        with suppress(OSError):  # it exists by now, or the file system has no links: then MLflow creates the tables itself
            os.link(temporary, database)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _translated_errors(rejected: type[Exception] = EventRejectedError) -> Iterator[None]:
    """Turn every error of the block into `rejected`, if its cause is the request's content or an unreadable file to upload.

    Every other error becomes a MlflowUnavailableError. The two exceptions of this module are passed on.
    """
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    try:
        yield
    except (EventRejectedError, MlflowUnavailableError):
        raise
    except MlflowException as error:
        message = _explained(_reason(error))
        raise (rejected if error.error_code in REJECTED_CODES else MlflowUnavailableError)(message) from error
    except HTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        is_temporary = not 400 <= status < 500 or status in TEMPORARY_HTTP_ERRORS
        raise (MlflowUnavailableError if is_temporary else rejected)(_reason(error)) from error
    except (FileNotFoundError, PermissionError, TypeError, ValueError) as error:
        raise rejected(_reason(error)) from error
    except Exception as error:
        raise MlflowUnavailableError(f"{type(error).__name__}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the message of an error on one line. MLflow's may hold the whole answer of the server."""
    return " ".join(str(error).split())[:REASON_SHOWN]


def _explained(message: str) -> str:
    """Put the remedies before MLflow's message about the schema of a database, which assumes that the database is older."""
    if "out-of-date database schema" not in message:
        return message
    from mlflow import __version__

    remedy = "if a newer MLflow has upgraded it, install that MLflow here; if it is older, run `mlflow db upgrade`"
    return f"the database does not have the schema of the installed MLflow {__version__}; {remedy}: {message}"


def _warn_of_rejection(content: object, error: Exception) -> int:
    log.warning("MLflow refused %s: %s", content, error)
    return 1
