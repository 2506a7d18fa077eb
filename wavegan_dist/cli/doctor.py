"""`wavegan doctor`."""

import argparse
import json

from wavegan_dist.cli.arguments import JSON
from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.doctor import as_text, examine
    from wavegan_dist.wavelet import build

    if options.build:
        build()
    found = examine()
    print(json.dumps(found, indent=2) if options.json else as_text(found))


DOCTOR = Command(
    name="doctor",
    help="versions, devices, which kernel is in use and why, what is missing",
    description="Say what this machine has: versions, devices, the wavelet transform's kernels and why these.",
    example="wavegan doctor --build",
    arguments=(
        argument("--build", action="store_true", help="compile the CPU kernels now, also after an earlier failure"),
        JSON,
    ),
    run=run,
)
