"""How long a checkpoint blocks training: asynchronous saving, compared with synchronous saving.

One process trains the model of a 64 px run; its state fits in memory. The blocked time is the time inside `Checkpointer.save`,
for synchronous saving plus `Checkpointer.wait`. Also measured: by how much steps slow down while a checkpoint is written.

    python benchmarks/checkpoint.py [--rounds 7] [--width 64] [--out DIR]
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from bench_common import argument_parser, fake_index, write_result

from wavegan_dist.config import parse
from wavegan_dist.data import ImageBatch
from wavegan_dist.provenance import provenance
from wavegan_dist.train.checkpoint import Checkpointer, checkpoint_tensors
from wavegan_dist.train.trainer import Trainer

BATCH, SIDE = 8, 64


def make_trainer(width: int) -> Trainer:
    """Return the trainer of a 64 px model with that channel width."""
    tree = {"data": {"index": "none"}, "model": {"resolution": SIDE, "width": width}, "train": {"batch_size": BATCH}}
    return Trainer(parse(tree, "benchmarks/checkpoint.py"), fake_index(SIDE), Accelerator(cpu=not torch.cuda.is_available()))


def timed(function: Callable[..., object], *arguments: object) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def measure(trainer: Trainer, folder: Path, rounds: int) -> dict[str, float]:
    """Return medians in seconds over `rounds` checkpoints of each kind, which take turns."""
    batches = (ImageBatch(torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)) for _ in itertools.count())
    trainer.step(batches)
    checkpointer = Checkpointer(trainer, dict)
    names = ("step", "step while saving", "synchronous", "asynchronous", "written after")
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        steps = [timed(trainer.step, batches) for _ in range(3)]
        synchronous = timed(checkpointer.save, folder / "synchronous") + timed(checkpointer.wait)
        asynchronous = timed(checkpointer.save, folder / "asynchronous")
        began, slowed_steps = time.perf_counter(), []
        while not checkpointer.idle:
            slowed_steps.append(timed(trainer.step, batches))
        written = time.perf_counter() - began
        checkpointer.wait()
        if number:  # the first round allocates the buffers
            times["step"] += steps
            times["step while saving"] += slowed_steps
            times["synchronous"].append(synchronous)
            times["asynchronous"].append(asynchronous)
            times["written after"].append(written)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the table and write results/checkpoint.json."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--out", type=Path, help="where to write checkpoints (default: a temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trainer = make_trainer(options.width)
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        row = measure(trainer, Path(folder), options.rounds)
    state_bytes = sum(value.nbytes for _, value in checkpoint_tensors(trainer))
    print(f"state {state_bytes / 2**20:.0f} MiB; medians of {options.rounds} rounds, one thread, seconds")
    for name, value in row.items():
        print(f"{name:>18} {value:8.3f}")
    print(f"asynchronous / synchronous {row['asynchronous'] / row['synchronous']:.3f}")
    print(f"a step while saving / a step {row['step while saving'] / row['step']:.2f}")
    write_result("checkpoint", {"row": row, "state_bytes": state_bytes, "about": provenance()})


if __name__ == "__main__":
    main()
