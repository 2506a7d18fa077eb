"""What the launcher of this process was asked for: read from the environment and from the launcher's command line."""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from accelerate.commands.config import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import str_to_bool

from wavegan_dist.errors import UsageError

# Variables with which launchers that do not set WORLD_SIZE name the number of processes, and the names of these launchers.
TASKS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
}
DEFAULT_PORT, LARGEST_PORT = 29500, 65535  # of torch.distributed
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # where accelerate looks for this process's rank
PROGRAMS = ("accelerate-launch", "accelerate.commands.launch", "accelerate/commands/launch.py")
GROUPS = ("accelerate", "accelerate.commands.accelerate_cli", "accelerate/commands/accelerate_cli.py")  # `launch` follows


@dataclass(frozen=True)
class AccelerateLaunch:
    """What an `accelerate launch` was asked for, by its options or its config file.

    Args:
        num_processes: number of processes on all machines together, at least 1.
        use_cpu: whether the processes were asked to use CPUs.
    """

    num_processes: int
    use_cpu: bool


def requested_world_size() -> tuple[int, str]:
    """Return the number of processes that the launcher was asked to start, and where that number was found.

    Call this before joining the process group: accelerate overwrites WORLD_SIZE.

    Returns:
        The number, and "WORLD_SIZE", "srun", "mpirun" or "accelerate launch"; (1, "accelerate launch") without a launcher.

    Raises:
        UsageError: WORLD_SIZE > 1 is set without a rank, RANK >= WORLD_SIZE, or one of the launcher's variables is no number.
    """
    world_size, rank, *_ = (_number(name, 0) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if world_size > 1 and not any(name in os.environ for name in RANKS):
        raise UsageError(
            f"WORLD_SIZE={world_size} is set, but RANK is not: no launcher started this process; unset WORLD_SIZE, or start "
            "the processes with accelerate launch or torchrun"
        )
    if world_size and rank >= world_size:
        raise UsageError(
            f"RANK={rank} is no rank of WORLD_SIZE={world_size}; unset both, or start the processes with a launcher"
        )
    if world_size > 1 or (world_size == 1 and "RANK" in os.environ):  # a WORLD_SIZE of 1 alone says nothing of the launcher
        return world_size, "WORLD_SIZE"
    for variable, launcher in TASKS.items():
        if (tasks := _number(variable, 1)) > 1:  # otherwise each task would form a separate group
            return tasks, launcher
    launch = accelerate_launch()
    return (1 if launch is None else launch.num_processes), "accelerate launch"


def trains_on_cpu() -> bool:
    """Return whether this process computes on the CPU: there is no GPU, or the launcher was asked for CPUs.

    Raises:
        UsageError: ACCELERATE_USE_CPU is neither true nor false.
    """
    if _uses_cpu() or not torch.accelerator.is_available():
        return True
    # With --multi_gpu, accelerate 1.15 does not hand `use_cpu` of its config file on to the processes.
    launch = accelerate_launch()
    return launch is not None and launch.use_cpu


def accelerate_launch() -> AccelerateLaunch | None:
    """Read the command line and the config file of the `accelerate launch` that started this process; None without one.

    `accelerate launch --cpu --num_processes 2` and MULTI_CPU profiles start a single process and set no environment variable
    with the number (accelerate 1.15): only the launcher's command line and config file have it.
    """
    # Each accelerate launch sets this variable. A command that removes it has left the launch, and is alone.
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return None
    for process in psutil.Process().parents():  # nearest first; a shell script may stand between
        with suppress(psutil.Error):
            arguments = launch_arguments(process.cmdline())
            if arguments is not None:
                return read_launch(launch_command_parser().parse_args(arguments), Path(process.cwd()))
    return None


def launch_arguments(command: Sequence[str]) -> Sequence[str] | None:
    """Return the arguments of the `accelerate launch` that a command line runs; None if it runs something else."""
    for number, word in enumerate(command):
        if word.endswith(PROGRAMS):
            return command[number + 1 :]
        if word.endswith(GROUPS) and command[number + 1 : number + 2] == ["launch"]:
            return command[number + 2 :]
    return None


def read_launch(options: argparse.Namespace, folder: Path) -> AccelerateLaunch:
    """Combine options and config file as accelerate does: options first, and --cpu hides the user's default config file.

    Args:
        options: the parsed arguments of `accelerate launch`.
        folder: working directory of `accelerate launch`; `options.config_file` is relative to it.
    """
    num_processes, num_machines, use_cpu = options.num_processes, options.num_machines, options.cpu
    file = folder / options.config_file if options.config_file else Path(default_config_file)
    if options.config_file or (file.is_file() and not options.cpu):
        profile = load_config_from_file(str(file))
        use_cpu = use_cpu or (bool(profile.use_cpu) and not options.multi_gpu)  # an option outweighs the file
        if num_processes is None:
            num_processes = getattr(profile, "num_processes", None)  # profiles of SageMaker have none
        if num_machines is None:
            num_machines = profile.num_machines
    return AccelerateLaunch(max(num_processes or 1, num_machines or 1, 1), use_cpu)  # at least one on each machine


def master_port() -> int:
    """Return the port of the process group's store: MASTER_PORT, or 29500 if that is not set or negative.

    Raises:
        UsageError: MASTER_PORT is not a number, is 0 or is above 65535.
    """
    port = _number("MASTER_PORT", DEFAULT_PORT)
    if not 0 < port <= LARGEST_PORT:
        raise UsageError(
            f"the environment variable MASTER_PORT={port} is not a port; set it to 1 to {LARGEST_PORT} or unset it"
        )
    return port


def _uses_cpu() -> bool:
    text = os.environ.get("ACCELERATE_USE_CPU", "false")
    try:
        return bool(str_to_bool(text))
    except ValueError:
        raise UsageError(f"ACCELERATE_USE_CPU={text!r} is neither true nor false; set it to one of them or unset it") from None


def _number(variable: str, default: int) -> int:
    """Return the integer in an environment variable; `default` if it is not set or, as in accelerate, negative."""
    text = os.environ.get(variable, "-1")
    try:
        number = int(text)
    except ValueError:
        raise UsageError(
            f"the environment variable {variable}={text!r} is not a number; set it to a number or unset it"
        ) from None
    return default if number < 0 else number
