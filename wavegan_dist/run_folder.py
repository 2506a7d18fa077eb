"""The run folder: the only module that knows the names of what a run leaves on disk.

runs/<name>/config.yaml            the experiment as resolved
            environment.json       versions, commit, command, processes, device, digest of the data
            metrics.jsonl          one JSON object a report
            log.txt                the log records of rank 0
            exit.json              how the run ended
            data_errors.jsonl      one JSON object for each shard and image that could not be read
            samples/kimg-000200.png  snapshots/kimg-000200/  checkpoints/kimg-000200/  diagnostics/kimg-000200/
            evaluations/kimg-000200.json    its result; .png: the spectrum; .failed: why there is no result
            best.json              the best evaluated snapshot
            tracking.json          the MLflow run of this folder
            tracking/*.jsonl       events for MLflow, delivered or not
            cluster/               what jobs on Slurm need and write
"""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file, locked, sweep


@dataclass(frozen=True)
class RunExit:
    """How a start of a run ended, the content of exit.json.

    Args:
        state: `finished`, `interrupted` (the run saved a checkpoint and can be started again) or `failed`.
        nimg: image number at which the run ended.
        reason: one line; empty for `finished`.
        time: when, in seconds since 1970.
    """

    state: str
    nimg: int
    reason: str
    time: float


@dataclass(frozen=True)
class RunFolder:
    """Paths inside the folder `path` of one run. Snapshots, checkpoints and evaluations are named by `label`."""

    path: Path

    @classmethod
    def of_snapshot(cls, snapshot: Path) -> "RunFolder | None":
        """The run folder that a snapshot folder lies in; None where the snapshot lies elsewhere."""
        snapshot = snapshot.resolve()
        return cls(snapshot.parents[1]) if snapshot.parent.name == "snapshots" else None

    @property
    def config(self) -> Path:
        """The experiment as resolved, YAML."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, commit, command, processes, device and digest of the data, JSON."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line for each report."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """The log records of rank 0."""
        return self.path / "log.txt"

    @property
    def exit(self) -> Path:
        """How the run ended (`RunExit`); absent while the run is running, and after it was killed."""
        return self.path / "exit.json"

    @property
    def data_errors(self) -> Path:
        """One JSON object a line for each shard and image that could not be read; absent if there is none."""
        return self.path / "data_errors.jsonl"

    @property
    def best(self) -> Path:
        """The best evaluated snapshot, its metric and value, JSON."""
        return self.path / "best.json"

    @property
    def tracking(self) -> Path:
        """Which MLflow run belongs to this folder, JSON."""
        return self.path / "tracking.json"

    @property
    def cluster(self) -> Path:
        """Folder of what jobs on Slurm need and write."""
        return self.path / "cluster"

    def spool(self, name: str) -> Path:
        """The events for MLflow of one writer: `train` for the run itself."""
        return self.path / "tracking" / f"{name}.jsonl"

    def spools(self) -> list[Path]:
        """All spools, by name."""
        return sorted(self.path.glob("tracking/*.jsonl"))

    def samples(self, nimg: int) -> Path:
        """The sample grid at image `nimg`."""
        return self.path / "samples" / f"{label(nimg)}.png"

    def snapshot(self, nimg: int) -> Path:
        """The snapshot at image `nimg`."""
        return self.path / "snapshots" / label(nimg)

    def snapshots(self) -> list[Path]:
        """All snapshots, oldest first."""
        return sorted(self.path.glob("snapshots/kimg-*"))

    def checkpoint(self, nimg: int) -> Path:
        """The checkpoint at image `nimg`."""
        return self.path / "checkpoints" / label(nimg)

    def checkpoints(self) -> list[Path]:
        """All complete checkpoints, oldest first."""
        return sorted(self.path.glob("checkpoints/kimg-*"))

    def diagnostics(self, nimg: int) -> Path:
        """Folder of the report on a loss or gradient that was not finite at image `nimg`."""
        return self.path / "diagnostics" / label(nimg)

    def evaluation(self, snapshot: str) -> Path:
        """The result of evaluating the snapshot of that name, JSON; `.png` beside it shows the spectrum."""
        return self.path / "evaluations" / f"{snapshot}.json"

    def evaluations(self) -> list[Path]:
        """All evaluation results, oldest snapshot first."""
        return sorted(self.path.glob("evaluations/*.json"))

    def evaluation_failure(self, snapshot: str) -> Path:
        """The reason why the snapshot of that name could not be evaluated, text; absent where there was no failure."""
        return self.path / "evaluations" / f"{snapshot}.failed"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second trainer out while the block lasts, and delete what a killed one left half-written.

        Raises:
            UsageError: another process trains in this folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / ".lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock, wait=False))
            except BlockingIOError as error:
                holder = lock.read_text().strip()
                raise UsageError(f"{self.path} is in use by {holder}; wait for it, or choose another --run-dir") from error
            lock.write_text(f"process {os.getpid()} on {platform.node()}")
            for written in ("checkpoints", "snapshots", "samples", "diagnostics"):
                sweep(self.path / written)
            try:
                yield
            finally:
                if not self.config.exists():  # refused before it began: leave nothing
                    lock.unlink(missing_ok=True)
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

    def write_exit(self, state: str, nimg: int, reason: str = "") -> None:
        """Write exit.json; the arguments are those of `RunExit`."""
        with atomic_file(self.exit) as file:
            json.dump(asdict(RunExit(state, nimg, reason, time.time())), file)

    def read_exit(self) -> RunExit | None:
        """How the last start of the run ended; None while it is running, after a kill, and where exit.json is damaged."""
        with suppress(OSError, ValueError, TypeError):
            return RunExit(**json.loads(self.exit.read_text()))
        return None


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
