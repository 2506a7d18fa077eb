"""Descriptions of jobs: written to a JSON file at submission, read when Slurm starts the job."""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, ValidationError

from wavegan_dist.cluster.profile import Profile
from wavegan_dist.config import Section
from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file
from wavegan_dist.run_folder import RunFolder


class Job(Section):
    """Fields that all jobs share."""

    run_dir: Path = Field(description="the run folder, absolute")
    profile: Profile

    @property
    def run_folder(self) -> RunFolder:
        """The paths in the run folder."""
        return RunFolder(self.run_dir)

    @property
    def folder(self) -> Path:
        """The subfolder of the run folder for the files that the run's jobs read and write."""
        return self.run_folder.cluster

    def save(self) -> Path:
        """Write the job as JSON into `folder` and return the path, which has a hash of the content: no job replaces another.

        Raises:
            OSError: the file cannot be written.
        """
        text = self.model_dump_json(indent=2)
        path = self.folder / f"{type(self).__name__}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        with atomic_file(path) as file:
            file.write(text)
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a job that `save` wrote.

        Raises:
            OSError: the file cannot be read.
            WaveganError: the file is damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WaveganError(f"{path} is damaged; submit the job again with `wavegan submit`") from error


class EvaluateJob(Job):
    """The evaluation of a run's snapshots, one Slurm job per snapshot."""

    arguments: list[str] = Field(description="of wavegan evaluate: metrics and how they are computed")
    best: str | None = Field(
        None, description="the metric that is nearest to its optimum for the best snapshot; null: as `wavegan evaluate` chooses"
    )
    in_flight: PositiveInt = Field(2, description="largest number of evaluation jobs that are pending or running at a time")


class TrainJob(Job):
    """Training to the end of the run, over as many starts as necessary."""

    arguments: list[str] = Field(description="of wavegan train")
    evaluation: EvaluateJob | None = Field(None, description="how each new snapshot is evaluated; null: no evaluation")
