"""`wavegan compare`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.compare import compare

    print(compare(options.runs, options.out))


COMPARE = Command(
    name="compare",
    help="compare runs: an HTML page, plots, a CSV file",
    description="Write an HTML page that compares runs, its plots as PNG files, and all values as a CSV file. The page loads\n"
    "nothing from the network. Runs that differ only in the seed are grouped. Values of different protocols are never\n"
    "put into one column.",
    example="wavegan compare runs/demo runs/base_only --out comparison",
    arguments=(
        argument(
            "runs",
            nargs="+",
            metavar="RUN",
            help="run folder, or mlflow:RUN_ID for a run in the store that MLFLOW_TRACKING_URI names",
        ),
        argument("--out", type=Path, required=True, metavar="DIR", help="output folder"),
    ),
    run=run,
)
