"""`wavegan evaluate`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.arguments import SEED, positive
from wavegan_dist.cli.command import Command, argument

MEASURES = (
    argument("--metrics", default="fwd,fwd_db2,spectrum,bands,fd,kid,prc", metavar="LIST", help="default: all of them but fid"),
    argument("--count", type=positive, metavar="N", help="images of each kind (default: 5000, or half of the real ones)"),
    SEED,
    argument(
        "--extractor",
        default="efflite0",
        choices=("efflite0", "inception", "dinov2"),
        help="for fd, kid, prc (default: efflite0)",
    ),
    argument("--inception-weights", type=Path, metavar="FILE", help="torch-fidelity's Inception, for fid"),
    argument("--dinov2-weights", type=Path, metavar="FILE", help="dinov2_vits14_pretrain.pth, vitb14 or vitl14"),
)


def measures(options: argparse.Namespace) -> list[str]:
    """The arguments that describe the same `MEASURES` to another `wavegan evaluate`."""
    given = {
        name: getattr(options, name)
        for name in ("metrics", "count", "seed", "extractor", "inception_weights", "dinov2_weights")
    }
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.evaluate.evaluate import evaluate_snapshot
    from wavegan_dist.evaluate.registry import ExtractorWeights
    from wavegan_dist.run_folder import RunFolder

    result = evaluate_snapshot(
        options.snapshot,
        options.data,
        metrics=options.metrics.split(","),
        count=options.count,
        seed=options.seed,
        weights=ExtractorWeights(options.extractor, options.inception_weights, options.dinov2_weights),
    )
    if result is None:  # only rank 0 has the result
        return
    name = options.snapshot.resolve().name
    run = RunFolder.of_snapshot(options.snapshot)
    out = options.json or (run.evaluation(name) if run else None)
    if out is not None:
        result.write(out)
    if run is not None:
        result.publish(run, name)
    print(result.table())
    if out is not None:
        print(out)


EVALUATE = Command(
    name="evaluate",
    help="measure a snapshot against real images",
    description="Measure a snapshot's EMA generator against real images by fwd, fwd_db2, spectrum, bands, fd, kid, prc\n"
    "and fid. Under `accelerate launch -m wavegan_dist evaluate ...` processes share the work; the numbers are the same.",
    example="wavegan evaluate --snapshot runs/demo/snapshots/kimg-000100 --data data/demo/index.json --count 2000",
    arguments=(
        argument("--snapshot", type=Path, required=True, metavar="DIR"),
        argument("--data", type=Path, required=True, metavar="INDEX", help="index.json of the real images"),
        *MEASURES,
        argument("--json", type=Path, metavar="FILE", help="default: RUN/evaluations/SNAPSHOT.json for a run's snapshot"),
    ),
    run=run,
)
