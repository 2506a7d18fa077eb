"""The submitit executor: turns a job into a batch script and submits it. Refusals by Slurm are reported on one line."""

import io
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.freeze import code_dir, freeze_code
from wavegan_dist.cluster.job import Job
from wavegan_dist.errors import UsageError, WaveganError

if TYPE_CHECKING:
    from submitit import SlurmExecutor


def make_executor(job: Job, name: str) -> "SlurmExecutor":
    """Freeze the code in the run folder (`freeze_code`) and return a submitit executor for jobs with the profile of `job`.

    Args:
        job: the job, which names the profile and the run folder.
        name: the job's name in Slurm.

    Raises:
        UsageError: Slurm or submitit is missing.
        OSError: the run folder cannot be written.
    """
    slurm.require_sbatch()
    return _executor(job, name, freeze_code(job.folder))


def submit(submission: Callable[[], Sequence[Any]]) -> list[str]:
    """Call `submission` without the variables of this process's own Slurm job, and return Slurm's ids of the new jobs.

    Args:
        submission: submits jobs through the result of `make_executor` and returns submitit's jobs.

    Returns:
        The ids, in the order of the jobs that `submission` returns.

    Raises:
        UsageError: Slurm refuses the jobs.
        WaveganError: sbatch cannot be run.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        # submitit copies sbatch's stderr to ours; the error below includes it.
        with slurm.clean_environment(), redirect_stderr(io.StringIO()):
            return [str(job.job_id) for job in submission()]
    except (FailedJobError, FailedSubmissionError) as error:
        reasons = re.findall(r"error: (.*)", str(error)) or str(error).splitlines()
        raise UsageError(f"Slurm refuses the job: {'; '.join(dict.fromkeys(reasons))}; see sinfo and the profile") from error
    except OSError as error:
        raise WaveganError(f"sbatch cannot be run: {error}") from error


def batch_script(job: Job, name: str, command: Sequence[str]) -> str:
    """Return the batch script of a job, with the command that the job runs as a comment. Slurm need not be installed.

    Args:
        job: the job, which names the profile and the run folder.
        name: the job's name in Slurm.
        command: the words of the command; only the comment shows them.

    Raises:
        UsageError: submitit is missing.
    """
    executor = _executor(job, name, code_dir(job.folder, "DIGEST"))
    script: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return f"{script}\n# which then runs\n#   {shlex.join(command)}\n"


def job_log(job: Job, job_id: str) -> Path:
    """Return the path of the log of the job with Slurm's id `job_id`, to which every start of the job appends."""
    return _jobs_dir(job) / f"{job_id}_0_log.out"


def submitted_ids(job: Job) -> set[str]:
    """Return the ids of all training and evaluation jobs ever submitted for the run of `job`; an array has one id."""
    return {path.name.split("_")[0] for path in _jobs_dir(job).glob("*_submission.sh")}


def _jobs_dir(job: Job) -> Path:
    return job.folder / "jobs"


def _executor(job: Job, name: str, code: Path) -> "SlurmExecutor":
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise UsageError("submitit is missing; pip install 'wavegan-dist[slurm]', or use slurm/*.sbatch") from error

    class Executor(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            """1: submitit refuses to write a batch script where srun is missing, and `batch_script` needs no Slurm."""
            return 1

    # exec: Slurm sends its warning to the batch script's process only, so this process must be the job itself.
    executor = Executor(_jobs_dir(job), python=f"exec {shlex.quote(sys.executable)}")
    executor.update_parameters(job_name=name, **_parameters(job, code))
    return executor


def _parameters(job: Job, code: Path) -> dict[str, Any]:
    """Convert the profile of the job to parameters of submitit's executor; what the profile leaves open is left out.

    One task per node without srun, requeuing allowed, and a warning (SIGUSR2) `warn_seconds` before the end.

    Args:
        job: the job.
        code: folder of the frozen code, put first on PYTHONPATH.
    """
    profile = job.profile
    optional = {
        **{key: getattr(profile, key) for key in ("partition", "account", "qos", "constraint", "cpus_per_task", "mem")},
        "exclusive": profile.exclusive or None,
        "gpus_per_node": profile.gpus_per_node or None,
    }
    return {
        "time": profile.time,
        "nodes": profile.nodes,
        "ntasks_per_node": 1,
        "use_srun": False,  # the job starts its steps itself
        "stderr_to_stdout": True,
        "setup": [
            # The warning must not end the batch script before the job has installed its handler. submitit's handler treats some
            # preemptions as time-outs and does not requeue these jobs, so submitit waits for a signal that is never sent.
            "trap '' USR2",
            "export SUBMITIT_PREEMPT_SIGNAL=USR1",
            *profile.setup,
            f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        ],
        "additional_parameters": {"signal": f"B:USR2@{profile.warn_seconds}", "requeue": True, **profile.sbatch},
        **{key: value for key, value in optional.items() if value is not None},
    }
