"""The batch step of an evaluation job: evaluates one snapshot, retries once, and updates the tag of the best snapshot."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from wavegan_dist import config
from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.command import evaluate_command
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.job_step import WARNING
from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluation_result import EvaluationResult
from wavegan_dist.files import atomic_file
from wavegan_dist.log import configure, log
from wavegan_dist.tracking import best_metric, tag_best


def run(file: str, snapshot: str) -> None:
    """Evaluate one snapshot of a run and update the tag of the best snapshot; submitit calls this function in the job.

    A preempted job is requeued each time. After the first failure, or a time limit that was too short, the function requeues
    the job and returns: a file in the run folder records the failure until an evaluation succeeds. After `scancel`, which ends
    the evaluation command, too, the function returns without a result and without a record.

    Args:
        file: the JSON file of the `EvaluateJob`.
        snapshot: name of the snapshot.

    Raises:
        SystemExit: the job was preempted and requeued (exit code 0).
        UsageError: the run has several datasets, or config.yaml cannot be read.
        WaveganError: the evaluation failed a second time, squeue fails, Slurm does not requeue the job, or another result of
            the run is damaged (see `tag_best`).
        OSError: the run folder cannot be read or written.
        pydantic.ValidationError: `file` is damaged.
    """
    configure()
    job = EvaluateJob.read(Path(file))
    reason = _evaluate(job, snapshot)
    failure = job.run_folder.evaluation_failure(snapshot)
    if reason is None:
        failure.unlink(missing_ok=True)
        if job.best not in (None, best_metric(job.run_folder)):  # else `wavegan evaluate` has updated the best snapshot
            tag_best(job.run_folder, EvaluationResult.read(job.run_folder.evaluation(snapshot)), job.best)
        return
    if not slurm.is_running(slurm.own_job_id()):
        log.info("%s is not evaluated; Slurm has ended the job", snapshot)
        return
    failed_before = failure.exists()
    with atomic_file(failure) as out:
        out.write(reason + "\n")
    if failed_before:
        raise WaveganError(f"{snapshot} failed twice: {reason}")
    log.warning("evaluation of %s failed (%s); requeuing the job once", snapshot, reason)
    slurm.requeue(slurm.own_job_id())


class _WarnedError(Exception):
    """Raised by the signal handler when Slurm warns that the job will end."""


def _evaluate(job: EvaluateJob, snapshot: str) -> str | None:
    """Run the evaluation command and print its stderr.

    Returns:
        None after a success. After a failure, the last line of the command's stderr; or that the time limit was too short.

    Raises:
        SystemExit: the job was preempted and requeued (exit code 0).
        UsageError: the run has several datasets, or config.yaml cannot be read.
        WaveganError: Slurm does not requeue a preempted job.
    """
    command = evaluate_command(job, snapshot, config.load(job.run_folder.config).data.index_for_evaluation())
    started = time.monotonic()
    signal.signal(WARNING, _raise)
    try:
        outcome = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    except _WarnedError:
        if job.profile.is_near_limit(time.monotonic() - started):
            return f"not done within the profile's time limit of {job.profile.time} min"
        log.info("preempted; requeuing the job")
        slurm.requeue(slurm.own_job_id())
        sys.exit(0)
    finally:
        signal.signal(WARNING, signal.SIG_IGN)
    print(outcome.stderr, end="", flush=True)
    if outcome.returncode == 0:
        return None
    return (outcome.stderr.strip().splitlines() or [f"exit code {outcome.returncode}"])[-1]


def _raise(_number: int, _frame: object) -> None:
    raise _WarnedError
