"""This machine's rates for `wavegan plan`, from one process at a time and from all-reduces; used by benchmarks/scaling.py."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml

from wavegan_dist.config import Experiment
from wavegan_dist.files import atomic_file
from wavegan_dist.plan import Hardware
from wavegan_dist.plan.count import StepCounter
from wavegan_dist.plan.network import Network
from wavegan_dist.plan.step_time import step_time

TINY = 2  # images of a step that is little but launches of operators
SIDE = 1024  # of the matrices
COPIED = 2**26  # bytes
EVALUATED = 64.3  # images/s of `wavegan evaluate`, one process: benchmarks/README.md


def rates(measured: dict[str, Any], experiment: Experiment) -> Hardware:
    """Peaks by microbenchmarks, fractions by the step of one process; `experiment` is that process's."""
    torch.set_num_threads(1)
    took = {name: statistics.median(step["total"] for step in steps) for name, steps in measured["steps"].items()}
    alone, counter = took["alone"], StepCounter(experiment)
    peak = {
        "fp32": tflops(torch.float32, SIDE),
        "bf16": tflops(torch.bfloat16, SIDE // 4),
        "fp16": tflops(torch.float16, SIDE // 4),
    }
    counts = counter.counts(experiment.train.batch_size)
    reached = counts.flops / (alone * measured["products_share"]) / 1e12
    alpha, beta = fit(measured["all_reduce_seconds"])
    link = {"alpha_us": alpha * 1e6, "gb_per_s": beta / 1e9}
    known = {
        "kind": "cpu",
        "name": f"one core of {os.cpu_count()} of this machine",
        "source": "measured by benchmarks/scaling.py (the network by gloo within the machine)",
        "peak_tflops": peak,
        "matmul_fraction": min(reached / peak["fp32"], 1.0),
        "memory_gb_per_s": 2 * COPIED / seconds(torch.zeros(COPIED, dtype=torch.uint8).clone) / 1e9,
        "sharing": max(took["independent"] / alone, 1.0),
        "memory_gib": psutil.virtual_memory().total / 2**30 / (os.cpu_count() or 1),
        "reserved_gib": 0.5,
        "gpus_per_node": os.cpu_count() or 1,
        "cores_per_gpu": 1,
        "intra_node": link,
        "inter_node": link,
        "overlap": 0.0,
        "storage_gb_per_s": storage(),
        "host_copy_gb_per_s": COPIED / seconds(torch.zeros(COPIED, dtype=torch.uint8).clone) / 1e9,
        "decode_megapixels_per_s": measured["loop_decodes_megapixels_per_s"],
        "evaluate_images_per_s": EVALUATED,
        "cost_per_gpu_hour": 0.0,
    }
    steps = {experiment.train.batch_size: alone, TINY: took["tiny"]}
    return fitted(known, counter, steps, experiment.train.d_steps)


def fitted(known: dict[str, Any], counter: StepCounter, steps: dict[int, float], d_steps: int) -> Hardware:
    """With the memory's share and the operator's launch at which one process takes `steps`: batch -> seconds a step."""
    (batch, seconds_of_batch), (tiny, seconds_of_tiny) = steps.items()
    rates = {**known, "memory_fraction": 1.0, "operator_us": 1.0}
    for _ in range(12):  # each hardly depends on the other
        for key, size, goal in (("operator_us", tiny, seconds_of_tiny), ("memory_fraction", batch, seconds_of_batch)):
            counts, low, high = counter.counts(size), 1e-3, 1e3
            for _ in range(30):
                rates[key] = (low * high) ** 0.5
                network = Network(Hardware.model_validate(rates), 1)
                longer = step_time(counts, counter.sizes, "ddp", network, d_steps).total > goal
                low, high = (low, rates[key]) if longer == (key == "operator_us") else (rates[key], high)
    return Hardware.model_validate(rates)


def fit(all_reduces: dict[str, float]) -> tuple[float, float]:
    """alpha in seconds and beta in bytes/s of 2 processes' all-reduces, 2 alpha + size / beta, by relative least squares."""
    sizes, times = (np.array(list(map(float, values))) for values in (all_reduces.keys(), all_reduces.values()))
    (alpha, inverse), *_ = np.linalg.lstsq(np.stack([2 / times, sizes / times], axis=1), np.ones_like(times), rcond=None)
    return max(float(alpha), 0.0), 1 / float(inverse)


def tflops(dtype: torch.dtype, side: int) -> float:
    """Of a product of two square matrices."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b) / 1e12


def seconds(work: Callable[[], object], rounds: int = 7) -> float:
    """Shortest of some calls, each long enough for the clock."""
    work()
    times = []
    for _ in range(rounds):
        calls, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < 0.02:
            work()
            calls += 1
        times.append(taken / calls)
    return min(times)


def storage() -> float:
    """1e9 bytes a second written and on the disk."""
    with tempfile.NamedTemporaryFile(dir=Path(__file__).parent) as file:
        began = time.perf_counter()
        file.write(bytes(COPIED))
        file.flush()
        os.fsync(file.fileno())
        return COPIED / (time.perf_counter() - began) / 1e9


def write(hardware: Hardware, path: Path) -> None:
    """As a hardware file, three digits of each number."""
    with atomic_file(path) as file:
        file.write("# Written by benchmarks/scaling.py --write-hardware, which tells how; docs/scaling.md.\n")
        yaml.safe_dump(_rounded(hardware.model_dump()), file, sort_keys=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value
