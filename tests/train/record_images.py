"""Runs `wavegan` and records the sha256 of every image it trains on: `record_images.py OUT train ...`.

Each process writes to OUT.PID. Rank 0 sends itself SIGUSR2 at image SIGNAL_AT (an environment variable; 0: never).
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

from wavegan_dist.cli import main
from wavegan_dist.train.trainer import Trainer

out, stop_at = Path(f"{sys.argv[1]}.{os.getpid()}"), int(os.environ["SIGNAL_AT"])
prepare_real = Trainer._prepare_real


def recording(self, images_uint8, positions):
    with out.open("a") as file:
        file.writelines(hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() + "\n" for image in images_uint8)
    if stop_at and self.nimg >= stop_at and self.accelerator.is_main_process:
        os.kill(os.getpid(), signal.SIGUSR2)
    return prepare_real(self, images_uint8, positions)


Trainer._prepare_real = recording
sys.exit(main(sys.argv[2:]))
