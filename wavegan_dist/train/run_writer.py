"""Everything that leaves a run: status lines, metrics, sample grids, snapshots, checkpoints."""

import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self

from torch import Tensor
from tqdm import tqdm

from wavegan_dist import counted
from wavegan_dist.images import save_grid, to_uint8
from wavegan_dist.model.snapshot import save_snapshot
from wavegan_dist.run_folder import RunFolder, label
from wavegan_dist.tracking import Tracker
from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.collapse import CollapseWarnings
from wavegan_dist.train.diagnosis import NonFiniteError
from wavegan_dist.train.progress import grid_report, status
from wavegan_dist.train.signals import InterruptedRunError
from wavegan_dist.train.trainer import Trainer

GRID = 64  # images in a sample grid


class RunWriter:
    """Writes what a run shows of itself to the terminal, the run folder and MLflow.

    A context: leaving it closes the MLflow run and says in exit.json how the run ended. Rank 0 writes; a checkpoint is
    written by all ranks.

    Args:
        folder: the run folder.
        trainer: what is watched.
        checkpointer: writes its checkpoints.
        environment: what environment.json is to say.
    """

    def __init__(self, folder: RunFolder, trainer: Trainer, checkpointer: Checkpointer, environment: dict[str, Any]) -> None:
        self.folder, self.trainer, self.checkpointer, self.environment = folder, trainer, checkpointer, environment
        self.main: bool = trainer.accelerator.is_main_process
        self.settings = trainer.experiment.train
        self.watch = CollapseWarnings(self.settings.total_kimg)
        z = counted.normal(trainer.experiment.seed, "latent/grid", range(GRID), trainer.experiment.model.z_dim)
        self.grid_z = z.to(trainer.accelerator.device)

    def __enter__(self) -> Self:
        if self.main:
            self.folder.begin(self.trainer.experiment, self.environment, self.trainer.nimg)
            self.tracker = Tracker.open(self.folder.path, self.trainer.experiment)
            self.tracker.file(self.folder.config)
            self.tracker.file(self.folder.environment)
            self.bar = self._progress_bar()
            self._say(f"{self.folder.path}: {'going on' if self.trainer.nimg else 'starting'} at kimg {self._kimg}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.main:
            return
        self.bar.close()
        with self._writing("how the run ended"):
            self.folder.prune(self.settings.keep_checkpoints, self.settings.keep_checkpoint_kimg)
            state = "finished" if error is None else "interrupted" if kind is InterruptedRunError else "failed"
            self.folder.write_exit(state, self.trainer.nimg, str(error or ""))
        self.tracker.end(_mlflow_status(error))

    def report(self, point: dict[str, float]) -> None:
        """A status line, a line of metrics.jsonl and a point in MLflow of these values and the generator's state.

        Every rank calls this.
        """
        point |= {"lam": self.trainer.lam()}
        with self.trainer.ema.sampling() as generator:
            point |= grid_report(generator, self.grid_z, self.trainer.real)
        if not self.main:
            return
        nimg = self.trainer.nimg
        told = {"nimg": nimg, "kimg": nimg / 1000, **point}
        with self._writing("metrics"):
            self.folder.append_metrics(told)
        self.tracker.metrics(point, nimg)
        self.bar.update(told["kimg"] - self.bar.n)
        self._say(status(told, self.settings.total_kimg))
        for warning in self.watch.warnings(told):
            self._warn(f"kimg {self._kimg}: {warning}")

    def snapshot(self) -> None:
        """The average generator, and a grid of its samples from latents that never change. Every rank calls this."""
        with self.trainer.ema.sampling() as generator:
            images = generator(self.grid_z)
        weights = self.trainer.ema.iter_full_tensors()
        try:
            if self.main:
                self._snapshot(images, weights)
        finally:
            deque(weights, maxlen=0)  # the others are waiting, whatever happened on the disk

    def _snapshot(self, images: Tensor, weights: Iterator[tuple[str, Tensor]]) -> None:
        nimg, layout = self.trainer.nimg, self.trainer.ema.layout
        path = self.folder.snapshot(nimg)
        with self._writing("a snapshot"):
            save_snapshot(path, layout, weights, self.trainer.experiment, nimg, self.environment["index_digest"])
            save_grid(to_uint8(images), self.folder.samples(nimg))
            self.tracker.picture(self.folder.samples(nimg), "samples", nimg)
            self.tracker.file(path, f"snapshots/{label(nimg)}")

    def checkpoint(self) -> None:
        """Begin to save all that is needed to go on from here; those that need not stay go. Every rank calls this."""
        self.settle_checkpoint()
        if self.main:
            self.folder.prune(self.settings.keep_checkpoints, self.settings.keep_checkpoint_kimg)
        with self._writing("a checkpoint"):
            self.checkpointer.save(self.folder.checkpoint(self.trainer.nimg))

    def settle_checkpoint(self) -> None:
        """Wait for the last checkpoint to be on the disk; every rank calls this."""
        with self._writing("a checkpoint"):
            self.checkpointer.wait()

    def interrupted(self, number: int) -> InterruptedRunError:
        """The error to leave with after this signal, once the checkpoint is on the disk; every rank calls this."""
        self.settle_checkpoint()
        return InterruptedRunError(
            number, f"{signal.Signals(number).name}: saved at kimg {self._kimg}; the same command goes on from there"
        )

    def rolled_back(self, error: NonFiniteError) -> None:
        """The trainer has gone back to a checkpoint because of this error."""
        if self.main:
            self.folder.forget_after(self.trainer.nimg)
            again = f"{self.trainer.rollbacks} of at most {self.settings.max_rollbacks}"
            self._warn(f"{error}; rolled back to kimg {self._kimg}, {again}, going on with other latents")

    @property
    def _kimg(self) -> str:
        return f"{self.trainer.nimg / 1000:g}"

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Let an OSError pass, or only warn of it, as `train.on_disk_error` says."""
        try:
            yield
        except OSError as error:
            if self.settings.on_disk_error == "stop":
                raise
            where = f"{error.filename}: " if error.filename else ""
            self._warn(f"cannot write {what} at kimg {self._kimg} ({where}{error.strerror}); training goes on without it")

    def _progress_bar(self) -> "tqdm[NoReturn]":
        return tqdm(
            total=self.settings.total_kimg,
            initial=self.trainer.nimg / 1000,
            unit="kimg",
            disable=None,  # off where stderr is no terminal
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total:g} kimg [{elapsed}<{remaining}]",
        )

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def _warn(self, line: str) -> None:
        if self.main:
            tqdm.write(f"wavegan: warning: {line}", file=sys.stderr)


def _mlflow_status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    if isinstance(error, InterruptedRunError):
        return "SCHEDULED" if error.number in (signal.SIGUSR1, signal.SIGUSR2) else "KILLED"
    return "FAILED"
