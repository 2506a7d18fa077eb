"""The batch step of an evaluation job: measures one snapshot, tries a second time, keeps the tag of the best one right."""

import os
import subprocess
from pathlib import Path

from wavegan_dist import config
from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.best import tag_best
from wavegan_dist.cluster.command import evaluate_command
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file


def failure_file(run_dir: Path, snapshot: str) -> Path:
    """Where the reason stands why a snapshot could not be evaluated."""
    return run_dir / "evaluations" / f"{snapshot}.failed"


def run(file: str, snapshot: str) -> None:
    """Evaluate this snapshot of the run that the JSON file names; what submitit calls.

    Raises:
        WaveganError: it failed twice.
    """
    job = EvaluateJob.read(Path(file))
    data = config.load(job.run_dir / "config.yaml").data.index
    outcome = subprocess.run(evaluate_command(job, snapshot, data), stderr=subprocess.PIPE, text=True)
    print(outcome.stderr, end="", flush=True)
    failed = failure_file(job.run_dir, snapshot)
    if outcome.returncode == 0:
        failed.unlink(missing_ok=True)
        return tag_best(job.run_dir, job.best)
    again = failed.exists()
    reason = (outcome.stderr.strip().splitlines() or [f"exit code {outcome.returncode}"])[-1]
    with atomic_file(failed) as out:
        out.write(reason + "\n")
    if again:
        raise WaveganError(f"{snapshot} failed twice: {reason}")
    slurm.requeue(os.environ["SLURM_JOB_ID"])
