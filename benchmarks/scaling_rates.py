"""This machine's rates for `wavegan plan`, from single processes and from all-reduces; used by benchmarks/scaling.py."""

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

TINY_BATCH = 2  # images; such a step consists almost only of operator launches
MATRIX_SIDE = 1024
COPY_BYTES = 2**26
EVALUATION_SPEED = 99.6  # images/s of `wavegan evaluate`, one process: benchmarks/README.md


def rates(measured: dict[str, Any], experiment: Experiment) -> Hardware:
    """Return this machine's hardware description: peak rates by microbenchmarks, fractions by the steps of one process.

    Args:
        measured: the result of `scaling.measure`.
        experiment: the experiment of the launch `alone`.
    """
    torch.set_num_threads(1)
    seconds = {name: statistics.median(step["total"] for step in steps) for name, steps in measured["steps"].items()}
    alone, counter = seconds["alone"], StepCounter(experiment)
    counts = counter.counts(experiment.train.batch_size)
    reached = counts.flops / (alone * measured["products_share"]) / 1e12
    peak = {
        "fp32": matmul_tflops(torch.float32, MATRIX_SIDE),
        "bf16": matmul_tflops(torch.bfloat16, MATRIX_SIDE // 4),
        "fp16": matmul_tflops(torch.float16, MATRIX_SIDE // 4),
    }
    known = {
        "kind": "cpu",
        "name": f"one core of {os.cpu_count()} of this machine",
        "source": "measured by benchmarks/scaling.py (the network by gloo within the machine)",
        "peak_tflops": peak,
        "matmul_fraction": min(reached / peak["fp32"], 1.0),
        "sharing": max(seconds["independent"] / alone, 1.0),
        "decode_megapixels_per_s": measured["loop_decodes_megapixels_per_s"],
        "evaluate_images_per_s": EVALUATION_SPEED,
        "cost_per_gpu_hour": 0.0,
        **machine_rates(measured["all_reduce_seconds"]),
    }
    steps = {experiment.train.batch_size: alone, TINY_BATCH: seconds["tiny"]}
    return fit_hardware(known, counter, steps, experiment.train.d_steps)


def machine_rates(all_reduce_seconds: dict[str, float]) -> dict[str, Any]:
    """Measure memory, disk and links of this machine."""
    alpha, beta = fit_link(all_reduce_seconds)
    link = {"alpha_us": alpha * 1e6, "gb_per_s": beta / 1e9}
    return {
        "memory_gb_per_s": 2 * COPY_BYTES / shortest(torch.zeros(COPY_BYTES, dtype=torch.uint8).clone) / 1e9,
        "memory_gib": psutil.virtual_memory().total / 2**30 / (os.cpu_count() or 1),
        "reserved_gib": 0.5,
        "gpus_per_node": os.cpu_count() or 1,
        "cores_per_gpu": 1,
        "intra_node": link,
        "inter_node": link,
        "overlap": 0.0,
        "storage_gb_per_s": storage_gb_per_s(),
        "host_copy_gb_per_s": COPY_BYTES / shortest(torch.zeros(COPY_BYTES, dtype=torch.uint8).clone) / 1e9,
    }


def fit_hardware(known: dict[str, Any], counter: StepCounter, steps: dict[int, float], d_steps: int) -> Hardware:
    """Fit `memory_fraction` and `operator_us` so that the predicted steps of one process take the measured time.

    Args:
        known: all other values of the hardware description.
        counter: counts the operations of the experiment.
        steps: seconds per step by batch size, for a normal and for a tiny batch.
        d_steps: discriminator steps per generator step.
    """
    (batch, batch_seconds), (tiny, tiny_seconds) = steps.items()
    values = {**known, "memory_fraction": 1.0, "operator_us": 1.0}
    for _ in range(12):  # alternates between the two values, which hardly depend on each other
        for key, size, goal in (("operator_us", tiny, tiny_seconds), ("memory_fraction", batch, batch_seconds)):
            counts, low, high = counter.counts(size), 1e-3, 1e3
            for _ in range(30):
                values[key] = (low * high) ** 0.5
                network = Network(Hardware.model_validate(values), 1)
                too_slow = step_time(counts, counter.sizes, "ddp", network, d_steps).total > goal
                low, high = (low, values[key]) if too_slow == (key == "operator_us") else (values[key], high)
    return Hardware.model_validate(values)


def fit_link(all_reduce_seconds: dict[str, float]) -> tuple[float, float]:
    """Fit latency alpha and bandwidth beta to all-reduces of 2 processes: seconds = 2 alpha + size / beta.

    Minimizes the relative squared error.

    Returns:
        alpha in seconds and beta in bytes per second.
    """
    sizes, times = (np.array(list(map(float, values))) for values in (all_reduce_seconds.keys(), all_reduce_seconds.values()))
    (alpha, inverse), *_ = np.linalg.lstsq(np.stack([2 / times, sizes / times], axis=1), np.ones_like(times), rcond=None)
    return max(float(alpha), 0.0), 1 / float(inverse)


def matmul_tflops(dtype: torch.dtype, side: int) -> float:
    """Measure 1e12 floating point operations per second of the product of two square matrices."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return 2 * side**3 / shortest(lambda: a @ b) / 1e12


def shortest(function: Callable[[], object], rounds: int = 7) -> float:
    """Return the seconds of a call: the shortest mean over rounds of at least 20 ms each."""
    function()
    times = []
    for _ in range(rounds):
        calls, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < 0.02:
            function()
            calls += 1
        times.append(elapsed / calls)
    return min(times)


def storage_gb_per_s() -> float:
    """Measure 1e9 bytes per second written to the disk, including fsync."""
    with tempfile.NamedTemporaryFile(dir=Path(__file__).parent) as file:
        began = time.perf_counter()
        file.write(bytes(COPY_BYTES))
        file.flush()
        os.fsync(file.fileno())
        return COPY_BYTES / (time.perf_counter() - began) / 1e9


def write(hardware: Hardware, path: Path) -> None:
    """Write a hardware file for `wavegan plan`, with three digits of each number."""
    with atomic_file(path) as file:
        file.write("# Written by benchmarks/scaling.py --write-hardware, which tells how; docs/scaling.md.\n")
        yaml.safe_dump(_rounded(hardware.model_dump()), file, sort_keys=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(member) for key, member in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value
