"""The training loop, from top to bottom."""

import platform
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment, check_passwords
from wavegan_dist.data import (
    DataErrorLog,
    ImageBatch,
    Mixture,
    TrainingData,
    batch_keys,
    check_present,
    classes_for_training,
    load_training_data,
    training_batches,
    warn_of_unused_classes,
)
from wavegan_dist.errors import UsageError
from wavegan_dist.processes import on_all_ranks, on_main, report_lost_ranks, together
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import check_tracking, open_tracker
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint
from wavegan_dist.train.diagnosis import NonFiniteError, diagnose
from wavegan_dist.train.progress import ThroughputTimer
from wavegan_dist.train.resume import checkpoint_to_resume
from wavegan_dist.train.run_writer import RunWriter, TrackerFactory
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.step_sync import StepSync
from wavegan_dist.train.trainer import Trainer
from wavegan_dist.wavelet import choose as choose_kernels


def train(experiment: Experiment, run_dir: Path, resume: str = "auto", make_tracker: TrackerFactory = open_tracker) -> None:
    """Train until `train.total_kimg`, from the start or from a checkpoint.

    Args:
        experiment: the settings.
        run_dir: the run folder.
        resume: `auto`, `never` or the path of a checkpoint, as in `checkpoint_to_resume`.
        make_tracker: returns the tracker that rank 0 sends metrics, images and files to.

    Raises:
        UsageError: the experiment, the data and the number of processes do not fit together, or the run folder is in use.
        InterruptedRunError: a signal ended the run; the run has saved a checkpoint.
        NonFiniteError: a loss or a gradient is not finite.
        WaveganError: a shard is corrupt, a checkpoint is damaged, or another process died.
    """
    accelerator = launch.init_accelerator(experiment.train)
    with report_lost_ranks(accelerator):
        index, classes = on_all_ranks(accelerator, lambda: load_data(experiment), "reading the index")
        if classes is not None and accelerator.is_main_process:
            warn_of_unused_classes(classes)
        folder = RunFolder(run_dir)
        with launch.open_run_folder(accelerator, folder):
            choose = "choosing the checkpoint to resume from"
            checkpoint = on_main(accelerator, lambda: checkpoint_to_resume(folder, experiment, index.digest, resume), choose)
            on_main(accelerator, lambda: check_tracking(folder, experiment), "reading tracking.json")
            on_all_ranks(accelerator, lambda: choose_kernels(accelerator.device.type), "compiling the kernels")
            trainer = Trainer(experiment, index, accelerator)
            if checkpoint is not None:
                on_all_ranks(accelerator, lambda: load_checkpoint(checkpoint, trainer), f"reading {checkpoint}")
            environment = describe_environment(accelerator, index, classes)
            checkpointer = Checkpointer(trainer, lambda: {"config": experiment.model_dump(mode="json"), **environment})
            with Signals() as signals, RunWriter(folder, trainer, checkpointer, environment, make_tracker) as writer:
                step_sync = StepSync(trainer, checkpointer, signals)
                train_with_rollbacks(TrainingRun(trainer, index, folder, step_sync, writer))
            with together(accelerator, "ending the run"):  # rank 0 deletes old checkpoints and delivers the rest to MLflow
                pass


@dataclass(frozen=True)
class TrainingRun:
    """The objects that the training loop uses."""

    trainer: Trainer
    index: TrainingData
    folder: RunFolder
    step_sync: StepSync
    writer: RunWriter


def train_with_rollbacks(run: TrainingRun) -> None:
    """Train to the end; after a non-finite step, return to the last checkpoint if `train.on_nonfinite` is `rollback`."""
    if run.trainer.nimg == 0:
        run.writer.snapshot()
    while True:
        try:
            train_to_end(run)
        except NonFiniteError as error:
            roll_back(run, error)
        else:
            return run.writer.wait_for_checkpoint()


def train_to_end(run: TrainingRun) -> None:
    """Step until `train.total_kimg`; report, save a snapshot or a checkpoint when a multiple of its interval is reached."""
    trainer, writer = run.trainer, run.writer
    settings = trainer.experiment.train
    max_bad_fraction = trainer.experiment.data.max_bad_fraction
    error_log = DataErrorLog(trainer.accelerator, run.folder.data_errors, run.index, max_bad_fraction)
    timer = ThroughputTimer(trainer.nimg)
    with closing(local_batches(trainer, run.index, error_log)) as batches:
        timed_batches = timer.time_batches(batches)
        while trainer.nimg < settings.total_kimg * 1000:
            nimg_before = trainer.nimg
            trainer.step(timed_batches)

            status = run.step_sync.all_reduce()
            if status.nonfinite:
                raise diagnose(trainer, run.folder.diagnostics(nimg_before), lambda nimg: local_keys(run, nimg))
            if status.save_failed:
                writer.wait_for_checkpoint()
            if is_due(settings.report_kimg, nimg_before, trainer):
                writer.report(
                    trainer.metrics.drain() | timer.read(trainer.nimg) | error_log.sync() | run.index.images_shown(trainer.nimg)
                )
            if is_due(settings.snapshot_kimg, nimg_before, trainer):
                writer.snapshot()
            if is_due(settings.checkpoint_kimg, nimg_before, trainer) or status.signal:
                writer.checkpoint()
            if status.signal:
                raise writer.interrupted(status.signal)


