"""What planning a checkpoint costs on many ranks: bytes and CPU time of rank 0, with ranks that are simulated in one process.

Before the ranks write, torch.distributed.checkpoint gathers a list of tensors (a plan) of each rank on rank 0, which decides
who writes what and sends each rank its part. Here one process builds, encodes and decodes the plans of all ranks, as they
would, and does the work of rank 0. "divided" is what this package does: each rank lists its own share (`train/shares.py`).
"all" is what replicated tensors cost by default, and what this package did before: each rank lists all tensors.

The last rows save for real, in as many processes as `--processes` says, over gloo and with tensors of a few bytes.

    python benchmarks/save_plan.py [--ranks 64 256 1024 2048] [--processes 16 64] [--width 8]
"""

import json
import multiprocessing
import os
import pickle
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from bench_common import argument_parser, fake_index, write_result
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save

from wavegan_dist.config import parse
from wavegan_dist.provenance import provenance
from wavegan_dist.train.checkpoint import checkpoint_tensors
from wavegan_dist.train.shares import assign
from wavegan_dist.train.trainer import Trainer

SIDE = 256  # pixels; the number of layers, and so of tensors, depends on it
ROUNDS = 5


def state(width: int) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint of a 256 px run, with their real names and sizes."""
    tree = {"data": {"index": "none"}, "model": {"resolution": SIDE, "width": width}, "train": {"batch_size": 2}}
    trainer = Trainer(parse(tree, "benchmarks/save_plan.py"), fake_index(SIDE), Accelerator(cpu=True))
    for engine in trainer.engines:  # Adam has no moments before its first step
        for parameter in engine.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        engine.step()
    return dict(checkpoint_tensors(trainer))


def shares(tensors: dict[str, Tensor], ranks: int, kind: str) -> list[dict[str, Tensor]]:
    """Return what each rank lists."""
    if kind == "all":
        return [tensors] * ranks
    listed: list[dict[str, Tensor]] = [{} for _ in range(ranks)]
    for name, rank in assign({name: tensor.nbytes for name, tensor in tensors.items()}, ranks).items():
        listed[rank][name] = tensors[name]
    return listed


def plan_of(tensors: dict[str, Tensor], is_coordinator: bool) -> tuple[DefaultSavePlanner, bytes]:
    """Return the planner of a rank, and its plan as it is sent."""
    planner = DefaultSavePlanner()
    planner.set_up_planner(tensors, is_coordinator=is_coordinator)
    return planner, pickle.dumps(planner.create_local_plan())


def simulate(tensors: dict[str, Tensor], ranks: int, kind: str) -> dict[str, float]:
    """Return the CPU seconds and the bytes of rank 0."""
    listed = shares(tensors, ranks, kind)
    planner, first = plan_of(listed[0], True)
    others = [plan_of(one, False)[1] for one in (listed[1:2] if kind == "all" else listed[1:])]
    sent = [first, *(others * (ranks - 1) if kind == "all" else others)]
    began = time.process_time()
    plans, metadata = planner.create_global_plan([pickle.loads(plan) for plan in sent])
    plans = HuggingFaceStorageWriter("none", save_distributed=True).prepare_global_plan(plans)
    answers = [pickle.dumps(plan) for plan in plans]
    seconds = time.process_time() - began
    return {
        "seconds": seconds,
        "received": ranks * max(map(len, sent)),  # gather_object and scatter_object_list pad to the largest
        "sent": ranks * max(map(len, answers)),
        "metadata": len(pickle.dumps(metadata)),
    }


def rank_main(rank: int, ranks: int, folder: str, names: list[str]) -> None:
    """Save tensors of a few bytes for real, ROUNDS times for each kind; rank 0 writes the medians."""
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    tensors = {name: torch.zeros(1) for name in names}
    seconds = {}
    for kind in ("all", "divided"):
        listed, times = shares(tensors, ranks, kind)[rank], []
        for number in range(ROUNDS):
            writer = HuggingFaceStorageWriter(f"{folder}/{kind}-{number}", save_distributed=True)
            dist.barrier()
            began = time.perf_counter()
            save(listed, storage_writer=writer)
            times.append(time.perf_counter() - began)
        seconds[kind] = sorted(times)[ROUNDS // 2]
    if rank == 0:
        Path(folder, "seconds").write_text(json.dumps(seconds))
    dist.destroy_process_group()


def save_for_real(ranks: int, names: list[str]) -> dict[str, float]:
    """Return the median seconds of a save in `ranks` processes, by kind."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=rank_main, args=(rank, ranks, folder, names)) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds: dict[str, float] = json.loads(Path(folder, "seconds").read_text())
    return seconds


def main() -> None:
    """Print the table and write it to results/save_plan.json."""
    parser = argument_parser(__doc__)
    parser.add_argument("--ranks", type=int, nargs="*", default=[64, 256, 1024, 2048])
    parser.add_argument("--processes", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tensors = state(options.width)
    print(f"{len(tensors)} tensors, {sum(tensor.nbytes for tensor in tensors.values()) / 2**20:.0f} MiB")
    rows = []
    print(f"{'ranks':>6} {'listed':>8} {'CPU s':>10} {'received MB':>12} {'sent MB':>8} {'metadata MB':>12}")
    for ranks in options.ranks:
        for kind in ("all", "divided"):
            row = simulate(tensors, ranks, kind)
            megabytes = [row[name] / 1e6 for name in ("received", "sent", "metadata")]
            print(f"{ranks:6} {kind:>8} {row['seconds']:10.2f} {megabytes[0]:12.2f} {megabytes[1]:8.2f} {megabytes[2]:12.2f}")
            rows.append({"ranks": ranks, "listed": kind, **row})
    real = {}
    for ranks in options.processes:
        real[ranks] = save_for_real(ranks, list(tensors))
        print(f"{ranks} processes, a save: all {real[ranks]['all']:.2f} s, divided {real[ranks]['divided']:.2f} s")
    write_result("save_plan", {"tensors": len(tensors), "rows": rows, "real": real, "about": provenance()})


if __name__ == "__main__":
    main()
