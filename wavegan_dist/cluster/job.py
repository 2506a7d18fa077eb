"""What a job is to do: written to a JSON file at submission, read when Slurm starts it."""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt

from wavegan_dist.cluster.profile import Profile
from wavegan_dist.config import Section
from wavegan_dist.files import atomic_file


class Job(Section):
    """Common to all jobs."""

    run_dir: Path = Field(description="the run folder, absolute")
    profile: Profile

    @property
    def folder(self) -> Path:
        """Where the run keeps what its jobs need and say."""
        return self.run_dir / "cluster"

    def save(self) -> Path:
        """Write it into `folder`, under a name that its content gives: a later job does not replace it."""
        text = self.model_dump_json(indent=2)
        path = self.folder / f"{type(self).__name__}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        with atomic_file(path) as file:
            file.write(text)
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `save` wrote to this file."""
        return cls.model_validate_json(path.read_text())


class EvaluateJob(Job):
    """Measure snapshots of a run, each in a job of its own."""

    arguments: list[str] = Field(description="of wavegan evaluate: what is measured and how")
    best: str = Field("fwd", description="the metric whose value nearest to 0 makes the best snapshot")
    in_flight: PositiveInt = Field(2, description="so many of the jobs wait or run at a time")


class TrainJob(Job):
    """Train to the end, over as many starts as it takes."""

    arguments: list[str] = Field(description="of wavegan train")
    evaluation: EvaluateJob | None = Field(None, description="what is done with each new snapshot")
