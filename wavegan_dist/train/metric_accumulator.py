"""Sums of the values measured at every step, accumulated on the device until the next report."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class MetricAccumulator:
    """Sums since the last report, local to each rank; `drain` averages them over steps and ranks.

    Args:
        accelerator: gives the device, the rank and the collectives.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._last: dict[str, Tensor] = {}
        self._clear()

    def _clear(self) -> None:
        self._sums = torch.zeros(len(self._last), device=self.accelerator.device)  # in the order of sorted(_last)
        self._steps = 0

    def add_step(self, values: dict[str, Tensor]) -> None:
        """Add the values of one step, scalars by name, without waiting for the device.

        A value that this step lacks, such as that of a lazy penalty, counts with its last known value. A new value counts as if
        the steps before had had it, too.

        Args:
            values: float32 scalars on the device, by name.
        """
        added = values.keys() - self._last.keys()
        self._last |= {name: value.detach() for name, value in values.items()}
        if added:
            sums = dict(zip(sorted(self._last.keys() - added), self._sums.unbind(), strict=True))
            self._sums = torch.stack([sums.get(name, self._last[name] * self._steps) for name in sorted(self._last)])
        self._sums = self._sums + self._stacked_last()
        self._steps += 1

    def drain(self) -> dict[str, float]:
        """Return each value's mean over all ranks and all steps since the last call, and reset: a collective call.

        The host waits for the device. There must have been a step since the last call: else all means are NaN, or, before the
        first step of the run, the dictionary is empty.
        """
        means = self.accelerator.reduce(self._sums / self._steps, reduction="mean")
        named_means = dict(zip(sorted(self._last), means.tolist(), strict=True))
        self._clear()
        return named_means

    def state(self) -> dict[str, Any]:
        """Return the sums and the last values of every rank, as JSON values for a checkpoint: a collective call."""
        if not self._last:
            return {"steps": 0, "names": [], "sums": [], "last": []}
        both = self.accelerator.gather(torch.stack((self._sums, self._stacked_last())))
        sums, last = both.view(-1, 2, len(self._last)).unbind(1)
        return {"steps": self._steps, "names": sorted(self._last), "sums": sums.tolist(), "last": last.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned. Call this on every rank.

        Each rank restores its own sums, or the mean over the ranks if the number of ranks has changed since.
        """
        last = state.get("last", state["sums"])  # checkpoints of runs without lazy penalties may lack the last values
        self._last = dict(zip(state["names"], self._own(last).unbind(), strict=True))
        self._clear()
        if state["steps"]:
            self._sums, self._steps = self._own(state["sums"]), state["steps"]

    def _stacked_last(self) -> Tensor:
        return torch.stack([self._last[name] for name in sorted(self._last)])

    def _own(self, values: list[list[float]]) -> Tensor:
        """Return this rank's row of [ranks, values], or the mean over the ranks if there is another number of them now."""
        rows = torch.tensor(values, device=self.accelerator.device)
        if not len(rows):
            return rows
        same_world_size = len(rows) == self.accelerator.num_processes
        return rows[self.accelerator.process_index] if same_world_size else rows.mean(dim=0)
