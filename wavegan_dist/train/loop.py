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
    unreadable_rows,
    warn_of_unused_classes,
)
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.log import log
from wavegan_dist.processes import on_all_ranks, on_main, report_lost_ranks
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder, images_of
from wavegan_dist.tracking import check_tracking, open_tracker
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint
from wavegan_dist.train.diagnosis import NonFiniteError, diagnose
from wavegan_dist.train.progress import ThroughputTimer
from wavegan_dist.train.resume import ORIGIN, choose_checkpoint, newest_intact
from wavegan_dist.train.run_writer import RunWriter, TrackerFactory
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.step_sync import StepSync
from wavegan_dist.train.trainer import Trainer
from wavegan_dist.wavelet import choose as choose_kernels


def train(experiment: Experiment, run_dir: Path, resume: str = "auto", make_tracker: TrackerFactory = open_tracker) -> None:
    """Train until `train.total_kimg`, from the start or from a checkpoint: a collective call, in the main thread.

    Joins the process group, which stays joined (`processes.leave`).

    Args:
        experiment: the settings, equal on all ranks.
        run_dir: the run folder, which is created if it does not exist; the same on all ranks, on a shared file system.
        resume: `auto`: resume from the newest intact checkpoint of the run folder, if there is one; `never`: start at image 0,
            and the folder must not hold a run; else the path of a checkpoint, of this or another run, to go on from unless the
            run folder has a later one that a start from this path has saved.
        make_tracker: called on rank 0 only; returns the tracker that rank 0 sends metrics, images and files to.

    Raises:
        UsageError: the experiment, the data and the number of processes do not fit together, the run folder is in use or holds
            a run with another configuration, or `resume` is not a checkpoint.
        InterruptedRunError: a signal ended the run; the run has saved a checkpoint, unless the save failed and
            `train.on_disk_error` is `continue`, of which a warning is logged.
        NonFiniteError: a loss or a gradient is not finite, and the run may not or cannot roll back.
        WaveganError: too many images cannot be read, a checkpoint is damaged, the run folder cannot be written and
            `train.on_disk_error` is `stop`, or another process died.
    """
    accelerator = launch.init_accelerator(experiment.train)
    with report_lost_ranks(accelerator):
        index, classes = on_all_ranks(accelerator, lambda: load_data(experiment), "reading the index")
        if classes is not None and accelerator.is_main_process:
            warn_of_unused_classes(classes)
        folder = RunFolder(run_dir)
        with launch.open_run_folder(accelerator, folder):
            choose = "choosing the checkpoint to resume from"
            resumption = on_main(accelerator, lambda: choose_checkpoint(folder, experiment, index.digest, resume), choose)
            checkpoint = resumption.checkpoint
            on_main(accelerator, lambda: check_tracking(folder, experiment), "reading tracking.json")
            on_all_ranks(accelerator, lambda: load_kernels(accelerator.device.type), "compiling the kernels")
            trainer = Trainer(experiment, index, accelerator)
            if checkpoint is not None:
                on_all_ranks(accelerator, lambda: load_checkpoint(checkpoint, trainer), f"reading {checkpoint}")
            environment = describe_environment(accelerator, index, classes)
            environment |= {} if resumption.origin is None else {ORIGIN: resumption.origin}
            checkpointer = Checkpointer(trainer, lambda: environment)
            with Signals() as signals, RunWriter(folder, trainer, checkpointer, environment, make_tracker) as writer:
                step_sync = StepSync(trainer, checkpointer, signals)
                train_with_rollbacks(TrainingRun(trainer, index, folder, step_sync, writer))


GENTLER = "another --run-dir and a lower learning rate or optim.clip_norm"  # against values that are not finite
WRITTEN = ("report", "snapshot", "checkpoint")  # settings: train.report_kimg and so on


@dataclass(frozen=True)
class TrainingRun:
    """The objects that the training loop uses: each rank has one, for one start of the run."""

    trainer: Trainer
    index: TrainingData
    folder: RunFolder
    step_sync: StepSync
    writer: RunWriter


