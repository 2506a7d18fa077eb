"""The run folder: the only module that knows the names of the files that a run writes.

runs/<name>/config.yaml            the experiment, with all defaults filled in
            environment.json       versions, commit, command, world size, device, kernels, digest of the data index
            metrics.jsonl          one JSON object per report
            log.txt                log records of rank 0, appended to by each start
            exit.json              how the run ended
            data_errors.jsonl      one JSON object per shard or image that could not be read
            samples/kimg-000200.png  snapshots/kimg-000200/  checkpoints/kimg-000200/  diagnostics/kimg-000200/
            snapshots/kimg-000200-ema-0500/   the same moment under another EMA: a half-life of 500 kimg
            evaluations/kimg-000200.json    evaluation result; .png: spectrum; .failed: why there is no result
            best.json              the best evaluated snapshot
            tracking.json          the MLflow run of this folder; the only file that may hold a password, then of mode 600
            tracking/*.jsonl       events for MLflow, delivered or not
            cluster/               files that Slurm jobs read and write
"""

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wavegan_dist.config import Experiment, differences, load
from wavegan_dist.errors import UsageError
from wavegan_dist.files import append_json_lines, atomic_file, locked, parse_json, sweep
from wavegan_dist.log import log
from wavegan_dist.redact import redacted


