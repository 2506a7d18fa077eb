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
    description="Send the metrics, images and files of a run that could not be sent to MLflow while the run was training.",
    example="wavegan track sync runs/demo",
    arguments=(argument("run_dir", type=Path, metavar="RUN", help="run folder"),),
    run=run,
)
