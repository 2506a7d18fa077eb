"""`wavegan track sync`."""

import argparse
from pathlib import Path
from typing import Any

from wavegan_dist.cli.parsing import Parser


def add(commands: Any) -> None:
    """Add the command to the command line."""
    track = commands.add_parser("track", help="deliver to MLflow what a run could not")
    kinds = track.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    command = kinds.add_parser(
        "sync",
        help="send what is left",
        description="Send to MLflow the points, pictures and files of a run that could not be sent while it ran.",
        epilog="example: wavegan track sync runs/demo",
    )
    command.add_argument("run_dir", type=Path, metavar="RUN")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from wavegan_dist.tracking import sync, told

    print(f"sent {told(sync(options.run_dir))}")
