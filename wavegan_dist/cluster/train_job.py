"""The batch step of a training job: starts the trainers, waits, and decides whether the job goes back into the queue.

Without submitit, in an sbatch script: `python -m wavegan_dist.cluster.train_job --profile NAME --run-dir DIR -- ARGUMENTS`.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NoReturn

from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.command import train_command
from wavegan_dist.cluster.evaluation_queue import EvaluationQueue
from wavegan_dist.cluster.job import TrainJob
from wavegan_dist.cluster.job_step import JobStep
from wavegan_dist.cluster.profile import load_profile
from wavegan_dist.cluster.run_exit import CrashLog, RunExit, read_exit
from wavegan_dist.cluster.slurm import Allocation
from wavegan_dist.errors import WaveganError


def run(file: str) -> None:
    """Do the job that this JSON file describes; what submitit calls."""
    supervise(TrainJob.read(Path(file)))


def supervise(job: TrainJob) -> None:
    """One start of a training job.

    Preempted or at its time limit it is requeued as often as that happens. After a crash it is requeued if it got further
    than in its crash before.

    Raises:
        WaveganError: Slurm granted something else than the profile says, or the job crashed where it had crashed before.
    """
    allocation, began = Allocation.here(), time.time()
    allocation.check(job.profile)
    job.folder.mkdir(parents=True, exist_ok=True)
    queue = EvaluationQueue(job.evaluation)
    hosts = ", ".join(allocation.hosts)
    _say(f"job {allocation.job_id} on {hosts}: {job.profile.world_size} processes, rendezvous on {allocation.hosts[0]}")
    step = JobStep(train_command(job, allocation), job.profile.warn_seconds)
    code = step.wait(queue.now_and_then)
    end = RunExit("finished", 0, "") if code == 0 else read_exit(job.run_dir, began)
    if end.state == "finished":
        queue.at_the_end()
    elif not slurm.running(allocation.job_id):
        _say(f"{end.state} at kimg {end.nimg / 1000:g}; Slurm has ended the job")
    elif step.warned or end.state == "interrupted":
        _requeue(allocation, f"{end.state} at kimg {end.nimg / 1000:g}; the job goes back into the queue")
    elif CrashLog(job.folder, allocation.job_id).add(end):
        _requeue(
            allocation,
            f"crashed at kimg {end.nimg / 1000:g} ({end.reason}); the job goes back into the queue, once for this place",
        )
    else:
        raise WaveganError(f"crashed at kimg {end.nimg / 1000:g} again, so it is not started a third time: {end.reason}")


def _requeue(allocation: Allocation, message: str) -> NoReturn:
    _say(message)
    slurm.requeue(allocation.job_id)
    sys.exit(0)


def _say(message: str) -> None:
    print(f"wavegan: {message}", flush=True)


def main() -> None:
    """The job of an sbatch script."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--profile", required=True, metavar="NAME")
    parser.add_argument("--run-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("arguments", nargs="+", help="of wavegan train")
    options = parser.parse_args()
    try:
        profile = load_profile(options.profile, nodes=len(Allocation.here().hosts))
        run_dir = options.run_dir.absolute()
        supervise(TrainJob(run_dir=run_dir, profile=profile, arguments=[*options.arguments, "--run-dir", str(run_dir)]))
    except WaveganError as error:
        print(f"wavegan: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
