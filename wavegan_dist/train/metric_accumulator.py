"""Sums of what is measured at every step, kept on the device until the next report."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class MetricAccumulator:
    """Sums since the last report, of this process alone until `drain` takes the mean over all.

    Args:
        accelerator: the processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, name: str, value: Tensor) -> None:
        """Count in a scalar."""
        value = value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def step(self) -> None:
        """A step is done."""
        self._steps += 1

    def drain(self) -> dict[str, float]:
        """Means over the steps since the last call and over all processes: a collective call."""
        names = sorted(self._sums)
        means = torch.stack([self._sums[name] for name in names]) / self._steps
        means = self.accelerator.reduce(means, reduction="mean")
        self._clear()
        return dict(zip(names, means.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Every process's sums, for a checkpoint between two reports: a collective call."""
        names = sorted(self._sums)
        if not names:
            return {"steps": 0, "names": [], "sums": []}
        sums = self.accelerator.gather(torch.stack([self._sums[name] for name in names]))
        return {"steps": self._steps, "names": names, "sums": sums.view(-1, len(names)).tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`: each process from its own sums, or from their mean where the processes are others now."""
        self._clear()
        if not state["names"]:
            return
        sums = torch.tensor(state["sums"], device=self.accelerator.device)
        same = len(sums) == self.accelerator.num_processes
        mine = sums[self.accelerator.process_index] if same else sums.mean(dim=0)
        self._steps = state["steps"]
        self._sums = dict(zip(state["names"], mine.unbind(), strict=True))
