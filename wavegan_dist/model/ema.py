"""Exponential moving average of a module's parameters and buffers, counted in images."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


class Ema(Generic[Module]):
    """A shadow of a module whose weights halve their memory every `half_life` images.

    Args:
        module: what to follow; the shadow is a copy in eval mode that needs no gradients.
        half_life: images after which an old weight counts half.
        rampup: the half-life is at most this share of the images seen, so that a short run is not blurred by its start
            (Karras et al. 2024, EDM2); 0 turns the ramp off.
    """

    def __init__(self, module: Module, half_life: float, rampup: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life, self.rampup = half_life, rampup

    def decay(self, nimg: int, batch_size: int) -> float:
        """What is left of the old mean after the `batch_size` images that end at `nimg`."""
        half_life = min(self.half_life, nimg * self.rampup) if self.rampup else self.half_life
        return float(0.5 ** (batch_size / max(half_life, 1e-8)))

    @torch.no_grad()
    def update(self, module: Module, nimg: int, batch_size: int) -> None:
        """Take in the weights of `module` after the `batch_size` images that end at `nimg`.

        Floating buffers (batch-norm statistics) are averaged too; counters are copied.
        """
        decay = self.decay(nimg, batch_size)
        ours, theirs = self.module.state_dict(), module.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])
