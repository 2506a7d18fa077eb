"""Images per second of a training step, by resolution, precision and `train.compile`, compared with a plain version.

A step is that of the training loop: `Trainer.step` on random batches in pinned memory, then the status that all ranks agree on,
which waits for the GPU once. `plain` is `plain.py`. "in kernels" is the time of all kernels of a step, by PyTorch's profiler,
divided by the time of a step without the profiler. "launches" are the host's calls that start kernels or CUDA graphs. "first"
is the time of the first step in seconds, with compilation. Rows for which there is no time are left out, the least important
ones first.
"""

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from bench_common import fake_index
from torch.profiler import ProfilerActivity, profile

from gpu.common import ROOT, Section
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
COMPILE_SECONDS = 30  # assumed before the first compilation has been measured
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
    """Return all rows in the order of measurement: a failed CUDA graph may break the process, so these come last."""
    if tiny:
        return [
            Case(32, "bf16", "plain"),
            Case(32, "bf16", "off"),
            Case(32, "fp32", "off"),
            Case(32, "fp32", "off", "residual"),
        ]
    plain = [Case(side, "bf16", "plain") for side in BATCHES] + [Case(64, precision, "plain") for precision in ("tf32", "fp32")]
    eager = [Case(side, precision, "off") for side, precision in itertools.product(BATCHES, ("bf16", "tf32", "fp32"))]
    graphs = [Case(side, "bf16", "graphs") for side in (64, 32, 128, 256)]
    others = [Case(64, "bf16", "default"), Case(64, "tf32", "graphs"), Case(64, "fp32", "graphs"), Case(32, "bf16", "default")]
    residual = [Case(side, "bf16", "off", "residual") for side in (64, 128)]
    residual_graphs = [Case(64, "bf16", "graphs", "residual")]
    return [*plain, *eager, *residual, graphs[0], others[0], *graphs[1:], *residual_graphs, *others[1:]]


def main() -> None:
    """Measure all rows that fit into the time, print a line for each; fail if one failed."""
    section = Section("step", __doc__)
    print(" px batch  dtype mode    model    images/s  ms/step in kernels  kernels launches   GiB first x plain")
    for case in cases(section.tiny):
        if section.remaining() < estimate(section, case):
            section.write(left_out=[*section.about.get("left_out", []), vars(case)])
            continue
        try:
            row = section.add(**vars(case), **measure(section, case))
        except Exception as error:  # the other rows are worth having
            print(f"{case.side:>3} {case.precision} {case.mode}: {type(error).__name__}: {str(error)[:300]}")
            section.add(**vars(case), error=f"{type(error).__name__}: {error}")
            continue
        print(format_row(row, baseline(section, case)), flush=True)
    if left_out := section.about.get("left_out"):
        print(f"left out for lack of time: {', '.join(' '.join(map(str, case.values())) for case in left_out)}")
    if any("error" in row for row in section.rows):
        raise SystemExit("step: some rows failed")


def estimate(section: Section, case: Case) -> float:
    """Return how many seconds a row will take at most."""
    if case.mode in ("plain", "off"):
        return 2 * SECONDS
    return 1.3 * max([row["first_step_seconds"] for row in section.rows if row["mode"] == case.mode], default=COMPILE_SECONDS)


def measure(section: Section, case: Case) -> dict[str, Any]:
    """Return the fields of one row."""
    gc.collect()
    torch._dynamo.reset()
    if section.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    experiment = case.experiment(section.tiny)
    step = (plain_step if case.mode == "plain" else our_step)(section, experiment)
    began = time.perf_counter()
    step()
    section.synchronize()
    first = time.perf_counter() - began
    for _ in range(3):
        step()
    seconds = seconds_per_step(section, step)
    batch_size = experiment.train.batch_size
    return {
        "batch": batch_size, "images_per_second": batch_size / seconds, "seconds_per_step": seconds,
        "first_step_seconds": first, "peak_gib": peak_memory() / 2**30, **profiled(section, step, seconds),
    }  # fmt: skip


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
    trainer, batches = PlainTrainer(experiment, section.device), random_batches(experiment, section)
    return lambda: trainer.step(batches)


def random_batches(experiment: Experiment, section: Section) -> Iterator[ImageBatch]:
    """Return an endless iterator over one random batch, uint8 [B, 3, S, S], channels last, pinned if there is a GPU."""
    side = experiment.model.resolution
    batch_bhwc = torch.randint(0, 256, (experiment.train.batch_size, side, side, 3), dtype=torch.uint8)
    if section.device.type == "cuda":
        batch_bhwc = batch_bhwc.pin_memory()
    return itertools.repeat(ImageBatch(batch_bhwc.permute(0, 3, 1, 2)))


def seconds_per_step(section: Section, step: Callable[[], object]) -> float:
    """Return the mean seconds of a step over about SECONDS; if `tiny`, over two steps."""
    section.synchronize()
    began, steps = time.perf_counter(), 0
    while steps < 2 or (not section.tiny and time.perf_counter() - began < SECONDS):
        step()
        steps += 1
    section.synchronize()
    return (time.perf_counter() - began) / steps


def profiled(section: Section, step: Callable[[], object], seconds: float) -> dict[str, float]:
    """Return the share of a step's time in kernels, and the numbers of kernels and launches of a step."""
    activity = ProfilerActivity.CUDA if section.device.type == "cuda" else ProfilerActivity.CPU
    steps = 1 if section.tiny else PROFILED_STEPS
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
