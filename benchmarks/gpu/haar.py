"""The wavelet transform on the GPU: the speed of every operation as a share of the speed of `copy_`.

Operations are timed inside a CUDA graph of about half a millisecond, so that the host's time for a launch is not measured. The
calls of a graph use different tensors, together at least twice as large as the L2 cache. The baseline of an operation is
`copy_` of as many bytes as the operation must read and write (`haar_operations.FLOORS`), measured in the same way. The three
columns of an operation are its forward, backward and double backward. The baseline of `wavedec` and `waverec` is that of one
level, whatever the number of levels. Other implementations are compared at two shapes. "call" is the host's time for forward
and backward of a tiny image in eager mode.
"""

import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from gpu import haar_operations as operations
from gpu.common import Section
from wavegan_dist.wavelet import choose

SHAPES = [
    (64, 3, 32, 32), (64, 3, 64, 64), (32, 3, 128, 128), (64, 3, 128, 128), (16, 3, 256, 256), (64, 3, 256, 256),
    (4, 3, 512, 512), (16, 64, 32, 32),
]  # fmt: skip
CHOSEN = [(64, 3, 64, 64), (64, 3, 256, 256)]  # for fp16, several levels and other implementations
TINY = [(2, 3, 32, 32)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEVELS = range(1, 6)
GRAPH_BYTES = 1.5e9  # read and written by the calls of one graph: half a millisecond at 3 TB/s
REPLAYS = 9
GOAL = 0.9  # share of the copy's speed, from 64x3x64x64 on

Shape = tuple[int, ...]
Prepare = Callable[[Tensor], Callable[[], object]]  # maps an image batch to the call to time


def main() -> None:
    """Measure everything and print a table of each kind."""
    section = Section("haar", __doc__)
    shapes, chosen = (TINY, TINY) if section.tiny else (SHAPES, CHOSEN)
    section.write(kernel=choose(section.device.type)[0], goal=GOAL)
    with torch.cuda.stream(torch.cuda.Stream()) if section.device.type == "cuda" else nullcontext():
        measure_operations(section, shapes, chosen)
        measure_levels(section, chosen)
        measure_calls(section)
        measure_peers(section, chosen)
    below = [row for row in section.rows if row.get("goal") and row["share"] < GOAL]
    print(f"below {GOAL} of the copy: {describe_lowest(below) or 'none'}")


def measure_operations(section: Section, shapes: Sequence[Shape], chosen: Sequence[Shape]) -> None:
    """Measure dwt, idwt and fuse with their derivatives; print the shares of the copy's speed, a line per shape and dtype."""
    print(f"{'share of copy_':<22}" + "".join(f"{name:<18}" for name in operations.OURS))
    for shape, dtype in itertools.product(shapes, DTYPES):
        if dtype == "fp16" and shape not in chosen:
            continue
        cells = ""
        for name, order in operations.FLOORS:
            prepare = functools.partial(operations.prepare_ours, name, order)
            row = measure(section, shape, dtype, operations.FLOORS[name, order], prepare)
            section.add(operation=name, order=order, **row, goal=math.prod(shape) >= math.prod(CHOSEN[0]))
            cells += f"{row['share']:<6.2f}"
        print(f"{format_shape(shape):<16}{dtype:<6}{cells}", flush=True)


def measure_levels(section: Section, chosen: Sequence[Shape]) -> None:
    """Measure the forward of wavedec and waverec with 1 to 5 levels; print the shares of the speed of a copy of the batch."""
    print(f"{f'1 to {LEVELS[-1]} levels':<22}{'wavedec':<{6 * len(LEVELS)}}waverec")
    for shape, dtype in itertools.product(chosen, ("fp32", "bf16")):
        cells = ""
        for name, levels in itertools.product(("wavedec", "waverec"), LEVELS):
            row = measure(section, shape, dtype, 1, functools.partial(operations.prepare_levels, name, levels))
            section.add(operation=name, levels=levels, order="forward", **row)
            cells += f"{row['share']:<6.2f}"
        print(f"{format_shape(shape):<16}{dtype:<6}{cells}", flush=True)


def measure_calls(section: Section) -> None:
    """Measure the host's time for forward and backward of dwt, idwt and fuse at 8 px."""
    x = torch.randn(2, 3, 8, 8, device=section.device)
    rows = []
    for name in operations.OURS:
        call = operations.forward_and_backward(name, x)
        for _ in range(20):
            call()
        section.synchronize()
        began = time.perf_counter()
        for _ in range(100):
            call()
        section.synchronize()
        rows.append(section.add(operation=name, order="call", call_us=1e4 * (time.perf_counter() - began)))
    print("call, us: " + ", ".join(f"{row['operation']} {row['call_us']:.0f}" for row in rows), flush=True)


def measure_peers(section: Section, chosen: Sequence[Shape]) -> None:
    """Measure forward and backward of other implementations; print how many times as long as ours they take."""
    ours = {(row["operation"], row["order"], tuple(row["shape"]), row["dtype"]): row for row in section.rows if "share" in row}
    dtypes = ["fp32"] if section.tiny else [*DTYPES]
    for peer, shape, dtype in itertools.product(operations.peers(section.device, section.tiny), chosen, dtypes):
        if dtype not in peer.dtypes or section.remaining() < peer.compile_seconds:
            continue
        cells: dict[str, list[str]] = {name: [] for name in peer.functions}
        for name, order in itertools.product(peer.functions, operations.ORDERS[:2]):
            row = measure(section, shape, dtype, operations.FLOORS[name, order], functools.partial(peer.prepare, name, order))
            times = row["seconds"] / ours[name, order, shape, dtype]["seconds"]
            section.add(operation=name, order=order, implementation=peer.name, times=times, **row)
            cells[name].append(f"{times:.1f}")
        ratios = ", ".join(f"{name} {' '.join(values)}" for name, values in cells.items())
        print(f"{format_shape(shape):<16}{dtype:<6}{peer.name}, forward and backward, times ours: {ratios}", flush=True)


def measure(section: Section, shape: Shape, dtype: str, floor: float, prepare: Prepare) -> dict[str, Any]:
    """Measure one operation.

    Args:
        section: the section.
        shape: of the image batch.
        dtype: key of DTYPES.
        floor: what the operation must read and write, in copies of the image batch.
        prepare: maps an image batch to the call to time.

    Returns:
        The fields of a row: the seconds of the call, and its speed as a share of the speed of the copy.
    """
    x = torch.empty(shape, dtype=DTYPES[dtype], device=section.device)
    key = (int(floor * x.numel()), x.dtype)
    if key not in _COPY_SECONDS:
        elements = x.new_empty(key[0])
        _COPY_SECONDS[key] = seconds_per_call(section, elements, 1, lambda x: functools.partial(torch.empty_like(x).copy_, x))
    copy, seconds = _COPY_SECONDS[key], seconds_per_call(section, x, floor, prepare)
    return {"shape": list(shape), "dtype": dtype, "seconds": seconds, "copy_seconds": copy, "share": copy / seconds}


_COPY_SECONDS: dict[tuple[int, torch.dtype], float] = {}  # by number of elements and dtype


def seconds_per_call(section: Section, like: Tensor, floor: float, prepare: Prepare) -> float:
    """Return the median seconds of a call that `prepare` returns for random data of the shape and dtype of `like`."""
    if section.device.type == "cpu":
        call = prepare(torch.randn_like(like))
        call()
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    cache = torch.cuda.get_device_properties().L2_cache_size
    calls = [prepare(torch.randn_like(like)) for _ in range(max(2, math.ceil(cache / like.nbytes)))]
    for call in calls[:2]:
        call()  # compiles the kernels
    count = max(len(calls), int(GRAPH_BYTES / (2 * floor * like.nbytes)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        results = [
            call() for call in itertools.islice(itertools.cycle(calls), count)
        ]  # kept: no call reuses memory in the cache
    times = [replay_seconds(graph) / count for _ in range(2 + REPLAYS)]
    del results
    return statistics.median(times[2:])


def replay_seconds(graph: torch.cuda.CUDAGraph) -> float:
    """Return the seconds that one replay takes on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end) / 1000)


def describe_lowest(rows: Sequence[dict[str, Any]]) -> str:
    """Name the rows with the eight lowest shares."""
    lowest = sorted(rows, key=lambda row: float(row["share"]))[:8]
    names = [f"{row['operation']} {row['order']} {format_shape(row['shape'])} {row['dtype']}" for row in lowest]
    return ", ".join(names) + (f" and {len(rows) - len(lowest)} more" if len(rows) > len(lowest) else "")


def format_shape(shape: Sequence[int]) -> str:
    """Format a shape as 64x3x64x64."""
    return "x".join(map(str, shape))


if __name__ == "__main__":
    main()
