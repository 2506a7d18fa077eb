"""Runs `wavegan` on a disk that is full from image 352 on: `full_disk.py BALLAST train ...`.

BALLAST is a file on the disk of the run folder; it takes up all the space.
"""

import sys
from contextlib import suppress
from pathlib import Path

from wavegan_dist.cli import main
from wavegan_dist.train.trainer import Trainer

step = Trainer.step


def filling(self, batches):
    if self.nimg == 352:
        with Path(sys.argv[1]).open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
    step(self, batches)


Trainer.step = filling
sys.exit(main(sys.argv[2:]))
