"""Everything that a run writes: status lines, metrics, sample grids, snapshots, checkpoints, exit.json."""

import math
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from wavegan_dist import counted
from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment
from wavegan_dist.errors import WaveganError, describe
from wavegan_dist.images import images_in_grid, save_grid, to_uint8
from wavegan_dist.log import log
from wavegan_dist.model import WaveletGenerator
from wavegan_dist.model.snapshot import save_snapshot
from wavegan_dist.processes import together
from wavegan_dist.run_folder import LABEL, RunFolder, nimg_of
from wavegan_dist.tracking import Tracker
from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.collapse import CollapseWarnings, coarse
from wavegan_dist.train.diagnosis import NonFiniteError
from wavegan_dist.train.ema_state import EmaState
from wavegan_dist.train.progress import image_metrics, status_line
from wavegan_dist.train.signals import InterruptedRunError
from wavegan_dist.train.trainer import Trainer

TrackerFactory: TypeAlias = Callable[[Path, Experiment], Tracker]  # of the run folder and the settings
GRID_SIZE = 64  # images in a sample grid, fewer above 512 px
FORWARD_PIXELS = 2**22  # pixels of the images of one forward: 64 images of 256 px, 16 of 512 px, 4 of 1024 px
MIN_REPORTED = 8  # smallest number of images in the statistics of a report


