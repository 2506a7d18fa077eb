"""One evaluation job per snapshot of a run, a limited number at a time. State: RUN/cluster/evaluations.json."""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from wavegan_dist import config
from wavegan_dist.cluster import evaluate_job, executor, slurm
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import atomic_file, locked, parse_json
from wavegan_dist.log import log
from wavegan_dist.run_folder import RunFolder

POLL_SECONDS = 10.0  # how often a training job looks for new snapshots


@dataclass
class QueueStatus:
    """Names of a run's snapshots, each in one group by the state of the snapshot's evaluation.

    Attributes:
        submitted: submitted by the call that returned this object.
        in_flight: submitted earlier; the job is pending or running, even if the result exists already.
        waiting: without a result and never submitted.
        done: evaluated; the result exists, and no job of the snapshot is pending or running.
        failed: submitted earlier, and the job ended without a result; name to reason.
    """

    submitted: list[str] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def submit_pending(job: EvaluateJob, *, all_at_once: bool = False) -> QueueStatus:
    """Submit evaluations of snapshots that are `waiting` (`QueueStatus`) until `job.in_flight` jobs are pending or running.

    Args:
        job: the run and how its snapshots are evaluated.
        all_at_once: submit all waiting snapshots as one array, of which Slurm runs `job.in_flight` at a time.

    Returns:
        The state of every snapshot after the submission.

    Raises:
        UsageError: config.yaml cannot be read or has several datasets, Slurm or submitit is missing, or Slurm refuses the jobs.
        WaveganError: squeue or sbatch fails, or evaluations.json is damaged.
        OSError: the run folder cannot be written, or squeue is missing.
    """
    with _lock(job):
        status = _status(job)
        free_slots = len(status.waiting) if all_at_once else max(0, job.in_flight - len(status.in_flight))
        status.submitted, status.waiting = status.waiting[:free_slots], status.waiting[free_slots:]
        if status.submitted:
            _submit(job, status.submitted)
        return status


def _lock(job: EvaluateJob) -> AbstractContextManager[bool]:
    """Return a context manager that waits for the lock of evaluations.json and holds it.

    A training job, `wavegan watch` and `wavegan submit evaluate` may submit at the same time.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    return locked(job.folder / "evaluations.lock")


def _status(job: EvaluateJob) -> QueueStatus:
    run, jobs, active, status = job.run_folder, submitted_jobs(job.run_dir), slurm.active_jobs(), QueueStatus()
    for name in (path.name for path in run.snapshots()):
        if jobs.get(name) in active:  # even if there is a result: the job still has to tag the best snapshot
            status.in_flight.append(name)
        elif run.evaluation(name).exists():
            status.done.append(name)
        elif name not in jobs:
            status.waiting.append(name)
        else:
            file, ended = run.evaluation_failure(name), f"job {jobs[name]} ended without a result"
            status.failed[name] = file.read_text("utf-8", "replace").strip() if file.exists() else ended
    return status


def submit_evaluations(job: EvaluateJob, names: Sequence[str] | None = None) -> dict[str, str]:
    """Submit an array with one job per snapshot, of which `job.in_flight` run at a time, and record it in evaluations.json.

    Deletes the records of earlier failures of these snapshots. Named snapshots that have a result are evaluated again.
    Snapshots whose job is pending or running are left out.

    Args:
        job: the run and how its snapshots are evaluated.
        names: names of the snapshots, at least one; None: those that have no result.

    Returns:
        Slurm's ids of the jobs, by the names of the snapshots.

    Raises:
        UsageError: no snapshot is left, config.yaml cannot be read or has several datasets, Slurm or submitit is missing, or
            Slurm refuses the jobs.
        WaveganError: squeue fails, sbatch cannot be run, or evaluations.json is damaged.
        OSError: the run folder cannot be written.
    """
    slurm.require_sbatch()
    with _lock(job):
        status = _status(job)
        chosen = sorted([*status.waiting, *status.failed]) if names is None else names
        if left := [name for name in chosen if name not in status.in_flight]:
            return _submit(job, left)
        which = f"each snapshot of {job.run_dir} has a result, or" if names is None else "each of these snapshots has"
        raise UsageError(f"{which} a pending or running job; nothing to submit")


def _submit(job: EvaluateJob, names: Sequence[str]) -> dict[str, str]:
    """Do the work of `submit_evaluations`; the caller holds the lock."""
    config.load(job.run_folder.config).data.index_for_evaluation()  # refuses a run of several data sets
    earlier = submitted_jobs(job.run_dir)
    array = executor.make_executor(job, evaluation_job_name(job))
    array.update_parameters(array_parallelism=job.in_flight)
    file = job.save()
    for name in names:
        job.run_folder.evaluation_failure(name).unlink(missing_ok=True)  # each submission may fail once
    ids = executor.submit(lambda: array.map_array(evaluate_job.run, [str(file)] * len(names), list(names)))
    submitted = dict(zip(names, ids, strict=True))
    with atomic_file(_state_file(job.run_dir)) as out:
        json.dump(earlier | submitted, out, indent=2)
    return submitted


def submitted_jobs(run_dir: Path) -> dict[str, str]:
    """Return the id of the latest evaluation job of each snapshot, by the snapshot's name; empty before the first submission.

    Raises:
        WaveganError: evaluations.json is damaged.
        OSError: evaluations.json cannot be read.
    """
    file = _state_file(run_dir)
    if not file.exists():
        return {}
    with suppress(ValueError):
        jobs = parse_json(file.read_bytes())
        if isinstance(jobs, dict) and all(isinstance(job, str) for job in jobs.values()):
            return jobs
    raise WaveganError(f"{file} is damaged; delete it, and snapshots without a result are evaluated again")


def evaluation_job_name(job: EvaluateJob) -> str:
    """Return the Slurm name of a run's evaluation jobs, evaluate-FOLDER; runs in folders of the same name share it."""
    return f"evaluate-{job.run_dir.name}"


def _state_file(run_dir: Path) -> Path:
    return RunFolder(run_dir).cluster / "evaluations.json"


class EvaluationQueue:
    """Submits evaluations from within a training job. A WaveganError or OSError is only logged and does not end the training.

    Args:
        job: how snapshots are evaluated; None: they are not evaluated.
    """

    def __init__(self, job: EvaluateJob | None) -> None:
        self.job, self.polled = job, 0.0

    def poll(self) -> None:
        """Submit evaluations of new snapshots (`submit_pending`), unless the last attempt was less than POLL_SECONDS ago."""
        if time.monotonic() - self.polled > POLL_SECONDS:
            self._submit(all_at_once=False)
            self.polled = time.monotonic()

    def finish(self) -> None:
        """Submit the evaluations of all remaining snapshots as one array: the training job does not wait for them."""
        self._submit(all_at_once=True)

    def _submit(self, *, all_at_once: bool) -> None:
        if self.job is None:
            return
        try:
            for name in submit_pending(self.job, all_at_once=all_at_once).submitted:
                log.info("submitted the evaluation of %s", name)
        except (WaveganError, OSError) as error:
            log.warning("cannot submit evaluations: %s", error)
