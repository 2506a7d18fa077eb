"""Batch norm whose statistics are those of the global batch, on the CPU too."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

Module = TypeVar("Module", bound=nn.Module)


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that in training sums its statistics, and their gradients, over all processes.

    So 2 processes x batch 16 and 1 process x batch 32 train alike, and all ranks hold equal buffers. It stands where
    PyTorch's `nn.SyncBatchNorm` refuses to work, on the CPU; on GPUs `synchronised` puts PyTorch's in its place.
    """

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Normalise [B, C, H, W] over B, H, W of the global batch (training) or by the running statistics (eval)."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x_bchw)
        x = x_bchw.float()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean: Tensor = SumOverProcesses.apply(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance: Tensor = SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
        self._track(mean, variance * (count / (count - 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x_bchw.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)


def synchronised(module: Module) -> Module:
    """The module with PyTorch's own synchronised batch norm; for modules that train in several processes on GPUs."""
    converted: Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return converted


class SumOverProcesses(Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_ctx: FunctionCtx, x: Tensor) -> Tensor:
        """Any shape, equal on all processes."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        """The transpose of a sum over processes is the same sum."""
        total: Tensor = SumOverProcesses.apply(*gradients)
        return total
