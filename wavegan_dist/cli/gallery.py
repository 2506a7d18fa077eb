"""`wavegan gallery`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.arguments import CACHE, positive_int
from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.gallery import gallery

    print(gallery(options.runs, options.out, options.data, options.count, options.cache))


GALLERY = Command(
    name="gallery",
    help="show samples over training, interpolations, nearest training images: an HTML page",
    description="Write an HTML page with the pictures of runs: samples over training with a slider, interpolations between\n"
    "latents, and with --data the training images that are nearest to samples, which shows whether the generator copies.\n"
    "The page loads nothing from the network.",
    example="wavegan gallery runs/demo --data data/demo/index.json --out gallery.html",
    arguments=(
        argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder"),
        argument("--data", metavar="INDEX", help="index.json of the training data of all runs (default: no neighbors)"),
        CACHE,
        argument(
            "--count", type=positive_int, default=8, metavar="N", help="samples to show with their neighbors (default: 8)"
        ),
        argument(
            "--out",
            type=Path,
            required=True,
            metavar="HTML_OR_DIR",
            help="the .html file to write, or a folder for an index.html",
        ),
    ),
    run=run,
)
