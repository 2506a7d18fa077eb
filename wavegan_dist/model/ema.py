"""Exponential moving average of a module's parameters and buffers, counted in images."""

import copy
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class TensorLists:
    """The tensors of a module's state dict, in the order of the module; listing them at every step would take milliseconds.

    Valid as long as the module keeps its tensors, as when they are changed in place.

    Args:
        floating: the parameters and the floating-point buffers.
        integers: the integer buffers.
    """

    floating: list[Tensor]
    integers: list[Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """List the parameters, then the buffers: what a state dict contains, but in a tenth of the time."""
        tensors = (*module.parameters(), *module.buffers())
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        return cls(floating, [tensor for tensor in tensors if not tensor.is_floating_point()])


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
        self._averages = TensorLists.of(self.module)

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
    def update(self, values: TensorLists, nimg: int, batch_size: int) -> None:
        """Update the average in place with the current parameters and buffers of a module.

        Floating-point buffers (running statistics of batch norms) are averaged, too; integer buffers are copied.

        Args:
            values: the parameters and buffers of the module, which are those of the averaged module, in the same order, with
                the same shapes and dtypes, on the same device.
            nimg: images seen so far, including those of this update.
            batch_size: images seen since the last update, which may be several batches.
        """
        torch._foreach_lerp_(self._averages.floating, values.floating, 1 - self.decay(nimg, batch_size))
        if values.integers:
            torch._foreach_copy_(self._averages.integers, values.integers)
