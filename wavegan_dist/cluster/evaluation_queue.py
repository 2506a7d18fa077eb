"""An evaluation job for each new snapshot of a run, so many at a time. Kept in RUN/cluster/evaluations.json."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.command import result_file
from wavegan_dist.cluster.evaluate_job import failure_file
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file, locked

PAUSE = 10.0  # seconds between two looks of a training job


@dataclass
class QueueStatus:
    """What one look at a run's snapshots found; names of snapshots."""

    submitted: list[str] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def submit_pending(job: EvaluateJob, *, all_at_once: bool = False) -> QueueStatus:
    """Look at all snapshots of the run and submit evaluations of new ones while fewer than `in_flight` wait or run.

    Args:
        job: what to do.
        all_at_once: submit all that are left as one array, of which Slurm runs `in_flight` at a time.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with locked(job.folder / "evaluations.lock"):  # the training job and a collector may look at the same time
        return _look(job, all_at_once=all_at_once)


def _look(job: EvaluateJob, *, all_at_once: bool) -> QueueStatus:
    from wavegan_dist.cluster.submit import submit_evaluations  # a circle in fact: a job that submits jobs

    jobs, active, found = submitted(job.run_dir), slurm.active(), QueueStatus()
    for name in snapshots(job.run_dir):
        if jobs.get(name) in active:  # also when its result is there: the best one's tag is still to come
            found.in_flight.append(name)
        elif result_file(job.run_dir, name).exists():
            found.done.append(name)
        elif name not in jobs:
            found.waiting.append(name)
        else:
            file = failure_file(job.run_dir, name)
            found.failed[name] = file.read_text().strip() if file.exists() else f"job {jobs[name]} ended without a result"
    room = len(found.waiting) if all_at_once else max(0, job.in_flight - len(found.in_flight))
    found.submitted, found.waiting = found.waiting[:room], found.waiting[room:]
    if found.submitted:
        submit_evaluations(job, found.submitted)
    return found


def snapshots(run_dir: Path) -> list[str]:
    """Names of all snapshots of a run, oldest first."""
    return sorted(path.name for path in run_dir.glob("snapshots/kimg-*"))


def submitted(run_dir: Path) -> dict[str, str]:
    """Snapshot -> the last job that was to evaluate it."""
    file = run_dir / "cluster" / "evaluations.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def note_submitted(run_dir: Path, jobs: dict[str, str]) -> None:
    """These jobs were submitted for these snapshots."""
    with atomic_file(run_dir / "cluster" / "evaluations.json") as file:
        json.dump(submitted(run_dir) | jobs, file, indent=2)


class EvaluationQueue:
    """What a training job does for its evaluations. Trouble with them is said and never ends the training.

    Args:
        job: what to do with each snapshot; None: nothing.
    """

    def __init__(self, job: EvaluateJob | None) -> None:
        self.job, self.looked = job, 0.0

    def now_and_then(self) -> None:
        """Submit what is new, unless the last look was just now."""
        if time.monotonic() - self.looked > PAUSE:
            self._collect(all_at_once=False)
            self.looked = time.monotonic()

    def at_the_end(self) -> None:
        """Submit all that are left: the training job leaves its nodes."""
        self._collect(all_at_once=True)

    def _collect(self, *, all_at_once: bool) -> None:
        if self.job is None:
            return
        try:
            for name in submit_pending(self.job, all_at_once=all_at_once).submitted:
                print(f"wavegan: evaluation of {name} is submitted", flush=True)
        except (WaveganError, OSError) as error:
            print(f"wavegan: no evaluation submitted: {error}", file=sys.stderr, flush=True)
