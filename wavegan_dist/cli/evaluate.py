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
        description="Measure a snapshot's EMA generator against real images by fwd, fwd_db2, spectrum, bands, fd, kid, prc\n"
        "and fid. Under `accelerate launch -m wavegan_dist evaluate ...` processes share the work; the numbers are the same.",
        epilog="example: wavegan evaluate --snapshot runs/demo/snapshots/kimg-000100 --data data/demo/index.json --count 2000",
    )
    command.add_argument("--snapshot", type=Path, required=True, metavar="DIR")
    command.add_argument("--data", type=Path, required=True, metavar="INDEX", help="index.json of the real images")
    add_measures(command)
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="default: RUN/evaluations/SNAPSHOT.json for a run's snapshot"
    )
    command.set_defaults(run=run)


def add_measures(command: Any) -> None:
    """What is measured and how."""
    command.add_argument(
        "--metrics", default="fwd,fwd_db2,spectrum,bands,fd,kid,prc", metavar="LIST", help="default: all of them but fid"
    )
    command.add_argument(
        "--count", type=positive, metavar="N", help="images of each kind (default: 5000, or half of the real ones)"
    )
    command.add_argument("--seed", type=seed, default=0, metavar="S")
    command.add_argument(
        "--extractor",
        default="efflite0",
        choices=("efflite0", "inception", "dinov2"),
        help="for fd, kid, prc (default: efflite0)",
    )
    command.add_argument("--inception-weights", type=Path, metavar="FILE", help="torch-fidelity's Inception, for fid")
    command.add_argument("--dinov2-weights", type=Path, metavar="FILE", help="dinov2_vits14_pretrain.pth, vitb14 or vitl14")


def measures(options: argparse.Namespace) -> list[str]:
    """The arguments that `add_measures` took, for another `wavegan evaluate`."""
    given = {
        name: getattr(options, name)
        for name in ("metrics", "count", "seed", "extractor", "inception_weights", "dinov2_weights")
    }
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


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
        weights=evaluate.ExtractorWeights(options.extractor, options.inception_weights, options.dinov2_weights),
    )
    if result is None:  # rank 0 tells
        return
    snapshot = options.snapshot.resolve()
    run = snapshot.parent.parent
    of_run = snapshot.parent.name == "snapshots"
    out = options.json or (run / "evaluations" / f"{snapshot.name}.json" if of_run else None)
    if out is not None:
        evaluate.save_result(result, out)
        if "spectrum" in result["tables"]:
            evaluate.plot_spectrum(result["tables"]["spectrum"], out.with_suffix(".png"))
    if of_run:
        log_evaluation(run, snapshot.name, result)
    print(evaluate.format_table(result))
    if out is not None:
        print(out)
