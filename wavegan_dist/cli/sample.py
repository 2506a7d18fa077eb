"""`wavegan sample`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.arguments import EXACT, positive_int, seed
from wavegan_dist.cli.command import Command, argument

FORMATS = ("grid", "folder", "shards", "walk")


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.devices import find_device
    from wavegan_dist.model.snapshot import load_snapshot
    from wavegan_dist.sample import sample

    device = find_device(options.device)
    snapshot = load_snapshot(options.snapshot)
    sample(
        snapshot,
        options.count,
        options.seed,
        options.out,
        device,
        exact=options.exact,
        classes=options.classes,
        seeds=options.seeds,
        truncation=options.truncation,
        format=options.format,
        walk=options.walk,
    )
    print(options.out)


SAMPLE = Command(
    name="sample",
    help="generate images from a snapshot",
    description="""Generate images with a snapshot's EMA generator. Image i depends on the seed and i only.

The name of --out says what is written: a grid (.png), a walk through latents as an animation (.gif, .webp), or a folder of PNG
files. A command that is interrupted while it writes a folder continues when it is started again.""",
    example="wavegan sample --snapshot runs/demo/snapshots/kimg-000144 --count 64 --seed 1 --out grid.png",
    arguments=(
        argument("--snapshot", type=Path, required=True, metavar="DIR", help="snapshot folder"),
        argument(
            "--count",
            type=positive_int,
            metavar="N",
            help="number of images, or of the latents that a walk passes through (default: 64; for a walk 8)",
        ),
        argument("--seed", type=seed, metavar="S", help="seed of the images (default: 0)"),
        argument(
            "--seeds",
            metavar="LIST",
            help="seeds and ranges of seeds, such as 1,5-8: makes the first image of each, and names its file by the seed",
        ),
        argument(
            "--class",
            dest="classes",
            metavar="N|NAME|LIST",
            help="class of the images, or a comma-separated list of classes in equal parts, a row of the grid for each "
            "(default: drawn with the frequencies of the training data)",
        ),
        argument(
            "--truncation",
            type=float,
            default=1.0,
            metavar="PSI",
            help="multiply the latents by PSI, above 0 and at most 1: less variety (default: 1)",
        ),
        argument(
            "--out",
            type=Path,
            required=True,
            metavar="PATH",
            help="a .png file for an image grid, a .gif or .webp file for a walk, or a new folder",
        ),
        argument(
            "--format",
            choices=FORMATS,
            help="what to write (default: by the name of --out, and a folder holds one PNG file per image); shards are "
            "WebDataset tars in the folder --out",
        ),
        argument("--walk", type=positive_int, metavar="N", help="number of frames of a walk, 25 a second; the walk is a loop"),
        argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: the GPU if there is one, else cpu)"),
        EXACT,
    ),
    run=run,
)
