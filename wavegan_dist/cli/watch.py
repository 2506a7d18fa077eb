"""`wavegan watch`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.command import Command, argument
from wavegan_dist.cli.submit import EVALUATION, RESOURCES, evaluation_job, resources


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.cluster.snapshot_watcher import watch

    watch(evaluation_job(options, options.run_dir.absolute(), options.profile, resources(options)))


WATCH = Command(
    name="watch",
    help="evaluate each new snapshot of a run on Slurm",
    description="Submit an evaluation job for each new snapshot of a run, until the run has ended and all jobs are done.",
    example="wavegan watch runs/cifar10 --profile gpu1 --in-flight 4",
    arguments=(argument("run_dir", type=Path, metavar="RUN", help="run folder"), *RESOURCES, *EVALUATION),
    run=run,
)
