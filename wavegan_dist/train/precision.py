"""Mixed precision: which operations run in bfloat16 or float16, and the loss scale that float16 needs.

The networks' forward and backward passes run under `torch.autocast`; the fused wavelet kernels run in the dtype of their
input. Everything else is float32: weights, losses, `lam`, spectral norm's power iteration, batch statistics, gradients and
their all-reduce, clipping, Adam and its moments, the EMA and all samples drawn from the EMA.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

COMPUTE_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The defaults of torch.amp.GradScaler.
INIT_SCALE, GROWTH_FACTOR, BACKOFF_FACTOR, GROWTH_INTERVAL = 2.0**16, 2.0, 0.5, 2000


def compute_dtype(precision: str) -> torch.dtype:
    """Return the dtype in which networks compute under `train.precision`: bfloat16 for bf16, float16 for fp16, else float32."""
    return COMPUTE_DTYPES.get(precision, torch.float32)


def autocast(dtype: torch.dtype, device_type: str) -> AbstractContextManager[None]:
    """Return the context in which networks compute in `dtype`: `torch.autocast`, or no context for float32.

    DeepSpeed disables an autocast that is entered around its own forward, so the context belongs inside a phase.
    """
    return nullcontext() if dtype == torch.float32 else torch.autocast(device_type, dtype)


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
        """Return [scale, number of good steps since it last changed], for state.json; the host waits for the device."""
        return [self.value.item(), self._good_steps.item()]

    def restore(self, state: list[float]) -> None:
        """Restore the list that `state` returned."""
        self.value.fill_(state[0])
        self._good_steps.fill_(int(state[1]))
