"""Arguments that several commands share, and the types of their values."""

import argparse
from pathlib import Path

from wavegan_dist.cli.command import argument


def positive_int(text: str) -> int:
    """Return an integer >= 1 from an argument. Other texts raise ArgumentTypeError or ValueError, which argparse reports."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def png_file(text: str) -> Path:
    """Return the path of a PNG file to write. Raises ArgumentTypeError if it does not end in .png."""
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text} does not end in .png; images are written as PNG only")
    return Path(text)


def seed(text: str) -> int:
    """Return an integer from 0 to 2**63 - 1 from an argument.

    Another integer raises ArgumentTypeError, any other text ValueError; argparse reports both.
    """
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} is not a seed; give 0 or more")
    return value


EXPERIMENT = (
    argument("--config", type=Path, required=True, metavar="FILE", help="YAML file of the experiment"),
    argument("overrides", nargs="*", metavar="key=value", help="settings that override those of the file"),
)
RUN_DIR = argument("--run-dir", type=Path, metavar="DIR", help="run folder (default: runs/NAME_OF_CONFIG)")
SEED = argument(
    "--seed", type=seed, default=0, metavar="S", help="seed of the generated images and of the metrics (default: 0)"
)
EXACT = argument(
    "--exact",
    action="store_true",
    help="generate 16 images at a time, as CPUs always do, so that image i is the same bit for bit in every run; without "
    "this, GPUs generate as many as fill the card, and a few pixels may differ from --exact by 1 of 255 gray levels",
)
CACHE = argument(
    "--cache", type=Path, metavar="DIR", help="folder for shards that are not on this machine (default: data.cache of the run)"
)
JSON = argument("--json", action="store_true", help="print JSON")


def run_dir_of(options: argparse.Namespace) -> Path:
    """Return the folder that `--run-dir` names, by default runs/NAME, where NAME.yaml is the file `--config`. Creates nothing.

    Raises:
        UsageError: there cannot be a folder with this name, or it may not be written to.
    """
    from wavegan_dist.files import check_folder

    folder = Path(options.run_dir or Path("runs") / options.config.stem)
    check_folder(folder, f"--run-dir {folder}")
    return folder
