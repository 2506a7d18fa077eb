"""`wavegan evaluate`, compared with torch-fidelity's command on the same extractor and images; floors; memory.

    make bench-evaluation           or: python benchmarks/evaluation.py --count 1800
    python benchmarks/evaluation.py --floors        distances between disjoint real sets, by count
    python benchmarks/evaluation.py --memory        peak memory of FWD, by count

One thread per process, no caches. Timed are complete commands: start-up, decoding, features, distance. Both sides use the same
images. The real images are those of the demo; the set holds exactly as many as are evaluated, so that `wavegan evaluate`
computes no floor. The generated images come from an untrained snapshot: `wavegan evaluate` generates them, torch-fidelity reads
them as PNGs and decodes them in 4 workers. Writes benchmarks/results/evaluation*.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from bench_common import argument_parser, write_result

from wavegan_dist import config
from wavegan_dist.data import Index, images_at, real_images, write_shards
from wavegan_dist.evaluate.accumulate import BATCH, compute_statistics
from wavegan_dist.evaluate.compression import compression_metric
from wavegan_dist.evaluate.glcm import glcm_metric
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.real_images import draw_subsets
from wavegan_dist.evaluate.sliced_distance import SlicedDistance
from wavegan_dist.evaluate.spectrum import SpectrumError
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance
from wavegan_dist.images import save_png
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot
from wavegan_dist.provenance import provenance
from wavegan_dist.wavelet.cpu.build import library

DATA = Path("data/demo")
FIDELITY = "import wavegan_dist.evaluate.efflite0; from torch_fidelity.fidelity import main; main()"
LAUNCH = ("-m", "accelerate.commands.launch", "--config_file", "launchers/accelerate/cpu2.yaml", "--main_process_port", "0")
FLOOR_COUNTS = (300, 1000, 2000, 5000)
FLOORS_SHOWN = ("fwd", "fwd_db2", "swd", "swd_high", "spectrum_db", "glcm_bits", "compression_bpp")
MEMORY_COUNTS = (2_000, 50_000)
MEMORY_SIZE = 64


def main() -> None:
    """Measure what the options ask for, print a table and write the result."""
    options = parse_arguments()
    torch.set_num_threads(1)
    if options.memory_of:
        print(json.dumps(fwd(options.memory_of)))
        return
    if options.floors:
        name, result = "evaluation-floors", floors()
    elif options.memory:
        name, result = "evaluation-memory", memory()
    else:
        name, result = "evaluation", speed(options.count)
    write_result(name, {**result, "cores": os.cpu_count(), **provenance()})


def speed(count: int) -> dict[str, Any]:
    """Measure the images per second of complete commands, and the relative difference of their distances."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        rows: list[dict[str, Any]] = []
        outputs = {}
        for name, command in commands(scratch, count).items():
            seconds, outputs[name] = timed(command, scratch / f"cache {name}")
            rows.append({"command": name, "images": 2 * count, "seconds": seconds, "images_per_second": 2 * count / seconds})
        distance = json.loads(outputs["torch-fidelity"])["frechet_inception_distance"]
        ours = [json.loads((scratch / f"{n}.json").read_text())["metrics"]["fd_efflite0@128"] for n in (1, 2)]
    for row in rows:
        row["ratio"] = row["images_per_second"] / rows[0]["images_per_second"]
        print(
            "{command:<16} {images:>6} images {seconds:>7.1f} s {images_per_second:>7.1f} images/s {ratio:>6.2f}".format(**row)
        )
    differences = [abs(value - distance) / distance for value in ours]
    print(f"distance {distance:.6f}; relative difference of ours {differences[0]:.1e} (1 process), {differences[1]:.1e} (2)")
    return {"count": count, "rows": rows, "distance": distance, "ours": ours, "relative_difference": differences}


def commands(scratch: Path, count: int) -> dict[str, tuple[object, ...]]:
    """Write the images and return the arguments of Python for each command by name, torch-fidelity's first."""
    index = prepare(scratch, count)
    data = ("--snapshot", scratch / "snapshot", "--data", index, "--count", count)
    evaluate = ("-m", "wavegan_dist", "evaluate", *data, "--metrics", "fd", "--json")
    fidelity = ("-c", FIDELITY, "--fid", "--cpu", "--json", "--silent", "--no-cache", "--feature-extractor", "efflite0@128")
    return {
        "torch-fidelity": (*fidelity, "--input1", scratch / "made", "--input2", scratch / "real"),
        "1 process": (*evaluate, scratch / "1.json"),
        "2 processes": (*LAUNCH, *evaluate, scratch / "2.json"),
    }


