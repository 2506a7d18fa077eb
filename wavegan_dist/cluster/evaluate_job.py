"""The batch step of an evaluation job: measures one snapshot, tries a second time, keeps the tag of the best one right."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from wavegan_dist import config
from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.best import tag_best
from wavegan_dist.cluster.command import evaluate_command
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.job_step import WARNING
from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file


def failure_file(run_dir: Path, snapshot: str) -> Path:
    """Where the reason stands why a snapshot could not be evaluated."""
    return run_dir / "evaluations" / f"{snapshot}.failed"


def run(file: str, snapshot: str) -> None:
    """Evaluate this snapshot of the run that the JSON file names; what submitit calls.

    Preempted, the job is requeued as often as that happens. After a failure, or a time limit that was too short, it is
    requeued once.

    Raises:
        WaveganError: it failed twice.
    """
    job = EvaluateJob.read(Path(file))
    reason = _measure(job, snapshot)
    failed = failure_file(job.run_dir, snapshot)
    if reason is None:
        failed.unlink(missing_ok=True)
        return tag_best(job.run_dir, job.best)
    again = failed.exists()
    with atomic_file(failed) as out:
        out.write(reason + "\n")
    if again:
        raise WaveganError(f"{snapshot} failed twice: {reason}")
    slurm.requeue(os.environ["SLURM_JOB_ID"])


class _WarnedError(Exception):
    """Slurm says that the job will end."""


def _measure(job: EvaluateJob, snapshot: str) -> str | None:
    """Run the command; why it failed, None where it did not. Does not come back when the job is preempted."""
    command = evaluate_command(job, snapshot, config.load(job.run_dir / "config.yaml").data.index)
    began = time.monotonic()
    signal.signal(WARNING, _raise)
    try:
        outcome = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    except _WarnedError:
        # Slurm may warn up to a minute earlier than it was asked to.
        if time.monotonic() - began > job.profile.time * 60 - job.profile.warn_seconds - 60:
            return f"not done within the profile's time limit of {job.profile.time} min"
        print("wavegan: preempted; the job goes back into the queue", flush=True)
        slurm.requeue(os.environ["SLURM_JOB_ID"])
        sys.exit(0)
    finally:
        signal.signal(WARNING, signal.SIG_IGN)
    print(outcome.stderr, end="", flush=True)
    if outcome.returncode == 0:
        return None
    return (outcome.stderr.strip().splitlines() or [f"exit code {outcome.returncode}"])[-1]


def _raise(_number: int, _frame: object) -> None:
    raise _WarnedError
