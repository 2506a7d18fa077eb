"""The one all-reduce at the end of a step, by which all ranks agree on whether to continue, save or stop."""

from dataclasses import dataclass

import torch
import torch.distributed as dist

from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.step_status import StepStatus
from wavegan_dist.train.trainer import Trainer


@dataclass(frozen=True)
class StepSync:
    """Combines the status of all ranks at the end of a step.

    Args:
        trainer: this rank's trainer, which has the flag `nonfinite` of the last step.
        checkpointer: knows whether the last save of a checkpoint has failed.
        signals: has the signal that this process received, if any.
    """

    trainer: Trainer
    checkpointer: Checkpointer
    signals: Signals

    def all_reduce(self) -> StepStatus:
        """Take the maximum of each flag over all ranks: a collective call after each step.

        Under DDP, this is the only point of a step at which the host waits for the GPU.
        """
        host_flags = torch.tensor([float(self.checkpointer.failed()), float(self.signals.received)])
        device = self.trainer.accelerator.device
        flags = torch.cat((self.trainer.nonfinite[None], host_flags.to(device, non_blocking=True)))
        if self.trainer.accelerator.num_processes > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        nonfinite, save_failed, signal = flags.tolist()
        return StepStatus(bool(nonfinite), bool(save_failed), int(signal))
