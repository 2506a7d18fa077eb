"""`wavegan sample`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.arguments import EXACT, SEED, positive
from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.devices import find_device
    from wavegan_dist.evaluate.sample import sample
    from wavegan_dist.model.snapshot import load_snapshot

    device = find_device(options.device)
    snapshot = load_snapshot(options.snapshot)
    sample(snapshot, options.count, options.seed, options.out, device, exact=options.exact, classes=options.classes)
    print(options.out)


SAMPLE = Command(
    name="sample",
    help="generate images from a snapshot",
    description="Generate images with a snapshot's EMA generator. Image i depends on the seed and i only.",
    example="wavegan sample --snapshot runs/demo/snapshots/kimg-000100 --count 64 --seed 1 --out grid.png",
    arguments=(
        argument("--snapshot", type=Path, required=True, metavar="DIR", help="snapshot folder"),
        argument("--count", type=positive, default=64, metavar="N", help="number of images (default: 64)"),
        SEED,
        argument(
            "--class",
            dest="classes",
            metavar="N|NAME|LIST",
            help="class of the images, or a comma-separated list of classes in equal parts, a row of the grid for each "
            "(default: drawn with the frequencies of the training data)",
        ),
        argument(
            "--out",
            type=Path,
            required=True,
            metavar="DIR_OR_PNG",
            help="a .png file for an image grid, or a new folder for one file per image",
        ),
        argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: the GPU if there is one, else cpu)"),
        EXACT,
    ),
    run=run,
)
