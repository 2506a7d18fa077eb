"""The Haar transform beside a copy of the same bytes, and beside what else computes it.

    make bench-haar        or: python benchmarks/haar.py --runs 3 --rounds 16

One thread. A run is a process; each of its rounds times the methods on one shape, after calls that bring each to its steady
state, and a copy before them, so that a busy neighbour slows all: medians of the rounds' ratios, then of the runs. The floor
is `copy_` between two buffers, always the same two, that moves as many bytes as the operation must: an image's (dwt, idwt),
one and a half (fuse reads two images' worth and writes one), two and a half (fuse's backward), or what forward and backward
add up to.

Processes start with an allocator that keeps its pages, wants them huge and gives a freed block out again (ALLOCATOR), and ours
come first, while the heap has no holes: else page faults, where small pages happen to lie, or blocks in turn that no cache
holds together, are most of what is measured. Autograd's small objects still make the results of forward + backward wander;
"fuse backward" is the operator that autograd calls, alone. Calls at 8 px are timed with PyTorch's usual allocator. Where there
is a GPU all runs there, beside a device copy.

Prints tables, writes benchmarks/results/haar.json and the roofline picture benchmarks/results/haar.png.
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
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that glibc takes
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
SHAPES = [(64, 3, 32, 32), (64, 3, 64, 64), (32, 3, 128, 128), (16, 3, 256, 256), (4, 3, 512, 512), (16, 64, 32, 32)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FLOORS = {"dwt": 1, "idwt": 1, "fuse": 1.5, "fuse backward": 2.5, "dwt+backward": 2, "idwt+backward": 2, "fuse+backward": 4}
NAMESPACES = {"C++": torch.ops.wavegan_cpu, "Triton": torch.ops.wavegan_triton}
SETTLED_CALLS, SETTLED_SECONDS = 8, 0.004  # before the one that is timed: whichever is reached first

Found = Any  # what JSON holds


def main() -> None:
    """Measure, print tables, write JSON and the picture."""
    options = parse()
    if options.once:
        return print(json.dumps(measure(options.rounds)))
    runs = []
    for number in range(options.runs):
        print(f"run {number + 1} of {options.runs}", file=sys.stderr)
        command = [sys.executable, __file__, "--once", "--rounds", str(options.rounds)]
        ran = subprocess.run(command, env={**os.environ, **ALLOCATOR}, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(ran.stdout.splitlines()[-1]))
    torch.set_num_threads(1)
    found = merged(runs) | {"call_us": merged([call_overhead() for _ in range(options.runs)])}
    print_tables(found)
    results = Path(__file__).parent / "results"
    settings = {"threads": 1, "kernel": choose("cpu"), "runs": options.runs, "rounds": options.rounds, "allocator": ALLOCATOR}
    with atomic_file(results / "haar.json") as file:
        json.dump(settings | found | provenance(), file, indent=2)
    draw(found["rows"], results / "haar.png")
    print(results / "haar.json", results / "haar.png")


def measure(rounds: int) -> Found:
    """One run: a row for every operation, shape and dtype."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours = [row for dtype in DTYPES for shape in SHAPES for row in measured(shape, dtype, device, rounds, ["ours"])]
    others = [row for dtype in DTYPES for shape in SHAPES for row in measured(shape, dtype, device, rounds, [*METHODS][1:])]
    rows = [row | {"ratios": row["ratios"] | other["ratios"]} for row, other in zip(ours, others, strict=True)]
    return {"device": device, "rows": rows}


def merged(runs: Sequence[Found]) -> Found:
    """The same with the median of the runs for every number."""
    if isinstance(runs[0], dict):
        return {key: merged([run[key] for run in runs]) for key in runs[0]}
    if isinstance(runs[0], list):
        return [merged(each) for each in zip(*runs, strict=True)]
    return statistics.median(runs) if isinstance(runs[0], float) else runs[0]


