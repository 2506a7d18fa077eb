"""Predictions as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from wavegan_dist.plan.hardware import Hardware
from wavegan_dist.plan.predict import RECOMMENDED_SHARDS, Prediction

HEADER = (
    f"{'GPUs':>5} {'strategy':<8} {'batch/GPU':>9} {'images/s':>10} {'weak':>5} {'strong':>6} {'step ms':>8} {'network':>7} "
    f"{'GiB/GPU':>8} {'workers/GPU':>11} {'ckpt':>6} {'eval':>6} {'cost/Mimg':>9}"
)


def format_plan(rows: Sequence[Prediction], hardware: Hardware) -> str:
    """Format a table as text: a line of headings, a line for each row, and notes that explain the columns; no trailing newline.

    `hardware` is the hardware of the predictions; the notes name it.
    """
    return "\n".join([HEADER, *map(_format_row, rows), *_notes(rows, hardware)])


def plan_json(rows: Sequence[Prediction], hardware: Hardware) -> str:
    """Format the predictions ("rows"), the hardware file ("hardware") and the recommended number of shards ("shards") as JSON.

    A row has all fields of `Prediction`; `step` holds seconds by part, `step_seconds` their sum, `network_seconds` those of
    collectives.
    """
    row_fields = [asdict(row) | {"step_seconds": row.step.total, "network_seconds": row.step.network} for row in rows]
    document = {"rows": row_fields, "hardware": hardware.model_dump(), "shards": RECOMMENDED_SHARDS}
    return json.dumps(document, indent=2, allow_nan=False)


def _format_row(row: Prediction) -> str:
    memory = f"{row.memory_gib:.2f}" + ("" if row.fits else "!")
    workers = f"{row.workers_per_gpu}" + ("" if row.fed else "!")
    return (
        f"{row.gpus:>5} {row.strategy:<8} {row.batch_per_gpu:>9} {row.images_per_second:>10.0f} {row.weak_efficiency:>5.2f} "
        f"{row.strong_efficiency:>6.2f} {row.step.total * 1000:>8.2f} {row.step.network / row.step.total:>7.1%} {memory:>8} "
        f"{workers:>11} {row.checkpoint_share:>6.2%} {row.evaluation_share:>6.2%} {row.cost_per_million_images:>9.2f}"
    )


def _notes(rows: Sequence[Prediction], hardware: Hardware) -> list[str]:
    notes = [
        f"predicted, not measured, from the rates of {hardware.name}: {hardware.source}",
        "weak, strong: weak- and strong-scaling efficiency, the speed of a GPU relative to one that trains alone on the "
        "local batch, or on the global batch",
        f"shards: {RECOMMENDED_SHARDS} or more are best; workers: loader processes; ckpt: time spent waiting for checkpoints; "
        "eval: GPU hours of evaluation jobs relative to training",
    ]
    if not all(row.fits for row in rows):
        notes.append(
            f"!: exceeds the {hardware.memory_gib:g} GiB of a GPU, so the run would be out of memory; "
            "use more GPUs or a smaller batch"
        )
    if not all(row.fed for row in rows):
        notes.append(
            f"!: {hardware.cores_per_gpu} cores per GPU or the storage cannot deliver images fast enough, so training waits "
            "for data"
        )
    return notes
