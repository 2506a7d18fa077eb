"""Throughput of the data loader, compared with the least that the same work can cost and with other loaders.

    make bench-data       or: python benchmarks/data.py --sizes 64 --encodings png --workers 0 1 2 --rounds 5 --seconds 2

For PNG and JPEG at 32, 64 and 256 px, made from the embedded photographs, images per second of
    ours        `training_batches`
    tar         reading the shards from first to last and parsing their headers, in one process
    decode      a loop that decodes bytes in memory with the same decoder, in as many processes as the loader has workers
    stock       the usual WebDataset pipeline: shuffle, decode, batch
    folder      torchvision's ImageFolder on the same images as files, in a DataLoader
The contestants take turns within each round, each in a new process: other load on the machine slows all of them alike, and none
leaves memory behind for the next. Reports medians; ratios are taken within the rounds. The files are in the page cache. Writes
benchmarks/results/data.json.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import webdataset
from bench_common import argument_parser, write_result
from imagecodecs import png_decode
from simplejpeg import decode_jpeg
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from wavegan_dist.data import Index, training_batches, write_shards
from wavegan_dist.provenance import provenance

SHUFFLE_BUFFER = 1000  # images, in the stock pipeline
FLOORS = ("tar", "decode")

Batches = Iterator[Sized]


@dataclass(frozen=True)
class Case:
    """One set of images: as shards, as files and as bytes in memory."""

    index: Index
    files: Path
    contents: list[bytes]
    batch_size: int

    @property
    def shards(self) -> list[str]:
        """Paths of the tar files."""
        return [str(self.index.folder / shard.file) for shard in self.index.shards]


def main() -> None:
    """Measure all cases, print a table and write the result."""
    options = parse_arguments()
    torch.set_num_threads(1)
    rows = []
    print(
        f"{'set':<12} {'workers':>7}"
        + "".join(f"{name:>9}" for name in (*FLOORS, *LOADERS))
        + f"{'ours to decode':>16}{'stock':>7}{'folder':>8}"
    )
    for encoding, size in itertools.product(options.encodings, options.sizes):
        with TemporaryDirectory() as scratch:
            case = prepare(Path(scratch), encoding, size, options.batch)
            for workers in options.workers:
                row = measure(case, workers, options.rounds, options.seconds)
                rows.append({"encoding": encoding, "size": size, "images": case.index.count, "workers": workers} | row)
                print(format_row(rows[-1]), flush=True)
    packages = {name: version(name) for name in ("simplejpeg", "imagecodecs", "pillow", "torchvision")}
    settings = {"batch": options.batch, "rounds": options.rounds, "seconds": options.seconds, "cores": os.cpu_count()}
    write_result("data", settings | {"rows": rows, "codecs": packages} | provenance())


def prepare(scratch: Path, encoding: Any, size: int, batch_size: int) -> Case:
    """Write the embedded set as shards, and every image of the shards as a file."""
    index = write_shards("embedded", scratch / "shards", size, encoding=encoding, progress=False)
    (scratch / "files" / "all").mkdir(parents=True)
    contents = []
    for shard in index.shards:
        with tarfile.open(index.folder / shard.file) as archive:
            for member in archive:
                contents.append(archive.extractfile(member).read())  # type: ignore[union-attr]
                (scratch / "files" / "all" / member.name).write_bytes(contents[-1])
    return Case(index, scratch / "files", contents, batch_size)


def measure(case: Case, workers: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the median images per second of each contestant, and the median ratio of our loader to each other one."""
    rates: dict[str, list[float]] = {name: [] for name in (*FLOORS, *LOADERS)}
    for _ in range(rounds):
        rates["tar"].append(in_processes(1, lambda: rate(tar(case), seconds)))
        rates["decode"].append(in_processes(max(workers, 1), lambda: rate(decode(case), seconds)))
        for name, loader in LOADERS.items():
            rates[name].append(in_processes(1, partial(loader_rate, loader, case, workers, seconds)))
    others = [name for name in rates if name != "ours"]
    ratios = {name: statistics.median(map(float.__truediv__, rates["ours"], rates[name])) for name in others}
    return {"images_per_second": {name: statistics.median(values) for name, values in rates.items()}, "ours_to": ratios}