class RunWriter:
    """Writes the results of a run to the log, the run folder and MLflow.

    A context manager: entering it prepares the run folder (`RunFolder.begin`) and starts tracking, leaving it writes exit.json
    and ends the MLflow run. Only rank 0 writes, except that every rank writes its part of a checkpoint. Where a file of the run
    folder cannot be written, the methods raise WaveganError on all ranks, or log a warning if `train.on_disk_error` is
    `continue`.

    Leaving is a collective call after success or InterruptedRunError, which all ranks have: the other ranks wait for rank 0, as
    a launcher ends all ranks once one has ended. After another error, which one rank may have alone, none waits.

    Args:
        folder: the run folder; rank 0 holds its lock.
        trainer: the trainer to report on.
        checkpointer: writes the trainer's checkpoints.
        environment: content of environment.json.
        make_tracker: called on rank 0 when the context is entered; returns the tracker that gets metrics, images and files.
    """

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        checkpointer: Checkpointer,
        environment: dict[str, Any],
        make_tracker: TrackerFactory,
    ) -> None:
        self.folder, self.trainer, self.checkpointer, self.environment = folder, trainer, checkpointer, environment
        self.make_tracker = make_tracker
        self.is_main: bool = trainer.accelerator.is_main_process
        self.settings = trainer.experiment.train
        self.collapse_warnings = CollapseWarnings(self.settings.total_kimg)
        self.classes = Classes(**environment["classes"]) if "classes" in environment else None
        model, device = trainer.experiment.model, trainer.accelerator.device
        numbers = range(images_in_grid(GRID_SIZE, model.resolution))
        self.grid_z = counted.normal(trainer.experiment.seed, "latent/grid", numbers, model.z_dim).to(device)
        self.grid_columns = math.isqrt(len(numbers))
        self.grid_labels: Tensor | None = None  # a row for each class; later rows begin again if there are fewer classes
        self.report_labels: Tensor | None = None
        if self.classes is not None:
            rows = torch.arange(len(numbers), device=device) // self.grid_columns
            self.grid_labels = rows % model.num_classes
            self.report_labels = self.classes.draw(trainer.experiment.seed, "class/report", numbers).to(device)

    def __enter__(self) -> Self:
        with self._together("writing the first files"):
            if self.is_main:
                try:
                    self._begin()
                except BaseException as error:
                    self._write_exit(error)
                    raise
        return self

    def _begin(self) -> None:
        self.folder.begin(self.trainer.experiment, self.environment, self.trainer.nimg)
        reports = self.folder.reports()
        self.last_report = (reports or [{}])[-1]
        self.tracker = self.make_tracker(self.folder.path, self.trainer.experiment)
        self.tracker.log_file(self.folder.config)
        self.tracker.log_file(self.folder.environment)
        self._track_earlier(reports)
        self.progress_bar = self._make_progress_bar()
        log.info("%s: %s at kimg %s", self.folder.path, "resuming" if self.trainer.nimg else "starting", self._kimg)

    def _track_earlier(self, reports: list[dict[str, float]]) -> None:
        """Log what earlier starts have written: the tracker adds what it lacks, as after a full disk or without tracking."""
        for line in reports:
            self._track_report(line)
        for nimg in self.folder.sample_grids():
            if nimg <= self.trainer.nimg:
                self._track_grid(nimg)
        for path in self.folder.snapshots():
            if LABEL.match(path.name) and nimg_of(path) <= self.trainer.nimg:
                self._track_snapshot(path)

    def _track_report(self, line: dict[str, float]) -> None:
        metrics = {name: value for name, value in line.items() if name not in ("nimg", "kimg")}
        self.tracker.log_metrics(metrics, int(line["nimg"]))

    def _track_grid(self, nimg: int) -> None:
        self.tracker.log_image(self.folder.samples(nimg), "samples", nimg)

    def _track_snapshot(self, path: Path) -> None:
        self.tracker.log_file(path, f"snapshots/{path.name}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ends_together = error is None or isinstance(error, InterruptedRunError)
        with self._together("ending the run") if ends_together else nullcontext():
            if self.is_main:
                self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.progress_bar.close()
        try:
            self._write_exit(error)
        finally:
            self.tracker.close(_mlflow_status(error))

    def _write_exit(self, error: BaseException | None) -> None:
        with self._handling_disk_errors("exit.json", stop=error is None):  # a raised error would hide `error`
            state = "finished" if error is None else "interrupted" if isinstance(error, InterruptedRunError) else "failed"
            reason = describe(error) if isinstance(error, OSError) else str(error or "")
            self.folder.write_exit(state, self.trainer.nimg, reason)

    def report(self, metrics: dict[str, float]) -> None:
        """Write `metrics`, lam, rates, gradient shares, statistics of samples to log, metrics.jsonl, MLflow: a collective call.

        Call this only after a step. Logs warnings of mode collapse.

        Args:
            metrics: means over the steps since the last report, with the fields of `ThroughputTimer.read` and
                `DataErrorLog.sync`; this method adds the others to the dictionary.
        """
        lr_g, lr_d = self.trainer.learning_rates(self.trainer.nimg)
        metrics |= {"lam": self.trainer.lam(), "lr/g": lr_g, "lr/d": lr_d, **self.trainer.gradient_shares()}
        with self.trainer.ema.sampling() as generator:
            metrics |= self._image_metrics(generator)
        with self._together("writing a report"):
            if self.is_main:
                self._write_report(metrics)

    def _write_report(self, metrics: dict[str, float]) -> None:
        nimg = self.trainer.nimg
        metrics["cost/device_hours"] = self._device_hours(nimg, metrics["speed/seconds_per_kimg"])
        self.last_report = line = {"nimg": nimg, "kimg": nimg / 1000, **metrics}
        with self._handling_disk_errors("metrics"):
            self.folder.append_metrics(line)
        self._track_report(line)
        self.progress_bar.update(line["kimg"] - self.progress_bar.n)
        log.info(status_line(line, self.settings.total_kimg))
        for warning in self.collapse_warnings.warnings(line):
            log.warning("kimg %s: %s", self._kimg, warning)

    def _device_hours(self, nimg: int, seconds_per_kimg: float) -> float:
        """Return the hours of training up to image `nimg`, summed over processes, without start-up and repeated steps.

        Args:
            nimg: the image number.
            seconds_per_kimg: the time that 1000 images took since the last report; images between that report and a
                checkpoint that the run resumed from count as equally fast.
        """
        kimg = (nimg - self.last_report.get("nimg", 0)) / 1000
        hours: float = kimg * seconds_per_kimg / 3600 * self.trainer.accelerator.num_processes
        return self.last_report.get("cost/device_hours", 0.0) + hours

    def snapshot(self) -> None:
        """Write a snapshot of each EMA, and a grid of samples of the first EMA from fixed latents: a collective call."""
        with self.trainer.ema.sampling() as generator:
            images = self._grid_images(generator)
        with self._together("writing a snapshot"):
            self._write_snapshots()
            if self.is_main:
                self._write_grid(images)

    def _write_snapshots(self) -> None:
        half_lives = self.trainer.experiment.ema.half_lives_kimg
        weights_of = {ema: ema.iter_full_tensors() for ema in self.trainer.emas}
        try:
            for (ema, weights), half_life_kimg in zip(weights_of.items(), half_lives, strict=True):
                if self.is_main:
                    self._write_snapshot(ema, half_life_kimg, weights)
                deque(weights, maxlen=0)  # a collective call: rank 0 completes it even if it could not write
        finally:
            for weights in weights_of.values():
                deque(weights, maxlen=0)

    def _grid_images(self, generator: WaveletGenerator) -> Tensor:
        """Generate the images of the sample grid: float [N, 3, R, R] on the device."""
        size = max(FORWARD_PIXELS // self.trainer.experiment.model.resolution**2, 1)
        parts = zip(self.grid_z.split(size), _split(self.grid_labels, size, len(self.grid_z)), strict=True)
        return torch.cat([generator(z, labels) for z, labels in parts])

    def _image_metrics(self, generator: WaveletGenerator) -> dict[str, float]:
        """Compute the statistics of generated images for a report: a collective call."""
        model = self.trainer.experiment.model
        count = max(FORWARD_PIXELS // model.resolution**2, MIN_REPORTED)
        labels = None if self.report_labels is None else self.report_labels[:count]
        real = self.trainer.accelerator.gather(coarse(self.trainer.last_real))  # a rank may have only one image
        return image_metrics(generator, self.grid_z[:count], real, labels, model.levels)

    def _write_snapshot(self, ema: EmaState, half_life_kimg: float, weights: Iterator[tuple[str, Tensor]]) -> None:
        nimg, index_digest = self.trainer.nimg, self.environment["index_digest"]
        path = self.folder.snapshot(nimg, "" if ema is self.trainer.ema else ema.name)
        with self._handling_disk_errors("a snapshot"):
            save_snapshot(path, ema.layout, weights, self.trainer.experiment, nimg, index_digest, half_life_kimg, self.classes)
            self._track_snapshot(path)

    def _write_grid(self, images: Tensor) -> None:
        nimg = self.trainer.nimg
        with self._handling_disk_errors("a sample grid"):
            save_grid(to_uint8(images), self.folder.samples(nimg), self.grid_columns)
            self._track_grid(nimg)

    def checkpoint(self) -> None:
        """Wait for the last checkpoint, and begin to save a new one: a collective call.

        Returns while the new checkpoint is being written, after which those no longer needed are deleted. An error of that save
        is raised, or logged, by the next call of `checkpoint`, `wait_for_checkpoint` or `interrupted`.
        """
        self.wait_for_checkpoint()
        with self._handling_disk_errors("a checkpoint"):
            self.checkpointer.save(self.folder.checkpoint(self.trainer.nimg), self._prune)

    def _prune(self) -> None:
        self.folder.prune(self.settings.keep_checkpoints, self.settings.keep_checkpoint_kimg)

    def wait_for_checkpoint(self) -> None:
        """Wait until the last checkpoint is on disk: a collective call.

        Raises:
            WaveganError: on all ranks, the save failed on any rank; with `train.on_disk_error=continue`, an OSError of the save
                is logged instead.
        """
        with self._together("writing a checkpoint"), self._handling_disk_errors("a checkpoint"):
            self.checkpointer.wait()

    def settle_checkpoint(self) -> None:
        """Wait until the last checkpoint is on disk, before an error ends the run: a collective call.

        Logs a warning if the checkpoint could not be written, so that this does not hide the other error.
        """
        try:
            self.wait_for_checkpoint()
        except (OSError, WaveganError) as error:
            if self.is_main:
                log.warning("%s", describe(error) if isinstance(error, OSError) else error)

    def interrupted(self, number: int) -> InterruptedRunError:
        """Wait for the last checkpoint; returns the error to raise after the signal `number`: a collective call.

        Call this after `checkpoint`, in the same step: the message says whether the state at `trainer.nimg` is saved.

        Raises:
            WaveganError: the checkpoint could not be written, and `train.on_disk_error` is `stop`, or the save failed for
                another reason than an OSError.
        """
        self.wait_for_checkpoint()
        saved = "saved" if self.folder.checkpoint(self.trainer.nimg).is_dir() else "could not be saved"
        return InterruptedRunError(
            number, f"{signal.Signals(number).name}: {saved} at kimg {self._kimg}; run the same command again to resume"
        )

    def rolled_back(self, error: NonFiniteError) -> None:
        """Make the run folder that of a run that has come as far as the trainer, and log a warning: a collective call.

        Call this after `load_checkpoint`, because of `error`. Checkpoints and metrics after the image of the trainer are those
        that `RunFolder.set_aside` and `RunFolder.forget_after` mean.

        Raises:
            WaveganError: a checkpoint cannot be renamed, or metrics.jsonl not be written and `train.on_disk_error` is `stop`.
        """
        with self._together("rolling back"):
            if self.is_main:
                self.folder.set_aside(self.trainer.nimg)
                with self._handling_disk_errors("metrics"):
                    self.folder.forget_after(self.trainer.nimg)
                    self.last_report = (self.folder.reports() or [{}])[-1]
                count = f"{self.trainer.rollbacks} of at most {self.settings.max_rollbacks}"
                log.warning("%s; rolled back to kimg %s (%s), continuing with other latents", error, self._kimg, count)

    @property
    def _kimg(self) -> str:
        return f"{self.trainer.nimg / 1000:g}"

    def _together(self, doing: str) -> AbstractContextManager[None]:
        return together(self.trainer.accelerator, doing)

    @contextmanager
    def _handling_disk_errors(self, file: str, *, stop: bool = True) -> Iterator[None]:
        """Propagate an OSError of the block, or log a warning that `file` was not written; `train.on_disk_error` decides.

        Args:
            file: what the block writes.
            stop: False: never propagate.
        """
        try:
            yield
        except OSError as error:
            if stop and self.settings.on_disk_error == "stop":
                raise
            if self.is_main:
                path = f"{error.filename}: " if error.filename else ""
                reason = f"{path}{error.strerror}"
                then = "training continues without it" if stop else "the run ends without it"
                log.warning("cannot write %s at kimg %s (%s); %s", file, self._kimg, reason, then)

    def _make_progress_bar(self) -> "tqdm[NoReturn]":
        return tqdm(
            total=self.settings.total_kimg,
            initial=self.trainer.nimg / 1000,
            unit="kimg",
            disable=None,  # no bar unless stderr is a terminal
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total:g} kimg [{elapsed}<{remaining}]",
        )


def _split(labels: Tensor | None, size: int, count: int) -> Sequence[Tensor | None]:
    """Split the labels of `count` images into parts of `size`; for a model without classes, return as many times None."""
    return [None] * -(-count // size) if labels is None else labels.split(size)


def _mlflow_status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    if isinstance(error, InterruptedRunError):
        return "SCHEDULED" if error.number in (signal.SIGUSR1, signal.SIGUSR2) else "KILLED"
    return "FAILED"
