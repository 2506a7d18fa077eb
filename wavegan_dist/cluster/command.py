"""The command lines that jobs run. Each of them can also be typed by hand."""

import shlex
import sys
from collections.abc import Sequence

from wavegan_dist.cluster.job import EvaluateJob, TrainJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.cluster.slurm import Allocation

# Slurm's warning and SIGTERM reach every process of a step, and the trainers handle both. The launcher must survive the
# warning, and this shell must outlive its launcher after a SIGTERM. If only the launcher was killed, its trainers live on, so
# the whole step gets SIGTERM and all trainers save and exit. The exit code becomes 0, because another code would end the step
# while other nodes still save: accelerate exits with 1 when its trainers have saved (75). Only if a task is killed with all of
# its processes does the step end at once.
STOP_STEP = """(trap '' TERM; exec scancel --signal=TERM "$SLURM_JOB_ID.$SLURM_STEP_ID")"""  # scancel is in the step, too
TASK = f"trap '' USR2; trap : TERM; %s; code=$?; [ $code -le 128 ] || [ $code -eq 143 ] || {STOP_STEP} || exit $code; exit 0"


def train_command(job: TrainJob, allocation: Allocation) -> list[str]:
    """Return the srun command, as a list of words, that starts one launcher on each node; the first node has the rendezvous.

    The command's exit code does not tell how the run ended: exit.json in the run folder does.
    """
    profile = job.profile
    srun = ["srun", f"--nodes={profile.nodes}", f"--ntasks={profile.nodes}", "--ntasks-per-node=1"]
    if profile.cpus_per_task:
        srun.append(f"--cpus-per-task={profile.cpus_per_task}")
    # A killed task ends the step at once. After any other exit of a task, the others have 60 s to save and exit.
    srun += ["--kill-on-bad-exit=1", "--wait=60", *profile.srun]
    train = ["wavegan_dist", "train", *job.arguments, f"train.world_size={profile.world_size}"]
    return [*srun, "bash", "-c", TASK % _launcher(profile, allocation, train)]


def _launcher(profile: Profile, allocation: Allocation, module: Sequence[str]) -> str:
    """Return the shell command of one node: the trainer itself, or `accelerate launch` if the run has several processes.

    Args:
        profile: the profile.
        allocation: the nodes; the first one has the rendezvous.
        module: name of the Python module to run, and its arguments.
    """
    if profile.world_size == 1:
        return shlex.join([*python(profile), "-m", *module])
    # On CPUs accelerate starts several processes only if --multi_gpu and this variable are set.
    device = [] if profile.gpus_per_node else ["env", "ACCELERATE_USE_CPU=true"]
    launch = [*device, *python(profile), "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_machines", str(profile.nodes), "--num_processes", str(profile.world_size)]
    launch += ["--main_process_ip", allocation.hosts[0], "--main_process_port", str(allocation.port)]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the experiment decides on both
    return f'{shlex.join(launch)} --machine_rank "$SLURM_NODEID" {shlex.join(["-m", *module])}'


def evaluate_command(job: EvaluateJob, snapshot: str, data: str) -> list[str]:
    """Return the command that evaluates a snapshot and writes the result into the run folder, as a list of words.

    Args:
        job: the run and the further arguments of `wavegan evaluate`.
        snapshot: name of the snapshot's folder.
        data: location of the index of the dataset to compare with, as `wavegan evaluate --data` takes it.
    """
    run = job.run_folder
    command = [*python(job.profile), "-m", "wavegan_dist", "evaluate"]
    command += ["--snapshot", str(run.snapshot_named(snapshot)), "--data", data]
    return [*command, "--json", str(run.evaluation(snapshot)), *job.arguments]


def python(profile: Profile) -> list[str]:
    """Return the words that start the Python of the profile, by default that of this process, in the profile's container."""
    return [*profile.container, profile.python or sys.executable]
