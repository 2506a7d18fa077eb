"""`wavegan compare`."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "compare",
        help="put runs beside each other: a page, pictures, a table",
        description="Write one HTML page that needs no network, its pictures as PNGs and a CSV of all numbers. Runs of one\n"
        "configuration and several seeds are grouped; numbers of different protocols are never put in one column.",
        epilog="example: wavegan compare runs/demo runs/base_only --out comparison",
    )
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, or mlflow:RUN_ID in the store of MLFLOW_TRACKING_URI"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from wavegan_dist.compare import compare

    print(compare(options.runs, options.out))
