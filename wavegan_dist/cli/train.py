"""`wavegan train`."""

import argparse

from wavegan_dist.cli.arguments import EXPERIMENT, RUN_DIR, run_dir_of
from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist import config

    experiment = config.load(options.config, options.overrides)
    from wavegan_dist.plan import check_memory
    from wavegan_dist.train.loop import train

    check_memory(experiment)
    train(experiment, run_dir_of(options), options.resume)


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
            "run; PATH: resume from this checkpoint folder",
        ),
    ),
    run=run,
)
