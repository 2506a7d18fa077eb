"""The loop, from top to bottom."""

import platform
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist.config import Experiment
from wavegan_dist.data import DataErrorLog, Index, batch_keys, check_present, training_batches
from wavegan_dist.errors import UsageError
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint
from wavegan_dist.train.diagnosis import NonFiniteError, diagnose
from wavegan_dist.train.progress import ThroughputTimer
from wavegan_dist.train.resume import checkpoint_to_resume
from wavegan_dist.train.run_writer import RunWriter
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.step_sync import StepSync
from wavegan_dist.train.trainer import Trainer


def train(experiment: Experiment, run_dir: Path, resume: str = "auto") -> None:
    """Run the experiment to its end in `run_dir`, from the start or from a checkpoint.

    Args:
        experiment: the settings.
        run_dir: the run folder.
        resume: `auto`, `never` or the path of a checkpoint, as `checkpoint_to_resume` says.

    Raises:
        UsageError: the experiment, the data and the processes do not go together, or the run folder is in use.
        InterruptedRunError: a signal asked the run to leave; it is saved.
        NonFiniteError: a loss or a gradient is not finite.
        WaveganError: a shard is corrupt, a checkpoint is damaged, another process died.
    """
    accelerator = launch.start(experiment.train)
    index = load_index(experiment)
    folder = RunFolder(run_dir)
    with launch.together(accelerator), launch.locked(accelerator, folder):
        checkpoint = launch.on_main(accelerator, lambda: checkpoint_to_resume(folder, experiment, index.digest, resume))
        trainer = Trainer(experiment, index, accelerator)
        if checkpoint is not None:
            load_checkpoint(checkpoint, trainer)
        told = environment(accelerator, index)
        checkpointer = Checkpointer(trainer, lambda: {"config": experiment.model_dump(mode="json"), **told})
        with Signals() as signals, RunWriter(folder, trainer, checkpointer, told) as writer:
            step_sync = StepSync(trainer, checkpointer, signals)
            run(TrainingRun(trainer, index, folder, step_sync, writer))
        accelerator.wait_for_everyone()


@dataclass(frozen=True)
class TrainingRun:
    """What the loop works with."""

    trainer: Trainer
    index: Index
    folder: RunFolder
    step_sync: StepSync
    writer: RunWriter


def run(parts: TrainingRun) -> None:
    """Train to the end; after a number that is not finite go back to the last checkpoint, where the experiment says so."""
    if parts.trainer.nimg == 0:
        parts.writer.snapshot()
    while True:
        try:
            train_on(parts)
        except NonFiniteError as error:
            roll_back(parts, error)
        else:
            return parts.writer.settle_checkpoint()


def train_on(parts: TrainingRun) -> None:
    """Step until `total_kimg`; report, snapshot and checkpoint whenever a multiple of their interval is crossed."""
    trainer, writer = parts.trainer, parts.writer
    settings = trainer.experiment.train
    max_bad_fraction = trainer.experiment.data.max_bad_fraction
    error_log = DataErrorLog(trainer.accelerator, parts.folder.data_errors, parts.index, max_bad_fraction)
    clock = ThroughputTimer(trainer.nimg)
    with closing(stream(trainer, parts.index, error_log)) as batches:
        timed_batches = clock.waiting(batches)
        while trainer.nimg < settings.total_kimg * 1000:
            before = trainer.nimg
            trainer.step(timed_batches)

            verdict = parts.step_sync.all_reduce()
            if verdict.nonfinite:
                raise diagnose(trainer, parts.folder.diagnostics(before), lambda first: keys(parts, first))
            if verdict.save_failed:
                writer.settle_checkpoint()
            if crossed(settings.report_kimg, before, trainer):
                writer.report(trainer.metrics.drain() | clock.read(trainer.nimg) | error_log.sync())
            if crossed(settings.snapshot_kimg, before, trainer):
                writer.snapshot()
            if crossed(settings.checkpoint_kimg, before, trainer) or verdict.signal:
                writer.checkpoint()
            if verdict.signal:
                raise writer.interrupted(verdict.signal)


def roll_back(parts: TrainingRun, error: NonFiniteError) -> None:
    """Go back to the last checkpoint and on from there with other latents; raises `error` where that is not wanted or left."""
    trainer = parts.trainer
    settings = trainer.experiment.train
    rollbacks = trainer.rollbacks + 1
    if settings.on_nonfinite == "stop" or rollbacks > settings.max_rollbacks:
        raise error
    parts.writer.settle_checkpoint()
    checkpoint = next(reversed(launch.on_main(trainer.accelerator, parts.folder.checkpoints)), None)
    if checkpoint is None:
        raise error
    load_checkpoint(checkpoint, trainer)
    trainer.rollbacks = rollbacks
    parts.writer.rolled_back(error)


def stream(trainer: Trainer, index: Index, error_log: DataErrorLog) -> Generator[Tensor, None, None]:
    """This rank's batches from the trainer's position on."""
    accelerator, settings = trainer.accelerator, trainer.experiment
    return training_batches(
        index,
        batch_size=settings.train.batch_size // accelerator.num_processes,
        seed=settings.seed,
        start_nimg=trainer.nimg,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        workers=settings.data.workers,
        max_bad_fraction=settings.data.max_bad_fraction,
        on_errors=error_log.record,
    )


def keys(parts: TrainingRun, first: int) -> list[str]:
    """This rank's images of the global batch that begins at image `first`."""
    accelerator, settings = parts.trainer.accelerator, parts.trainer.experiment
    local = settings.train.batch_size // accelerator.num_processes
    share = slice(accelerator.process_index * local, (accelerator.process_index + 1) * local)
    return batch_keys(parts.index, settings.seed, first, settings.train.batch_size, share)


def crossed(kimg: float, before: int, trainer: Trainer) -> bool:
    """Whether a multiple of `kimg` lies between image `before` and now, or the run has come to its end."""
    every = kimg * 1000
    done = trainer.nimg >= trainer.experiment.train.total_kimg * 1000
    return done or trainer.nimg // every > before // every


def load_index(experiment: Experiment) -> Index:
    """The data's index; UsageError where it does not fit the model's resolution or too many of its shards are missing."""
    data = experiment.data
    index = Index.load(data.index, data.cache, int(data.cache_gib * 2**30))
    if index.size != experiment.model.resolution:
        raise UsageError(
            f"model.resolution = {experiment.model.resolution} but {data.index} holds {index.size} px images; "
            f"set model.resolution={index.size} or write the shards with --size {experiment.model.resolution}"
        )
    check_present(index, data.max_bad_fraction)
    return index


def environment(accelerator: Accelerator, index: Index) -> dict[str, Any]:
    """What environment.json says of a run, besides its config."""
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type
    return {
        **provenance(),
        "world_size": accelerator.num_processes,
        "device": device,
        "host": platform.node(),
        "index_digest": index.digest,
    }
