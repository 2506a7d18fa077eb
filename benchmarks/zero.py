"""What each process holds of a training state under DDP and ZeRO 1, 2, 3: bytes of weights, gradients, moments, average.

    python benchmarks/zero.py [--width 64] [--processes 2]

Real processes with gloo, one thread each, a 64 px model. Counted are all living tensors of rank 0, each storage once, at the
moments when the gradients of one module, then of the other are complete and its step begins; gradients are what is neither
weight, moment nor average, so DeepSpeed's buffers count as gradients. Messages and what stage 3 keeps gathered are cut to
4 MiB, as the model is small. Writes benchmarks/results/zero.json.
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
from types import SimpleNamespace

import torch
from torch import Tensor

from wavegan_dist.config import parse
from wavegan_dist.files import atomic_file
from wavegan_dist.processes import leave
from wavegan_dist.provenance import provenance
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import checkpoint_tensors
from wavegan_dist.train.engine import Engine
from wavegan_dist.train.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
BATCH = 4  # a process
MESSAGES = ("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size")
GATHERED = ("stage3_max_live_parameters", "stage3_max_reuse_distance")


def main() -> None:
    """Start the processes of each strategy in turn, print the table, write results/zero.json."""
    options = arguments()
    if options.rank_of:
        return report(options.rank_of, options.width, options.out)
    rows = {strategy: measured(strategy, options) for strategy in STRATEGIES}
    parts = ("weights", "gradients", "moments", "average")
    print(f"MiB a process, {options.processes} processes; ratio: gradients + moments to DDP's, and all to DDP's")
    print(f"{'':<8}" + "".join(f"{part:>11}" for part in parts) + f"{'ratio':>8}{'all':>8}{'s/step':>8}")
    for row in rows.values():
        row["ratio"] = (row["gradients"] + row["moments"]) / (rows["ddp"]["gradients"] + rows["ddp"]["moments"])
        row["all"] = sum(row[part] for part in parts) / sum(rows["ddp"][part] for part in parts)
    for strategy, row in rows.items():
        sizes = "".join(f"{row[part] / 2**20:>11.1f}" for part in parts)
        print(f"{strategy:<8}{sizes}{row['ratio']:>8.2f}{row['all']:>8.2f}{row['seconds']:>8.2f}")
    about = {"width": options.width, "processes": options.processes}
    with atomic_file(RESULTS / "zero.json") as file:
        json.dump({"rows": rows, **about, "about": provenance()}, file, indent=2)


def arguments() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--rank-of", help=argparse.SUPPRESS)
    options.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


def measured(strategy: str, options: argparse.Namespace) -> dict[str, float]:
    """What rank 0 of so many fresh processes says."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}", __file__]
        command += ["--rank-of", strategy, "--width", str(options.width), "--out", str(out)]
        subprocess.run([sys.executable, *command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        row: dict[str, float] = json.loads(out.read_text())
    return row


def report(strategy: str, width: int, out: Path) -> None:
    """Three steps in this process; rank 0 writes what it held in the last."""
    processes = int(os.environ["WORLD_SIZE"])
    train = {"batch_size": BATCH * processes, "strategy": strategy}
    if strategy != "ddp":
        messages = out.with_suffix(f".{os.environ['RANK']}.json")
        messages.write_text(json.dumps({"zero_optimization": dict.fromkeys((*MESSAGES, *GATHERED), 2**20)}))
        train["deepspeed"] = str(messages)
    tree = {"data": {"index": "none"}, "model": {"resolution": 64, "width": width}, "train": train}
    experiment = parse(tree, "benchmarks/zero.py")
    accelerator = launch.init_accelerator(experiment.train)
    bands = SimpleNamespace(band_std=SimpleNamespace(model_dump=lambda: dict.fromkeys(("low", "lh", "hl", "hh"), 1.0)))
    trainer = Trainer(experiment, bands, accelerator)  # type: ignore[arg-type]
    batches = iter([torch.randint(0, 256, (BATCH, 3, 64, 64), dtype=torch.uint8) for _ in range(3)])
    held: dict[str, dict[int, int]] = {}
    for engine in trainer.engines:
        watch(engine, trainer, held)
    seconds = []
    for _ in range(3):
        held.clear()
        began = time.perf_counter()
        trainer.step(batches)
        seconds.append(time.perf_counter() - began)
    sizes = {part: sum(found.values()) for part, found in held.items()}
    state = sum(value.nbytes for _, value in checkpoint_tensors(trainer))
    if accelerator.is_main_process:
        out.write_text(json.dumps({**sizes, "seconds": min(seconds), "written": state}))


def watch(engine: Engine, trainer: Trainer, held: dict[str, dict[int, int]]) -> None:
    """Count at each step of this engine, before it begins."""
    step = engine.step

    def counted() -> Tensor:
        for part, found in count(trainer).items():
            held.setdefault(part, {}).update(found)
        return step()

    engine.step = counted  # type: ignore[method-assign]


def count(trainer: Trainer) -> dict[str, dict[int, int]]:
    """Living storages by what they hold."""
    known = {
        "weights": storages(weights(trainer)),
        "moments": storages(moments(trainer)),
        "average": storages(average(trainer)),
    }
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        living = storages(each for each in gc.get_objects() if isinstance(each, Tensor))
    for found in known.values():
        living = {place: size for place, size in living.items() if place not in found}
    return {**known, "gradients": living}


def storages(found: Iterable[Tensor]) -> dict[int, int]:
    """Address -> bytes; tensors that share memory count once."""
    stores = (each.untyped_storage() for each in found if each.device.type != "meta")
    return {store.data_ptr(): store.nbytes() for store in stores if store.nbytes()}


def weights(trainer: Trainer) -> Iterable[Tensor]:
    """What networks compute with, and DeepSpeed's float32 copy."""
    for engine in trainer.engines:
        for value in (*engine.module.parameters(), *engine.module.buffers()):
            yield getattr(value, "ds_tensor", value).data
            yield value.data
        yield from getattr(getattr(engine, "partition", None), "flats", [])


def moments(trainer: Trainer) -> Iterable[Tensor]:
    """Adam's."""
    for engine in trainer.engines:
        adam = getattr(engine, "adam", None) or engine.optimizer  # type: ignore[attr-defined]
        yield from (value for state in adam.state.values() for value in state.values())


def average(trainer: Trainer) -> Iterable[Tensor]:
    """The generator's."""
    held = trainer.ema
    yield from getattr(held, "flats", None) or held.ema.module.state_dict().values()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
    leave()