def train_with_rollbacks(run: TrainingRun) -> None:
    """Train until `train.total_kimg`, and until the last checkpoint is on disk: a collective call.

    A run that starts at image 0 first writes a snapshot of the initial weights, and one that is over already writes its last
    snapshot if it is missing. After a step with a value that is not finite, `roll_back` loads the last checkpoint, or raises
    the error.

    Raises:
        NonFiniteError: a loss or a gradient of a step was not finite, and the run may not or cannot roll back.
        InterruptedRunError: a rank received a stop signal. The checkpoint of the last step is on disk, unless the save failed
            and `train.on_disk_error` is `continue`.
        WaveganError: more images than `data.max_bad_fraction` cannot be read, a checkpoint could not be written or read, or the
            run folder cannot be written and `train.on_disk_error` is `stop`.
    """
    trainer = run.trainer
    is_over = trainer.nimg >= images_of(trainer.experiment.train.total_kimg)  # already: the run has been made shorter
    last, doing = run.folder.snapshot(trainer.nimg), "looking for the last snapshot"
    if trainer.nimg == 0 or (is_over and on_main(trainer.accelerator, lambda: not last.exists(), doing)):
        run.writer.snapshot()
    while True:
        try:
            train_to_end(run)
        except NonFiniteError as error:
            roll_back(run, error)
        else:
            return run.writer.wait_for_checkpoint()


def train_to_end(run: TrainingRun) -> None:
    """Step until `train.total_kimg`: a collective call. Report and save snapshots and checkpoints where `is_due`.

    Returns while the last checkpoint is still being written.

    Raises:
        NonFiniteError: a loss or a gradient of a step was not finite.
        InterruptedRunError: a rank received a stop signal. The checkpoint of the last step is on disk, unless the save failed
            and `train.on_disk_error` is `continue`.
        WaveganError: more images than `data.max_bad_fraction` cannot be read, a checkpoint could not be written, or the run
            folder cannot be written and `train.on_disk_error` is `stop`.
    """
    trainer, writer = run.trainer, run.writer
    settings = trainer.experiment.train
    max_bad_fraction = trainer.experiment.data.max_bad_fraction
    error_log = on_all_ranks(
        trainer.accelerator,
        lambda: DataErrorLog(trainer.accelerator, run.folder.data_errors, run.index, max_bad_fraction),
        "reading data_errors.jsonl",
    )
    error_log.recheck(lambda rows: unreadable_rows(run.index, rows))
    timer = ThroughputTimer(trainer.nimg, trainer.accelerator.device)
    with closing(local_batches(trainer, run.index, error_log)) as batches, error_log.listed():
        timed_batches = timer.time_batches(batches)
        while trainer.nimg < images_of(settings.total_kimg):
            nimg_before = trainer.nimg
            trainer.step(timed_batches)

            status = run.step_sync.all_reduce()
            if status.nonfinite:
                raise diagnose(trainer, run.folder.diagnostics(nimg_before), lambda nimg: local_keys(run, nimg))
            if status.save_failed:
                writer.wait_for_checkpoint()
            due = {name: is_due(getattr(settings, f"{name}_kimg"), nimg_before, trainer) for name in WRITTEN}
            # A state that too many replaced images have changed must not be saved: a resumed run would go on from it.
            data_errors = count_data_errors(run, error_log) if any(due.values()) or status.signal else {}
            if due["report"]:
                writer.report(
                    trainer.metrics.drain() | timer.read(trainer.nimg) | data_errors | run.index.images_shown(trainer.nimg)
                )
            if due["snapshot"]:
                writer.snapshot()
            if due["checkpoint"] or status.signal:
                writer.checkpoint()
            if status.signal:
                raise writer.interrupted(status.signal)


def count_data_errors(run: TrainingRun, error_log: DataErrorLog) -> dict[str, float]:
    """Call `DataErrorLog.sync`, a collective call; if it raises an error, the last checkpoint is on disk first."""
    try:
        return error_log.sync()
    except WaveganError:
        run.writer.settle_checkpoint()
        raise


def roll_back(run: TrainingRun, error: NonFiniteError) -> None:
    """Load the newest intact checkpoint of the run, after which training continues with different latents: a collective call.

    Raises:
        NonFiniteError: `error` with advice, if the experiment does not allow (another) rollback or there is no checkpoint.
        WaveganError: no checkpoint is intact or it cannot be read, the last save failed for another reason than an OSError, or
            the run folder cannot be written and `train.on_disk_error` is `stop`.
    """
    trainer = run.trainer
    settings = trainer.experiment.train
    rollbacks = trainer.rollbacks + 1
    if settings.on_nonfinite == "stop" or rollbacks > settings.max_rollbacks:
        run.writer.settle_checkpoint()
        setting = "on_nonfinite=rollback" if settings.on_nonfinite == "stop" else f"max_rollbacks={rollbacks} or more"
        raise NonFiniteError(f"{error}; resume with train.{setting}, or with --resume CHECKPOINT, {GENTLER}") from error
    run.writer.wait_for_checkpoint()
    checkpoint = on_main(trainer.accelerator, lambda: newest_intact(run.folder), "choosing the checkpoint to roll back to")
    if checkpoint is None:
        raise NonFiniteError(f"{error}; there is no checkpoint yet to roll back to; start again with {GENTLER}") from error
    on_all_ranks(trainer.accelerator, lambda: load_checkpoint(checkpoint, trainer), f"reading {checkpoint}")
    trainer.rollbacks = rollbacks
    run.writer.rolled_back(error)


