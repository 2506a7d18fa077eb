"""Images per second of a training step, by resolution, precision and `train.compile`, compared with a plain version.

A step is that of the training loop: `Trainer.step` on random batches in pinned memory, then the status that all ranks agree on,
which waits for the GPU once. `plain` is `plain.py`. "in kernels" is the time of all kernels of a step, by PyTorch's profiler,
divided by the time of a step without the profiler; it may slightly exceed 100%. "launches" are the host's calls that start
kernels or CUDA graphs. "first" is the time of the first run of the step in seconds, with compilation.

Compiled rows have a process each (`step_row.py`): all compile at the same time, then all rows are measured one after the other.
Rows for which there is no time are left out.
"""

import functools
import gc
import itertools
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bench_common import fake_index
from torch.profiler import ProfilerActivity, profile

from gpu.common import ROOT, Helper, Section
from gpu.plain import PlainTrainer
from wavegan_dist import config
from wavegan_dist.config import Experiment
from wavegan_dist.data import ImageBatch
from wavegan_dist.devices import allow_tf32
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.progress import peak_memory
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.step_sync import StepSync
from wavegan_dist.train.trainer import Trainer

CONFIG = ROOT / "configs" / "photos64.yaml"
BATCHES = {32: 256, 64: 256, 128: 128, 256: 64}
PRECISIONS = {"fp32": [], "tf32": ["train.tf32=true"], "bf16": ["train.precision=bf16"]}
MODELS = {
    "dcgan": [],
    "residual": [
        *("model.backbone=residual", "model.resample=haar", "model.levels=2", "loss.objective=relativistic"),
        *("loss.r1=0.2", "loss.r2=0.2", "loss.penalty_interval=8", "augment.probability=0.3"),
    ],
}
SECONDS = 1.0  # of a measurement
PROFILED_STEPS = 3
COMPILE_SHARE = 0.6  # of the section's time: rows that have not been compiled by then are left out
ROW_SECONDS = 2 * SECONDS  # kept for a row
GRAPH_SECONDS = 20  # that the measurement of a compiled row may take
COPIES = ("Memcpy", "Memset")  # the profiler's names of what the device does besides kernels
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")


@dataclass(frozen=True)
class Case:
    """A row of the table. `mode` is "plain" or a value of `train.compile`; `model` is a key of `MODELS`."""

    side: int
    precision: str
    mode: str
    model: str = "dcgan"

    def experiment(self, tiny: bool) -> Experiment:
        """Return the settings: those of photos64.yaml at this resolution, or a model of width 4."""
        size = ["train.batch_size=8", "model.width=4", "model.z_dim=8"] if tiny else [f"train.batch_size={BATCHES[self.side]}"]
        overrides = [f"model.resolution={self.side}", "model.attention_at=[16]", "train.precision=fp32"]
        overrides += [*size, *PRECISIONS[self.precision], *MODELS[self.model], *compile_override(self.mode)]
        return config.load(CONFIG, overrides)


def compile_override(mode: str) -> list[str]:
    """Return the override that sets `train.compile`, whose default is off."""
    return [] if mode in ("plain", "off") else [f"train.compile={mode}"]


def cases(tiny: bool) -> list[Case]:
    """Return all rows in the order of measurement."""
    if tiny:  # nothing compiled: a CPU would take minutes
        return [
            Case(32, "fp32", "plain"),
            Case(32, "bf16", "plain"),
            Case(32, "bf16", "off"),
            Case(32, "fp32", "off"),
            Case(32, "fp32", "off", "residual"),
        ]
    plain = [Case(side, "bf16", "plain") for side in (64, 32, 128, 256)] + [
        Case(64, "tf32", "plain"),
        Case(64, "fp32", "plain"),
    ]
    compiled = [Case(side, "bf16", "graphs") for side in (64, 32, 128, 256)]
    compiled += [Case(64, "bf16", "graphs", "residual"), Case(64, "bf16", "default"), Case(64, "tf32", "graphs")]
    eager = [Case(side, "bf16", "off") for side in BATCHES] + [Case(side, "bf16", "off", "residual") for side in (64, 128)]
    eager += [Case(side, precision, "off") for precision in ("tf32", "fp32") for side in (64, 32, 128, 256)]
    return [*plain, *compiled, *eager]


