"""Start of training on datasets of 10 to 100,000 shards: seconds to the first batch, and memory.

    make bench-startup    or: python benchmarks/startup.py --shards 10 1000 --workers 0 --rounds 3

Each dataset has 1,000 images of 32 px in each shard, so the largest has 100 million. Its shards are links to one tar: only the
index grows, and with it `members.npy` (2.4 GB). Each measurement is a new process, which imports everything first, and then
loads the index, asks for the first batch, and reads 200 batches. Datasets take turns within each round; reports medians:
    load        seconds for `Index.load`
    check       seconds for `check_present`, which training calls before the first batch
    first       seconds from `training_batches` to the first batch
    private     MiB that the process has allocated since the imports, after the first batch; workers each: since their start
    peak        MiB of the largest resident set since the imports
    mapped      MiB of `members.npy` in the page cache that the process has mapped after 200 batches; the kernel reclaims them
Writes benchmarks/results/startup.json.
"""

import argparse
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from bench_common import argument_parser, write_result

from wavegan_dist.data import Index, check_present, training_batches, write_shards
from wavegan_dist.provenance import provenance

SHARD_IMAGES, BATCH, BATCHES = 1000, 64, 200
COLUMNS = ("load", "check", "first", "private", "worker", "peak", "mapped")


def main() -> None:
    """Measure all datasets, print a table and write the result."""
    options = parse_arguments()
    if options.measure:
        print(json.dumps(measure(Path(options.measure), options.workers[0])))
        return
    cases = list(itertools.product(options.shards, options.workers))
    rows: dict[tuple[int, int], list[dict[str, float]]] = {case: [] for case in cases}
    with TemporaryDirectory(dir=options.scratch) as scratch:
        folders = {shards: write_dataset(Path(scratch), shards) for shards in options.shards}
        for _, (shards, workers) in itertools.product(range(options.rounds), cases):
            rows[shards, workers].append(in_new_process(folders[shards], workers))
    print(f"{'shards':>8} {'images':>12} {'workers':>8}" + "".join(f"{name:>9}" for name in COLUMNS))
    medians = []
    for (shards, workers), measured in rows.items():
        median = {name: statistics.median(row[name] for row in measured) for name in COLUMNS}
        medians.append({"shards": shards, "images": shards * SHARD_IMAGES, "workers": workers} | median)
        numbers = "".join(f"{median[name]:>9.2f}" if name in COLUMNS[:3] else f"{median[name]:>9.0f}" for name in COLUMNS)
        print(f"{shards:>8,} {shards * SHARD_IMAGES:>12,} {workers:>8}{numbers}")
    settings = {"rounds": options.rounds, "batch": BATCH, "batches": BATCHES, "cores": os.cpu_count()}
    write_result("startup", settings | {"rows": medians} | provenance())


def write_dataset(scratch: Path, shards: int) -> Path:
    """Write the index of a dataset whose shards are links to one tar."""
    source = scratch / "source"
    if not source.exists():
        write_shards("embedded", source, 32, shard_images=SHARD_IMAGES, progress=False)
    one = Index.load(source)
    shard = one.shards[0]
    rows = np.array(one.members[: shard.images])
    folder = scratch / str(shards)
    folder.mkdir()
    names = [f"shard-{number:06d}.tar" for number in range(shards)]
    for name in names:
        (folder / name).symlink_to(source / shard.file)
    shape = (shards * shard.images, 3)
    members = np.lib.format.open_memmap(folder / "members.npy", mode="w+", dtype=np.int64, shape=shape)
    members.reshape(shards, shard.images, 3)[:] = rows
    members.flush()
    content = one.content() | {"count": shape[0], "shards": [shard.model_dump() | {"file": name} for name in names]}
    Index.model_validate(content).save(folder)
    return folder


def in_new_process(folder: Path, workers: int) -> dict[str, float]:
    """Return the result of `measure` in a new process."""
    command = [sys.executable, __file__, "--measure", str(folder), "--workers", str(workers)]
    row: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return row


def measure(folder: Path, workers: int) -> dict[str, float]:
    """Measure one dataset in this process."""
    torch.set_num_threads(1)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory()
    times = [time.perf_counter()]
    index = Index.load(folder)
    times.append(time.perf_counter())
    check_present(index, 0.0)
    times.append(time.perf_counter())
    batches = training_batches(index, batch_size=BATCH, seed=0, start_nimg=0, rank=0, world_size=1, workers=workers)
    next(batches)
    times.append(time.perf_counter())
    after = memory()
    for _ in range(BATCHES):
        next(batches)
    children = [process.memory_full_info().uss / 2**20 for process in psutil.Process().children()]
    later = memory()
    batches.close()
    load, check, first = np.diff(times).tolist()
    return {
        "load": load,
        "check": check,
        "first": first,
        "private": after["RssAnon"] - before["RssAnon"],
        "worker": max(children, default=0.0),
        "peak": later["VmHWM"] - before["VmRSS"],
        "mapped": later["RssFile"] - before["RssFile"],
    }


def memory() -> dict[str, float]:
    """Return the memory of this process from /proc, in MiB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) / 1024 for line in lines if line[-1] == "kB"}


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--shards", nargs="+", type=int, default=[10, 1000, 100_000], metavar="N")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2], metavar="K")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds for the medians (default: 5)")
    parser.add_argument("--scratch", metavar="DIR", help="folder for the datasets: 2.5 GB (default: the system's)")
    parser.add_argument("--measure", metavar="DIR", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
