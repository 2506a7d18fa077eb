"""Sums of the values measured at every step, accumulated on the device until the next report."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class MetricAccumulator:
    """Sums since the last report, local to each rank; `drain` averages them over steps and ranks.

    Args:
        accelerator: the process group.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._clear()

    def _clear(self) -> None:
        self._names: list[str] = []
        self._sums = torch.zeros((), device=self.accelerator.device)  # [values] after the first step
        self._steps = 0

    def add_step(self, values: dict[str, Tensor]) -> None:
        """Add the values of one step, scalars by name, without waiting for the device. Every step must have the same names."""
        self._names = sorted(values)
        self._sums = self._sums + torch.stack([values[name].detach() for name in self._names])
        self._steps += 1

    def drain(self) -> dict[str, float]:
        """Return each value's mean over all ranks and all steps since the last call, and reset: a collective call."""
        means = self.accelerator.reduce(self._sums / self._steps, reduction="mean")
        named_means = dict(zip(self._names, means.tolist(), strict=True))
        self._clear()
        return named_means

    def state(self) -> dict[str, Any]:
        """Return the sums of every rank, for a checkpoint between two reports: a collective call."""
        if not self._names:
            return {"steps": 0, "names": [], "sums": []}
        sums = self.accelerator.gather(self._sums)
        return {"steps": self._steps, "names": self._names, "sums": sums.view(-1, len(self._names)).tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the sums that `state` returned.

        Each rank restores its own sums, or the mean over the ranks if the number of ranks has changed since.
        """
        self._clear()
        if not state["names"]:
            return
        sums = torch.tensor(state["sums"], device=self.accelerator.device)
        same_world_size = len(sums) == self.accelerator.num_processes
        self._sums = sums[self.accelerator.process_index] if same_world_size else sums.mean(dim=0)
        self._steps, self._names = state["steps"], state["names"]