def prepare(scratch: Path, count: int) -> Path:
    """Write an untrained snapshot, `count` real images as PNGs and as shards, and `count` generated images as PNGs.

    Returns:
        The path of the shards' index.json.
    """
    index = demo_index()
    experiment = config.load(Path("configs/demo.yaml"))
    torch.manual_seed(0)
    weights = build_generator(experiment).state_dict()
    save_snapshot(scratch / "snapshot", weights, weights.items(), experiment, 0, index.digest)
    number = 0
    for batch_bchw in real_images(index, count, 0, BATCH):
        for image_chw in batch_bchw:
            save_png(image_chw.permute(1, 2, 0), scratch / "real" / f"{number:06d}.png")
            number += 1
    sample = ("sample", "--snapshot", scratch / "snapshot", "--count", count, "--out", scratch / "made")
    timed(("-m", "wavegan_dist", *sample), scratch)
    write_shards(scratch / "real", scratch / "shards", 32, progress=False)
    return scratch / "shards" / "index.json"


def demo_index() -> Index:
    """Return the index of the demo's shards, which are written if they are missing."""
    if not (DATA / "index.json").exists():
        write_shards("embedded", DATA, 32)
    return Index.load(DATA)


def timed(arguments: tuple[object, ...], cache: Path) -> tuple[float, str]:
    """Run Python on one thread per process, with an empty cache folder except for the compiled kernels.

    Returns:
        The seconds that the command took, and its standard output.
    """
    kernels = cache / "wavegan" / "kernels"
    if not kernels.exists():
        kernels.parent.mkdir(parents=True, exist_ok=True)
        kernels.symlink_to(library().parent)
    variables = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    began = time.perf_counter()
    outcome = subprocess.run(
        [sys.executable, *map(str, arguments)], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    if outcome.returncode:
        sys.exit(outcome.stderr)
    return time.perf_counter() - began, outcome.stdout


def floors() -> dict[str, Any]:
    """Compute the metrics without a trained network between disjoint sets of real 32 px patches: the bias of a finite set."""
    index = demo_index()
    metrics: list[Metric[Any]] = [WaveletDistance(32), WaveletDistance(32, "db2"), SlicedDistance(32), SpectrumError(32)]
    metrics += [glcm_metric(32), compression_metric()]
    features, group = [metric.feature for metric in metrics], PartialState(cpu=True)
    rows = []
    for count in FLOOR_COUNTS:
        real, other = (
            compute_statistics(partial(images_of_rows, index, subset), count, features, group, "")
            for subset in draw_subsets(index, count, 0)
        )
        values = {
            name: value
            for metric in metrics
            if count >= metric.minimum
            for name, value in metric.compare(real[metric.feature.name], other[metric.feature.name]).metrics.items()
        }
        rows.append({"count": count, **values})
        shown = "  ".join(f"{name} {values[name]:.3g}" for name in FLOORS_SHOWN if name in values)
        print(f"{count:>6} images: {shown}")
    return {"rows": rows}


def images_of_rows(index: Index, rows: Any, numbers: range) -> Any:
    """Yield batches, uint8 [B, 3, S, S], of the images rows[numbers.start : numbers.stop] of a set."""
    return images_at(index, rows[numbers.start : numbers.stop], BATCH)


def memory() -> dict[str, Any]:
    """Measure the peak resident memory of a process that computes the FWD of 64 px images, generated when needed."""
    rows = []
    for count in MEMORY_COUNTS:
        command = [sys.executable, __file__, "--memory-of", str(count)]
        outcome = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True)
        rows.append(json.loads(outcome.stdout))
        print("{count:>6} images of {size} px: peak {peak_gib:.2f} GiB, {images_per_second:.0f} images/s".format(**rows[-1]))
    return {"rows": rows}


def fwd(count: int) -> dict[str, Any]:
    """Compute FWD between two sets of `count` noise images each; return its value, peak memory and images per second."""

    def images(seed: int) -> Callable[[range], Any]:
        def source(numbers: range) -> Any:
            for first in numbers[::BATCH]:
                draws = torch.Generator().manual_seed(seed + first)
                shape = (min(BATCH, numbers.stop - first), 3, MEMORY_SIZE, MEMORY_SIZE)
                yield torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)

        return source

    metric, group = WaveletDistance(MEMORY_SIZE), PartialState(cpu=True)
    began = time.perf_counter()
    real, generated = (compute_statistics(images(seed), count, [metric.feature], group, "")["fwd"] for seed in (0, 10**6))
    value = metric.compare(real, generated).metrics["fwd"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rate = 2 * count / (time.perf_counter() - began)
    return {"count": count, "size": MEMORY_SIZE, "fwd": value, "peak_gib": peak, "images_per_second": rate}


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--count", type=int, default=1800, metavar="N", help="images per side (default: 1800; at least 1281)")
    parser.add_argument("--floors", action="store_true", help="distances between disjoint real sets instead")
    parser.add_argument("--memory", action="store_true", help="peak memory of FWD instead")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
