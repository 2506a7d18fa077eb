"""The Haar transform on the CPU compared with a copy of the same number of bytes and with other implementations.

    make bench-haar        or: python benchmarks/haar.py --runs 3 --rounds 16

All calls use one thread. A run is one process. In each of its rounds, every method is timed on one shape after warm-up calls,
next to a copy, so that other load on the machine slows all of them alike. The results are medians: of the ratios within a
round, then of the runs. The floor of an operation is `Tensor.copy_` between two fixed buffers that moves as many bytes as the
operation must: those of one image batch read and written (dwt, idwt), 1.5 times as many (fuse reads two image batches and
writes one), 2.5 times (the backward of fuse), or the sum over forward and backward.

The processes run with an allocator that keeps freed memory, uses huge pages and reuses freed blocks at once (ALLOCATOR), and
our kernels are timed first, before the heap is fragmented. Otherwise page faults and the placement of the results dominate the
measurement. The allocations of autograd still move the results of forward + backward; "fuse backward" times the operator that
autograd calls on its own. Calls at 8 px use the default allocator. benchmarks/gpu/haar.py
is the counterpart for GPUs.

Prints tables, writes benchmarks/results/haar.json and the roofline plot benchmarks/results/haar.png.
"""

import argparse
import functools
import json
import operator
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from haar_methods import METHODS, Method
from torch import Tensor

