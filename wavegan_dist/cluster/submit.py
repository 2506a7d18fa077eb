"""`wavegan submit`: checks and freezes everything first, then submits; a dry run returns the batch script."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from wavegan_dist.cluster import evaluation_queue, executor, slurm, train_job
from wavegan_dist.cluster.command import evaluate_command, train_command
from wavegan_dist.cluster.freeze import freeze_config
from wavegan_dist.cluster.job import EvaluateJob, TrainJob
from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.files import locked
from wavegan_dist.tracking import save_password

PLACEHOLDER = slurm.Allocation("0", ("FIRST_NODE",), 0)  # for the allocation that Slurm will make


def submit_training(experiment: Experiment, job: TrainJob) -> str:
    """Freeze code and configuration in the run folder and submit the training; return Slurm's job id.

    After a UsageError, the run folder is removed if it was empty or did not exist. After any other error it stays: Slurm may
    have accepted the job.

    Args:
        experiment: the settings; written to `config_file(experiment, job.folder)`, which `job.arguments` must name.
        job: the job.

    Raises:
        UsageError: a training job of the run is in the queue, Slurm or submitit is missing, Slurm refuses the job, or the
            errors of `freeze_config` and `save_password`.
        WaveganError: sbatch or squeue cannot be run, or tracking.json is damaged.
        OSError: the run folder cannot be written.
    """
    with _lock(job) as is_new:
        try:
            training = executor.make_executor(job, train_job.train_job_name(job.run_dir))
            _refuse_second_job(job)
            freeze_config(experiment, job.folder)
            save_password(job.run_folder, experiment)
            file = job.save()
            (job_id,) = executor.submit(lambda: [training.submit(train_job.run, str(file))])
        except UsageError:
            if is_new:
                shutil.rmtree(job.run_dir, ignore_errors=True)
            raise
    return job_id


@contextmanager
def _lock(job: TrainJob) -> Iterator[bool]:
    """Hold the lock of the run's submissions, in the run folder; yield whether the folder holds nothing else.

    Raises:
        OSError: the run folder cannot be written.
    """
    lock = job.folder / "submit.lock"
    with ExitStack() as stack:
        while True:
            job.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a refused submission has just removed the folder
                stack.enter_context(locked(lock))
                break
        yield [*job.run_dir.iterdir(), *job.folder.iterdir()] == [job.folder, lock]


def _refuse_second_job(job: TrainJob) -> None:
    """Raise UsageError if a training job of the run is in the queue: one of the two would hold its nodes without training.

    A job that `scancel` is ending does not count.
    """
    queued = slurm.active_jobs(train_job.train_job_name(job.run_dir), states="PENDING,RUNNING,SUSPENDED,CONFIGURING,REQUEUED")
    if busy := sorted(queued & executor.submitted_ids(job)):
        raise UsageError(f"job {busy[0]} already trains {job.run_dir}; scancel {busy[0]} first, or choose another --run-dir")


def training_script(job: TrainJob) -> str:
    """Return the batch script of a training job, with the command that the job runs as a comment. Slurm need not be installed.

    Raises:
        UsageError: submitit is missing.
    """
    return executor.batch_script(job, train_job.train_job_name(job.run_dir), train_command(job, PLACEHOLDER))


def evaluation_script(job: EvaluateJob, snapshot: str, data: str) -> str:
    """Return the batch script that evaluates one snapshot, with the command that the job runs as a comment.

    Slurm need not be installed.

    Args:
        job: the run and how its snapshots are evaluated.
        snapshot: name of the snapshot's folder, which need not exist.
        data: location of the index of the dataset to compare with, as `wavegan evaluate --data` takes it.

    Raises:
        UsageError: submitit is missing.
    """
    return executor.batch_script(job, evaluation_queue.evaluation_job_name(job), evaluate_command(job, snapshot, data))
