"""Images per second of `wavegan sample --format shards`, compared with a plain loop.

    python benchmarks/sample.py                     10,000 images of 32 px, three rounds
    python benchmarks/sample.py --resolution 64 --width 64 --count 2000

The plain loop calls the generator on 16 latents, saves each image as PNG with Pillow and adds it to a tar. It runs with
PyTorch's default number of threads, and with one. All variants run in turn in each round; the ratios are medians of
the ratios of a round. "CPU" is the CPU time of the whole process, which other load on the machine disturbs less. The generator
is untrained, but its batch normalization has the statistics of its own features, so that images have contrast. Writes
benchmarks/results/sample-RESOLUTION.json.
"""

import argparse
import os
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from bench_common import argument_parser, write_result
from generation import normalized_generator
from PIL import Image

from wavegan_dist.config import Experiment
from wavegan_dist.images import to_uint8
from wavegan_dist.model.generate import CHUNK
from wavegan_dist.model.snapshot import Snapshot
from wavegan_dist.provenance import provenance
from wavegan_dist.sample import sample
from wavegan_dist.sample.shards import divide

PARTS = ("generator", "png", "tar")


class Timing(NamedTuple):
    """Seconds of one variant in one round, and the seconds of each part of a plain loop."""

    wall: float
    cpu: float
    parts: dict[str, float]


def main() -> None:
    """Measure one resolution, print a table and write the result."""
    options = parse_arguments()
    snapshot, default = untrained(options.resolution, options.width), torch.get_num_threads()
    variants: dict[str, Callable[[int, Path], dict[str, float]]] = {
        f"plain loop, {default} threads": lambda count, out: plain_loop(snapshot, count, out, default),
        "plain loop, 1 thread": lambda count, out: plain_loop(snapshot, count, out, 1),
        "wavegan sample": lambda count, out: wavegan_sample(snapshot, count, out),
    }
    timings: dict[str, list[Timing]] = {name: [] for name in variants}
    for round_number in range(options.rounds + 1):  # the first round warms up
        for name, variant in variants.items():
            timing = measure(variant, options.count if round_number else 10 * CHUNK)
            if round_number:
                timings[name].append(timing)
    rows = [row(name, timings, options.count) for name in variants]
    print(f"{'':24}  images/s  wavegan sample is x  CPU ms/image")
    for line in rows:
        shares = ", ".join(f"{part} {share:.0%}" for part, share in line["shares"].items())
        print(f"{line['name']:24}  {line['images_per_second']:8.0f}  {line['ratio']:19.2f}  {line['cpu_ms']:12.2f}  {shares}")
    about = {"resolution": options.resolution, "width": options.width, "count": options.count, "rounds": options.rounds}
    write_result(f"sample-{options.resolution}", {**about, "rows": rows, "cores": os.cpu_count(), **provenance()})


def untrained(resolution: int, width: int) -> Snapshot:
    """Return a snapshot of an untrained generator whose images have contrast."""
    model = {"resolution": resolution, "width": width, "z_dim": 128}
    config = Experiment.model_validate({"data": {"index": "none"}, "model": model})
    return Snapshot(Path("untrained"), normalized_generator(config), config, 0, "0" * 64, "0" * 64, 10.0)


def wavegan_sample(snapshot: Snapshot, count: int, out: Path) -> dict[str, float]:
    """Write `count` images as shards."""
    sample(snapshot, count, 0, out, format="shards")
    return {}


def plain_loop(snapshot: Snapshot, count: int, out: Path, threads: int) -> dict[str, float]:
    """Write `count` images as shards of the same size, without threads or a resumable folder; return seconds of each part."""
    seconds = dict.fromkeys(PARTS, 0.0)
    out.mkdir()
    torch.set_num_threads(threads)
    draws, resolution = torch.Generator().manual_seed(0), snapshot.config.model.resolution
    for number, part in enumerate(divide(count, resolution)):
        with tarfile.open(out / f"shard-{number:06d}.tar", "w") as tar:
            for first in range(part.start, part.stop, CHUNK):
                began = time.perf_counter()
                with torch.no_grad():
                    images = to_uint8(snapshot.generator(torch.randn(CHUNK, 128, generator=draws)))
                seconds["generator"] += time.perf_counter() - began
                for key, image_chw in zip(range(first, part.stop), images, strict=False):
                    began = time.perf_counter()
                    content = BytesIO()
                    Image.fromarray(image_chw.permute(1, 2, 0).numpy()).save(content, format="PNG")
                    encoded = time.perf_counter()
                    header = tarfile.TarInfo(f"{key:08d}.png")
                    header.size = content.tell()
                    content.seek(0)
                    tar.addfile(header, content)
                    seconds["png"] += encoded - began
                    seconds["tar"] += time.perf_counter() - encoded
    return seconds


def measure(variant: Callable[[int, Path], dict[str, float]], count: int) -> Timing:
    """Run one variant into a temporary folder and check the number of images."""
    threads = torch.get_num_threads()
    with TemporaryDirectory() as folder:
        out = Path(folder, "out")
        wall, cpu = time.perf_counter(), time.process_time()
        parts = variant(count, out)
        timing = Timing(time.perf_counter() - wall, time.process_time() - cpu, parts)
        written = sum(len(tarfile.open(path).getnames()) for path in out.glob("*.tar"))  # noqa: SIM115
    torch.set_num_threads(threads)
    assert written == count
    return timing


def row(name: str, timings: dict[str, list[Timing]], count: int) -> dict[str, Any]:
    """Return the speed of one variant, how many times as fast `wavegan sample` is, and the share of each part of a loop."""
    walls = [timing.wall for timing in timings[name]]
    ratios = [wall / ours.wall for wall, ours in zip(walls, timings["wavegan sample"], strict=True)]
    shares = [{part: seconds / timing.wall for part, seconds in timing.parts.items()} for timing in timings[name]]
    return {
        "name": name,
        "images_per_second": count / median(walls),
        "ratio": median(ratios),
        "ratios": ratios,
        "cpu_ms": median(timing.cpu for timing in timings[name]) / count * 1000,
        "shares": {part: median(share[part] for share in shares) for part in shares[0]},
    }


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--resolution", type=int, default=32, metavar="PX", help="image side (default: 32)")
    parser.add_argument("--width", type=int, default=32, metavar="C", help="width of the networks (default: 32)")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="images (default: 10,000)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measured rounds (default: 3)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
