"""Exponential moving average of a module's parameters and buffers, counted in images."""

import copy
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Ema(Generic[Module]):
    """Exponential moving average (EMA) of a module, whose decay is given as a half-life in images.

    Attributes:
        module: the averaged module: a deep copy of the original on the same device, in eval mode, whose parameters do not
            require gradients.

    Args:
        module: the module to average.
        half_life: number of images after which the contribution of a weight has halved.
        rampup: limits the half-life to this share of the images seen so far, so that early weights do not dominate the average
            of a short run (Karras et al. 2024, EDM2). 0: no limit.
    """

    def __init__(self, module: Module, half_life: float, rampup: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life, self.rampup = half_life, rampup

    def decay(self, nimg: int, batch_size: int) -> float:
        """Return the factor in [0, 1] that multiplies the old average in an update: `0.5 ** (batch_size / h)`.

        h is `half_life`, or `rampup * nimg` if that is less and `rampup` is not 0.

        Args:
            nimg: images seen so far, including those of the update.
            batch_size: images seen since the last update, which may be several batches.
        """
        half_life = min(self.half_life, nimg * self.rampup) if self.rampup else self.half_life
        return float(0.5 ** (batch_size / max(half_life, 1e-8)))

    @torch.no_grad()
    def update(self, module: Module, nimg: int, batch_size: int) -> None:
        """Update the average in place with the current parameters and buffers of `module`.

        Floating-point buffers (running statistics of batch norms) are averaged, too; integer buffers are copied.

        Args:
            module: has the parameters and buffers of the averaged module, in the same order, with the same shapes and dtypes,
                on the same device.
            nimg: images seen so far, including those of this update.
            batch_size: images seen since the last update, which may be several batches.
        """
        averages, values = list(_tensors(self.module)), list(_tensors(module))
        floating = [number for number, average in enumerate(averages) if average.is_floating_point()]
        integers = sorted(set(range(len(averages))) - set(floating))
        weight = 1 - self.decay(nimg, batch_size)
        torch._foreach_lerp_([averages[number] for number in floating], [values[number] for number in floating], weight)
        if integers:
            torch._foreach_copy_([averages[number] for number in integers], [values[number] for number in integers])


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters, then the buffers: what a state dict contains, but in a tenth of the time."""
    yield from module.parameters()
    yield from module.buffers()
