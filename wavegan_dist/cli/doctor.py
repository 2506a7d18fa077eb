"""`wavegan doctor`."""

import argparse
import json
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "doctor",
        help="versions, devices, which kernel is in use and why, what is missing",
        description="Say what this machine has: versions, devices, the wavelet transform's kernels and why these.",
        epilog="example: wavegan doctor --build",
    )
    command.add_argument("--build", action="store_true", help="compile the CPU kernels now, also after an earlier failure")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from wavegan_dist.doctor import as_text, examine
    from wavegan_dist.wavelet import build

    if options.build:
        build()
    found = examine()
    print(json.dumps(found, indent=2) if options.json else as_text(found))
