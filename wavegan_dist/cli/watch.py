"""`wavegan watch`."""

import argparse
from pathlib import Path
from typing import Any

from wavegan_dist.cli.submit import add_evaluation, add_resources, evaluation_job, resources


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "watch",
        help="evaluate each new snapshot of a run on Slurm",
        description="Submit an evaluation job for each new snapshot of a run, until the run is over and all are evaluated.",
        epilog="example: wavegan watch runs/cifar10 --profile gpu1 --in-flight 4",
    )
    command.add_argument("run_dir", type=Path, metavar="RUN")
    add_resources(command)
    add_evaluation(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from wavegan_dist.cluster.snapshot_watcher import watch

    watch(evaluation_job(options, options.run_dir.absolute(), options.profile, resources(options)))