def main() -> None:
    """Measure all rows that fit into the time, print a line for each; fail if one failed."""
    section = Section("step", __doc__)
    rows = cases(section.tiny)
    # Without the setting, each process would start as many compiling processes as there are cores.
    env = {"TORCHINDUCTOR_COMPILE_THREADS": "2"}
    compiled = {case: Helper(section, "gpu.step_row", vars(case), **env) for case in rows if case.mode not in ("plain", "off")}
    try:
        measure_rows(section, rows, compiled)
    finally:
        for helper in compiled.values():
            helper.kill()
    if left_out := section.about.get("left_out"):
        print(f"left out for lack of time: {', '.join(' '.join(map(str, case.values())) for case in left_out)}")
    if any("error" in row for row in section.rows):
        raise SystemExit("step: some rows failed")


def measure_rows(section: Section, rows: Sequence[Case], compiled: Mapping[Case, Helper]) -> None:
    """Measure the rows one after the other, once the compiled ones are ready or their time is over."""
    deadline = time.monotonic() + COMPILE_SHARE * section.remaining()
    ready = {case for case, helper in compiled.items() if helper.is_ready(deadline)}
    for case in compiled.keys() - ready:
        compiled[case].kill()  # compiling, it would slow the host down
    print(" px batch  dtype mode    model    images/s  ms/step in kernels  kernels launches   GiB first x plain")
    for case in rows:
        if section.remaining() < ROW_SECONDS or case in compiled.keys() - ready:
            section.write(left_out=[*section.about.get("left_out", []), vars(case)])
        elif case in compiled:
            compiled[case].begin(SECONDS)
            add(section, case, functools.partial(compiled[case].result, GRAPH_SECONDS))
        else:
            add(section, case, functools.partial(prepare_and_measure, section, case))


def add(section: Section, case: Case, measure_row: Callable[[], dict[str, Any]]) -> None:
    """Measure one row, add it to the result and print it; a failure is recorded, because the other rows are worth having."""
    try:
        row = section.add(**vars(case), **measure_row())
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        print(f"{case.side:>3} {case.precision} {case.mode} {case.model}: {reason[:300]}", flush=True)
        section.add(**vars(case), error=reason)
        return
    print(format_row(row, baseline(section, case)), flush=True)


def prepare(section: Section, case: Case) -> tuple[Callable[[], object], float, Experiment]:
    """Build the step of a row and run it; return the step, the seconds of its first run, and the settings.

    If the row has penalties, the first run is one step with and one step without them.
    """
    gc.collect()
    if section.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    experiment = case.experiment(section.tiny)
    step = (plain_step if case.mode == "plain" else our_step)(section, experiment)
    began = time.perf_counter()
    for _ in range(min(penalty_period(experiment), 2)):  # steps with and without penalties are compiled separately
        step()
    section.synchronize()
    return step, time.perf_counter() - began, experiment


def prepare_and_measure(section: Section, case: Case) -> dict[str, Any]:
    """Return the fields of a row."""
    return measure(section, *prepare(section, case))


def measure(section: Section, step: Callable[[], object], first: float, experiment: Experiment) -> dict[str, Any]:
    """Return the fields of the row of a step whose first run took `first` seconds."""
    period, batch_size = penalty_period(experiment), experiment.train.batch_size
    for _ in range(3):
        step()
    seconds = seconds_per_step(section, step, period)
    return {
        "batch": batch_size, "images_per_second": batch_size / seconds, "seconds_per_step": seconds,
        "first_step_seconds": first, "peak_gib": peak_memory(section.device) / 2**30,
        **profiled(section, step, seconds, period),
    }  # fmt: skip


def penalty_period(experiment: Experiment) -> int:
    """Return after how many steps the penalties repeat; 1 without penalties."""
    return experiment.loss.penalty_interval if experiment.loss.r1 or experiment.loss.r2 else 1


