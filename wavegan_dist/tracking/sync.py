"""Delivery without a sidecar: by `wavegan track sync`, and at the end of an evaluation."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.log import log
from wavegan_dist.redact import redacted
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.mlflow_run import MlflowUnavailableError
from wavegan_dist.tracking.sender import Sender
from wavegan_dist.tracking.spool import Event, Spool, file_event, format_counts, image_event, metric_name, metrics_event
from wavegan_dist.tracking.tracking_info import TrackingInfo, check_usable

SYNC_TIMEOUT, LOG_TIMEOUT = 60, 5  # seconds for a request


def sync(run_dir: Path) -> Counter[str]:
    """Deliver the undelivered events of all spools in a run folder, in the order of the names of the spools.

    If a spool cannot be delivered, the others are delivered before its error is raised. A file that fails MAX_ATTEMPTS times
    although MLflow works otherwise is skipped.

    Returns:
        The number of delivered events of each kind; events that MLflow rejected, with a warning, are included.

    Raises:
        UsageError: the folder is not a run folder, or its run is not tracked, or its store cannot work here (`check_usable`).
        WaveganError: MLflow is unavailable or no longer has the run, another process delivers a spool (the run still trains),
            or tracking.json is damaged. Undelivered events stay in the spools.
        OSError: a spool cannot be read, or a delivery cannot be recorded.
    """
    folder = RunFolder(run_dir.resolve())
    info = TrackingInfo.load(folder)
    if info is None:
        if folder.config.exists():
            raise UsageError(f"{folder.path} is not tracked, so there is nothing to send: see tracking.enabled in its config")
        raise UsageError(f"{folder.path} holds no tracked run; give a run folder such as runs/demo")
    check_usable(info.uri)
    counts: Counter[str] = Counter()
    errors: list[WaveganError] = []
    for path in folder.spools():
        try:
            counts += _deliver(Spool(path), info, SYNC_TIMEOUT, Sender.deliver_or_skip)
        except WaveganError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return counts


def log_evaluation(
    run_dir: Path,
    values: Mapping[str, float],
    nimg: int,
    *,
    spool: str,
    files: Mapping[Path, str],
    images: Mapping[Path, str],
) -> None:
    """Log metrics at step `nimg` to the MLflow run of a run folder, with the files that belong to these metrics.

    Writes the events to a new spool and delivers it at once, with LOG_TIMEOUT seconds for each request. Events that MLflow does
    not accept stay in the run folder for `wavegan track sync`. Logs a warning instead of raising an OSError or WaveganError.

    Args:
        run_dir: the run folder; nothing is logged if the run is not tracked.
        values: name to value.
        nimg: image number, MLflow's step.
        spool: first part of the spool file's name; a random part follows.
        files: files inside the run folder, each with the artifact folder that it goes to. Paths begin with `run_dir`.
        images: image files inside the run folder, each with the name of its series. Paths begin with `run_dir`.

    Raises:
        ValueError: a path does not begin with `run_dir`.
    """
    events = [metrics_event(values, nimg)]
    events += [file_event(str(path.relative_to(run_dir)), under) for path, under in files.items()]
    events += [image_event(str(path.relative_to(run_dir)), name, nimg) for path, name in images.items()]
    _log(run_dir, f"{spool}-{uuid4().hex[:8]}", events)


def log_best(run_dir: Path, best: Mapping[str, Any], nimg: int) -> None:
    """Log the best snapshot to the MLflow run of a run folder; delivers, and warns of errors, as `log_evaluation` does.

    All calls for a run write to one spool, so that tags which had to wait are sent before later ones. Not for several processes
    at once: `best.tag_best` holds a lock.

    Args:
        run_dir: the run folder.
        best: content of best.json; becomes the tags best_snapshot, best_metric and best_value, and the metric best/METRIC.
        nimg: image number of the newest snapshot that was compared, the step of the metric.
    """
    tags = {"kind": "tags", "values": {f"best_{name}": str(value) for name, value in best.items()}}
    _log(run_dir, "best", [tags, metrics_event({f"best/{metric_name(best['metric'])}": best["value"]}, nimg)])


def _log(run_dir: Path, name: str, events: Sequence[Event]) -> None:
    folder = RunFolder(run_dir.resolve())
    try:
        info = TrackingInfo.load(folder)
        if info is None:
            return
        spool = Spool(folder.spool(name))
        spool.open()
        for event in events:
            spool.append(event)
        _deliver(spool, info, LOG_TIMEOUT, Sender.deliver)
    except (OSError, WaveganError) as error:
        log.warning("%s", error)


def _deliver(spool: Spool, info: TrackingInfo, timeout: int, deliver: Callable[[Sender], None]) -> Counter[str]:
    counts = spool.count_undelivered()
    if not counts:
        return counts
    try:
        with spool.lock(wait=False):
            deliver(Sender(spool, timeout))
    except BlockingIOError as error:
        raise WaveganError(f"{spool.path} is being delivered by its run, which is still training; nothing to do") from error
    except MlflowUnavailableError as error:
        missing = format_counts(spool.count_undelivered())
        reason = " ".join(str(error).split())[:200]
        retry = f"try again when it is available: wavegan track sync {spool.folder.path}"
        raise WaveganError(f"{redacted(info.uri)} did not accept {missing} ({reason}); {retry}") from error
    return counts