@dataclass(frozen=True)
class RunExit:
    """How the last start of a run ended: the content of exit.json.

    Args:
        state: `finished`, `interrupted` (the run saved a checkpoint and can be resumed) or `failed`.
        nimg: number of real images that the run, with its earlier starts, had shown to the discriminators when it ended.
        reason: the error message; empty for `finished`.
        time: time of the end, in seconds since 1970.
    """

    state: str
    nimg: int
    reason: str
    time: float


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run folder. Snapshots, checkpoints, samples, diagnostics and evaluations are named by `label(nimg)`.

    `nimg` is the number of training images, over all ranks, that the discriminators have been shown. Snapshots of all EMAs but
    the first, and their evaluations, have `ema_label(half_life)` after that name.

    Args:
        path: the run folder, which need not exist.
    """

    path: Path

    @classmethod
    def of_snapshot(cls, snapshot: Path) -> "RunFolder | None":
        """Return the run folder of the snapshot folder `snapshot`: RUN for RUN/snapshots/NAME, None for any other path.

        Symbolic links in the path are resolved first. The run folder need not hold anything else.
        """
        snapshot = snapshot.resolve()
        return cls(snapshot.parents[1]) if snapshot.parent.name == "snapshots" else None

    @property
    def config(self) -> Path:
        """The experiment with all defaults filled in, YAML."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, commit, command, world size, device and digest of the data index, JSON."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """Reported metrics, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """Log records of rank 0, plain text."""
        return self.path / "log.txt"

    @property
    def exit(self) -> Path:
        """How the last start of the run ended (`RunExit`), JSON. Absent while the run trains and after it was killed.

        `begin` deletes it: a start that ends before `begin` leaves the file of an earlier start.
        """
        return self.path / "exit.json"

    @property
    def data_errors(self) -> Path:
        """Shards and images that could not be read, one JSON object per line; absent if all could be read."""
        return self.path / "data_errors.jsonl"

    @property
    def best(self) -> Path:
        """JSON file with the name of the best evaluated snapshot, the metric that was compared, and the snapshot's value of it.

        The best snapshot is the one nearest to the metric's optimum (`evaluation_result.optimum`). Absent until a snapshot has
        been evaluated by a metric that has an optimum.
        """
        return self.path / "best.json"

    @property
    def best_lock(self) -> Path:
        """Lock file for writers of `best`, in the folder of the evaluations, which the first evaluation creates."""
        return self.path / "evaluations" / "best.lock"

    @property
    def tracking(self) -> Path:
        """The MLflow run that belongs to this folder, JSON."""
        return self.path / "tracking.json"

    @property
    def tracking_lock(self) -> Path:
        """Lock file for writers of `tracking`."""
        return self.path / "tracking" / "run.lock"

    @property
    def cluster(self) -> Path:
        """Folder of the files that Slurm jobs read and write."""
        return self.path / "cluster"

    def spool(self, name: str) -> Path:
        """File of the events that one process sends to MLflow; `name` is "train" for training, else unique in this folder."""
        return self.path / "tracking" / f"{name}.jsonl"

    def spools(self) -> list[Path]:
        """All existing files of events for MLflow (see `spool`), sorted by name."""
        return sorted(self.path.glob("tracking/*.jsonl"))

    def samples(self, nimg: int) -> Path:
        """PNG file of the sample grid after `nimg` training images."""
        return self.path / "samples" / f"{label(nimg)}.png"

    def sample_grids(self) -> dict[int, Path]:
        """All existing sample grids: number of training images to PNG file, oldest first."""
        paths = sorted(self.path.glob("samples/kimg-*.png"))
        return {nimg_of(path.with_suffix("")): path for path in paths if LABEL.fullmatch(path.name.removesuffix(".png"))}

    def snapshot(self, nimg: int, ema: str = "") -> Path:
        """Folder of the snapshot after `nimg` training images: of the first EMA, or of the one whose `ema_label` is `ema`."""
        return self.path / "snapshots" / (f"{label(nimg)}-{ema}" if ema else label(nimg))

    def snapshot_named(self, name: str) -> Path:
        """Folder of the snapshot with that name, such as "kimg-000200" or "kimg-000200-ema-0500"."""
        return self.path / "snapshots" / name

    def snapshots(self) -> list[Path]:
        """Folders of all existing snapshots of all EMAs, oldest first."""
        return sorted(self.path.glob("snapshots/kimg-*"))

    def checkpoint(self, nimg: int) -> Path:
        """Folder of the checkpoint after `nimg` training images."""
        return self.path / "checkpoints" / label(nimg)

    def checkpoints(self) -> list[Path]:
        """Folders of all complete checkpoints, oldest first; empty if there is none."""
        return sorted(path for path in self.path.glob("checkpoints/kimg-*") if LABEL.fullmatch(path.name))

    def diagnostics(self, nimg: int) -> Path:
        """Folder of the report about a non-finite loss or gradient in the step that began after `nimg` training images."""
        return self.path / "diagnostics" / label(nimg)

    def evaluation(self, snapshot: str) -> Path:
        """Result of evaluating the snapshot named `snapshot`, JSON; a `.png` of the same name shows the spectrum."""
        return self.path / "evaluations" / f"{snapshot}.json"

    def evaluations(self) -> list[Path]:
        """Files of all evaluation results, oldest snapshot first; empty if there is none."""
        return sorted(self.path.glob("evaluations/*.json"), key=lambda path: path.stem)

    def evaluation_failure(self, snapshot: str) -> Path:
        """Why the Slurm job that evaluates the snapshot named `snapshot` failed, text; absent unless the latest job failed."""
        return self.path / "evaluations" / f"{snapshot}.failed"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder against other trainers while the block runs, and delete files that a killed trainer left incomplete.

        Creates the folder. If it has no config.yaml when the block ends, because `begin` was never called, log.txt and the lock
        file are deleted, and the folder if nothing else is in it.

        Raises:
            UsageError: another process holds the lock.
            OSError: the folder or the lock file cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / ".lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock, wait=False))
            except BlockingIOError as error:
                holder = lock.read_text().strip()
                raise UsageError(f"{self.path} is in use by {holder}; wait for it, or choose another --run-dir") from error
            try:
                self._write_holder(lock)
                for name in ("checkpoints", "snapshots", "samples", "diagnostics"):
                    sweep(self.path / name)
                for path in (self.config, self.environment, self.metrics, self.exit):  # others may write beside them
                    for left in self.path.glob(f".{path.name}.*.tmp"):
                        left.unlink(missing_ok=True)
                yield
            finally:
                if not self.config.exists():
                    with suppress(OSError):  # log.txt may be a folder; an error here would hide that of the block
                        self.log.unlink(missing_ok=True)
                    with suppress(OSError):
                        lock.unlink()
                        self.path.rmdir()

    def check_config(self, experiment: Experiment) -> None:
        """Raise UsageError if the folder holds a run and settings of `experiment` differ that may not change on resume."""
        if self.config.exists() and (changed := differences(load(self.config), experiment)):
            raise UsageError(f"{self.path} holds a run of another config ({'; '.join(changed)}); choose another --run-dir")

    def _write_holder(self, lock: Path) -> None:
        try:
            lock.write_text(f"process {os.getpid()} on {platform.node()}")
        except OSError as error:  # the error of a full disk names no file
            raise OSError(error.errno, error.strerror, str(lock)) from error

    def begin(self, experiment: Experiment, environment: dict[str, Any], nimg: int) -> None:
        """Prepare the folder for training that continues after `nimg` images; call this with `lock` held, before any report.

        Writes config.yaml and environment.json (`environment`, JSON values), deletes exit.json and the reports in metrics.jsonl
        after more than `nimg` images, which a resumed run makes again, and renames checkpoints after more images, as
        `set_aside` does.
        """
        self.set_aside(nimg)
        with atomic_file(self.config) as file:
            file.write(experiment.to_yaml())
        with atomic_file(self.environment) as file:
            json.dump(environment, file, indent=2)
        self.exit.unlink(missing_ok=True)
        self.forget_after(nimg)

    def forget_after(self, nimg: int) -> None:
        """Delete the reports in metrics.jsonl after more than `nimg` images, and damaged lines, as one cut short by a crash.

        The file is replaced atomically. Does nothing if it does not exist.
        """
        if self.metrics.exists():
            lines = [line for line in self.metrics.read_text(errors="replace").splitlines() if _nimg_of_line(line) <= nimg]
            with atomic_file(self.metrics) as file:
                file.writelines(f"{line}\n" for line in lines)

    def set_aside(self, nimg: int) -> None:
        """Rename the checkpoints after more than `nimg` images, so that no later start resumes from them; logs a warning.

        They are damaged, or of a run that has been continued from an earlier checkpoint since.
        """
        later = [path for path in self.checkpoints() if nimg_of(path) > nimg]
        for path in later:
            aside = path.with_name(f"unused-{path.name}")
            if aside.exists():
                shutil.rmtree(aside)
            path.rename(aside)
        if later:
            names = f"{later[0].name}..{later[-1].name}" if len(later) > 1 else later[0].name
            log.warning(
                "%s: %s renamed to unused-kimg-...; delete them if you do not need them", self.path / "checkpoints", names
            )

    def reports(self) -> list[dict[str, float]]:
        """Return the reports in metrics.jsonl, oldest first, each as `nimg` and metrics by name; empty if there is no file.

        Call this only after `begin`, which removes damaged lines: on a damaged line, this raises ValueError.
        """
        return [parse_json(line) for line in self.metrics.read_text().splitlines()] if self.metrics.exists() else []

    def append_metrics(self, metrics: dict[str, float]) -> None:
        """Append one report, metrics by name with `nimg` among them, as a line to metrics.jsonl."""
        append_json_lines(self.metrics, [metrics])

    def prune(self, keep_newest: int, keep_every_kimg: float | None) -> None:
        """Delete all complete checkpoints except the newest ones and the first at or after each multiple of an interval.

        Args:
            keep_newest: how many of the newest checkpoints to keep, at least 1.
            keep_every_kimg: the interval in thousands of images, whose multiples count from 1, not 0; None: keep only the
                newest.
        """
        checkpoints = self.checkpoints()
        kept = set(checkpoints[-keep_newest:])
        if keep_every_kimg is not None:
            interval = images_of(keep_every_kimg)
            first_after = {int(nimg_of(path) // interval): path for path in reversed(checkpoints)}
            kept |= {path for multiple, path in first_after.items() if multiple}
        for path in set(checkpoints) - kept:
            shutil.rmtree(path, ignore_errors=True)

    def write_exit(self, state: str, nimg: int, reason: str = "") -> None:
        """Write exit.json (`RunExit`) with the current time, atomically.

        Args:
            state: "finished", "interrupted" or "failed"; not checked.
            nimg: number of real images that the run, with its earlier starts, has shown to the discriminators.
            reason: the error message; empty for "finished". Passwords of URLs are left out.
        """
        with atomic_file(self.exit) as file:
            json.dump(asdict(RunExit(state, nimg, redacted(reason), time.time())), file)

    def read_exit(self) -> RunExit | None:
        """Return how the last start of the run ended, from exit.json (see `exit`); None if the file is absent or damaged."""
        with suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
            content = parse_json(self.exit.read_text())
            return RunExit(content["state"], int(content["nimg"]), content["reason"], float(content["time"]))
        return None


def _nimg_of_line(line: str) -> float:
    try:
        return int(parse_json(line)["nimg"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return float("inf")


def images_of(kimg: float) -> float:
    """Return the number of images in `kimg` thousand images, without the rounding error of a product: 128,448 for 128.448."""
    return round(kimg * 1000, 6)


LABEL = re.compile(r"kimg-\d{6,}(\.\d{3})?")  # what `label` returns


def label(nimg: int) -> str:
    """Return `kimg-000200` for 200,000 images, `kimg-000200.064` for 200,064. Labels sort in the order of `nimg` < 10**9."""
    return f"kimg-{nimg // 1000:06d}" + (f".{nimg % 1000:03d}" if nimg % 1000 else "")


def nimg_of(path: Path) -> int:
    """Return the number of images in a path whose last part is a `label`, alone or followed by "-" and an `ema_label`.

    Raises:
        ValueError: the last part does not have integers where a label has them.
    """
    kimg, _, rest = path.name.removeprefix("kimg-").partition("-")[0].partition(".")
    return int(kimg) * 1000 + int(rest or 0)


def ema_label(half_life_kimg: float) -> str:
    """Return `ema-0500` for a half-life of 500 kimg, `ema-0002.5` for 2.5. Labels sort like half-lives below 10,000."""
    kimg, _, rest = f"{half_life_kimg:.6f}".rstrip("0").partition(".")
    return f"ema-{kimg:0>4}" + (f".{rest}" if rest else "")


def ema_of(snapshot: str) -> str:
    """Return the `ema_label` in a snapshot's name: "ema-0500" for "kimg-000200-ema-0500"; empty for the first EMA."""
    return snapshot.removeprefix("kimg-").partition("-")[2]
