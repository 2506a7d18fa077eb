"""The memory that each process holds under DDP and ZeRO 1, 2, 3: bytes of weights, gradients, optimizer moments and EMA.

    python benchmarks/zero.py [--width 64] [--processes 2]

Real gloo processes of one thread each train a 64 px model. Counted are all live tensors of rank 0, each storage once, when the
gradients of a module are complete and its optimizer step begins. Gradients are all storages that are neither weights, moments
nor EMA, so that DeepSpeed's buffers count as gradients. Message sizes, and the parameters that stage 3 keeps gathered, are
limited to 4 MiB because the model is small. Writes benchmarks/results/zero.json.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from bench_common import argument_parser, fake_index, write_result
from torch import Tensor

from wavegan_dist.config import parse
from wavegan_dist.data import ImageBatch
from wavegan_dist.processes import leave
from wavegan_dist.provenance import provenance
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import checkpoint_tensors
from wavegan_dist.train.engine import Engine
from wavegan_dist.train.trainer import Trainer

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
PARTS = ("weights", "gradients", "moments", "average")
BATCH, SIDE = 4, 64  # images per process, pixels
BUCKET_SIZES = ("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size")
GATHERED_SIZES = ("stage3_max_live_parameters", "stage3_max_reuse_distance")

Storages = dict[int, int]  # address -> bytes


def main() -> None:
    """Run one strategy after another, print the table and write the result."""
    options = parse_arguments()
    if options.rank_of:
        return measure_rank(options.rank_of, options.width, options.out)
    rows = {strategy: measure(strategy, options) for strategy in STRATEGIES}
    print(f"MiB a process, {options.processes} processes; ratio: gradients + moments to DDP's, and all to DDP's")
    print(f"{'':<8}" + "".join(f"{part:>11}" for part in PARTS) + f"{'ratio':>8}{'all':>8}{'s/step':>8}")
    for row in rows.values():
        row["ratio"] = (row["gradients"] + row["moments"]) / (rows["ddp"]["gradients"] + rows["ddp"]["moments"])
        row["all"] = sum(row[part] for part in PARTS) / sum(rows["ddp"][part] for part in PARTS)
    for strategy, row in rows.items():
        sizes = "".join(f"{row[part] / 2**20:>11.1f}" for part in PARTS)
        print(f"{strategy:<8}{sizes}{row['ratio']:>8.2f}{row['all']:>8.2f}{row['seconds']:>8.2f}")
    settings = {"width": options.width, "processes": options.processes}
    write_result("zero", {"rows": rows, **settings, "about": provenance()})


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(strategy: str, options: argparse.Namespace) -> dict[str, float]:
    """Train in new processes; return the bytes that rank 0 holds by kind, and its seconds per step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}", __file__]
        command += ["--rank-of", strategy, "--width", str(options.width), "--out", str(out)]
        subprocess.run([sys.executable, *command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        row: dict[str, float] = json.loads(out.read_text())
    return row


def measure_rank(strategy: str, width: int, out: Path) -> None:
    """Take three steps in this process; rank 0 writes to `out` what it held in the last of them."""
    trainer = make_trainer(strategy, width, out)
    batches = iter([ImageBatch(torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)) for _ in range(3)])
    held: dict[str, Storages] = {}
    for engine in trainer.engines:
        count_before_steps(engine, trainer, held)
    seconds = []
    for _ in range(3):
        held.clear()
        began = time.perf_counter()
        trainer.step(batches)
        seconds.append(time.perf_counter() - began)
    sizes = {part: sum(storages.values()) for part, storages in held.items()}
    state_bytes = sum(value.nbytes for _, value in checkpoint_tensors(trainer))
    if trainer.accelerator.is_main_process:
        out.write_text(json.dumps({**sizes, "seconds": min(seconds), "written": state_bytes}))


def make_trainer(strategy: str, width: int, out: Path) -> Trainer:
    """Join the process group and return the trainer of a strategy, with DeepSpeed's messages limited to 4 MiB."""
    train = {"batch_size": BATCH * int(os.environ["WORLD_SIZE"]), "strategy": strategy}
    if strategy != "ddp":
        settings = out.with_suffix(f".{os.environ['RANK']}.json")
        settings.write_text(json.dumps({"zero_optimization": dict.fromkeys((*BUCKET_SIZES, *GATHERED_SIZES), 2**20)}))
        train["deepspeed"] = str(settings)
    tree = {"data": {"index": "none"}, "model": {"resolution": SIDE, "width": width}, "train": train}
    experiment = parse(tree, "benchmarks/zero.py")
    accelerator = launch.init_accelerator(experiment.train)
    return Trainer(experiment, fake_index(SIDE), accelerator)


def count_before_steps(engine: Engine, trainer: Trainer, held: dict[str, Storages]) -> None:
    """Make `engine.step` first add the live storages to `held`, by kind."""
    step = engine.step

    def counted_step() -> Tensor:
        for part, storages in live_storages(trainer).items():
            held.setdefault(part, {}).update(storages)
        return step()

    engine.step = counted_step  # type: ignore[method-assign]


def live_storages(trainer: Trainer) -> dict[str, Storages]:
    """Return all live storages of this process by kind."""
    known = {
        "weights": storages_of(weights(trainer)),
        "moments": storages_of(moments(trainer)),
        "average": storages_of(average(trainer)),
    }
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        live = storages_of(value for value in gc.get_objects() if isinstance(value, Tensor))
    for storages in known.values():
        live = {address: size for address, size in live.items() if address not in storages}
    return {**known, "gradients": live}


def storages_of(values: Iterable[Tensor]) -> Storages:
    """Return the storages of tensors; tensors that share memory count once."""
    storages = (value.untyped_storage() for value in values if value.device.type != "meta")
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


def weights(trainer: Trainer) -> Iterable[Tensor]:
    """Yield parameters and buffers, the shards of partitioned parameters, and DeepSpeed's float32 master weights."""
    for engine in trainer.engines:
        for value in (*engine.module.parameters(), *engine.module.buffers()):
            yield getattr(value, "ds_tensor", value).data
            yield value.data
        yield from getattr(getattr(engine, "partition", None), "flats", [])


def moments(trainer: Trainer) -> Iterable[Tensor]:
    """Yield the state of the Adam optimizers."""
    for engine in trainer.engines:
        adam = getattr(engine, "adam", None) or engine.optimizer  # type: ignore[attr-defined]
        yield from (value for state in adam.state.values() for value in state.values())


def average(trainer: Trainer) -> Iterable[Tensor]:
    """Yield the EMA of the generator's weights."""
    ema = trainer.ema
    yield from getattr(ema, "flats", None) or ema.ema.module.state_dict().values()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
    leave()
