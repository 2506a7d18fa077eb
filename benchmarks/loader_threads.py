"""Decoding threads in place of the loader's forked worker processes: speed, and memory beside a parent of 4 GiB.

    python benchmarks/loader_threads.py                PNG of 32 and 64 px, JPEG of 256 px; 1 and 2 workers

Threads need no shared memory and no fork, but all threads of a process share Python's lock with training. Each pair of rows
measures images per second of the loader alone, and of the loader beside a loop that calls 600 small operators for each batch,
as a training step that is bound by kernel launches does. Both designs take turns in each round; reports medians. "MiB" is the
memory that all processes occupy (PSS) beyond that of the parent alone. Writes benchmarks/results/loader_threads.json.
"""

import itertools
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import psutil
import torch
from bench_common import argument_parser, write_result
from torch import Tensor

from wavegan_dist.data import Index, training_batches, write_shards
from wavegan_dist.data.decode_batch import shared_buffers
from wavegan_dist.data.loader import PREFETCH, _BatchRows, _DecodedBatches
from wavegan_dist.data.read import Reader
from wavegan_dist.provenance import provenance

BATCH, OPERATORS, SECONDS = 64, 600, 1.0
SETS: tuple[tuple[Literal["png", "jpg"], int], ...] = (("png", 32), ("png", 64), ("jpg", 256))
Batches = Generator[Tensor, None, None]


def main() -> None:
    """Measure all cases, print a table and write the result."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds for the medians (default: 5)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parent = torch.ones(2**30)  # 4 GiB of float32
    rows = []
    print(f"{'set':8} {'workers':>7} {'operators':>9} {'processes':>10} {'threads':>8} {'ratio':>6}   images/s")
    with TemporaryDirectory() as scratch:
        for (encoding, size), workers, operators in itertools.product(SETS, (1, 2), (0, OPERATORS)):
            folder = Path(scratch) / f"{encoding}{size}"
            if not folder.exists():
                write_shards("embedded", folder, size, encoding=encoding, progress=False)
            index = Index.load(folder)
            rounds = [
                [speed(design, index, workers, operators) for design in (processes, threads)] for _ in range(options.rounds)
            ]
            speeds = [statistics.median(values) for values in zip(*rounds, strict=True)]
            ratio = statistics.median(second / first for first, second in rounds)
            rows.append({"set": folder.name, "workers": workers, "operators": operators, "speeds": speeds, "ratio": ratio})
            print(f"{folder.name:8} {workers:7} {operators:9} {speeds[0]:10.0f} {speeds[1]:8.0f} {ratio:6.2f}", flush=True)
        memory = {design.__name__: additional_memory(design, index) for design in (processes, threads)}
    del parent
    print("MiB of 2 workers beside a parent of 4 GiB: " + ", ".join(f"{name} {mib:.0f}" for name, mib in memory.items()))
    write_result("loader_threads", {"rows": rows, "memory_mib": memory, "batch": BATCH, **provenance()})


def processes(index: Index, workers: int) -> Batches:
    """Yield batches of the loader."""
    for batch in training_batches(index, batch_size=BATCH, seed=0, start_nimg=0, rank=0, world_size=1, workers=workers):
        yield batch.images


def threads(index: Index, workers: int) -> Batches:
    """Yield the same batches, decoded by threads, each of which has its own open shards."""
    rows, count, local = _BatchRows(index, 0, 0, BATCH, slice(0, BATCH)), workers * PREFETCH, threading.local()
    buffers = shared_buffers(count + 1, BATCH, index.size)

    def decode(number: int) -> int:
        if not hasattr(local, "batches"):
            local.batches = _DecodedBatches(rows, Reader(index), buffers)
        slot, _ = local.batches[number]
        return int(slot)

    pool = ThreadPoolExecutor(workers)
    try:
        pending = deque(pool.submit(decode, number) for number in range(count))
        for number in itertools.count(count):
            slot = pending.popleft().result()
            pending.append(pool.submit(decode, number))
            yield buffers.images[slot]
    finally:
        pool.shutdown(cancel_futures=True)


def speed(design: Callable[[Index, int], Batches], index: Index, workers: int, operators: int) -> float:
    """Return images per second, with `operators` small operators in this thread for each batch."""
    with closing(design(index, workers)) as batches:
        for _ in range(workers * PREFETCH + 2):
            next(batches)
        began, count = time.perf_counter(), 0
        while (seconds := time.perf_counter() - began) < SECONDS:
            next(batches)
            count += 1
            x = torch.ones(8, 64)
            for _ in range(operators):
                x = torch.relu(x)
    return count * BATCH / seconds


def additional_memory(design: Callable[[Index, int], Batches], index: Index) -> float:
    """Return how much more memory all processes occupy after 200 batches of 2 workers, in MiB."""
    before = memory()
    with closing(design(index, 2)) as batches:
        for _ in range(200):
            next(batches)
        return memory() - before


def memory() -> float:
    """Return the sum of the proportional set sizes of this process and its children, in MiB."""
    process = psutil.Process()
    return sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True))) / 2**20


if __name__ == "__main__":
    main()
