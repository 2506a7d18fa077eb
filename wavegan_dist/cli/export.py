"""`wavegan export`."""

import argparse
from pathlib import Path

from wavegan_dist.cli.command import Command, argument


def run(options: argparse.Namespace) -> None:
    from wavegan_dist.export.export import export
    from wavegan_dist.export.formats import find_formats
    from wavegan_dist.files import check_folder
    from wavegan_dist.model.snapshot import load_snapshot

    formats = find_formats(options.format)
    check_folder(options.out, f"--out {options.out}")
    for path in export(load_snapshot(options.snapshot), options.out, formats):
        print(path)


EXPORT = Command(
    name="export",
    help="write the generator of a snapshot as ONNX or for torch.export.load",
    description="Write a snapshot's EMA generator as files that run without this package, and check each of them against it.",
    example="wavegan export --snapshot runs/demo/snapshots/kimg-000144 --out exported --format onnx,pt2",
    arguments=(
        argument("--snapshot", type=Path, required=True, metavar="DIR", help="snapshot folder"),
        argument("--out", type=Path, required=True, metavar="DIR", help="folder of the files; files in it are replaced"),
        argument(
            "--format",
            default="onnx,pt2",
            metavar="LIST",
            help="comma-separated list of: onnx (generator.onnx; float32 images in [-1, 1]), onnx-uint8 (generator-uint8.onnx; "
            "pixels 0..255, as torch-fidelity takes them), pt2 (generator.pt2, for torch.export.load) (default: onnx,pt2)",
        ),
    ),
    run=run,
)
