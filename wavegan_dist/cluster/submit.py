"""Submission through submitit: everything is checked and frozen first, and what Slurm refuses is one line."""

import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

from wavegan_dist.cluster import evaluate_job, slurm, train_job
from wavegan_dist.cluster.command import evaluate_command, train_command
from wavegan_dist.cluster.evaluation_queue import note_submitted
from wavegan_dist.cluster.freeze import freeze_code, freeze_config
from wavegan_dist.cluster.job import EvaluateJob, Job, TrainJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError, WaveganError

if TYPE_CHECKING:
    from pathlib import Path

    from submitit import SlurmExecutor

ANYWHERE = slurm.Allocation("0", ("FIRST_NODE",), 0)  # stands for the allocation that Slurm will make


def submit_training(experiment: Experiment, job: TrainJob) -> str:
    """Freeze code and configuration in the run folder and submit the training; returns Slurm's job id.

    Args:
        experiment: the settings.
        job: its `arguments` name the run folder and `config_file(experiment, job.folder)`, which is written here.

    Raises:
        UsageError: Slurm or submitit is missing, or Slurm refuses the job.
        OSError: the run folder cannot be written.
    """
    is_new = not job.run_dir.exists()
    try:
        executor = _executor(job, f"train-{job.run_dir.name}")
        freeze_config(experiment, job.folder)
        file = job.save()
        (job_id,) = _submit(executor, lambda: [executor.submit(train_job.run, str(file))])
    except BaseException:
        if is_new:
            shutil.rmtree(job.run_dir, ignore_errors=True)
        raise
    return job_id


def submit_evaluations(job: EvaluateJob, names: Sequence[str]) -> list[str]:
    """Submit an array with a job for each of these snapshots, `in_flight` of them at a time; returns the ids of the jobs.

    Raises:
        UsageError: Slurm or submitit is missing, or Slurm refuses the jobs.
    """
    executor = _executor(job, f"evaluate-{job.run_dir.name}")
    executor.update_parameters(array_parallelism=job.in_flight)
    file = job.save()
    for name in names:
        evaluate_job.failure_file(job.run_dir, name).unlink(missing_ok=True)  # each submission may fail once
    ids = _submit(executor, lambda: executor.map_array(evaluate_job.run, [str(file)] * len(names), list(names)))
    note_submitted(job.run_dir, dict(zip(names, ids, strict=True)))
    return ids


def check_batch(experiment: Experiment, profile: Profile) -> None:
    """Raise UsageError unless the processes can share the global batch."""
    if experiment.train.batch_size % profile.world_size:
        raise UsageError(
            f"train.batch_size = {experiment.train.batch_size} does not divide among {profile.world_size} processes "
            f"({profile.nodes} nodes x {profile.processes}); make it a multiple"
        )


def training_script(job: TrainJob) -> str:
    """The batch script, and as comments what it will run."""
    return _script(job, f"train-{job.run_dir.name}", shlex.join(train_command(job, ANYWHERE)))


def evaluation_script(job: EvaluateJob, snapshot: str, data: str) -> str:
    """The same for the evaluation of a snapshot."""
    return _script(job, f"evaluate-{job.run_dir.name}", shlex.join(evaluate_command(job, snapshot, data)))


def _script(job: Job, name: str, command: str) -> str:
    executor = _executor(job, name, code=job.folder / "code" / "DIGEST")
    script: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return f"{script}\n# which then runs\n#   {command}\n"


def _executor(job: Job, name: str, code: "Path | None" = None) -> "SlurmExecutor":
    slurm.require()
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise UsageError("submitit is missing; pip install 'wavegan-dist[slurm]', or use slurm/*.sbatch") from error
    profile = job.profile
    code = code or freeze_code(job.folder)
    # exec: Slurm's warning is for the batch script's process alone.
    executor = SlurmExecutor(job.folder / "jobs", python=f"exec {shlex.quote(sys.executable)}")
    asked = {name: getattr(profile, name) for name in ("partition", "account", "qos", "constraint", "cpus_per_task", "mem")}
    asked |= {"exclusive": profile.exclusive or None, "gpus_per_node": profile.gpus_per_node or None}
    executor.update_parameters(
        job_name=name,
        time=profile.time,
        nodes=profile.nodes,
        ntasks_per_node=1,
        use_srun=False,  # the job starts its steps itself
        stderr_to_stdout=True,
        setup=[
            # Until the job listens, Slurm's warning must not end it; submitit's own answer to it would give some jobs up.
            "trap '' USR2",
            "export SUBMITIT_PREEMPT_SIGNAL=USR1",
            *profile.setup,
            f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        ],
        additional_parameters={"signal": f"B:USR2@{profile.warn_seconds}", "requeue": True, **profile.sbatch},
        **{key: value for key, value in asked.items() if value is not None},
    )
    return executor


def _submit(executor: "SlurmExecutor", submit: Callable[[], Sequence[Any]]) -> list[str]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    said = io.StringIO()
    try:
        # submitit repeats sbatch's words on stderr.
        with slurm.own_environment(), redirect_stderr(said):
            return [str(job.job_id) for job in submit()]
    except (FailedJobError, FailedSubmissionError) as error:
        reasons = re.findall(r"error: (.*)", str(error)) or str(error).splitlines()
        raise UsageError(f"Slurm refuses the job: {'; '.join(dict.fromkeys(reasons))}; see sinfo and the profile") from error
    except OSError as error:
        raise WaveganError(f"sbatch cannot be run: {error}") from error
