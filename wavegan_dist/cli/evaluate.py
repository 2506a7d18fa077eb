"""`wavegan evaluate`."""

import argparse
from pathlib import Path
from typing import Any

from wavegan_dist.cli.parsing import positive, seed


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "evaluate",
        help="measure a snapshot against real images",
        description="Measure a snapshot's EMA generator against real images. Metrics: fwd, spectrum, fd, kid, fid.",
        epilog="example: wavegan evaluate --snapshot runs/demo/snapshots/kimg-000100 --data data/demo/index.json --count 2000",
    )
    command.add_argument("--snapshot", type=Path, required=True, metavar="DIR")
    command.add_argument("--data", type=Path, required=True, metavar="INDEX", help="index.json of the real images")
    command.add_argument("--metrics", default="fwd,spectrum,fd,kid", metavar="LIST", help="default: fwd,spectrum,fd,kid")
    command.add_argument("--count", type=positive, metavar="N", help="images of each kind (default: 5000, or all there are)")
    command.add_argument("--seed", type=seed, default=0, metavar="S")
    command.add_argument("--inception-weights", type=Path, metavar="FILE", help="torch-fidelity's Inception, for fid")
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="default: RUN/evaluations/SNAPSHOT.json for a run's snapshot"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from wavegan_dist import evaluate
    from wavegan_dist.tracking import log_evaluation

    result = evaluate.evaluate_snapshot(
        options.snapshot,
        options.data,
        metrics=options.metrics.split(","),
        count=options.count,
        seed=options.seed,
        inception_weights=options.inception_weights,
    )
    run = options.snapshot.resolve().parent.parent
    of_run = options.snapshot.resolve().parent.name == "snapshots"
    out = options.json or (run / "evaluations" / f"{options.snapshot.resolve().name}.json" if of_run else None)
    if out is not None:
        evaluate.save_result(result, out)
        if "spectrum" in result["tables"]:
            evaluate.plot_spectrum(result["tables"]["spectrum"], out.with_suffix(".png"))
    if of_run:
        log_evaluation(run, options.snapshot.resolve().name, result)
    print(evaluate.format_table(result))
    if out is not None:
        print(out)
