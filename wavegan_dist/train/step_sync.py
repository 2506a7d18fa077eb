"""The one all-reduce at the end of a step, by which all ranks agree on whether to continue, save or stop."""

from dataclasses import dataclass

import torch
import torch.distributed as dist

from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.trainer import Trainer

STATUS_FLAGS = 3  # float32 elements of the all-reduce, one for each field of StepStatus


@dataclass(frozen=True)
class StepStatus:
    """The state of a step after the all-reduce, equal on all ranks.

    Args:
        nonfinite: a loss or a gradient was not finite.
        save_failed: the checkpoint being written on some rank has failed.
        signal: number of the signal that some rank received (the largest of several), or 0.
    """

    nonfinite: bool
    save_failed: bool
    signal: int


@dataclass(frozen=True)
class StepSync:
    """Combines the status of all ranks.

    Args:
        trainer: knows whether the last step was finite.
        checkpointer: knows whether the last save failed.
        signals: knows whether this process received a signal.
    """

    trainer: Trainer
    checkpointer: Checkpointer
    signals: Signals

    def all_reduce(self) -> StepStatus:
        """Take the maximum of each flag over all ranks: a collective call.

        This is the only point of a step at which the host waits for the GPU.
        """
        host_flags = torch.tensor([float(self.checkpointer.failed()), float(self.signals.received)])
        device = self.trainer.accelerator.device
        flags = torch.cat((self.trainer.nonfinite[None], host_flags.to(device, non_blocking=True)))
        if self.trainer.accelerator.num_processes > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        nonfinite, save_failed, signal = flags.tolist()
        return StepStatus(bool(nonfinite), bool(save_failed), int(signal))
