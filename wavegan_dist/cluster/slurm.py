"""Slurm's own commands, as far as a job and its submission need them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wavegan_dist.cluster.profile import Profile
from wavegan_dist.errors import UsageError, WaveganError

# What a launcher or an outer job puts into the environment, and a new job must not inherit. SLURM_CONF says which cluster.
OF_OTHERS = (
    *("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FORK_LAUNCHED"),
    *("SLURM_", "SLURMD_", "SUBMITIT_", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES"),
)


def require() -> None:
    """Raise UsageError where Slurm's commands are not to be found."""
    if shutil.which("sbatch") is None:
        raise UsageError("no sbatch here: Slurm is missing; submit from a login node, or try slurm/local/up.sh on this machine")


@contextmanager
def own_environment() -> Iterator[None]:
    """Hide from what is submitted in this block the variables of the job and the launcher that this process runs in."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(OF_OTHERS) and name != "SLURM_CONF":
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


@dataclass(frozen=True)
class Allocation:
    """What Slurm gave to the job that this process runs in.

    Args:
        job_id: the job.
        hosts: names of its nodes; the first one is where the batch step and rank 0 run.
        gpus: on this node.
    """

    job_id: str
    hosts: tuple[str, ...]
    gpus: int

    @classmethod
    def here(cls) -> "Allocation":
        """Read it from the environment; WaveganError outside a job."""
        if "SLURM_JOB_NODELIST" not in os.environ:
            raise WaveganError("this is no Slurm job: SLURM_JOB_NODELIST is not set; submit it with sbatch or wavegan submit")
        hosts = _ask("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]).split()
        return cls(os.environ["SLURM_JOB_ID"], tuple(hosts), int(os.environ.get("SLURM_GPUS_ON_NODE", 0)))

    def check(self, profile: Profile) -> None:
        """Raise WaveganError unless this is what the profile counts on."""
        if len(self.hosts) != profile.nodes:
            raise WaveganError(f"Slurm granted {len(self.hosts)} nodes where the profile has nodes = {profile.nodes}")
        if self.gpus < profile.gpus_per_node:
            raise WaveganError(f"Slurm granted {self.gpus} GPUs a node where the profile has {profile.gpus_per_node}")

    @property
    def port(self) -> int:
        """For the rendezvous on the first node; jobs on one node have different ones."""
        return 20000 + int(self.job_id) % 20000


def running(job_id: str) -> bool:
    """Whether Slurm counts the job as running: not when it was cancelled, or is being requeued, and only its processes live."""
    return _ask("squeue", "--noheader", "--jobs", job_id, "--format", "%T").strip() == "RUNNING"


def active(name: str | None = None) -> set[str]:
    """Ids of this user's jobs that wait or run, or of those of that name; those of an array as ARRAY_TASK."""
    named = [] if name is None else ["--name", name]
    return set(_ask("squeue", "--noheader", "--array", "--me", *named, "--format", "%i").split())


def requeue(job_id: str) -> None:
    """End this job and put it back into the queue; its processes get SIGTERM, this one among them."""
    _ask("scontrol", "requeue", job_id)


def _ask(*command: str) -> str:
    outcome = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if outcome.returncode:
        raise WaveganError(f"{' '.join(command)}: {' '.join(outcome.stderr.split())}")
    return outcome.stdout
