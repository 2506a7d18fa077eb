"""One of two processes of a command that fails while a collective is under way: `leaving.py answered|unanswered|saving`.

Rank 1 answers that collective half a second later, or never; with `saving`, a thread of rank 0 waits for it, as that of a
checkpoint does. Rank 0 holds the interpreter lock while the interpreter shuts down, so that a thread which needs the lock then
is always too late.
"""

# ruff: noqa: E402

import argparse
import atexit
import ctypes
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

atexit.register(ctypes.PyDLL(None).usleep, 900_000)  # registered first, called last

import torch
import torch.distributed as dist

from wavegan_dist import cli, processes
from wavegan_dist.errors import WaveganError


def work(options: argparse.Namespace) -> None:
    processes.LEAVE_TIMEOUT = 60 if options.answered else 1
    rank = processes.join().process_index
    dist.barrier()
    if rank == 1:
        time.sleep(0.5 if options.answered else 600)
    pending = dist.all_reduce(torch.zeros(1), async_op=True)
    if options.saving:
        ThreadPoolExecutor(1).submit(pending.wait)
    if rank == 1:
        pending.wait()
        os._exit(0)
    raise WaveganError("broken")


cli.parse = lambda arguments: argparse.Namespace(
    run=work, log_level="info", answered=arguments == ["answered"], saving=arguments == ["saving"]
)
sys.exit(cli.main(sys.argv[1:]))