def loader_rate(loader: "Callable[[Case, int], Batches]", case: Case, workers: int, seconds: float) -> float:
    """Return the images per second of a new loader."""
    return rate(loader(case, workers), seconds)


def rate(batches: Batches, seconds: float) -> float:
    """Return images per second, measured for `seconds` after running equally long to fill the buffers."""
    _images_per_second(batches, seconds)
    return _images_per_second(batches, seconds)


def _images_per_second(batches: Batches, seconds: float) -> float:
    images, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        images += len(next(batches))
    return images / elapsed


def in_processes(count: int, measure_rate: Callable[[], float]) -> float:
    """Call a function in `count` forked processes at the same time and return the sum of its results."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=lambda: results.put(measure_rate())) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return float(sum(results.get() for _ in processes))


def tar(case: Case) -> Batches:
    """Yield the bytes of each image, shard after shard, without end."""
    for path in itertools.cycle(case.shards):
        with tarfile.open(path, "r|") as archive:
            for member in archive:
                yield [archive.extractfile(member).read()]  # type: ignore[union-attr]


def decode(case: Case) -> Batches:
    """Yield one buffer, uint8 [B, S, S, 3], refilled with decoded images each time."""
    batch_bhwc = np.empty((case.batch_size, case.index.size, case.index.size, 3), dtype=np.uint8)
    contents = itertools.cycle(case.contents)
    while True:
        for out, content in zip(batch_bhwc, contents, strict=False):
            if case.index.encoding == "png":
                png_decode(content, out=out)
            else:
                decode_jpeg(content, buffer=out)
        yield batch_bhwc


def ours(case: Case, workers: int) -> Batches:
    """Yield the batches of this package's loader."""
    batches = training_batches(
        case.index, batch_size=case.batch_size, seed=0, start_nimg=0, rank=0, world_size=1, workers=workers
    )
    return (batch.images for batch in batches)


def stock(case: Case, workers: int) -> Batches:
    """Yield the batches of WebDataset's pipeline as its documentation writes it."""
    shards = webdataset.WebDataset(case.shards, shardshuffle=len(case.shards))
    images = shards.repeat().shuffle(SHUFFLE_BUFFER).decode("torchrgb8").to_tuple(case.index.encoding)
    loader = webdataset.WebLoader(images.batched(case.batch_size), batch_size=None, num_workers=workers)
    return (batch for (batch,) in loader)


def folder(case: Case, workers: int) -> Batches:
    """Yield batches of torchvision's ImageFolder in a random order without end."""
    images = ImageFolder(str(case.files), transform=pil_to_tensor)
    sampler = RandomSampler(images, replacement=True, num_samples=10**9)
    loader = DataLoader(images, case.batch_size, sampler=sampler, num_workers=workers)
    return (batch for batch, _ in loader)


LOADERS: dict[str, Callable[[Case, int], Batches]] = {"ours": ours, "stock": stock, "folder": folder}


def format_row(row: dict[str, Any]) -> str:
    """Format one row of the table."""
    rates, ratios = row["images_per_second"], row["ours_to"]
    head = f"{row['encoding']} {row['size']:>4} px  {row['workers']:>9}"
    return (
        head
        + "".join(f"{rates[name]:>9,.0f}" for name in rates)
        + f"{ratios['decode']:>16.2f}{ratios['stock']:>7.1f}{ratios['folder']:>8.1f}"
    )


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--encodings", nargs="+", choices=("png", "jpg"), default=["png", "jpg"])
    parser.add_argument("--sizes", nargs="+", type=int, choices=(32, 64, 256), default=[32, 64, 256], metavar="PX")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], metavar="K")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images per batch (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds for the medians (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="length of a measurement and of its warm-up (default: 1)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