def roll_back(run: TrainingRun, error: NonFiniteError) -> None:
    """Load the last checkpoint; training then continues with different latents.

    Raises:
        NonFiniteError: `error`, if the experiment does not allow (another) rollback or there is no checkpoint.
    """
    trainer = run.trainer
    settings = trainer.experiment.train
    rollbacks = trainer.rollbacks + 1
    if settings.on_nonfinite == "stop" or rollbacks > settings.max_rollbacks:
        raise error
    run.writer.wait_for_checkpoint()
    checkpoints = on_main(trainer.accelerator, run.folder.checkpoints, "listing the checkpoints")
    if not checkpoints:
        raise error
    checkpoint = checkpoints[-1]
    on_all_ranks(trainer.accelerator, lambda: load_checkpoint(checkpoint, trainer), f"reading {checkpoint}")
    trainer.rollbacks = rollbacks
    run.writer.rolled_back(error)


def local_batches(trainer: Trainer, index: TrainingData, error_log: DataErrorLog) -> Generator[ImageBatch, None, None]:
    """Return this rank's batches of real images, with labels if the model has classes, from image `trainer.nimg` on."""
    accelerator, settings = trainer.accelerator, trainer.experiment
    return training_batches(
        index,
        batch_size=settings.train.batch_size // accelerator.num_processes,
        seed=settings.seed,
        start_nimg=trainer.nimg,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        workers=settings.data.workers,
        labels=settings.model.num_classes > 0,
        max_bad_fraction=settings.data.max_bad_fraction,
        on_errors=error_log.record,
    )


def local_keys(run: TrainingRun, nimg: int) -> list[str]:
    """Return the keys of this rank's images in the global batch that begins at image number `nimg`."""
    accelerator, settings = run.trainer.accelerator, run.trainer.experiment
    local_batch_size = settings.train.batch_size // accelerator.num_processes
    first = accelerator.process_index * local_batch_size
    return batch_keys(run.index, settings.seed, nimg, settings.train.batch_size, slice(first, first + local_batch_size))


def is_due(interval_kimg: float, nimg_before: int, trainer: Trainer) -> bool:
    """Return whether the last step reached a multiple of `interval_kimg`, or the end of the run."""
    interval = interval_kimg * 1000
    finished = trainer.nimg >= trainer.experiment.train.total_kimg * 1000
    return finished or trainer.nimg // interval > nimg_before // interval


def load_data(experiment: Experiment) -> tuple[TrainingData, Classes | None]:
    """Load the index and the classes of the experiment's data; raises as `load_index` and `load_classes`."""
    index = load_index(experiment)
    return index, load_classes(experiment, index)


def load_index(experiment: Experiment) -> TrainingData:
    """Load the index of each of the experiment's data sets.

    Raises:
        UsageError: `data.index` holds a password, two sets hold the same images, images have another resolution than the model,
            shards are missing, or `model.band_scale` needs standard deviations of deeper levels than an index has.
    """
    check_passwords(experiment)
    data, model = experiment.data, experiment.model
    index = load_training_data(data)
    for location, one in zip([one.index for one in data.sets], index.sets, strict=True):
        if one.size != model.resolution:
            raise UsageError(
                f"model.resolution = {model.resolution} but {location} holds {one.size} px images; "
                f"set model.resolution={one.size} or write the shards with --size {model.resolution}"
            )
        measured = len(one.band_std_by_level())
        if model.band_scale == "data" and model.levels > measured:
            raise UsageError(
                f"model.band_scale = data needs the standard deviations of {model.levels} levels, but {location} has those of "
                f"{measured}; index its shards again with `wavegan shards index` or set model.band_scale=none"
            )
    check_present(index, data.max_bad_fraction)
    return index


def load_classes(experiment: Experiment, index: TrainingData) -> Classes | None:
    """Return the classes of the data set; None for a model without classes.

    Raises:
        UsageError: the labels of the data set do not fit the model.
    """
    num_classes = experiment.model.num_classes
    return classes_for_training(index, num_classes) if num_classes else None


def describe_environment(accelerator: Accelerator, index: TrainingData, classes: Classes | None) -> dict[str, Any]:
    """Return the content of environment.json: versions, commit, command, world size, device, host, data sets, classes."""
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type
    return {
        **provenance(),
        "world_size": accelerator.num_processes,
        "device": device,
        "host": platform.node(),
        "index_digest": index.digest,
        **({"sets": index.describe()} if isinstance(index, Mixture) else {}),
        **({} if classes is None else {"classes": classes._asdict()}),
    }
