"""`wavegan doctor`."""

import argparse
import json

from wavegan_dist.cli.arguments import JSON
from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.doctor import examine, format_report
    from wavegan_dist.wavelet import build

    if options.build:
        build()
    report = examine()
    print(json.dumps(report, indent=2) if options.json else format_report(report))


DOCTOR = Command(
    name="doctor",
    help="show versions, devices, kernels in use and missing packages",
    description="Show versions, devices, which kernels of the wavelet transform are in use and why, and which optional\n"
    "packages are missing.",
    example="wavegan doctor --build",
    arguments=(
        argument("--build", action="store_true", help="compile the CPU kernels now, even if an earlier attempt failed"),
        JSON,
    ),
    run=run,
)
