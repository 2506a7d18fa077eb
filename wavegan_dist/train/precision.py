"""Mixed precision: which operations run in bfloat16 or float16, and the loss scale that float16 needs.

The networks' forward and backward passes run under `torch.autocast`; the fused wavelet kernels run in the dtype of their
input. Everything else is float32: weights, losses, `lam`, spectral norm's power iteration, batch statistics, gradients and
their all-reduce, clipping, Adam and its moments, the EMA and all samples drawn from the EMA.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.config import TrainConfig

COMPUTE_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The defaults of torch.amp.GradScaler.
INIT_SCALE, GROWTH_FACTOR, BACKOFF_FACTOR, GROWTH_INTERVAL = 2.0**16, 2.0, 0.5, 2000


def set_matmul_precision(train: TrainConfig) -> None:
    """Allow TF32 in all float32 matrix products and convolutions of this process, or forbid it, according to `train.tf32`."""
    torch.backends.fp32_precision = "tf32" if train.tf32 else "ieee"  # type: ignore[attr-defined]


def with_autocast(module: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """Wrap `module` in `Autocast` for `train.precision` = bf16 or fp16; returns `module` itself for fp32."""
    return Autocast(module, COMPUTE_DTYPES[precision], device.type) if precision in COMPUTE_DTYPES else module


class Autocast(nn.Module):
    """Runs the forward of a module under `torch.autocast` while the module is in training mode, in float32 in eval mode.

    DDP and DeepSpeed wrap this module rather than the bare one: DeepSpeed disables an autocast that is entered around its own
    forward.

    Args:
        module: the wrapped module; holds all parameters and buffers.
        dtype: torch.bfloat16 or torch.float16.
        device_type: "cpu" or "cuda".
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, device_type: str) -> None:
        super().__init__()
        self.module, self.dtype, self.device_type = module, dtype, device_type

    @override
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        if not self.module.training:
            return self.module(x, labels)
        with torch.autocast(self.device_type, self.dtype):
            # Rounds the input, too: otherwise real images would have finer wavelet bands than generated ones.
            return self.module(x.to(self.dtype), labels)


class LossScale:
    """The factor that multiplies a phase's loss so that small gradients do not underflow in float16; 1 in other precisions.

    A gradient that overflows skips that optimizer step and halves the scale. The overflow is an error only when the scale is
    already 1.

    Args:
        precision: `train.precision`.
        device: device of the losses.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.dynamic = precision == "fp16"
        self.value = torch.tensor(INIT_SCALE if self.dynamic else 1.0, device=device)
        self._good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def update(self, overflow: Tensor) -> Tensor:
        """Adapt the scale after an optimizer step, without waiting for the device.

        Args:
            overflow: float32 scalar, 1 if the gradient norm was not finite, else 0.

        Returns:
            float32 scalar, 1 if the overflow is an error, else 0. Without a dynamic scale every overflow is an error.
        """
        if not self.dynamic:
            return overflow
        error = overflow * (self.value <= 1)
        torch._amp_update_scale_(self.value, self._good_steps, overflow, GROWTH_FACTOR, BACKOFF_FACTOR, GROWTH_INTERVAL)
        self.value.clamp_(min=1.0)
        return error

    def state(self) -> list[float]:
        """Return [scale, number of good steps since it last changed] for the state.json of a checkpoint."""
        return [self.value.item(), self._good_steps.item()]

    def restore(self, state: list[float]) -> None:
        """Restore the list that `state` returned."""
        self.value.fill_(state[0])
        self._good_steps.fill_(int(state[1]))
