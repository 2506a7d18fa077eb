"""A plan for people and for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from wavegan_dist.plan.hardware import Hardware
from wavegan_dist.plan.predict import SHARDS, Row

HEAD = (
    f"{'GPUs':>5} {'strategy':<8} {'batch/GPU':>9} {'images/s':>10} {'weak':>5} {'strong':>6} {'step ms':>8} {'network':>7} "
    f"{'GiB/GPU':>8} {'workers/GPU':>11} {'ckpt':>6} {'eval':>6} {'cost/Mimg':>9}"
)


def format_plan(rows: Sequence[Row], hardware: Hardware) -> str:
    """A line a row, then what the columns mean; no trailing newline."""
    return "\n".join([HEAD, *map(_line, rows), *_notes(rows, hardware)])


def as_json(rows: Sequence[Row], hardware: Hardware) -> str:
    """All figures of the rows and the rates behind them; `step` in seconds, its total and network share beside it."""
    told = [asdict(row) | {"step_seconds": row.step.total, "network_seconds": row.step.network} for row in rows]
    return json.dumps({"rows": told, "hardware": hardware.model_dump(), "shards": SHARDS}, indent=2, allow_nan=False)


def _line(row: Row) -> str:
    memory = f"{row.memory_gib:.2f}" + ("" if row.fits else "!")
    workers = f"{row.workers_per_gpu}" + ("" if row.fed else "!")
    return (
        f"{row.gpus:>5} {row.strategy:<8} {row.batch_per_gpu:>9} {row.images_per_second:>10.0f} {row.weak_efficiency:>5.2f} "
        f"{row.strong_efficiency:>6.2f} {row.step.total * 1000:>8.2f} {row.step.network / row.step.total:>7.1%} {memory:>8} "
        f"{workers:>11} {row.checkpoint_share:>6.2%} {row.evaluation_share:>6.2%} {row.cost_per_million_images:>9.2f}"
    )


def _notes(rows: Sequence[Row], hardware: Hardware) -> list[str]:
    notes = [
        f"predicted, not measured, from the rates of {hardware.name}: {hardware.source}",
        "weak, strong: a GPU's speed beside one that trains alone on its share of the batch, or on all of it",
        f"shards: at least {SHARDS} mix best; workers: cores that decode; ckpt: waiting for checkpoints; eval: GPU hours of "
        "evaluation jobs beside training's",
    ]
    if not all(row.fits for row in rows):
        notes.append(f"!: more than the {hardware.memory_gib:g} GiB of a GPU: out of memory; more GPUs, or a smaller batch")
    if not all(row.fed for row in rows):
        notes.append(f"!: more than {hardware.cores_per_gpu} cores a GPU or the storage can feed: training waits for data")
    return notes
