"""`wavegan evaluate`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.arguments import CACHE, EXACT, SEED, positive_int
from wavegan_dist.cli.command import Command, argument
from wavegan_dist.log import printable

DEFAULT_CLASS_IMAGES = 50


def _without_blanks(text: str) -> str:
    return "".join(text.split())


METRIC_ARGUMENTS = (
    argument(
        "--metrics",
        type=_without_blanks,
        metavar="LIST",
        help="comma-separated metrics (default: all except fid; those that need more than --count images are left out)",
    ),
    argument(
        "--count",
        type=positive_int,
        metavar="N",
        help="images in each set (default: 5000, or half of the real images if that is less)",
    ),
    SEED,
    argument(
        "--extractor",
        default="efflite0",
        choices=("efflite0", "inception", "dinov2"),
        help="network that computes the features of fd, kid and prc (default: efflite0)",
    ),
    argument(
        "--inception-weights",
        type=Path,
        metavar="FILE",
        help="torch-fidelity's Inception weights, for fid and the extractor inception",
    ),
    argument(
        "--dinov2-weights",
        type=Path,
        metavar="FILE",
        help="DINOv2 checkpoint of its authors: dinov2_vits14_pretrain.pth, or vitb14 or vitl14",
    ),
    EXACT,
    argument(
        "--per-class",
        type=positive_int,
        nargs="?",
        const=DEFAULT_CLASS_IMAGES,
        metavar="N",
        help=f"also compute fwd, swd, spectrum, bands, glcm and compression for each class with at least N images in both "
        f"sets (default: {DEFAULT_CLASS_IMAGES})",
    ),
)


def metric_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options `METRIC_ARGUMENTS`, as parsed, as words of the command line of another `wavegan evaluate`."""
    values = {
        name: getattr(options, name)
        for name in ("metrics", "count", "seed", "extractor", "inception_weights", "dinov2_weights", "per_class")
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    return [*arguments, "--exact"] if options.exact else arguments


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.evaluate.evaluate import evaluate_snapshot
    from wavegan_dist.evaluate.publish import check_result_file, publish_result, write_result
    from wavegan_dist.evaluate.registry import ExtractorWeights
    from wavegan_dist.run_folder import RunFolder

    name = options.snapshot.resolve().name
    folder = RunFolder.of_snapshot(options.snapshot)
    out = options.json or (folder.evaluation(name) if folder else None)
    metrics = None if options.metrics is None else options.metrics.split(",")
    if out is not None:
        check_result_file(out, metrics)
    result = evaluate_snapshot(
        options.snapshot,
        options.data,
        metrics=metrics,
        count=options.count,
        seed=options.seed,
        weights=ExtractorWeights(options.extractor, options.inception_weights, options.dinov2_weights),
        exact=options.exact,
        per_class=options.per_class,
        cache=options.cache,
    )
    if result is None:  # only rank 0 has the result
        return
    print(printable(result.table()), flush=True)
    if out is not None:
        write_result(result, out)
        if folder is not None:
            publish_result(result, folder, name, out)
        print(out)


def _result_file(text: str) -> Path:
    if text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text} is the name of the spectrum's plot; give a name that ends in .json")
    return Path(text)


EVALUATE = Command(
    name="evaluate",
    help="compute metrics between images of a snapshot and real images",
    description="Compute the metrics fwd, fwd_db2, swd, spectrum, bands, glcm, compression, fd, kid, prc and fid between\n"
    "images of a snapshot's EMA generator and real images. With `accelerate launch -m wavegan_dist evaluate ...`, several\n"
    "processes share the work; the values are the same.",
    example="wavegan evaluate --snapshot runs/demo/snapshots/kimg-000144 --data data/demo/index.json --count 2000",
    arguments=(
        argument("--snapshot", type=Path, required=True, metavar="DIR", help="snapshot folder"),
        argument("--data", required=True, metavar="INDEX", help="index.json of the real images, or its URL"),
        CACHE,
        *METRIC_ARGUMENTS,
        argument("--json", type=_result_file, metavar="FILE", help="result file (default: RUN/evaluations/SNAPSHOT.json)"),
    ),
    run=run,
)
