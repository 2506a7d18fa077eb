"""`wavegan track sync`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.tracking import format_counts, sync

    print(f"sent {format_counts(sync(options.run_dir))}")


SYNC = Command(
    name="track sync",
    help="send undelivered events to MLflow",
    description="Send to MLflow the points, images and files of a run that could not be sent while it ran.",
    example="wavegan track sync runs/demo",
    arguments=(argument("run_dir", type=Path, metavar="RUN"),),
    run=run,
)
