"""What the loader delivers, against the least that the same work costs and against what else people use.

    make bench-data       or: python benchmarks/data.py --sizes 64 --encodings png --workers 0 1 2 --rounds 5 --seconds 2

For PNG and JPEG at 32, 64 and 256 px, made here of the embedded photographs, images per second of
    ours        `training_batches`
    tar         reading the shards from first to last and parsing their headers, one process
    decode      a bare loop over bytes in memory through the same decoder; as many processes as the loader has workers
    stock       the usual WebDataset pipeline: shuffle, decode, batch
    folder      torchvision's ImageFolder on the same images as files, in a DataLoader
All take turns within each round, each in a fresh process, so that a busy neighbour slows them alike and none leaves memory
behind for the next; medians, ratios taken within the rounds.
Files are in the page cache. Writes benchmarks/results/data.json.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import webdataset
from imagecodecs import png_decode
from simplejpeg import decode_jpeg
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from wavegan_dist.data import Index, training_batches, write_shards
from wavegan_dist.files import atomic_file
from wavegan_dist.provenance import provenance

SHUFFLE = 1000  # images, in the stock pipeline
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
        """Paths of the tars."""
        return [str(self.index.folder / shard.file) for shard in self.index.shards]


def main() -> None:
    """Measure, print a table, write JSON."""
    options = parse()
    torch.set_num_threads(1)
    rows = []
    print(
        f"{'set':<12} {'workers':>7}"
        + "".join(f"{name:>9}" for name in (*FLOORS, *LOADERS))
        + f"{'ours to decode':>16}{'stock':>7}{'folder':>8}"
    )
    for encoding, size in itertools.product(options.encodings, options.sizes):
        with TemporaryDirectory() as folder:
            case = prepare(Path(folder), encoding, size, options.batch)
            for workers in options.workers:
                row = measure(case, workers, options.rounds, options.seconds)
                rows.append({"encoding": encoding, "size": size, "images": case.index.count, "workers": workers} | row)
                print(line(rows[-1]), flush=True)
    packages = {name: version(name) for name in ("simplejpeg", "imagecodecs", "pillow", "torchvision")}
    settings = {"batch": options.batch, "rounds": options.rounds, "seconds": options.seconds, "cores": os.cpu_count()}
    out = Path(__file__).parent / "results" / "data.json"
    with atomic_file(out) as file:
        json.dump(settings | {"rows": rows, "codecs": packages} | provenance(), file, indent=2)
    print(out)


def prepare(folder: Path, encoding: Any, size: int, batch_size: int) -> Case:
    """Write the embedded set as shards and the members of these as files."""
    index = write_shards("embedded", folder / "shards", size, encoding=encoding, progress=False)
    (folder / "files" / "all").mkdir(parents=True)
    contents = []
    for shard in index.shards:
        with tarfile.open(index.folder / shard.file) as tar:
            for member in tar:
                contents.append(tar.extractfile(member).read())  # type: ignore[union-attr]
                (folder / "files" / "all" / member.name).write_bytes(contents[-1])
    return Case(index, folder / "files", contents, batch_size)


def measure(case: Case, workers: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Median images per second of each, and of the rounds' ratios of ours to each."""
    rates: dict[str, list[float]] = {name: [] for name in (*FLOORS, *LOADERS)}
    for _ in range(rounds):
        rates["tar"].append(in_processes(1, lambda: rate(tar(case), seconds)))
        rates["decode"].append(in_processes(max(workers, 1), lambda: rate(decode(case), seconds)))
        for name, start in LOADERS.items():
            rates[name].append(in_processes(1, lambda start=start: rate(start(case, workers), seconds)))
    others = [name for name in rates if name != "ours"]
    ratios = {name: statistics.median(map(float.__truediv__, rates["ours"], rates[name])) for name in others}
    return {"images_per_second": {name: statistics.median(values) for name, values in rates.items()}, "ours_to": ratios}


def rate(batches: Batches, seconds: float) -> float:
    """Images per second, after as long again to fill buffers; counted from batch to batch."""
    _count(batches, seconds)
    return _count(batches, seconds)


def _count(batches: Batches, seconds: float) -> float:
    images, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        images += len(next(batches))
    return images / spent


def in_processes(count: int, work: Callable[[], float]) -> float:
    """The sum of what `count` forked processes find, at work at the same time."""
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    processes = [context.Process(target=lambda: found.put(work())) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(found.get() for _ in processes)


def tar(case: Case) -> Batches:
    """The bytes of the members, shard after shard, without end."""
    for path in itertools.cycle(case.shards):
        with tarfile.open(path, "r|") as opened:
            for member in opened:
                yield [opened.extractfile(member).read()]  # type: ignore[union-attr]


def decode(case: Case) -> Batches:
    """One buffer, filled again and again with the decoded bytes."""
    batch = np.empty((case.batch_size, case.index.size, case.index.size, 3), dtype=np.uint8)
    contents = itertools.cycle(case.contents)
    while True:
        for out, content in zip(batch, contents, strict=False):
            if case.index.encoding == "png":
                png_decode(content, out=out)
            else:
                decode_jpeg(content, buffer=out)
        yield batch


def ours(case: Case, workers: int) -> Batches:
    """The loader of this package."""
    settings = {"batch_size": case.batch_size, "seed": 0, "start_nimg": 0, "rank": 0, "world_size": 1}
    return training_batches(case.index, workers=workers, **settings)


def stock(case: Case, workers: int) -> Batches:
    """WebDataset's own pipeline, as its documentation writes it."""
    shards = webdataset.WebDataset(case.shards, shardshuffle=len(case.shards))
    images = shards.repeat().shuffle(SHUFFLE).decode("torchrgb8").to_tuple(case.index.encoding)
    loader = webdataset.WebLoader(images.batched(case.batch_size), batch_size=None, num_workers=workers)
    return (batch for (batch,) in loader)


def folder(case: Case, workers: int) -> Batches:
    """Torchvision's, in a random order without end."""
    images = ImageFolder(str(case.files), transform=pil_to_tensor)
    sampler = RandomSampler(images, replacement=True, num_samples=10**9)
    loader = DataLoader(images, case.batch_size, sampler=sampler, num_workers=workers)
    return (batch for batch, _ in loader)


LOADERS: dict[str, Callable[[Case, int], Batches]] = {"ours": ours, "stock": stock, "folder": folder}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    rates, ratios = row["images_per_second"], row["ours_to"]
    head = f"{row['encoding']} {row['size']:>4} px  {row['workers']:>9}"
    return (
        head
        + "".join(f"{rates[name]:>9,.0f}" for name in rates)
        + f"{ratios['decode']:>16.2f}{ratios['stock']:>7.1f}{ratios['folder']:>8.1f}"
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encodings", nargs="+", choices=("png", "jpg"), default=["png", "jpg"])
    parser.add_argument("--sizes", nargs="+", type=int, choices=(32, 64, 256), default=[32, 64, 256], metavar="PX")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], metavar="K")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images a batch (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="medians over so many (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="each time, and as long before (default: 1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
