"""Everything that leaves a run: status lines, metrics, sample grids, snapshots, checkpoints; written by rank 0."""

import sys
from types import TracebackType
from typing import Any, NoReturn, Self

import torch
from tqdm import tqdm

from wavegan_dist import counted
from wavegan_dist.images import save_grid, to_uint8
from wavegan_dist.model.snapshot import save_snapshot
from wavegan_dist.tracking import Tracker
from wavegan_dist.train.checkpoint import prune, save_checkpoint
from wavegan_dist.train.report import shares, status
from wavegan_dist.train.run_folder import RunFolder, label
from wavegan_dist.train.trainer import Trainer

GRID = 64  # images in a sample grid


class Observer:
    """Writes what a run shows of itself to the terminal, the run folder and MLflow.

    A context: leaving it closes the MLflow run as FINISHED, FAILED or KILLED.

    Args:
        folder: the run folder.
        trainer: what is watched.
        environment: what environment.json is to say.
        main: whether this is rank 0; on other ranks every method does nothing.
    """

    def __init__(self, folder: RunFolder, trainer: Trainer, environment: dict[str, Any], *, main: bool) -> None:
        self.folder, self.trainer, self.environment, self.main = folder, trainer, environment, main
        settings = trainer.experiment
        self.generator = trainer.ema.module
        z = counted.normal(settings.seed, "latent/grid", range(GRID), settings.model.z_dim)
        self.grid_z = z.to(trainer.accelerator.device)

    def __enter__(self) -> Self:
        if self.main:
            self.folder.begin(self.trainer.experiment, self.environment, self.trainer.nimg)
            self.tracker = Tracker.open(self.folder.path, self.trainer.experiment)
            self.tracker.file(self.folder.config)
            self.tracker.file(self.folder.environment)
            self.bar = self._progress_bar()
            self._say(
                f"{self.folder.path}: {'going on' if self.trainer.nimg else 'starting'} at kimg {self.trainer.nimg / 1000:g}"
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.main:
            self.bar.close()
            self.tracker.end("FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED")

    def report(self, point: dict[str, float]) -> None:
        """A status line, a line of metrics.jsonl and a point in MLflow of these values and the generator's state."""
        if not self.main:
            return
        nimg = self.trainer.nimg
        point |= {"lam": self.trainer.raw_generator.mix().item(), **shares(self.generator, self.grid_z)}
        self.tracker.metrics(point, nimg)
        point = {"nimg": nimg, "kimg": nimg / 1000, **point}
        self.folder.append_metrics(point)
        self.bar.update(point["kimg"] - self.bar.n)
        self._say(status(point, self.trainer.experiment.train.total_kimg))

    def snapshot(self) -> None:
        """The EMA generator, and a grid of its samples from latents that never change."""
        if not self.main:
            return
        nimg = self.trainer.nimg
        path = self.folder.snapshot(nimg)
        save_snapshot(path, self.generator, self.trainer.experiment, nimg, self.environment["index_digest"])
        with torch.no_grad():
            save_grid(to_uint8(self.generator(self.grid_z)), self.folder.samples(nimg))
        self.tracker.picture(self.folder.samples(nimg), "samples", nimg)
        self.tracker.file(path, f"snapshots/{label(nimg)}")

    def checkpoint(self) -> None:
        """All that is needed to go on from here; the oldest beyond `keep_checkpoints` go."""
        if not self.main:
            return
        save_checkpoint(self.folder.checkpoint(self.trainer.nimg), self.trainer)
        prune(self.folder.checkpoints(), self.trainer.experiment.train.keep_checkpoints)

    def _progress_bar(self) -> "tqdm[NoReturn]":
        settings = self.trainer.experiment.train
        return tqdm(
            total=settings.total_kimg,
            initial=self.trainer.nimg / 1000,
            unit="kimg",
            disable=None,  # off where stderr is no terminal
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total:g} kimg [{elapsed}<{remaining}]",
        )

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