from wavegan_dist.files import atomic_file
from wavegan_dist.provenance import provenance
from wavegan_dist.wavelet import choose, dwt, fuse, idwt

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the largest value that glibc accepts
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
SHAPES = [(64, 3, 32, 32), (64, 3, 64, 64), (32, 3, 128, 128), (16, 3, 256, 256), (4, 3, 512, 512), (16, 64, 32, 32)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FLOORS = {"dwt": 1, "idwt": 1, "fuse": 1.5, "fuse backward": 2.5, "dwt+backward": 2, "idwt+backward": 2, "fuse+backward": 4}
WARMUP_CALLS, WARMUP_SECONDS = 8, 0.004  # warm-up ends when either limit is reached

Json = Any


def main() -> None:
    """Run the benchmark in `--runs` processes, print tables, write JSON and the plot."""
    options = parse()
    if options.once:
        return print(json.dumps(measure(options.rounds)))
    runs = []
    for number in range(options.runs):
        print(f"run {number + 1} of {options.runs}", file=sys.stderr)
        command = [sys.executable, __file__, "--once", "--rounds", str(options.rounds)]
        process = subprocess.run(command, env={**os.environ, **ALLOCATOR}, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(process.stdout.splitlines()[-1]))
    torch.set_num_threads(1)
    medians = median_of(runs) | {"call_us": median_of([call_overhead() for _ in range(options.runs)])}
    print_tables(medians)
    folder = Path(__file__).parent / "results"
    settings = {"threads": 1, "kernel": choose("cpu"), "runs": options.runs, "rounds": options.rounds, "allocator": ALLOCATOR}
    with atomic_file(folder / "haar.json") as file:
        json.dump(settings | medians | provenance(), file, indent=2)
    plot(medians["rows"], folder / "haar.png")
    print(folder / "haar.json", folder / "haar.png")


def measure(rounds: int) -> Json:
    """Return the results of one run: a row for every operation, shape and dtype."""
    torch.set_num_threads(1)
    cases = [(shape, dtype) for dtype in DTYPES for shape in SHAPES]
    ours = [row for shape, dtype in cases for row in measure_shape(shape, dtype, rounds, ["ours"])]
    others = [row for shape, dtype in cases for row in measure_shape(shape, dtype, rounds, [*METHODS][1:])]
    rows = [row | {"ratios": row["ratios"] | other["ratios"]} for row, other in zip(ours, others, strict=True)]
    return {"rows": rows}


def median_of(runs: Sequence[Json]) -> Json:
    """Return a structure like each of `runs` that holds the median over the runs in place of every float."""
    if isinstance(runs[0], dict):
        return {key: median_of([run[key] for run in runs]) for key in runs[0]}
    if isinstance(runs[0], list):
        return [median_of(items) for items in zip(*runs, strict=True)]
    return statistics.median(runs) if isinstance(runs[0], float) else runs[0]


def measure_shape(shape: tuple[int, ...], dtype: str, rounds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for every operation: the ratio of each method's time to the operation's floor, and the floor itself."""
    torch.manual_seed(0)
    x = torch.randn(shape).to(DTYPES[dtype])
    low, high = dwt(x)
    rows = []
    for operation, floor in FLOORS.items():
        source, target = (torch.zeros(int(floor * x.numel()), dtype=x.dtype) for _ in range(2))
        calls: dict[str, Callable[[], object]] = {"copy": functools.partial(target.copy_, source)}
        methods = [METHODS[name] for name in names if dtype == "fp32" or METHODS[name].bf16]
        candidates = {method.name: make_call(method, operation, x, low, high) for method in methods}
        calls |= {name: call for name, call in candidates.items() if call is not None}
        times = time_in_turn(calls, rounds)
        copies = times.pop("copy")
        copy = statistics.median(copies)
        ratios = {name: statistics.median(map(operator.truediv, seconds, copies)) for name, seconds in times.items()}
        rows.append(
            {"operation": operation, "dtype": dtype, "shape": list(shape), "copy_us": copy * 1e6, "ratios": ratios}
            | {"copy_gb_per_s": 2 * source.nbytes / copy / 1e9}
        )
    return rows


def make_call(method: Method, operation: str, x: Tensor, low: Tensor, high: Tensor) -> Callable[[], object] | None:
    """Return the call to be timed, or None if the method does not offer the operation."""
    leaf, leaf_low, leaf_high = (tensor.clone().requires_grad_() for tensor in (x, low, high))
    bands = method.bands(x)
    if operation == "dwt":
        return functools.partial(method.dwt, x)
    if operation == "idwt":
        return functools.partial(method.idwt, *bands)
    if operation == "dwt+backward":
        return dwt_and_backward(method, leaf)
    if operation == "idwt+backward":
        leaves = [band.clone().requires_grad_() for band in bands]
        return lambda: torch.autograd.grad(method.idwt(*leaves), leaves, x)
    lam, grad = torch.tensor(0.3), torch.randn_like(x)
    if method.name == "ours" and operation == "fuse backward":
        return functools.partial(torch.ops.wavegan_cpu.fuse_backward.default, grad, x, low, high, lam)
    if operation == "fuse backward" or method.name not in ("ours", "slicing"):
        return None
    fuse_method = fuse if method.name == "ours" else lambda b, lo, hi, w: (1 - w) * b + w * method.idwt(lo, hi)
    if operation == "fuse":
        return functools.partial(fuse_method, x, low, high, lam)
    inputs = (leaf, leaf_low, leaf_high, lam.clone().requires_grad_())
    return lambda: torch.autograd.grad(fuse_method(*inputs), inputs, grad)


def time_in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each call once per round, in seconds, after warm-up calls that fill the caches with its own data."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + rounds):
        for name, call in calls.items():
            deadline = time.perf_counter() + WARMUP_SECONDS
            for _ in range(WARMUP_CALLS):
                time_call(call)
                if time.perf_counter() > deadline:
                    break
            times[name].append(time_call(call))
    return {name: seconds[1:] for name, seconds in times.items()}


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def call_overhead() -> dict[str, float]:
    """Return microseconds of forward + backward at 8 px, where the memory traffic is negligible."""
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    low, high = (band.detach().requires_grad_() for band in dwt(x))
    ones, grads, lam = torch.ones_like(x), [low.detach(), high.detach()], torch.tensor(0.3, requires_grad=True)
    chunks = [chunk.clone() for chunk in x.detach().split((2, 6), -1)]
    calls: dict[str, Callable[[], object]] = {
        "x * 2": lambda: torch.autograd.grad(x * 2, x, ones),
        "x.split, with two results like dwt": lambda: torch.autograd.grad(x.split((2, 6), -1), x, chunks),
        "dwt": lambda: torch.autograd.grad(dwt(x), x, grads),
        "idwt": lambda: torch.autograd.grad(idwt(low, high), (low, high), ones),
        "fuse": lambda: torch.autograd.grad(fuse(x, low, high, lam), (x, low, high, lam), ones),
    }
    for name in ("slicing", "pytorch_wavelets"):
        if name in METHODS:
            calls[f"dwt by {name}"] = dwt_and_backward(METHODS[name], x)
    return {name: 1e6 * statistics.median(seconds) for name, seconds in time_in_turn(calls, 200).items()}


def dwt_and_backward(method: Method, leaf: Tensor) -> Callable[[], object]:
    """Return the call that computes a method's dwt of `leaf` and the gradient of `leaf` for the bands as upstream gradient."""
    bands = method.bands(leaf.detach())
    return lambda: torch.autograd.grad(method.dwt(leaf), leaf, bands)


def print_tables(medians: Json) -> None:
    """Print the ratios to the floor, with a dash if a method does not offer the operation or dtype."""
    print(f"{'operation':<14} {'dtype':<5} {'shape':<15} {'copy us':>8} " + " ".join(f"{name[:9]:>9}" for name in METHODS))
    for row in medians["rows"]:
        cells = " ".join(f"{row['ratios'][name]:>9.2f}" if name in row["ratios"] else f"{'-':>9}" for name in METHODS)
        shape = "x".join(map(str, row["shape"]))
        print(f"{row['operation']:<14} {row['dtype']:<5} {shape:<15} {row['copy_us']:>8.0f} {cells}")
    print("call at 8 px, forward + backward, us:", ", ".join(f"{k} {v:.0f}" for k, v in medians["call_us"].items()))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot the speed of each operation relative to its roofline, the speed at which `copy_` moves as many bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    labels = ["x".join(map(str, shape)) for shape in SHAPES]
    for axis, dtype in zip(axes, DTYPES, strict=True):
        for operation in FLOORS:
            series = [row for row in rows if (row["dtype"], row["operation"]) == (dtype, operation)]
            axis.plot(labels, [1 / row["ratios"]["ours"] for row in series], marker="o", label=operation)
        axis.axhline(1, color="black", linestyle="--", label="copy_ of as many bytes")
        axis.set(title=dtype, ylabel="speed / speed of the copy", ylim=(0, None))
        axis.tick_params(axis="x", rotation=30)
    axes[1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=90)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, default=3, metavar="N", help="number of processes, run one after the other (default: 3)"
    )
    parser.add_argument("--once", action="store_true", help="do one run in this process and print JSON")
    parser.add_argument("--rounds", type=int, default=16, metavar="N", help="timed calls of each method in a run (default: 16)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
