"""Training on the packed data set: the settings and the loop of several sections."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch

from gpu.common import ROOT, Section
from wavegan_dist import config
from wavegan_dist.config import Experiment
from wavegan_dist.data import DataErrorLog, Index, load_training_data
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot
from wavegan_dist.train import launch
from wavegan_dist.train.loop import local_batches
from wavegan_dist.train.progress import ThroughputTimer
from wavegan_dist.train.trainer import Trainer

CONFIG = ROOT / "configs" / "photos64.yaml"
TINY = ["model.width=4", "model.z_dim=8", "train.batch_size=8", "train.precision=fp32"]
WARM_UP_STEPS = 3


def settings(section: Section, overrides: Sequence[str] = ()) -> Experiment:
    """Return the settings of photos64.yaml on the packed data set, without tracking; if `tiny`, of a tiny model."""
    index = section.data()
    data = [f"data.index={index}", f"model.resolution={Index.load(index).size}", "model.attention_at=[16]"]
    return config.load(CONFIG, [*data, "tracking.enabled=false", *(TINY if section.tiny else []), *overrides])


def train(section: Section, experiment: Experiment, length: Callable[[], float]) -> tuple[Trainer, dict[str, float]]:
    """Train three steps, then for some seconds.

    Args:
        section: the section.
        experiment: the settings.
        length: called after the third step; returns the seconds.

    Returns:
        The trainer, and the speed and data wait by the names of metrics.jsonl.
    """
    index = load_training_data(experiment.data)
    accelerator = launch.init_accelerator(experiment.train)
    trainer = Trainer(experiment, index, accelerator)
    error_log = DataErrorLog(accelerator, section.out / "data_errors.jsonl", index, 0.0)
    timer = ThroughputTimer(0, accelerator.device)
    with closing(local_batches(trainer, index, error_log)) as batches:
        timed_batches = timer.time_batches(batches)
        for _ in range(WARM_UP_STEPS):
            trainer.step(timed_batches)
        section.synchronize()
        seconds = length()
        timer.read(trainer.nimg)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            trainer.step(timed_batches)
            if trainer.nonfinite.item():  # waits for the GPU once in a step, as the training loop does
                raise FloatingPointError(f"a loss or gradient is not finite at image {trainer.nimg}")
        return trainer, timer.read(trainer.nimg)


def save_untrained(section: Section, folder: Path) -> None:
    """Write a snapshot of the model of `settings` with its first weights."""
    experiment = settings(section)
    torch.manual_seed(0)
    weights = build_generator(experiment).state_dict()
    save_snapshot(folder, weights, weights.items(), experiment, 0, load_training_data(experiment.data).digest)
