"""The collector: looks at a run's snapshots until the run is over and all of them are evaluated."""

import json
import time

from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.evaluation_queue import QueueStatus, submit_pending
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.errors import UsageError, WaveganError

PAUSE = 5.0  # seconds between two looks


def watch(job: EvaluateJob) -> None:
    """Submit an evaluation for each new snapshot and say what becomes of it.

    Raises:
        UsageError: no run is there, or Slurm refuses the jobs.
        WaveganError: some evaluations failed, each twice; it lists them.
    """
    if not job.run_dir.is_dir():
        raise UsageError(f"{job.run_dir} is no run folder; give one such as runs/demo")
    slurm.require()
    told: set[str] = set()
    while True:
        over = run_over(job)
        found = submit_pending(job)
        for line in lines(found):
            if line not in told:
                print(line, flush=True)
        told |= set(lines(found))
        if over and not (found.submitted or found.in_flight or found.waiting):
            break
        time.sleep(PAUSE)
    if found.failed:
        failed = "; ".join(f"{name}: {why}" for name, why in found.failed.items())
        raise WaveganError(f"{len(found.failed)} of {len(found.failed) + len(found.done)} evaluations failed: {failed}")


def run_over(job: EvaluateJob) -> bool:
    """Whether the run makes no more snapshots: it is finished, or has failed and no job of its name is left."""
    file = job.run_dir / "exit.json"
    state = json.loads(file.read_text())["state"] if file.exists() else "running"
    return state == "finished" or (state == "failed" and not slurm.active(f"train-{job.run_dir.name}"))


def lines(found: QueueStatus) -> list[str]:
    """What a round has to tell, a line for each snapshot."""
    return [
        *(f"{name}: submitted" for name in found.submitted),
        *(f"{name}: evaluated" for name in found.done),
        *(f"{name}: failed, {why}" for name, why in found.failed.items()),
    ]
