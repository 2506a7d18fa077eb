"""Delivery without a sidecar: by hand, and at the end of an evaluation."""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.tracking.record import Record
from wavegan_dist.tracking.sender import Sender
from wavegan_dist.tracking.spool import Event, Spool, told
from wavegan_dist.tracking.store import AwayError

BY_HAND, IN_PASSING = 60, 5  # seconds for a request

log = logging.getLogger("wavegan")


def sync(run: Path) -> Counter[str]:
    """Deliver what is left in all spools of the run folder `run`; returns how many events of each kind there were.

    Raises:
        UsageError: no tracked run is there.
        WaveganError: MLflow cannot be reached or no longer has the run; what is left stays.
    """
    run = run.resolve()
    record = Record.of(run)
    if record is None:
        raise UsageError(f"{run} holds no tracked run; give a run folder such as runs/demo")
    sent: Counter[str] = Counter()
    for path in sorted(run.glob("tracking/*.jsonl")):
        sent += _deliver(Spool(path), record, BY_HAND)
    return sent


def log_metrics(
    run: Path,
    values: Mapping[str, float],
    nimg: int,
    *,
    spool: str,
    files: Mapping[Path, str],
    pictures: Mapping[Path, str],
) -> None:
    """Log metrics at step `nimg` to the MLflow run of a run folder, with the files that belong to them.

    What MLflow does not accept now stays in the run folder for `wavegan track sync`. Never raises.

    Args:
        run: the run folder; nothing is logged if the run is not tracked.
        values: name to value.
        nimg: image number, MLflow's step.
        spool: first part of the spool file's name.
        files: files inside the run folder, each with the artifact folder that it goes to.
        pictures: image files inside the run folder, each with the name of its series.
    """
    events: list[Event] = [{"kind": "metrics", "nimg": nimg, "values": dict(values)}]
    events += [{"kind": "file", "path": str(path.relative_to(run)), "under": under} for path, under in files.items()]
    events += [
        {"kind": "picture", "path": str(path.relative_to(run)), "name": name, "nimg": nimg} for path, name in pictures.items()
    ]
    _log(run, spool, *events)


def log_tags(run: Path, values: dict[str, str]) -> None:
    """Tag the MLflow run of the run folder `run`.

    What cannot be sent now stays for `wavegan track sync`; never raises.
    """
    _log(run, "tags", {"kind": "tags", "values": values})


def _log(run: Path, name: str, *events: Event) -> None:
    run = run.resolve()
    record = Record.of(run)
    if record is None:
        return
    spool = Spool(run / "tracking" / f"{name}-{uuid4().hex[:8]}.jsonl")
    try:
        spool.open()
        for event in events:
            spool.append(event)
        _deliver(spool, record, IN_PASSING)
    except (OSError, WaveganError) as error:
        log.warning("wavegan: %s", error)


def _deliver(spool: Spool, record: Record, patience: int) -> Counter[str]:
    left = spool.left()
    if not left:
        return left
    try:
        with spool.sending(wait=False):
            Sender(spool, patience).deliver()
    except BlockingIOError as error:
        raise WaveganError(f"{spool.path} is being delivered by a run that goes on; nothing to do") from error
    except AwayError as error:
        left = spool.left()
        reason = " ".join(str(error).split())[:200]
        raise WaveganError(
            f"{record.uri} does not take {told(left)} ({reason}); try again when it does: wavegan track sync {spool.run}"
        ) from error
    return left
