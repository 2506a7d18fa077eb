"""Runs `wavegan` with weights that become infinite from image FIRST on: `poisoned.py FIRST LAST_ATTEMPT train ...`.

The fault is active in the attempts 0 ... LAST_ATTEMPT; each rollback begins a new attempt.
"""

import sys
from typing import Any

import torch

from wavegan_dist.cli import main
from wavegan_dist.train.engine import Engine
from wavegan_dist.train.phase import MicroBatch
from wavegan_dist.train.trainer import Trainer

first, last_attempt = int(sys.argv[1]), int(sys.argv[2])
run_phase = Trainer._run_phase


def poisoned(self: Trainer, engine: Engine, batch: MicroBatch) -> None:
    if engine is self.discriminator and self.nimg >= first and self.rollbacks <= last_attempt:
        network: Any = self.generator.module.high
        network[1].weight.data.fill_(torch.inf)
    run_phase(self, engine, batch)


Trainer._run_phase = poisoned
sys.exit(main(sys.argv[3:]))
