"""Batch norm whose statistics are those of the global batch, on the CPU too."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Module = TypeVar("Module", bound=nn.Module)
PART = 2  # images that PyTorch sums at a time


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that in training sums its statistics, and their gradients, over all processes.

    So 2 processes x batch 16 and 1 process x batch 32 train alike, and all ranks hold equal buffers. It stands where
    PyTorch's `nn.SyncBatchNorm` refuses to work, on the CPU; on GPUs `synchronised` puts PyTorch's in its place.
    """

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Normalise [B, C, H, W] over B, H, W of the global batch (training) or by the running statistics (eval)."""
        if not self.training or not _several():
            return super().forward(x_bchw)
        return _normalise([self], [x_bchw])[0]

    @torch.no_grad()
    def track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Take the global batch's statistics, each [C], into the running ones."""
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


def side_by_side(nets: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The output of each network for its input.

    In several processes sequential networks go from batch norm to batch norm in step, so that the statistics of all of them
    are one message: each message costs its latency and the wait for the slowest process. Not where the norms' own weights are
    elsewhere (ZeRO's stage 3): they come when a norm is called.
    """
    if not _several() or not all(map(_at_hand, nets)):
        return [net(x) for net, x in zip(nets, inputs, strict=True)]
    outputs = list(inputs)
    layers = [iter(net.children()) for net in nets]
    while stopped := {number: norm for number in range(len(nets)) if (norm := _advance(layers, outputs, number)) is not None}:
        normalised = _normalise(list(stopped.values()), [outputs[number] for number in stopped])
        for number, out in zip(stopped, normalised, strict=True):
            outputs[number] = out
    return outputs


class NormaliseOverProcesses(Function):
    """Batch norms by the statistics of all processes: one collective forward, one backward (Ioffe and Szegedy 2015).

    The local sums are those of PyTorch's own batch norm, a few images at a time: on the CPU `torch.var_mean` and `einsum` over
    channels last take 20 to 70 times as long, and over many images its plain float32 sums lose two digits (docs/LOG.md).
    """

    @staticmethod
    def forward(ctx: Any, eps: float, *arguments: Tensor) -> tuple[Tensor, ...]:
        """x float32 [B, C, H, W], weight and bias [C] of each norm in turn -> of each the normalised x, the global mean and
        the (biased) variance [C].
        """
        norms = list(zip(*(arguments[first::3] for first in range(3)), strict=True))
        local = [torch.cat(_statistics(x)) for x, _, _ in norms]
        saved, outputs = [], []
        for (x, weight, bias), statistics in zip(norms, _gather(local), strict=True):
            means, variances = statistics.chunk(2, dim=1)  # each [processes, C]
            mean = means.mean(dim=0)
            variance = (variances + (means - mean).square()).mean(dim=0)
            saved += [x, weight, mean, torch.rsqrt(variance + eps)]
            outputs += [F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance]
        ctx.save_for_backward(*saved)
        ctx.mark_non_differentiable(*(output for number, output in enumerate(outputs) if number % 3))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With y = (x - mean) / std: dx = weight / std * (dy - mean(dy) - y * mean(dy * y)), means over all processes."""
        norms = list(zip(gradients[::3], *(ctx.saved_tensors[first::4] for first in range(4)), strict=True))
        local = [torch.cat(_sums(*norm)) for norm in norms]
        results: list[Tensor | None] = [None]
        for norm, mine, all_sums in zip(norms, local, _gather(local), strict=True):
            bias_gradient, weight_gradient = mine.chunk(2)
            results += [_x_gradient(*norm, *all_sums.mean(dim=0).chunk(2)), weight_gradient, bias_gradient]
        return tuple(results)


def _several() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def _at_hand(net: nn.Module) -> bool:
    return all(norm.weight.numel() == norm.num_features for norm in net.children() if isinstance(norm, BatchNorm))


def _advance(layers: Sequence[Any], outputs: list[Tensor], number: int) -> BatchNorm | None:
    """Run one network on, up to a batch norm in training, which is returned, or to its end."""
    for layer in layers[number]:
        if isinstance(layer, BatchNorm) and layer.training:
            return layer
        outputs[number] = layer(outputs[number])
    return None


def _normalise(norms: Sequence[BatchNorm], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Each norm's output for its input; takes in the statistics."""
    arguments = [each for norm, x in zip(norms, inputs, strict=True) for each in (x.float(), norm.weight, norm.bias)]
    results = NormaliseOverProcesses.apply(norms[0].eps, *arguments)
    outputs = []
    for norm, x, out, mean, variance in zip(norms, inputs, results[::3], results[1::3], results[2::3], strict=True):
        count = x.numel() // x.shape[1] * dist.get_world_size()
        norm.track(mean, variance * (count / (count - 1)))
        outputs.append(out.to(x.dtype))
    return outputs


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over this process's images, [C] each."""
    parts = x.split(PART)
    means, variances = map(
        torch.stack, zip(*(torch.batch_norm_update_stats(part, None, None, 0.0) for part in parts), strict=True)
    )
    share = torch.tensor([[len(part) / len(x)] for part in parts])
    mean = (share * means).sum(dim=0)
    return mean, (share * (variances + (means - mean).square())).sum(dim=0)


def _sums(gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor) -> tuple[Tensor, Tensor]:
    """This process's gradients of bias and weight, [C] each."""
    parts = [
        torch.ops.aten.native_batch_norm_backward(*part, weight, None, None, mean, inverse_std, True, 0.0, [False, True, True])
        for part in zip(gradient.split(PART), x.split(PART), strict=True)
    ]
    return torch.stack([of_bias for _, _, of_bias in parts]).sum(dim=0), torch.stack(
        [of_weight for _, of_weight, _ in parts]
    ).sum(dim=0)


def _x_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor, bias_sum: Tensor, weight_sum: Tensor
) -> Tensor:
    """The sums are means over the processes. As a * dy + b * x + c, each a number per channel: two passes over the memory."""
    count = x.numel() // x.shape[1]
    a = weight * inverse_std
    b = -a * inverse_std * weight_sum / count
    c = -a * bias_sum / count - b * mean
    return torch.addcmul(c[:, None, None], x, b[:, None, None]).addcmul_(gradient, a[:, None, None])


def _gather(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Each vector from all processes, [processes, length], in one message: over gloo quicker than an all-reduce."""
    packed = torch.cat(tuple(vectors))
    slots = [torch.empty_like(packed) for _ in range(dist.get_world_size())]
    dist.all_gather(slots, packed)
    return list(torch.stack(slots).split([len(vector) for vector in vectors], dim=1))
