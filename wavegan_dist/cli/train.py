"""`wavegan train`."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from wavegan_dist.cli.arguments import EXPERIMENT, RUN_DIR, run_dir_of
from wavegan_dist.cli.command import Command, argument

if TYPE_CHECKING:
    from wavegan_dist.config import Experiment


def run(options: argparse.Namespace) -> None:
    if os.environ.get("WORLD_SIZE", "1") == "1":
        experiment, run_dir = _settings(options)  # before PyTorch is imported, so that a wrong setting is reported at once
    else:
        from wavegan_dist.train.launch import read_together

        experiment, run_dir = read_together(lambda: _settings(options))
    from wavegan_dist.train.loop import train

    train(experiment, run_dir, options.resume)


def _settings(options: argparse.Namespace) -> "tuple[Experiment, Path]":
    """Return the experiment, checked against the memory of this rank's device, and the run folder."""
    from wavegan_dist import config

    experiment = config.load(options.config, options.overrides)
    from wavegan_dist.plan import check_memory

    check_memory(experiment)
    return experiment, run_dir_of(options)


TRAIN = Command(
    name="train",
    help="train a model",
    description="Train a model. To train with several processes, use `accelerate launch -m wavegan_dist train ...`.\n"
    "After SIGTERM, SIGUSR1 or SIGUSR2, the run saves a checkpoint and exits with code 75; the same command resumes the run.",
    example="wavegan train --config configs/cifar10.yaml train.batch_size=128 --run-dir runs/big-batch",
    arguments=(
        *EXPERIMENT,
        RUN_DIR,
        argument(
            "--resume",
            default="auto",
            metavar="auto|never|PATH",
            help="auto: resume from the newest checkpoint if there is one (default); never: refuse a folder that contains a "
            "run; PATH: begin at this checkpoint folder; the same command again goes on from the run's own later checkpoints",
        ),
    ),
    run=run,
)
