"""The run folder: what a run leaves on disk, and whether a run may go on in it.

runs/<name>/config.yaml  environment.json  metrics.jsonl  tracking.json  tracking/
            samples/kimg-000200.png  snapshots/kimg-000200/  checkpoints/kimg-000200/  evaluations/
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavegan_dist import config
from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file


@dataclass(frozen=True)
class RunFolder:
    """Names of things inside a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The experiment as resolved."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, commit, command, processes, device, data digest."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON line a report."""
        return self.path / "metrics.jsonl"

    @property
    def data_errors(self) -> Path:
        """One JSON line for each shard and image that could not be read; there if there is any."""
        return self.path / "data_errors.jsonl"

    def samples(self, nimg: int) -> Path:
        """The sample grid at that image."""
        return self.path / "samples" / f"{label(nimg)}.png"

    def snapshot(self, nimg: int) -> Path:
        """The snapshot at that image."""
        return self.path / "snapshots" / label(nimg)

    def checkpoint(self, nimg: int) -> Path:
        """The checkpoint at that image."""
        return self.path / "checkpoints" / label(nimg)

    def checkpoints(self) -> list[Path]:
        """All whole checkpoints, oldest first."""
        return sorted(self.path.glob("checkpoints/kimg-*"))

    def begin(self, experiment: Experiment, environment: dict[str, Any], nimg: int) -> None:
        """Write config.yaml and environment.json, and drop the metrics past `nimg`: a resumed run makes them again."""
        with atomic_file(self.config) as file:
            file.write(experiment.to_yaml())
        with atomic_file(self.environment) as file:
            json.dump(environment, file, indent=2)
        if self.metrics.exists():
            lines = [line for line in self.metrics.read_text().splitlines() if json.loads(line)["nimg"] <= nimg]
            with atomic_file(self.metrics) as file:
                file.writelines(f"{line}\n" for line in lines)

    def append_metrics(self, point: dict[str, float]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(point) + "\n")


def label(nimg: int) -> str:
    """`kimg-000200` for 200,000 images, `kimg-000200.064` for 200,064: sorts by image."""
    return f"kimg-{nimg // 1000:06d}" + (f".{nimg % 1000:03d}" if nimg % 1000 else "")


def checkpoint_to_resume(folder: RunFolder, experiment: Experiment, resume: str) -> Path | None:
    """The checkpoint that a run goes on from, None to start at image 0; writes nothing.

    Args:
        folder: where the run lives, or will.
        experiment: what is to run.
        resume: `auto` goes on from the newest checkpoint if there is one, `never` wants a folder without a run, anything
            else is the path of a checkpoint.

    Raises:
        UsageError: the folder holds a run of another configuration, or the checkpoint is not there.
    """
    if folder.config.exists():
        if resume == "never":
            raise UsageError(f"{folder.path} holds a run already; choose another --run-dir, or --resume auto to go on")
        if changed := config.differences(config.load(folder.config), experiment):
            raise UsageError(f"{folder.path} holds a run of another config ({'; '.join(changed)}); choose another --run-dir")
    if resume in ("auto", "never"):
        return next(reversed(folder.checkpoints()), None)
    if not (Path(resume) / "state.json").is_file():
        raise UsageError(f"--resume {resume}: no checkpoint is there; give a folder such as runs/x/checkpoints/kimg-000100")
    return Path(resume)
