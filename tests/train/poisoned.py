"""`wavegan` with a fault: weights that turn NaN. `poisoned.py FIRST LAST_ATTEMPT train ...`: from image FIRST on, in the
attempts 0 ... LAST_ATTEMPT (an attempt ends with a rollback)."""

import sys

import torch

from wavegan_dist.cli import main
from wavegan_dist.train.trainer import Phase, Trainer

first, last_attempt = int(sys.argv[1]), int(sys.argv[2])
move = Trainer._run_phase


def poisoned(self: Trainer, phase: Phase, *inputs: torch.Tensor) -> None:
    if phase.name == "d" and self.nimg >= first and self.rollbacks <= last_attempt:
        self.generator.module.high[1].weight.data.fill_(torch.inf)
    move(self, phase, *inputs)


Trainer._run_phase = poisoned
sys.exit(main(sys.argv[3:]))
