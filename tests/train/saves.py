"""Saves many checkpoints, each as soon as the one before has begun: `saves.py OUT FOLDER COUNT`.

After each call, the ranks use their process group at once, while the save runs in the background. Writes to OUT.RANK the names
of the tensors that the rank lists for a save ("listed"), and the resident memory in bytes after each save ("memory").
"""

import json
import shutil
import sys
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.config import TrainConfig
from wavegan_dist.processes import leave
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer, checkpoint_tensors


def main(out: str, folder: Path, count: int) -> None:
    rank = launch.init_accelerator(TrainConfig()).process_index
    trainer = make_trainer({}, {})
    trainer.step(random_batches(4))
    checkpointer = Checkpointer(trainer, dict)
    memory, process = [], psutil.Process()
    for number in range(count):
        checkpointer.save(folder / str(number))
        dist.barrier()
        flag = torch.ones(1)
        dist.all_reduce(flag)
        assert flag.item() == dist.get_world_size()
        if number and rank == 0:  # the last save but one is complete
            shutil.rmtree(folder / str(number - 1))
        memory.append(process.memory_info().rss)
    checkpointer.wait()
    listed = [name for name, _ in checkpoint_tensors(trainer)]
    Path(f"{out}.{rank}").write_text(json.dumps({"listed": listed, "memory": memory}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    leave()
