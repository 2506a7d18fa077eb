"""Runs `wavegan` on a disk that takes SECONDS for each access, longer than a collective may: `slow_disk.py SECONDS train ...`.

A collective times out after two thirds of SECONDS, also one that belongs to a checkpoint. Rank 0 checks the checkpoint, writes
snapshots and completes checkpoints slowly; rank 1 reads the index and the checkpoint slowly.
"""

import os
import sys
import time
from datetime import timedelta
from typing import Any

from torch.distributed import distributed_c10d

from wavegan_dist import processes
from wavegan_dist.cli import main
from wavegan_dist.train import checkpoint, launch, loop, resume, run_writer

seconds = float(sys.argv[1])


def slow(module: Any, name: str, rank: str) -> None:
    """Let the function `name` of a module wait before its first call on a rank."""
    function, calls = getattr(module, name), list[str]()

    def waiting(*arguments: Any, **settings: Any) -> Any:
        if os.environ["RANK"] == rank and not calls:
            calls.append(name)
            time.sleep(seconds)
        return function(*arguments, **settings)

    setattr(module, name, waiting)


launch.COLLECTIVE_TIMEOUT = timedelta(seconds=seconds * 2 / 3)
distributed_c10d._get_default_timeout = lambda backend: launch.COLLECTIVE_TIMEOUT  # of the group of the checkpoints
processes.REPORT_AFTER = seconds / 2
slow(loop, "load_index", "1")
slow(resume, "find_damage", "0")
slow(checkpoint, "load", "1")
slow(run_writer, "save_snapshot", "0")
slow(checkpoint, "replace_dir", "0")
sys.exit(main(sys.argv[2:]))