def measured(shape: tuple[int, ...], dtype: str, device: str, rounds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every operation: ratios of these methods to the operation's floor."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=device).to(DTYPES[dtype])
    low, high = dwt(x)
    rows = []
    for operation, floor in FLOORS.items():
        source, target = (torch.zeros(int(floor * x.numel()), dtype=x.dtype, device=device) for _ in range(2))
        calls: dict[str, Callable[[], object]] = {"copy": functools.partial(target.copy_, source)}
        methods = [METHODS[name] for name in names if dtype == "fp32" or METHODS[name].bf16]
        tasks = {method.name: task(method, operation, x, low, high) for method in methods}
        calls |= {name: call for name, call in tasks.items() if call is not None}
        times = interleaved(calls, rounds, device)
        copies = times.pop("copy")
        copy = statistics.median(copies)
        ratios = {name: statistics.median(map(operator.truediv, each, copies)) for name, each in times.items()}
        rows.append(
            {"operation": operation, "dtype": dtype, "shape": list(shape), "copy_us": copy * 1e6, "ratios": ratios}
            | {"copy_gb_per_s": 2 * source.nbytes / copy / 1e9}
        )
    return rows


def task(method: Method, operation: str, x: Tensor, low: Tensor, high: Tensor) -> Callable[[], object] | None:
    """What is timed; None where the method has no such operation."""
    leaf, leaf_low, leaf_high = (tensor.clone().requires_grad_() for tensor in (x, low, high))
    bands = method.bands(x)  # in its own layout
    if operation == "dwt":
        return functools.partial(method.dwt, x)
    if operation == "idwt":
        return functools.partial(method.idwt, *bands)
    if operation == "dwt+backward":
        return lambda: torch.autograd.grad(method.dwt(leaf), leaf, bands)
    if operation == "idwt+backward":
        leaves = [band.clone().requires_grad_() for band in bands]
        return lambda: torch.autograd.grad(method.idwt(*leaves), leaves, x)
    lam, grad = torch.tensor(0.3, device=x.device), torch.randn_like(x)
    if method.name == "ours" and operation == "fuse backward":
        operators = NAMESPACES[choose(x.device.type)[0]]
        return functools.partial(operators.fuse_backward.default, grad, x, low, high, lam)
    if operation == "fuse backward" or method.name not in ("ours", "slicing"):
        return None
    mix = fuse if method.name == "ours" else lambda b, lo, hi, w: (1 - w) * b + w * method.idwt(lo, hi)
    if operation == "fuse":
        return functools.partial(mix, x, low, high, lam)
    leaves = (leaf, leaf_low, leaf_high, lam.clone().requires_grad_())
    return lambda: torch.autograd.grad(mix(*leaves), leaves, grad)


def interleaved(calls: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each in its steady state: timed after calls that are not, so that none finds the caches of another."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + rounds):
        for name, call in calls.items():
            until = time.perf_counter() + SETTLED_SECONDS
            for _ in range(SETTLED_CALLS):
                seconds(call, device)
                if time.perf_counter() > until:
                    break
            times[name].append(seconds(call, device))
    return {name: each[1:] for name, each in times.items()}


def seconds(call: Callable[[], object], device: str) -> float:
    """One call."""
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def call_overhead() -> dict[str, float]:
    """Microseconds of forward + backward on 8 px, where memory costs nothing."""
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    bands = [band.detach().requires_grad_() for band in dwt(x)]
    ones, grads, lam = torch.ones_like(x), [band.detach() for band in bands], torch.tensor(0.3, requires_grad=True)
    pieces = [piece.clone() for piece in x.detach().split((2, 6), -1)]
    calls: dict[str, Callable[[], object]] = {
        "x * 2": lambda: torch.autograd.grad(x * 2, x, ones),
        "x.split, of two results as dwt": lambda: torch.autograd.grad(x.split((2, 6), -1), x, pieces),
        "dwt": lambda: torch.autograd.grad(dwt(x), x, grads),
        "idwt": lambda: torch.autograd.grad(idwt(*bands), bands, ones),
        "fuse": lambda: torch.autograd.grad(fuse(x, *bands, lam), (x, *bands, lam), ones),
    }
    for name in ("slicing", "pytorch_wavelets"):
        if name in METHODS:
            method = METHODS[name]
            target = method.bands(x.detach())
            calls[f"dwt by {name}"] = lambda method=method, target=target: torch.autograd.grad(method.dwt(x), x, target)
    return {name: 1e6 * statistics.median(each) for name, each in interleaved(calls, 200, "cpu").items()}


def print_tables(found: Found) -> None:
    """Ratios to the floor; a dash where a method lacks the operation or dtype."""
    print(f"{'operation':<14} {'dtype':<5} {'shape':<15} {'copy us':>8} " + " ".join(f"{name[:9]:>9}" for name in METHODS))
    for row in found["rows"]:
        cells = " ".join(f"{row['ratios'][name]:>9.2f}" if name in row["ratios"] else f"{'-':>9}" for name in METHODS)
        shape = "x".join(map(str, row["shape"]))
        print(f"{row['operation']:<14} {row['dtype']:<5} {shape:<15} {row['copy_us']:>8.0f} {cells}")
    print("call at 8 px, forward + backward, us:", ", ".join(f"{k} {v:.0f}" for k, v in found["call_us"].items()))
    if found["device"] == "cpu":
        print("no GPU here: the Triton kernels did not run")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """How close each operation comes to its roof: the speed at which `copy_` moves as many bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    labels = ["x".join(map(str, shape)) for shape in SHAPES]
    for axis, dtype in zip(axes, DTYPES, strict=True):
        for operation in FLOORS:
            mine = [row for row in rows if (row["dtype"], row["operation"]) == (dtype, operation)]
            axis.plot(labels, [1 / row["ratios"]["ours"] for row in mine], marker="o", label=operation)
        axis.axhline(1, color="black", linestyle="--", label="copy_ of as many bytes")
        axis.set(title=dtype, ylabel="speed / speed of the copy", ylim=(0, None))
        axis.tick_params(axis="x", rotation=30)
    axes[1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=90)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="processes, one after the other (default: 3)")
    parser.add_argument("--once", action="store_true", help="one run in this process; prints JSON")
    parser.add_argument("--rounds", type=int, default=16, metavar="N", help="timed calls of each in a run (default: 16)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
