"""`wavegan explain`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.arguments import CACHE, SEED, positive_int
from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.explain import explain

    print(explain(options.snapshot, options.out, options.count, options.seed, options.classes, options.data, options.cache))


EXPLAIN = Command(
    name="explain",
    help="show what each network contributes to the images: an HTML page",
    description="Write an HTML page that shows what each network of a snapshot contributes to its images: bands, energies,\n"
    "power spectra, swapped latents, and the discriminators' scores if the run still has a checkpoint. The page loads\n"
    "nothing from the network.",
    example="wavegan explain --snapshot runs/demo/snapshots/kimg-000144 --data data/demo/index.json --out explain.html",
    arguments=(
        argument("--snapshot", type=Path, required=True, metavar="DIR", help="snapshot folder"),
        argument("--data", metavar="INDEX", help="index.json of the training data, to compare with (default: no comparison)"),
        CACHE,
        argument("--count", type=positive_int, default=8, metavar="N", help="number of images to show (default: 8)"),
        SEED,
        argument(
            "--class",
            dest="classes",
            metavar="N|NAME|LIST",
            help="class of the images, or a comma-separated list of classes that the images take turns in (default: drawn with "
            "the frequencies of the training data)",
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
