"""How long a checkpoint keeps training waiting: written in the background, beside the same written while training waits.

One process, the model of a 64 px run, its state in RAM. Blocked is the time inside `Checkpointer.save` (and `wait`, for the
synchronous one); the drag is by how much the steps that run while a checkpoint is written take longer than others.

    python benchmarks/checkpoint.py [--rounds 7] [--width 64] [--out DIR]
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate import Accelerator

from wavegan_dist.config import parse
from wavegan_dist.provenance import provenance
from wavegan_dist.train.checkpoint import Checkpointer, checkpoint_tensors
from wavegan_dist.train.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
BATCH = 8


def trainer_of(width: int) -> Trainer:
    """A trainer of a 64 px model that has made a step."""
    tree = {"data": {"index": "none"}, "model": {"resolution": 64, "width": width}, "train": {"batch_size": BATCH}}
    bands = SimpleNamespace(band_std=SimpleNamespace(model_dump=lambda: dict.fromkeys(("low", "lh", "hl", "hh"), 1.0)))
    return Trainer(parse(tree, "benchmarks/checkpoint.py"), bands, Accelerator(cpu=not torch.cuda.is_available()))  # type: ignore[arg-type]


def seconds(work: object, *arguments: object) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - began


def measure(trainer: Trainer, folder: Path, rounds: int) -> dict[str, float]:
    """Medians in seconds, of so many checkpoints of each kind in turn."""
    batches = (torch.randint(0, 256, (BATCH, 3, 64, 64), dtype=torch.uint8) for _ in itertools.count())
    trainer.step(batches)
    checkpointer = Checkpointer(trainer, dict)
    times: dict[str, list[float]] = {
        name: [] for name in ("step", "step while saving", "synchronous", "asynchronous", "written after")
    }
    for number in range(rounds + 1):
        steps = [seconds(trainer.step, batches) for _ in range(3)]
        synchronous = seconds(checkpointer.save, folder / "synchronous") + seconds(checkpointer.wait)
        asynchronous = seconds(checkpointer.save, folder / "asynchronous")
        began, dragged = time.perf_counter(), []
        while not checkpointer.idle:
            dragged.append(seconds(trainer.step, batches))
        written = time.perf_counter() - began
        checkpointer.wait()
        if number:  # the first makes the buffers
            times["step"] += steps
            times["step while saving"] += dragged
            times["synchronous"].append(synchronous)
            times["asynchronous"].append(asynchronous)
            times["written after"].append(written)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the table and write results/checkpoint.json."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--out", type=Path, help="where to write checkpoints (default: a temporary folder)")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    trainer = trainer_of(chosen.width)
    with tempfile.TemporaryDirectory(dir=chosen.out) as folder:
        row = measure(trainer, Path(folder), chosen.rounds)
    state = sum(value.nbytes for _, value in checkpoint_tensors(trainer))
    print(f"state {state / 2**20:.0f} MiB; medians of {chosen.rounds} rounds, one thread, seconds")
    for name, value in row.items():
        print(f"{name:>18} {value:8.3f}")
    print(f"asynchronous / synchronous {row['asynchronous'] / row['synchronous']:.3f}")
    print(f"a step while saving / a step {row['step while saving'] / row['step']:.2f}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "checkpoint.json").write_text(json.dumps({"row": row, "state_bytes": state, "about": provenance()}, indent=2))


if __name__ == "__main__":
    main()
