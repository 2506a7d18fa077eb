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
    description="Write one HTML page that needs no network, its plots as PNG files and a CSV file of all values. Runs that\n"
    "differ only in the seed are grouped. Values of different protocols are never put into one column.",
    example="wavegan compare runs/demo runs/base_only --out comparison",
    arguments=(
        argument("runs", nargs="+", metavar="RUN", help="run folder, or mlflow:RUN_ID in the store of MLFLOW_TRACKING_URI"),
        argument("--out", type=Path, required=True, metavar="DIR", help="output folder"),
    ),
    run=run,
)
