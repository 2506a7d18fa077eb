"""What all ranks must agree on at the end of every step, in one collective of three numbers."""

from dataclasses import dataclass

import torch
import torch.distributed as dist

from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.trainer import Trainer


@dataclass(frozen=True)
class StepStatus:
    """The same on all ranks."""

    nonfinite: bool
    save_failed: bool
    signal: int


@dataclass(frozen=True)
class StepSync:
    """Asks all ranks whether to go on."""

    trainer: Trainer
    checkpointer: Checkpointer
    signals: Signals

    def all_reduce(self) -> StepStatus:
        """The largest of each flag over all ranks: a collective call, and the only one in which a step waits for the device."""
        mine = torch.tensor([float(self.checkpointer.failed()), float(self.signals.received)])
        flags = torch.cat((self.trainer.nonfinite[None], mine.to(self.trainer.accelerator.device, non_blocking=True)))
        if self.trainer.accelerator.num_processes > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        nonfinite, failed, number = flags.tolist()
        return StepStatus(bool(nonfinite), bool(failed), int(number))