def local_batches(trainer: Trainer, index: TrainingData, error_log: DataErrorLog) -> Generator[ImageBatch, None, None]:
    """Return this rank's batches of real images, with labels if the model has classes, from image `trainer.nimg` on.

    An endless generator that starts `data.workers` processes; close it to stop them. A batch has images uint8 [b, 3, R, R] on
    the CPU, in pinned memory if training runs on a GPU, and labels int64 [b] or None, where b is `train.batch_size` divided by
    the number of ranks. The errors of unreadable images go to `error_log.record`. See `training_batches`.
    """
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
        pinned=accelerator.device.type == "cuda",
    )


def local_keys(run: TrainingRun, nimg: int) -> list[str]:
    """Return `SHARD: KEY` of each of this rank's images in the global batch that begins at image number `nimg`."""
    accelerator, settings = run.trainer.accelerator, run.trainer.experiment
    local_batch_size = settings.train.batch_size // accelerator.num_processes
    first = accelerator.process_index * local_batch_size
    return batch_keys(run.index, settings.seed, nimg, settings.train.batch_size, slice(first, first + local_batch_size))


def is_due(interval_kimg: float, nimg_before: int, trainer: Trainer) -> bool:
    """Return whether the last step reached or passed a multiple of `interval_kimg` thousand images, or the end of the run.

    Args:
        interval_kimg: the interval, in thousands of images.
        nimg_before: `trainer.nimg` before the step.
        trainer: the trainer after the step.
    """
    interval = images_of(interval_kimg)
    finished = trainer.nimg >= images_of(trainer.experiment.train.total_kimg)
    return finished or trainer.nimg // interval > nimg_before // interval


def load_data(experiment: Experiment) -> tuple[TrainingData, Classes | None]:
    """Load the index and the classes of the experiment's data; raises as `load_index` and `load_classes`."""
    index = load_index(experiment)
    return index, load_classes(experiment, index)


def load_index(experiment: Experiment) -> TrainingData:
    """Load the index of each of the experiment's data sets. Each rank loads for itself; not collective.

    Raises:
        UsageError: `data.index` holds a password, two sets hold the same images, images have another resolution than the model,
            too many shards are missing, `model.band_scale` needs standard deviations of deeper levels than an index has, or an
            index is missing or invalid.
        WaveganError: a remote index cannot be read.
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
    """Return the names of the classes in the training data and the number of images of each; None for a model without classes.

    Raises:
        UsageError: the labels of the data set do not fit `model.num_classes`.
    """
    num_classes = experiment.model.num_classes
    return classes_for_training(index, num_classes) if num_classes else None


def load_kernels(device: str) -> None:
    """Load the kernels of the wavelet transform, which may compile them; log a warning if there are none for the device type.

    Raises:
        UsageError: WAVEGAN_KERNELS has an unknown value.
    """
    name, reason = choose_kernels(device)
    if name == "reference":
        log.warning("the wavelet transform runs in plain PyTorch, which is slower: %s", reason)


def describe_environment(accelerator: Accelerator, index: TrainingData, classes: Classes | None) -> dict[str, Any]:
    """Return the content of environment.json, JSON values.

    These are versions, commit, command, world size, device, host, kernels of the wavelet transform, data and classes. The key
    "sets" is there only for a mixture of datasets, "classes" only if `classes` is not None.
    """
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type
    return {
        **provenance(),
        "world_size": accelerator.num_processes,
        "device": device,
        "host": platform.node(),
        "kernels": ": ".join(choose_kernels(accelerator.device.type)),
        "index_digest": index.digest,
        **({"sets": index.describe()} if isinstance(index, Mixture) else {}),
        **({} if classes is None else {"classes": classes._asdict()}),
    }
