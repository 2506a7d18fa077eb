"""Batch norm whose statistics are those of the global batch, on the CPU too."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

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
        out, mean, variance = NormaliseOverProcesses.apply(x_bchw.float(), self.weight, self.bias, self.eps)
        count = x_bchw.numel() // x_bchw.shape[1] * dist.get_world_size()
        self._track(mean, variance * (count / (count - 1)))
        normalised: Tensor = out.to(x_bchw.dtype)
        return normalised

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


class NormaliseOverProcesses(Function):
    """Batch norm by the statistics of all processes: one collective forward, one backward (Ioffe and Szegedy 2015).

    The local sums are those of PyTorch's own batch norm: on the CPU `torch.var_mean` and `einsum` over channels last take
    20 to 70 times as long (docs/LOG.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """float32 [B, C, H, W] -> the same normalised, and the global mean and (biased) variance, each [C]."""
        local = torch.batch_norm_update_stats(x, None, None, 0.0)  # mean and biased variance
        means, variances = _gather(torch.stack(local)).unbind(dim=1)  # each [processes, C]
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With y = (x - mean) / std: dx = weight / std * (dy - mean(dy) - y * mean(dy * y)), means over all processes."""
        x, weight, mean, inverse_std = ctx.saved_tensors
        _, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse_std, True, 0.0, [False, True, True]
        )
        total = _sum(torch.stack((bias_gradient, weight_gradient)))
        mean_gradient, mean_product = total / (x.numel() // x.shape[1] * dist.get_world_size())
        # dx as a * dy + b * x + c, each a number per channel: two passes over the memory.
        a = weight * inverse_std
        b = -a * inverse_std * mean_product
        c = -a * mean_gradient - b * mean
        x_gradient = torch.addcmul(c[:, None, None], x, b[:, None, None]).addcmul_(gradient, a[:, None, None])
        return x_gradient, weight_gradient, bias_gradient, None


def _gather(x: Tensor) -> Tensor:
    """Stack a tensor of equal shape from all processes: [processes, ...]."""
    slots = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(slots, x)
    return torch.stack(slots)


def _sum(x: Tensor) -> Tensor:
    """Add up a tensor of equal shape from all processes, in place."""
    dist.all_reduce(x)
    return x
