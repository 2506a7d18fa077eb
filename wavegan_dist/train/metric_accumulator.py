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
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar tensor to the sum called `name`, without waiting for the device; the tensor is detached, not copied.

        `drain` divides the sum by the number of calls of `step`, not of `add`: values added several times in a step are summed.
        """
        value = value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def step(self) -> None:
        """Count one step: `drain` divides each sum by the number of steps."""
        self._steps += 1

    def drain(self) -> dict[str, float]:
        """Return each value's mean over all ranks and all steps since the last call, and reset: a collective call."""
        names = sorted(self._sums)
        means = torch.stack([self._sums[name] for name in names]) / self._steps
        means = self.accelerator.reduce(means, reduction="mean")
        self._clear()
        return dict(zip(names, means.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Return the sums of every rank, for a checkpoint between two reports: a collective call."""
        names = sorted(self._sums)
        if not names:
            return {"steps": 0, "names": [], "sums": []}
        sums = self.accelerator.gather(torch.stack([self._sums[name] for name in names]))
        return {"steps": self._steps, "names": names, "sums": sums.view(-1, len(names)).tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the sums that `state` returned.

        Each rank restores its own sums, or the mean over the ranks if the number of ranks has changed since.
        """
        self._clear()
        if not state["names"]:
            return
        sums = torch.tensor(state["sums"], device=self.accelerator.device)
        same_world_size = len(sums) == self.accelerator.num_processes
        local_sums = sums[self.accelerator.process_index] if same_world_size else sums.mean(dim=0)
        self._steps = state["steps"]
        self._sums = dict(zip(state["names"], local_sums.unbind(), strict=True))
