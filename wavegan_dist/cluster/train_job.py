"""The batch step of a training job: starts the trainers, waits, and decides whether to requeue the job.

Without submitit, in an sbatch script: `python -m wavegan_dist.cluster.train_job --profile NAME --run-dir DIR -- ARGUMENTS`.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.command import train_command
from wavegan_dist.cluster.evaluation_queue import EvaluationQueue
from wavegan_dist.cluster.job import TrainJob
from wavegan_dist.cluster.job_step import JobStep
from wavegan_dist.cluster.profile import Profile, load_profile
from wavegan_dist.cluster.run_exit import CrashLog, checkpointed_nimg, exit_after
from wavegan_dist.cluster.slurm import Allocation
from wavegan_dist.errors import WaveganError
from wavegan_dist.log import configure, log

STALLED = (
    "no new checkpoint within the time limit of {time} min; submit with a longer --time, a smaller train.checkpoint_kimg or "
    "larger warn_seconds in the profile"
)


def train_job_name(run_dir: Path) -> str:
    """Return the Slurm name of a run's training jobs, train-FOLDER; runs in folders of the same name share it."""
    return f"train-{run_dir.name}"


def run(file: str) -> None:
    """Call `supervise` with the `TrainJob` in the JSON file `file`. submitit calls this function in each start of the job.

    Raises the errors of `supervise` and of `Job.read`.
    """
    configure()
    supervise(TrainJob.read(Path(file)))


def supervise(job: TrainJob) -> None:
    """Run one start of a training job, and submit evaluations of its snapshots meanwhile.

    Returns if training finished or Slurm has ended the job (scancel). A job that was preempted or reached its time limit is
    requeued each time. After a crash it is requeued if this is its first crash or it got further than in all earlier ones. A
    start that reached its time limit without a new checkpoint counts as a crash: otherwise the job would be requeued forever.

    Raises:
        SystemExit: the job was requeued (exit code 0).
        WaveganError: this process is not in a Slurm job, the allocation does not fit the profile, the job crashed again without
            getting further, or scontrol or squeue fails.
        OSError: the run folder cannot be written, or srun, scontrol or squeue is missing.
    """
    allocation, before, nimg = Allocation.from_environment(), job.run_folder.read_exit(), checkpointed_nimg(job.run_dir)
    allocation.check(job.profile)
    job.folder.mkdir(parents=True, exist_ok=True)
    queue = EvaluationQueue(job.evaluation)
    hosts, world_size = ", ".join(allocation.hosts), job.profile.world_size
    log.info("job %s on %s: %d processes, rendezvous on %s", allocation.job_id, hosts, world_size, allocation.hosts[0])
    step = JobStep(train_command(job, allocation), job.profile.warn_seconds)
    step.wait(queue.poll)
    end = exit_after(job.run_dir, before)
    stalled = step.warned and job.profile.is_near_limit(step.warned - step.started) and checkpointed_nimg(job.run_dir) <= nimg
    if stalled:
        end = replace(end, nimg=nimg, reason=STALLED.format(time=job.profile.time))
    kimg = f"{end.nimg / 1000:g}"
    if end.state == "finished":
        queue.finish()
    elif not slurm.is_running(allocation.job_id):
        log.info("%s at kimg %s; Slurm has ended the job", end.state, kimg)
    elif not stalled and (step.warned or end.state == "interrupted"):
        _requeue(allocation, f"{end.state} at kimg {kimg}; requeuing the job")
    elif CrashLog(job.folder, allocation.job_id).add(end):
        _requeue(allocation, f"crashed at kimg {kimg} ({end.reason}); requeuing the job; it must get further than this")
    else:
        raise WaveganError(f"crashed at kimg {kimg} again, so it is not started a third time: {end.reason}")


def _requeue(allocation: Allocation, message: str) -> NoReturn:
    log.info(message)
    slurm.requeue(allocation.job_id)
    sys.exit(0)


def script_profile(name: str) -> Profile:
    """Return a profile with the nodes, CPU cores and time limit of this process's job: an sbatch script requests these itself.

    Args:
        name: as `load_profile` takes it.

    Raises:
        UsageError: the errors of `load_profile`.
        WaveganError: this process is not in a Slurm job, or scontrol or squeue fails.
        OSError: scontrol or squeue is missing.
    """
    allocation = Allocation.from_environment()
    cores, limit = os.environ.get("SLURM_CPUS_PER_TASK"), slurm.time_limit(allocation.job_id)
    return load_profile(name, nodes=len(allocation.hosts), cpus_per_task=cores, time=limit)


def main() -> None:
    """Run the job of an sbatch script, as the module's docstring shows. Exits with 1 or 2 after an error, 0 after a requeue."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--profile", required=True, metavar="NAME")
    parser.add_argument("--run-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("arguments", nargs="+", help="of wavegan train")
    options = parser.parse_args()
    configure()
    try:
        profile = script_profile(options.profile)
        run_dir = options.run_dir.absolute()
        supervise(TrainJob(run_dir=run_dir, profile=profile, arguments=[*options.arguments, "--run-dir", str(run_dir)]))
    except WaveganError as error:
        print(f"wavegan: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
