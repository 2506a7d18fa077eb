"""The loop, from top to bottom."""

import platform
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist.config import Experiment
from wavegan_dist.data import Index, training_batches
from wavegan_dist.errors import UsageError
from wavegan_dist.provenance import provenance
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import load_checkpoint
from wavegan_dist.train.observer import Observer
from wavegan_dist.train.report import Clock
from wavegan_dist.train.run_folder import RunFolder, checkpoint_to_resume
from wavegan_dist.train.tally import Tally
from wavegan_dist.train.trainer import Trainer


def train(experiment: Experiment, run_dir: Path, resume: str = "auto") -> None:
    """Run the experiment to its end in `run_dir`, from the start or from a checkpoint.

    Args:
        experiment: the settings.
        run_dir: the run folder.
        resume: `auto`, `never` or the path of a checkpoint, as `checkpoint_to_resume` says.

    Raises:
        UsageError: the experiment, the data and the processes do not go together.
        WaveganError: a shard is corrupt, a checkpoint is damaged, a gradient is not finite.
    """
    accelerator = launch.start(experiment.train)
    index = load_index(experiment)
    folder = RunFolder(run_dir)
    checkpoint = launch.on_main(accelerator, lambda: checkpoint_to_resume(folder, experiment, resume))
    trainer = Trainer(experiment, index, accelerator)
    if checkpoint is not None:
        load_checkpoint(checkpoint, trainer)
    tally = Tally(accelerator, folder.data_errors, index, experiment.data.max_bad_fraction)
    batches = training_batches(
        index,
        batch_size=experiment.train.batch_size // accelerator.num_processes,
        seed=experiment.seed,
        start_nimg=trainer.nimg,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        workers=experiment.data.workers,
        max_bad_fraction=experiment.data.max_bad_fraction,
        found=tally.found,
    )
    told = environment(accelerator, index)
    with closing(batches), Observer(folder, trainer, told, main=accelerator.is_main_process) as observer:
        run(trainer, batches, tally, observer)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def run(trainer: Trainer, batches: Iterator[Tensor], tally: Tally, observer: Observer) -> None:
    """Step until `total_kimg`; report, snapshot and checkpoint whenever a multiple of their interval is crossed."""
    settings = trainer.experiment.train
    clock = Clock(trainer.nimg)
    timed_batches = clock.waiting(batches)
    if trainer.nimg == 0:
        observer.snapshot()
    while trainer.nimg < settings.total_kimg * 1000:
        before = trainer.nimg
        trainer.step(timed_batches)

        if crossed(settings.report_kimg, before, trainer):
            observer.report(trainer.drain() | clock.read(trainer.nimg) | tally.settle())
        if crossed(settings.snapshot_kimg, before, trainer):
            observer.snapshot()
        if crossed(settings.checkpoint_kimg, before, trainer):
            observer.checkpoint()


def crossed(kimg: float, before: int, trainer: Trainer) -> bool:
    """Whether a multiple of `kimg` lies between image `before` and now, or the run has come to its end."""
    every = kimg * 1000
    done = trainer.nimg >= trainer.experiment.train.total_kimg * 1000
    return done or trainer.nimg // every > before // every


def load_index(experiment: Experiment) -> Index:
    """The data's index, checked against the model's resolution; UsageError where they differ."""
    data = experiment.data
    index = Index.load(data.index, data.cache, int(data.cache_gib * 2**30))
    if index.size != experiment.model.resolution:
        raise UsageError(
            f"model.resolution = {experiment.model.resolution} but {data.index} holds {index.size} px images; "
            f"set model.resolution={index.size} or write the shards with --size {experiment.model.resolution}"
        )
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
