"""The commands that jobs run: what a person would type."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from wavegan_dist.cluster.job import EvaluateJob, TrainJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.cluster.slurm import Allocation

# Slurm signals every process of a step: the trainers hear the warning themselves, their launcher would die of it.
DEAF = "trap '' USR2; exec "


def train_command(job: TrainJob, allocation: Allocation) -> list[str]:
    """One launcher on each node, through srun; they meet on the job's first node."""
    profile = job.profile
    srun = ["srun", f"--nodes={profile.nodes}", f"--ntasks={profile.nodes}", "--ntasks-per-node=1"]
    if profile.cpus_per_task:
        srun.append(f"--cpus-per-task={profile.cpus_per_task}")
    # A launcher that ends ends the others, but lets them save and say goodbye first.
    srun += ["--kill-on-bad-exit=0", "--wait=60", *profile.srun]
    train = ["wavegan_dist", "train", *job.arguments, f"train.world_size={profile.world_size}"]
    return [*srun, "bash", "-c", DEAF + _launcher(profile, allocation, train)]


def _launcher(profile: Profile, allocation: Allocation, module: Sequence[str]) -> str:
    if profile.world_size == 1:
        return shlex.join([*python(profile), "-m", *module])
    device = [] if profile.gpus_per_node else ["env", "ACCELERATE_USE_CPU=true"]  # how accelerate says several CPU processes
    launch = [*device, *python(profile), "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_machines", str(profile.nodes), "--num_processes", str(profile.world_size)]
    launch += ["--main_process_ip", allocation.hosts[0], "--main_process_port", str(allocation.port)]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the experiment's, not the launcher's
    return f'{shlex.join(launch)} --machine_rank "$SLURM_NODEID" {shlex.join(["-m", *module])}'


def evaluate_command(job: EvaluateJob, snapshot: str, data: str) -> list[str]:
    """Measure one snapshot of the run against its own data."""
    command = [*python(job.profile), "-m", "wavegan_dist", "evaluate"]
    command += ["--snapshot", str(job.run_dir / "snapshots" / snapshot), "--data", data]
    return [*command, "--json", str(result_file(job.run_dir, snapshot)), *job.arguments]


def result_file(run_dir: Path, snapshot: str) -> Path:
    """Where an evaluation of a run's snapshot goes."""
    return run_dir / "evaluations" / f"{snapshot}.json"


def python(profile: Profile) -> list[str]:
    """The interpreter, in its container."""
    return [*profile.container, profile.python or sys.executable]
