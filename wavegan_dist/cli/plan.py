"""`wavegan plan`."""

import argparse

from wavegan_dist.cli.arguments import EXPERIMENT, JSON
from wavegan_dist.cli.command import Command, argument


def gpus(text: str) -> list[int]:
    """8 -> [8]; 8..64 -> [8, 16, 32, 64]."""
    first, dots, last = text.partition("..")
    start, end = int(first), int(last) if dots else int(first)
    if not 1 <= start <= end:
        raise argparse.ArgumentTypeError(f"{text} is no number of GPUs; give 64 or 8..1024")
    counts = [start << power for power in range((end // start).bit_length())]
    if counts[-1] != end:
        raise argparse.ArgumentTypeError(f"{start} doubled does not come to {end}; the last could be {counts[-1]}")
    return counts


def run(options: argparse.Namespace) -> None:
    from wavegan_dist import config

    experiment = config.load(options.config, options.overrides)
    from wavegan_dist import plan

    hardware = plan.load_hardware(options.hardware)
    rows = plan.predict(experiment, hardware, options.gpus)
    print(plan.as_json(rows, hardware) if options.json else plan.format_plan(rows, hardware))


PLAN = Command(
    name="plan",
    help="predict speed, memory and cost on so many GPUs",
    description="Predict images/s, efficiency, memory and cost of each strategy on GPUs that need not be here, from the\n"
    "model's counted operations and a file of device rates. docs/scaling.md has the equations and their error.",
    example="wavegan plan --config configs/photos64.yaml --gpus 8..256 --hardware h100.yaml",
    arguments=(
        *EXPERIMENT,
        argument(
            "--gpus", type=gpus, required=True, metavar="N|N..M", help="one number, or doubled from the first to the last"
        ),
        argument("--hardware", required=True, metavar="FILE", help="a file of rates, or the name of one in launchers/hardware"),
        JSON,
    ),
    run=run,
)
