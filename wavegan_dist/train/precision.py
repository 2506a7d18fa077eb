"""What is computed in fewer bits than float32, and what is not.

The networks' forward and backward passes run under `torch.autocast`; the weights stay float32. The fused wavelet kernels run
in the type of their input. Always in float32: losses, `lam`, spectral norm's power iteration, batch statistics, gradients
and their exchange, clipping, Adam and its moments, the EMA and all that is drawn from it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from wavegan_dist.config import TrainConfig

COMPUTE = {"bf16": torch.bfloat16, "fp16": torch.float16}
GROWTH, BACKOFF, GROWTH_INTERVAL = 2.0, 0.5, 2000  # as torch.amp.GradScaler's
FIRST_SCALE = 2.0**16


def set_matmul_precision(train: TrainConfig) -> None:
    """TF32 or not, for all multiplications and convolutions of float32 numbers in this process."""
    torch.backends.fp32_precision = "tf32" if train.tf32 else "ieee"  # type: ignore[attr-defined]


def apply_autocast(module: nn.Module, precision: str, device: torch.device) -> None:
    """Make a module's forward run in this precision while it trains; in eval mode it stays as it is.

    Floating inputs are rounded to that precision at once, so that real images have no finer bands than generated ones.
    """
    if precision == "fp32":
        return
    dtype, forward = COMPUTE[precision], module.forward

    def in_fewer_bits(x: Tensor) -> Any:
        if not module.training:
            return forward(x)
        with torch.autocast(device.type, dtype):
            return forward(x.to(dtype))

    module.forward = in_fewer_bits
    for part in module.modules():
        if isinstance(part, ParametrizationList):
            part.forward = torch.autocast(device.type, enabled=False)(part.forward)  # type: ignore[method-assign]  # spectral norm


class LossScale:
    """What a phase's loss is multiplied by so that its gradients do not vanish in float16; 1 in other precisions.

    A gradient that overflows costs a step and halves the scale; it is a fault only where the scale cannot fall any more.

    Args:
        precision: `train.precision`.
        device: where the losses are.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.adapts = precision == "fp16"
        self.value = torch.tensor(FIRST_SCALE if self.adapts else 1.0, device=device)
        self._good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def settle(self, overflow: Tensor) -> Tensor:
        """Adapt to a step whose gradient was not finite (float32 0 or 1); whether that was a fault, in the same form."""
        if not self.adapts:
            return overflow
        fault = overflow * (self.value <= 1)
        torch._amp_update_scale_(self.value, self._good_steps, overflow, GROWTH, BACKOFF, GROWTH_INTERVAL)
        self.value.clamp_(min=1.0)
        return fault

    def state(self) -> list[float]:
        """For a checkpoint."""
        return [self.value.item(), self._good_steps.item()]

    def restore(self, state: list[float]) -> None:
        """Go on from `state`."""
        self.value.fill_(state[0])
        self._good_steps.fill_(int(state[1]))
