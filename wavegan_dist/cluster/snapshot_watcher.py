"""`wavegan watch`: submits evaluations of a run's snapshots until the run is over and all snapshots are evaluated."""

import time

from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.evaluation_queue import QueueStatus, submit_pending
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.train_job import train_job_name
from wavegan_dist.errors import UsageError, WaveganError

POLL_SECONDS = 5.0


def watch(job: EvaluateJob) -> None:
    """Submit an evaluation for each new snapshot and print a line when it is submitted, evaluated or failed.

    Returns when the run is over (`run_over`) and all its snapshots are evaluated.

    Raises:
        UsageError: the run folder does not exist, or the errors of `submit_pending`.
        WaveganError: at the end, if evaluations failed (the message lists them); or squeue or sbatch fails.
        OSError: the run folder cannot be written.
    """
    if not job.run_dir.is_dir():
        raise UsageError(f"{job.run_dir} is not a run folder; give one such as runs/demo")
    slurm.require_sbatch()
    printed: set[str] = set()
    while True:
        over = run_over(job)  # checked before the snapshots are listed: a run that is over adds none
        status = submit_pending(job)
        for line in status_lines(status):
            if line not in printed:
                print(line, flush=True)
        printed |= set(status_lines(status))
        if over and not (status.submitted or status.in_flight or status.waiting):
            break
        time.sleep(POLL_SECONDS)
    if status.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in status.failed.items())
        raise WaveganError(f"{len(status.failed)} of {len(status.failed) + len(status.done)} evaluations failed: {reasons}")


def run_over(job: EvaluateJob) -> bool:
    """Whether the run will write no more snapshots: it has finished, or it has failed and no job of it is left in the queue.

    A run that was interrupted, or was killed without writing exit.json, is not over.

    Raises:
        WaveganError: squeue fails.
        OSError: squeue is missing.
    """
    end = job.run_folder.read_exit()
    if end is None:
        return False
    return end.state == "finished" or (end.state == "failed" and not slurm.active_jobs(train_job_name(job.run_dir)))


def status_lines(status: QueueStatus) -> list[str]:
    """Return one line, such as "kimg-000200: evaluated", per snapshot in `submitted`, `done` or `failed`."""
    return [
        *(f"{name}: submitted" for name in status.submitted),
        *(f"{name}: evaluated" for name in status.done),
        *(f"{name}: failed, {reason}" for name, reason in status.failed.items()),
    ]
