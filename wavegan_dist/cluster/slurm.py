"""The Slurm commands that a job and its submission need."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wavegan_dist.cluster.profile import Profile
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.log import log

# Errors of Slurm's commands while slurmctld restarts or is overloaded.
NO_ANSWER = re.compile("Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted")
PATIENCE_SECONDS = 300.0  # how long the end of a job waits for slurmctld
RETRY_SECONDS = 5.0
NO_LIMIT = "365-0"  # the time of a job that Slurm reports as UNLIMITED
# Variables of a launcher or of an outer job, which a new job must not inherit. SLURM_CONF stays: it names the cluster.
INHERITED_PREFIXES = (
    *("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FORK_LAUNCHED"),
    *("SLURM_", "SLURMD_", "SUBMITIT_", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES"),
)


def require_sbatch() -> None:
    """Raise UsageError if there is no command sbatch on PATH."""
    if shutil.which("sbatch") is None:
        raise UsageError("no sbatch here: Slurm is missing; submit from a login node, or try slurm/local/up.sh on this machine")


@contextmanager
def clean_environment() -> Iterator[None]:
    """Remove the variables of this process's own Slurm job and launcher from os.environ while the block runs.

    These are the variables whose names begin with one of INHERITED_PREFIXES, except SLURM_CONF. They have their old values
    again after the block.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(INHERITED_PREFIXES) and name != "SLURM_CONF":
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


@dataclass(frozen=True)
class Allocation:
    """The resources that Slurm allocated to the job of this process.

    Args:
        job_id: the job's id.
        hosts: names of the allocated nodes; the batch step and rank 0 run on the first one.
        gpus: number of GPUs on this node.
    """

    job_id: str
    hosts: tuple[str, ...]
    gpus: int

    @classmethod
    def from_environment(cls) -> "Allocation":
        """Read the allocation from Slurm's environment variables and scontrol; `gpus` is SLURM_GPUS_ON_NODE, or 0 if not set.

        Raises:
            WaveganError: this process is not in a Slurm job, or scontrol failed.
            OSError: scontrol is missing.
        """
        if "SLURM_JOB_NODELIST" not in os.environ:
            raise WaveganError("not in a Slurm job: SLURM_JOB_NODELIST is not set; start the job with sbatch or wavegan submit")
        hosts = _run("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]).split()
        job_id, gpus = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_GPUS_ON_NODE", "0")
        for name, value in (("SLURM_JOB_ID", job_id), ("SLURM_GPUS_ON_NODE", gpus)):
            if not (value.isascii() and value.isdecimal() and len(value) < 20):
                raise WaveganError(f"{name}={value} is not a number; start the job with sbatch or wavegan submit")
        return cls(job_id, tuple(hosts), int(gpus))

    def check(self, profile: Profile) -> None:
        """Raise WaveganError unless the allocation has as many nodes as the profile and, on this node, at least its GPUs."""
        if len(self.hosts) != profile.nodes:
            raise WaveganError(f"Slurm granted {len(self.hosts)} nodes where the profile has nodes = {profile.nodes}")
        if self.gpus < profile.gpus_per_node:
            raise WaveganError(f"Slurm granted {self.gpus} GPUs a node where the profile has {profile.gpus_per_node}")

    @property
    def port(self) -> int:
        """TCP port of the rendezvous on the job's first node: 20000 + job id % 12000, so jobs seldom collide.

        Linux gives the ports from 32768 on to outgoing connections.
        """
        return 20000 + int(self.job_id) % 12000


def own_job_id() -> str:
    """Return the id of the job of this process; ARRAY_TASK for a task of an array.

    SLURM_JOB_ID alone would not do: for the last task of an array it is the id of the whole array.

    Raises:
        KeyError: this process is not in a Slurm job.
    """
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def is_running(job_id: str) -> bool:
    """Return whether Slurm counts a job, or the task ARRAY_TASK of an array, as running.

    False after scancel and during a requeue, even if processes of the job still run. Waits up to PATIENCE_SECONDS for
    slurmctld.

    Raises:
        WaveganError: squeue fails, as for a job that Slurm no longer knows.
        OSError: squeue is missing.
    """
    return _run_patiently("squeue", "--noheader", "--jobs", job_id, "--format", "%T").strip() == "RUNNING"


def time_limit(job_id: str) -> str:
    """Return the time limit of a running job as `cluster.profile.minutes` reads it. A job without a limit has `NO_LIMIT`.

    Waits up to PATIENCE_SECONDS for slurmctld.

    Raises:
        WaveganError: squeue fails, as for a job that Slurm no longer knows.
        OSError: squeue is missing.
    """
    limit = _run_patiently("squeue", "--noheader", "--jobs", job_id, "--format", "%l").strip()
    return NO_LIMIT if limit == "UNLIMITED" else limit


def active_jobs(name: str | None = None, states: str | None = None) -> set[str]:
    """Return the ids of this user's jobs in the queue: pending, running, suspended or ending. A task of an array: ARRAY_TASK.

    Args:
        name: only jobs with this name; None: all jobs.
        states: only jobs in one of these states, separated by commas; None: all states of jobs in the queue.

    Raises:
        WaveganError: squeue fails.
        OSError: squeue is missing.
    """
    filters = [] if states is None else ["--states", states]
    lines = _run("squeue", "--noheader", "--array", "--me", *filters, "--format", "%i %j").splitlines()
    jobs = [line.partition(" ") for line in lines]
    # Not with --name: it takes a list of names, separated by commas, which a name may have, too.
    return {job_id for job_id, _, job_name in jobs if name in (None, job_name)}


def requeue(job_id: str) -> None:
    """Put a job back into the queue. Slurm sends SIGTERM to its processes, which may include this one.

    Waits up to PATIENCE_SECONDS for slurmctld.

    Raises:
        WaveganError: Slurm refuses, for example because the job has ended.
        OSError: scontrol is missing.
    """
    _run_patiently("scontrol", "requeue", job_id)


def _run_patiently(*command: str) -> str:
    """Return the output of a Slurm command. If slurmctld does not answer, repeat the command for PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return _run(*command)
        except WaveganError as error:
            if not NO_ANSWER.search(str(error)) or time.monotonic() > deadline:
                raise
            log.warning("%s; trying again", error)
        time.sleep(RETRY_SECONDS)


def _run(*command: str) -> str:
    outcome = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if outcome.returncode:
        raise WaveganError(f"{' '.join(command)}: {' '.join(outcome.stderr.split())}")
    return outcome.stdout
