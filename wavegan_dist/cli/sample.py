"""`wavegan sample`."""

import argparse
from pathlib import Path
from typing import Any

from wavegan_dist.cli.parsing import positive, seed


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "sample",
        help="draw images from a snapshot",
        description="Draw images from a snapshot's EMA generator. Image i depends on the seed and i only.",
        epilog="example: wavegan sample --snapshot runs/demo/snapshots/kimg-000100 --count 64 --seed 1 --out grid.png",
    )
    command.add_argument("--snapshot", type=Path, required=True, metavar="DIR")
    command.add_argument("--count", type=positive, default=64, metavar="N", help="images (default: 64)")
    command.add_argument("--seed", type=seed, default=0, metavar="S")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR_OR_PNG", help="one grid if it ends in .png, else a folder"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from wavegan_dist.evaluate.generate import sample
    from wavegan_dist.model.snapshot import load_snapshot

    sample(load_snapshot(options.snapshot), options.count, options.seed, options.out)
    print(options.out)
