"""Runs `wavegan` where rank 0 takes a second to write how the run ended: `ending.py SIGNALLED train ... --run-dir RUN`.

The first step sends rank 1 SIGUSR2 if SIGNALLED is 1; else rank 1 gets SIGTERM while rank 0 writes exit.json. Each rank asserts
that exit.json exists when its command has ended.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from wavegan_dist.cli import main
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.trainer import Trainer

signalled, run = sys.argv[1] == "1", RunFolder(Path(sys.argv[-1]))
ending = run.path.with_name("ending")  # exists when rank 0 begins to write exit.json
step, write_exit = Trainer.step, RunFolder.write_exit


def step_with_signal(self, batches):
    if signalled:
        os.kill(os.getpid(), signal.SIGUSR2)
    step(self, batches)


def slow_write_exit(self, *arguments):
    ending.touch()
    time.sleep(1)
    write_exit(self, *arguments)


def terminate():
    while not ending.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


RunFolder.write_exit = slow_write_exit
if os.environ["RANK"] == "1":
    Trainer.step = step_with_signal
    if not signalled:
        threading.Thread(target=terminate, daemon=True).start()
code = main(sys.argv[2:])
assert run.exit.exists()
sys.exit(code)