def our_step(section: Section, experiment: Experiment) -> Callable[[], object]:
    """Return the training loop's step."""
    accelerator = launch.init_accelerator(experiment.train)
    trainer = Trainer(experiment, fake_index(experiment.model.resolution, 0.1), accelerator)
    step_sync, batches = StepSync(trainer, Checkpointer(trainer, dict), Signals()), random_batches(experiment, section)

    def step() -> None:
        trainer.step(batches)
        if step_sync.all_reduce().nonfinite:
            raise FloatingPointError("a loss or gradient is not finite")

    return step


def plain_step(section: Section, experiment: Experiment) -> Callable[[], object]:
    """Return the plain version's step."""
    allow_tf32(experiment.train.tf32)
    torch.backends.cudnn.deterministic = False  # PyTorch's default; `our_step` sets it
    trainer, batches = PlainTrainer(experiment, section.device), random_batches(experiment, section)
    return lambda: trainer.step(batches)


def random_batches(experiment: Experiment, section: Section) -> Iterator[ImageBatch]:
    """Return an endless iterator over one random batch, uint8 [B, 3, S, S], channels last, pinned if there is a GPU."""
    side = experiment.model.resolution
    batch_bhwc = torch.randint(0, 256, (experiment.train.batch_size, side, side, 3), dtype=torch.uint8)
    if section.device.type == "cuda":
        batch_bhwc = batch_bhwc.pin_memory()
    return itertools.repeat(ImageBatch(batch_bhwc.permute(0, 3, 1, 2)))


def seconds_per_step(section: Section, step: Callable[[], object], period: int) -> float:
    """Return the mean seconds of a step over about SECONDS and whole periods; if `tiny`, over two periods."""
    section.synchronize()
    began, steps = time.perf_counter(), 0
    while steps < 2 * period or (not section.tiny and time.perf_counter() - began < SECONDS):
        for _ in range(period):
            step()
        steps += period
    section.synchronize()
    return (time.perf_counter() - began) / steps


def profiled(section: Section, step: Callable[[], object], seconds: float, period: int) -> dict[str, float]:
    """Return the share of a step's time in kernels, and the numbers of kernels and launches of a step."""
    activity = ProfilerActivity.CUDA if section.device.type == "cuda" else ProfilerActivity.CPU
    steps = period if section.tiny else math.ceil(PROFILED_STEPS / period) * period
    with profile(activities=[activity]) as profiler:
        for _ in range(steps):
            step()
        section.synchronize()
    events = profiler.events() or []
    kernels = [event for event in events if event.device_type.name == "CUDA" and not event.name.startswith(COPIES)]
    launches = sum(event.name in LAUNCHES for event in events)
    busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
    return {"kernel_share": busy / steps / seconds, "kernels": len(kernels) / steps, "launches": launches / steps}


def baseline(section: Section, case: Case) -> float | None:
    """Return the images per second of the plain version, a `dcgan` model, at the same resolution and precision, if measured."""
    if case.model != "dcgan":
        return None
    rows = [row for row in section.rows if (row["side"], row["precision"], row["mode"]) == (case.side, case.precision, "plain")]
    return rows[0].get("images_per_second") if rows else None


def format_row(row: dict[str, Any], plain: float | None) -> str:
    """Format one row of the table."""
    ratio = f"{row['images_per_second'] / plain:.2f}" if plain else "-"
    return (
        f"{row['side']:>3} {row['batch']:>5} {row['precision']:>6} {row['mode']:<7} {row['model']:<8} "
        f"{row['images_per_second']:>8,.0f} "
        f"{1000 * row['seconds_per_step']:>8.2f} {row['kernel_share']:>10.0%} {row['kernels']:>8.0f} {row['launches']:>8.0f} "
        f"{row['peak_gib']:>5.1f} {row['first_step_seconds']:>5.1f} {ratio:>7}"
    )


if __name__ == "__main__":
    main()
