"""Draw samples of several snapshots, made from the same latents, below each other, after real images if --data names some.

    python benchmarks/samples_figure.py --data data/photos64/index.json --out docs/samples.png \
        'full=runs/a/snapshots/kimg-000100' 'image only=runs/b/snapshots/kimg-000139'
"""

import math
from pathlib import Path

import matplotlib
import torch
from bench_common import argument_parser
from torch import Tensor

from wavegan_dist.data import Index, images_at
from wavegan_dist.evaluate.real_images import draw_subsets
from wavegan_dist.model.snapshot import load_snapshot, snapshot_images

matplotlib.use("agg")
import matplotlib.pyplot as plt

COLUMNS, DPI, SCALE = 16, 100, 2  # images of a line; pixels of the figure for each pixel of an image


def lines(images: Tensor) -> Tensor:
    """Arrange uint8 [N, 3, S, S] in lines of COLUMNS images, uint8 [H, W, 3]."""
    side = images.shape[-1]
    grid = images.view(-1, COLUMNS, 3, side, side).permute(0, 3, 1, 4, 2)
    return grid.reshape(-1, COLUMNS * side, 3)


def main() -> None:
    """Write the figure."""
    parser = argument_parser(__doc__)
    parser.add_argument("snapshots", nargs="+", metavar="LABEL=SNAPSHOT")
    parser.add_argument("--data", type=Path, help="index of the real images (default: none are drawn)")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    parser.add_argument("--lines", type=int, default=2, help=f"lines of {COLUMNS} images of each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count, rows = COLUMNS * options.lines, {}
    if options.data is not None:
        index = Index.load(options.data)
        rows["real"] = lines(torch.cat(list(images_at(index, draw_subsets(index, count, options.seed)[0], count))))
    for text in options.snapshots:
        label, _, snapshot = text.rpartition("=")
        rows[label] = lines(torch.cat(list(snapshot_images(load_snapshot(Path(snapshot)), range(count), options.seed, count))))
    height, width = (side * SCALE / DPI for side in next(iter(rows.values())).shape[:2])
    size = (width, (height + 0.25) * len(rows))
    figure, axes = plt.subplots(len(rows), 1, figsize=size, dpi=DPI, layout="constrained", squeeze=False)
    for axis, (label, image) in zip(axes.flat, rows.items(), strict=True):
        axis.imshow(image.cpu().numpy(), interpolation="nearest")
        axis.set_title(label, loc="left", fontsize=12, pad=3)
        axis.set_axis_off()
    figure.savefig(options.out, pil_kwargs={"optimize": True})
    print(options.out, f"{math.ceil(options.out.stat().st_size / 1024)} KiB")


if __name__ == "__main__":
    main()
