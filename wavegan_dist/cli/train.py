"""`wavegan train`."""

import argparse

from wavegan_dist.cli.arguments import EXPERIMENT, RUN_DIR, run_dir_of
from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist import config

    experiment = config.load(options.config, options.overrides)
    from wavegan_dist.train.loop import train

    train(experiment, run_dir_of(options), options.resume)


TRAIN = Command(
    name="train",
    help="train a model",
    description="Train a model. Run it under `accelerate launch -m wavegan_dist train ...` for several processes.\n"
    "Exit code 75 after SIGTERM, SIGUSR1 or SIGUSR2: the run has saved itself, the same command goes on.",
    example="wavegan train --config configs/cifar10.yaml train.batch_size=128 --run-dir runs/big-batch",
    arguments=(
        *EXPERIMENT,
        RUN_DIR,
        argument(
            "--resume", default="auto", metavar="auto|never|PATH", help="go on from the newest checkpoint (default: auto)"
        ),
    ),
    run=run,
)
