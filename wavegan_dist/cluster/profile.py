"""Profiles: what a job asks of a cluster and how its commands start there. YAML files in launchers/slurm."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

import wavegan_dist
from wavegan_dist.config import FileKind, Section, yaml_text
from wavegan_dist.errors import UsageError

FOLDERS = (Path("launchers/slurm"), Path(wavegan_dist.__file__).parents[1] / "launchers/slurm")
PROFILE = FileKind("profile", "docs/cluster.md lists the keys, launchers/slurm has examples", yaml_text)


def minutes(time: str | int) -> int:
    """Slurm's ways to write a time (90, 90:00, 1:30:00, 1-12, 1-12:30, 1-12:30:00) in whole minutes, rounded up."""
    text = str(time)
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text):
        raise ValueError(f"'{text}' is no time; write MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS")
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minute, second = parts + [0] * (3 - len(parts))
    elif len(parts) == 3:
        hours, minute, second = parts
    else:
        hours, (minute, second) = 0, parts + [0] * (2 - len(parts))
    return int(days or 0) * 1440 + hours * 60 + minute + math.ceil(second / 60)


class Profile(Section):
    """What a job asks for, and how its commands start."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: Annotated[PositiveInt, BeforeValidator(minutes)] = Field(description="limit in minutes, or as Slurm writes it")
    nodes: PositiveInt = 1
    gpus_per_node: NonNegativeInt = Field(0, description="0: the job computes on CPUs")
    processes_per_node: PositiveInt | None = Field(None, description="null: one for each GPU, or one")
    cpus_per_task: PositiveInt | None = Field(None, description="cores of a node's launcher and all its processes")
    mem: str | None = Field(None, description="memory of a node, as 64G")
    exclusive: bool = False
    warn_seconds: int = Field(120, ge=30, description="so long before the time limit the job is told to save and leave")
    setup: list[str] = Field(default_factory=list, description="shell lines before the command: modules, environment")
    container: list[str] = Field(default_factory=list, description="words before each Python command: apptainer exec image.sif")
    python: str | None = Field(None, description="interpreter; null: the one that submits")
    srun: list[str] = Field(default_factory=list, description="further options of srun")
    sbatch: dict[str, str] = Field(default_factory=dict, description="further options of sbatch, without dashes")

    @model_validator(mode="after")
    def _time_to_work(self) -> Self:
        if self.warn_seconds > self.time * 30:
            raise ValueError(f"warn_seconds = {self.warn_seconds} is more than half of the time limit, {self.time} min")
        return self

    @property
    def processes(self) -> int:
        """On each node."""
        return self.processes_per_node or self.gpus_per_node or 1

    @property
    def world_size(self) -> int:
        """Over all nodes."""
        return self.nodes * self.processes


def load_profile(name: str, **changes: Any) -> Profile:
    """Read a profile.

    Args:
        name: a file that ends in .yaml, or the name of one in launchers/slurm, here or in the checkout.
        changes: settings that replace those of the file where they are not None.

    Raises:
        UsageError: no such profile, unknown settings or impossible values.
    """
    path = _find(name)
    tree = PROFILE.read(path) | {key: value for key, value in changes.items() if value is not None}
    return PROFILE.validate(Profile, tree, f"profile {path}")


def _find(name: str) -> Path:
    if name.endswith(".yaml"):
        return Path(name)
    for folder in FOLDERS:
        if (folder / f"{name}.yaml").exists():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})
    raise UsageError(f"no profile is called '{name}'; there are {', '.join(known) or 'none'}, or give a .yaml file")
