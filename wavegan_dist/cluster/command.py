"""The commands that jobs run: each is one that a person could type."""

import shlex
import sys
from collections.abc import Sequence

from wavegan_dist.cluster.job import EvaluateJob, TrainJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.cluster.slurm import Allocation

# A warning and a SIGTERM reach every process of a step. The trainers handle them; the warning must not end their launcher, nor
# SIGTERM this shell before its launcher. If the launcher alone was killed, its trainers live on: the whole step gets SIGTERM,
# so that all trainers save and leave. The exit code becomes 0 because a bad one would end the step while other nodes still
# save: accelerate exits with 1 when its trainers have saved (75). Only a task that is killed as a whole ends the step at once.
STOP_STEP = """(trap '' TERM; exec scancel --signal=TERM "$SLURM_JOB_ID.$SLURM_STEP_ID")"""  # scancel is in the step, too
TASK = f"trap '' USR2; trap : TERM; %s; code=$?; [ $code -le 128 ] || [ $code -eq 143 ] || {STOP_STEP} || exit $code; exit 0"


def train_command(job: TrainJob, allocation: Allocation) -> list[str]:
    """Return the srun command that starts one launcher on each node; the launchers meet on the job's first node.

    The command's exit code does not say how the run ended, exit.json in the run folder does.
    """
    profile = job.profile
    srun = ["srun", f"--nodes={profile.nodes}", f"--ntasks={profile.nodes}", "--ntasks-per-node=1"]
    if profile.cpus_per_task:
        srun.append(f"--cpus-per-task={profile.cpus_per_task}")
    # A task that was killed ends the step at once. After any other end of a task the others have 60 s to save and leave.
    srun += ["--kill-on-bad-exit=1", "--wait=60", *profile.srun]
    train = ["wavegan_dist", "train", *job.arguments, f"train.world_size={profile.world_size}"]
    return [*srun, "bash", "-c", TASK % _launcher(profile, allocation, train)]


def _launcher(profile: Profile, allocation: Allocation, module: Sequence[str]) -> str:
    """The shell command of one node: the trainer itself, or `accelerate launch` where the run has several processes."""
    if profile.world_size == 1:
        return shlex.join([*python(profile), "-m", *module])
    # On CPUs accelerate starts several processes only under --multi_gpu with this variable.
    device = [] if profile.gpus_per_node else ["env", "ACCELERATE_USE_CPU=true"]
    launch = [*device, *python(profile), "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_machines", str(profile.nodes), "--num_processes", str(profile.world_size)]
    launch += ["--main_process_ip", allocation.hosts[0], "--main_process_port", str(allocation.port)]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the experiment decides on both
    return f'{shlex.join(launch)} --machine_rank "$SLURM_NODEID" {shlex.join(["-m", *module])}'


def evaluate_command(job: EvaluateJob, snapshot: str, data: str) -> list[str]:
    """Return the command that evaluates the snapshot of that name against the data with the index `data`."""
    run = job.run_folder
    command = [*python(job.profile), "-m", "wavegan_dist", "evaluate"]
    command += ["--snapshot", str(run.snapshot_named(snapshot)), "--data", data]
    return [*command, "--json", str(run.evaluation(snapshot)), *job.arguments]


def python(profile: Profile) -> list[str]:
    """The Python interpreter of the profile, preceded by the words that start its container."""
    return [*profile.container, profile.python or sys.executable]
