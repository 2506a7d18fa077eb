"""The run folder: what a run leaves on disk, and whether a run may go on in it.

runs/<name>/config.yaml  environment.json  metrics.jsonl  tracking.json  tracking/
            samples/kimg-000200.png  snapshots/kimg-000200/  checkpoints/kimg-000200/  evaluations/
            exit.json  data_errors.jsonl  diagnostics/kimg-000200/
"""

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file, sweep


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

    @property
    def exit(self) -> Path:
        """How the run ended; not there while it runs, or if it was killed."""
        return self.path / "exit.json"

    def diagnostics(self, nimg: int) -> Path:
        """What was found when the run met a number that is not finite at that image."""
        return self.path / "diagnostics" / label(nimg)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second trainer out while the block lasts, and delete what a killed one left half-written.

        Raises:
            UsageError: another process trains in this folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            # A lock of the process (not of the open file, as flock's): loader workers do not inherit it.
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise UsageError(
                    f"{self.path} is in use by {file.read().strip()}; wait for it, or choose another --run-dir"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            for written in ("checkpoints", "snapshots", "samples", "diagnostics"):
                sweep(self.path / written)
            try:
                yield
            finally:
                if not self.config.exists():  # refused before it began: leave nothing
                    (self.path / ".lock").unlink(missing_ok=True)
                    with suppress(OSError):
                        self.path.rmdir()

    def begin(self, experiment: Experiment, environment: dict[str, Any], nimg: int) -> None:
        """Write config.yaml and environment.json, and forget the metrics past `nimg`: a resumed run makes them again."""
        with atomic_file(self.config) as file:
            file.write(experiment.to_yaml())
        with atomic_file(self.environment) as file:
            json.dump(environment, file, indent=2)
        self.exit.unlink(missing_ok=True)
        self.forget_after(nimg)

    def forget_after(self, nimg: int) -> None:
        """Drop the lines of metrics.jsonl past image `nimg`, and a last one that a crash cut short."""
        if self.metrics.exists():
            lines = [line for line in self.metrics.read_text().splitlines() if _nimg_of_point(line) <= nimg]
            with atomic_file(self.metrics) as file:
                file.writelines(f"{line}\n" for line in lines)

    def append_metrics(self, point: dict[str, float]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(point) + "\n")

    def prune(self, newest: int, every_kimg: float | None) -> None:
        """Delete all checkpoints but the newest so many, and the first past each multiple of `every_kimg`."""
        checkpoints = self.checkpoints()
        stay = set(checkpoints[-newest:])
        if every_kimg is not None:
            first = {int(nimg_of(path) // (every_kimg * 1000)): path for path in reversed(checkpoints)}
            stay |= {path for multiple, path in first.items() if multiple}
        for path in set(checkpoints) - stay:
            shutil.rmtree(path, ignore_errors=True)

    def leave(self, state: str, nimg: int, reason: str = "") -> None:
        """Say in exit.json how a run ended: `finished`, `interrupted` or `failed`, at which image and why."""
        with atomic_file(self.exit) as file:
            json.dump({"state": state, "nimg": nimg, "reason": reason, "time": time.time()}, file)


def _nimg_of_point(line: str) -> float:
    try:
        return int(json.loads(line)["nimg"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def label(nimg: int) -> str:
    """`kimg-000200` for 200,000 images, `kimg-000200.064` for 200,064: sorts by image."""
    return f"kimg-{nimg // 1000:06d}" + (f".{nimg % 1000:03d}" if nimg % 1000 else "")


def nimg_of(path: Path) -> int:
    """The image of a folder that `label` named."""
    kimg, _, rest = path.name.removeprefix("kimg-").partition(".")
    return int(kimg) * 1000 + int(rest or 0)
