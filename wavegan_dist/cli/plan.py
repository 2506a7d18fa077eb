"""`wavegan plan`."""

import argparse

from wavegan_dist.cli.arguments import EXPERIMENT, JSON
from wavegan_dist.cli.command import Command, argument
from wavegan_dist.log import log

COMPILED = "the prediction is that of eager steps, without train.compile = %s; compiled ones are faster, see docs/gpu.md"


def parse_gpus(text: str) -> list[int]:
    """Parse `--gpus`: "8" is [8]; "8..64" is [8, 16, 32, 64].

    Raises:
        argparse.ArgumentTypeError: a number below 1, or a last number that is not the first times a power of two.
        ValueError: a part is not an integer; argparse reports both errors.
    """
    first, dots, last = text.partition("..")
    start, end = int(first), int(last) if dots else int(first)
    if not 1 <= start <= end:
        raise argparse.ArgumentTypeError(f"{text} is not a number of GPUs; give one such as 64, or a range such as 8..1024")
    counts = [start << power for power in range((end // start).bit_length())]
    if counts[-1] != end:
        raise argparse.ArgumentTypeError(
            f"{end} is not {start} times a power of two; the last number below it would be {counts[-1]}"
        )
    return counts


def run(options: argparse.Namespace) -> None:
    from wavegan_dist import config

    experiment = config.load(options.config, options.overrides)
    from wavegan_dist import plan  # after the configuration is known to be valid: this import takes seconds

    hardware = plan.load_hardware(options.hardware)
    predictions = plan.predict(experiment, hardware, options.gpus)
    if experiment.train.compile != "off":
        log.warning(COMPILED, experiment.train.compile)
    print(plan.plan_json(predictions, hardware) if options.json else plan.format_plan(predictions, hardware))


PLAN = Command(
    name="plan",
    help="predict speed, memory and cost on a given number of GPUs",
    description="Predict images/s, efficiency, memory and cost of each strategy from the operators of the model and a file of\n"
    "device rates. No GPU is needed. docs/scaling.md has the equations and the measured error.",
    example="wavegan plan --config configs/photos64.yaml --gpus 8..256 --hardware h200.yaml",
    arguments=(
        *EXPERIMENT,
        argument(
            "--gpus",
            type=parse_gpus,
            required=True,
            metavar="N|N..M",
            help="number of GPUs, or a range: N, 2N, 4N, ... up to M",
        ),
        argument(
            "--hardware",
            required=True,
            metavar="FILE",
            help="hardware file: a path, or the name of a file in launchers/hardware",
        ),
        JSON,
    ),
    run=run,
)
