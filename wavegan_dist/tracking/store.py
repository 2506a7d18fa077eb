"""The MLflow run of a run folder: made once, told each event. The only file that calls MLflow.

Every call may be repeated when its answer was lost: the same metric at the same step and time is stored once (the database's
key), files keep their names, and the run is looked for by its tag before it is made.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from wavegan_dist.tracking.record import Record
from wavegan_dist.tracking.spool import Event, locked

METRICS, PARAMS = 1000, 100  # MLflow's limits of a batch
THUMBNAIL = 256  # px, what MLflow's page shows first
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
NOT_THE_EVENT = (401, 403, 404, 408, 429)  # HTTP errors that say nothing about what was sent

log = logging.getLogger("wavegan")


class RefusedError(Exception):
    """MLflow will never take this event."""


class AwayError(Exception):
    """MLflow cannot be reached, fails or no longer has the run: later, perhaps."""


class Store:
    """MLflow's side of a run.

    Args:
        run: the run folder; must have a tracking.json.
    """

    def __init__(self, run: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # the sender knows better when to try again
        self.run, self.run_id = run, ""

    @cached_property
    def client(self) -> Any:
        """MLflow's client; making it may already fail."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._record().uri)

    def patience(self, seconds: int) -> None:
        """How long each request may take from now on."""
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(seconds)

    def send(self, events: Sequence[Event]) -> int:
        """Tell MLflow of events of one kind (several of metrics only); returns how many values or files it refused.

        Raises:
            AwayError: some of them may have been stored, or none.
        """
        with _judged(refused=AwayError):
            self.run_id = self.run_id or self._find_or_make()
        match events[0]["kind"]:
            case "metrics":
                return self._log_all("metrics", [metric for event in events for metric in _metrics(event)], METRICS)
            case "params":
                return self._log_all("params", _params(events[0]), PARAMS)
        refusal = self._refusal(partial(self._tell, events[0]))
        return _skipped(events[0], refusal) if refusal else 0

    def check(self) -> None:
        """Raise AwayError unless MLflow answers and has the run."""
        with _judged(refused=AwayError):
            stage = self.client.get_run(self.run_id).info.lifecycle_stage
        if stage != "active":
            raise AwayError(f"run {self.run_id} was deleted; `mlflow runs restore` brings it back")

    def _refusal(self, call: Callable[[], object]) -> RefusedError | None:
        """Why MLflow refused a call; None where it took it. Raises AwayError."""
        try:
            with _judged():
                call()
        except RefusedError as error:
            self.check()
            return error
        return None

    def _log_all(self, name: str, values: Sequence[Any], limit: int) -> int:
        """Log metrics or parameters in batches; one that is refused is halved until only the culprits are left out."""
        refused = 0
        for start in range(0, len(values), limit):
            some = values[start : start + limit]
            refusal = self._refusal(partial(self.client.log_batch, self.run_id, **{name: some}))
            if refusal and len(some) > 1:
                refused += self._log_all(name, some, (len(some) + 1) // 2)
            elif refusal:
                refused += _skipped(some[0], refusal)
        return refused

    def _tell(self, event: Event) -> None:
        match event["kind"]:
            case "picture":
                self._log_picture(event)
            case "file":
                path = self.run / event["path"]
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
                raise RefusedError(f"no event is called {kind}")

    def _log_picture(self, event: Event) -> None:
        """What MlflowClient.log_image does (MLflow 3.17), but under the same name when repeated: its own is random."""
        from PIL import Image

        key = uuid5(NAMESPACE_OID, f"{event['name']}/{event['nimg']}")
        stem = f"{event['name']}+step+{event['nimg']}+timestamp+{event['time']}+{key}"
        with TemporaryDirectory() as folder, Image.open(self.run / event["path"]) as image:
            image.save(Path(folder, f"{stem}.png"))
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            image.save(Path(folder, f"{stem}+compressed.webp"))
            self.client.log_artifacts(self.run_id, folder, "images")
        self.client.set_tag(self.run_id, "mlflow.loggedImages", "True")

    def _find_or_make(self) -> str:
        with locked(self.run / "tracking" / "run.lock"):
            record = self._record()
            if record.run_id is None:
                experiment = self._experiment(record)
                tag = {"wavegan.key": record.key}
                known = self.client.search_runs([experiment], f"tags.`wavegan.key` = '{record.key}'")
                made = known[0] if known else self.client.create_run(experiment, record.started, tag, record.name)
                record.run_id = made.info.run_id
                record.save(self.run)
            return record.run_id

    def _experiment(self, record: Record) -> str:
        known = self.client.get_experiment_by_name(record.experiment)
        if known is not None:
            return str(known.experiment_id)
        file = record.uri.removeprefix("sqlite:///")
        artifacts = None if file == record.uri else str(Path(file).parent / "mlartifacts")
        return str(self.client.create_experiment(record.experiment, artifact_location=artifacts))

    def _record(self) -> Record:
        record = Record.of(self.run)
        assert record is not None
        return record


def _metrics(event: Event) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name, value, event["time"], event["nimg"]) for name, value in event["values"].items()]


def _params(event: Event) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in event["values"].items()]


@contextmanager
def _judged(refused: type[Exception] = RefusedError) -> Iterator[None]:
    """Turn whatever MLflow and its artifact stores raise into `refused` or AwayError."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    try:
        yield
    except (RefusedError, AwayError):
        raise
    except MlflowException as error:
        raise (refused if error.error_code in REFUSED else AwayError)(str(error)) from error
    except HTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        raise (refused if 400 <= status < 500 and status not in NOT_THE_EVENT else AwayError)(str(error)) from error
    except (FileNotFoundError, PermissionError, TypeError, ValueError) as error:
        raise refused(str(error)) from error
    except Exception as error:
        raise AwayError(f"{type(error).__name__}: {error}") from error


def _skipped(what: object, why: Exception) -> int:
    log.warning("MLflow refused %s: %s", what, " ".join(str(why).split())[:300])
    return 1
