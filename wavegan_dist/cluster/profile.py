"""Profiles: the resources that a job requests and how its commands start. YAML files in launchers/slurm."""

import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from wavegan_dist.config import FileKind, Section, yaml_text
from wavegan_dist.errors import UsageError
from wavegan_dist.launcher_files import find_launcher_file
from wavegan_dist.redact import holds_password

PROFILE = FileKind("profile", "docs/cluster.md lists the keys, launchers/slurm has examples", yaml_text)


def minutes(time: str | int) -> int:
    """Convert a time as Slurm writes it (90, 90:00, 1:30:00, 1-12, 1-12:30, 1-12:30:00) to whole minutes, rounded up.

    Raises:
        ValueError: the text has another form.
    """
    text = str(time)
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text):
        raise ValueError(f"'{text}' is not a time; write MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS")
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minute, second = parts + [0] * (3 - len(parts))
    elif len(parts) == 3:
        hours, minute, second = parts
    else:
        hours, (minute, second) = 0, parts + [0] * (2 - len(parts))
    return int(days or 0) * 1440 + hours * 60 + minute + -(-second // 60)


class Profile(Section):
    """The resources that a job requests, and how its commands start."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: Annotated[PositiveInt, BeforeValidator(minutes)] = Field(
        description="time limit of one start, in minutes or as Slurm writes it"
    )
    nodes: PositiveInt = 1
    gpus_per_node: NonNegativeInt = Field(0, description="0: train on CPUs")
    processes_per_node: PositiveInt | None = Field(None, description="null: one per GPU; one if there is no GPU")
    cpus_per_task: PositiveInt | None = Field(None, description="CPU cores for all processes of a node")
    mem: str | None = Field(None, description="memory per node, as 64G")
    exclusive: bool = False
    warn_seconds: int = Field(
        120, ge=30, description="seconds before the time limit at which the run is asked to save and exit"
    )
    setup: list[str] = Field(default_factory=list, description="shell lines before the command: modules, environment")
    container: list[str] = Field(
        default_factory=list, description="prefix of each Python command, such as apptainer exec image.sif"
    )
    python: str | None = Field(None, description="Python interpreter; null: the one that submits")
    srun: list[str] = Field(default_factory=list, description="further options of srun")
    sbatch: dict[str, str] = Field(default_factory=dict, description="further options of sbatch, without dashes")

    @model_validator(mode="after")
    def _check_warning(self) -> Self:
        if self.warn_seconds > self.time * 30:
            raise ValueError(f"warn_seconds = {self.warn_seconds} is more than half of the time limit, {self.time} min")
        return self

    @property
    def processes(self) -> int:
        """Number of training processes per node: `processes_per_node` or, if that is null, one per GPU, but at least one."""
        return self.processes_per_node or self.gpus_per_node or 1

    @property
    def world_size(self) -> int:
        """Number of training processes on all nodes."""
        return self.nodes * self.processes

    def is_near_limit(self, seconds: float) -> bool:
        """Return whether a warning `seconds` after the start of a job is that of the time limit, and not of a preemption.

        Slurm may warn up to a minute earlier than requested.
        """
        return seconds > self.time * 60 - self.warn_seconds - 60


def load_profile(name: str, **changes: Any) -> Profile:
    """Read a profile.

    Args:
        name: the path of a file, or the name of one in launchers/slurm (`find_launcher_file`).
        changes: settings that replace those of the file, except where they are None.

    Raises:
        UsageError: there is no such profile, it has unknown settings, a value is impossible, or it holds a password.
    """
    path = find_launcher_file("slurm", "profile", name)
    tree = PROFILE.read(path) | {key: value for key, value in changes.items() if value is not None}
    profile = PROFILE.validate(Profile, tree, f"profile {path}")
    options = (f"{name}={value}" for name, value in profile.sbatch.items())
    commands = {
        "setup": profile.setup,
        "container": [" ".join(profile.container)],
        "srun": [" ".join(profile.srun)],
        "sbatch": options,
    }
    for key, lines in commands.items():
        if any(map(holds_password, lines)):
            raise UsageError(
                f"profile {path}: {key} holds a password, which the run folder would show; export it before `wavegan submit`, "
                "or let setup read it from a file that only you can read"
            )
    return profile
