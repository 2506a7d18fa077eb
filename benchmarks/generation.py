"""Speed of a generator by the number of images per forward, and how its images differ from those of exact mode.

    python benchmarks/generation.py                           on the GPU if there is one, else on the CPU
    python benchmarks/generation.py --resolution 32 --rounds 9 --device cpu

Exact mode (16 latents per forward) is the baseline. All batch sizes run interleaved, and each generates the same images; times
are medians over the rounds and include the latents and the conversion to uint8. The generator is untrained, but its batch
normalization has the statistics of its own features, so that images have contrast. Writes benchmarks/results/generation*.json.
"""

import argparse
import os
import time
from statistics import median
from typing import Any

import torch
from bench_common import argument_parser, write_result
from torch import Tensor, nn

from wavegan_dist.config import Experiment
from wavegan_dist.devices import find_device
from wavegan_dist.model import WaveletGenerator
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.generate import CHUNK, batch_that_fills_a_gpu, generated_images
from wavegan_dist.provenance import provenance

BATCHES = (CHUNK, 32, 64, 256, 1024)


def main() -> None:
    """Measure one resolution, print a table and write the result."""
    options = parse_arguments()
    device = find_device(options.device)
    experiment = Experiment.model_validate(
        {"data": {"index": "none"}, "model": {"resolution": options.resolution, "width": options.width}}
    )
    generator = normalized_generator(experiment).to(device)
    fill = batch_that_fills_a_gpu(options.resolution, options.width)
    count = options.count or (256 if device.type == "cpu" else 4 * fill)
    batches = [batch for batch in sorted({*BATCHES, fill}) if batch <= count]
    seconds: dict[str, list[float]] = {"exact": [], **{str(batch): [] for batch in batches}}
    images: dict[str, Tensor] = {}
    for round_number in range(options.rounds + 1):  # the first round warms up
        for name, times in seconds.items():
            elapsed, images[name] = generate(generator, count, name, device)
            if round_number:
                times.append(elapsed)
    rows = [row(name, count, seconds, images) for name in seconds]
    for line in rows:
        print(
            "{batch:>8}  {images_per_second:>9.1f} images/s  x{ratio:<6.3f} differing pixels {share:.1e}, most {most}".format(
                **line
            )
        )
    shape = {"resolution": options.resolution, "width": options.width, "count": count, "fill": fill}
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    about = {"device": hardware, "cores": os.cpu_count(), **provenance()}
    write_result(f"generation-{device.type}-{options.resolution}", {**shape, "rows": rows, **about})


def normalized_generator(experiment: Experiment) -> WaveletGenerator:
    """Build an untrained generator whose batch normalization has the statistics of 64 images."""
    torch.manual_seed(0)
    generator = build_generator(experiment)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the running statistics become those of the only forward
    with torch.no_grad():
        generator(torch.randn(64, experiment.model.z_dim))
    return generator.eval().requires_grad_(False)


def generate(generator: WaveletGenerator, count: int, name: str, device: torch.device) -> tuple[float, Tensor]:
    """Generate images 0..count-1 in batches of `name`, or "exact"; return the seconds and the images on the CPU."""
    exact, size = name == "exact", CHUNK if name == "exact" else int(name)
    began = time.perf_counter()
    batches = list(generated_images(generator, range(count), 0, size, generator.z_dim, device, exact=exact))
    images = torch.cat(batches).cpu()
    return time.perf_counter() - began, images


def row(name: str, count: int, seconds: dict[str, list[float]], images: dict[str, Tensor]) -> dict[str, Any]:
    """Return the speed of one batch size relative to exact mode, and the differences of its pixels in gray levels."""
    difference = (images[name].int() - images["exact"].int()).abs()
    return {
        "batch": name,
        "images_per_second": count / median(seconds[name]),
        "ratio": median(seconds["exact"]) / median(seconds[name]),
        "share": (difference > 0).float().mean().item(),
        "most": int(difference.max()),
    }


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--device", metavar="D", help="cpu, cuda, ... (default: the GPU if there is one)")
    parser.add_argument("--resolution", type=int, default=64, metavar="PX", help="image side (default: 64)")
    parser.add_argument("--width", type=int, default=64, metavar="C", help="width of the networks (default: 64)")
    parser.add_argument("--count", type=int, metavar="N", help="images (default: 256 on a CPU, four batches on a GPU)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measured rounds (default: 5)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
