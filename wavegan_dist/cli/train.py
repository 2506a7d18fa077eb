"""`wavegan train`."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model. Run it under `accelerate launch -m wavegan_dist train ...` for several processes.\n"
        "Exit code 75 after SIGTERM, SIGUSR1 or SIGUSR2: the run has saved itself, the same command goes on.",
        epilog="example: wavegan train --config configs/cifar10.yaml train.batch_size=128 --run-dir runs/big-batch",
    )
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="experiment, YAML")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    command.add_argument("--run-dir", type=Path, metavar="DIR", help="run folder (default: runs/NAME_OF_CONFIG)")
    command.add_argument(
        "--resume", default="auto", metavar="auto|never|PATH", help="go on from the newest checkpoint (default: auto)"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from wavegan_dist import config

    experiment = config.load(options.config, options.overrides)
    from wavegan_dist.train.loop import train

    train(experiment, options.run_dir or Path("runs") / options.config.stem, options.resume)
