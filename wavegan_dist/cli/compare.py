"""`wavegan compare`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.compare import compare

    print(compare(options.runs, options.out))


COMPARE = Command(
    name="compare",
    help="put runs beside each other: a page, pictures, a table",
    description="Write one HTML page that needs no network, its pictures as PNGs and a CSV of all numbers. Runs of one\n"
    "configuration and several seeds are grouped; numbers of different protocols are never put in one column.",
    example="wavegan compare runs/demo runs/base_only --out comparison",
    arguments=(
        argument("runs", nargs="+", metavar="RUN", help="run folders, or mlflow:RUN_ID in the store of MLFLOW_TRACKING_URI"),
        argument("--out", type=Path, required=True, metavar="DIR"),
    ),
    run=run,
)
