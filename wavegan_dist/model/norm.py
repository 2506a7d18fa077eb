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
PART = 2**17  # numbers that PyTorch sums at a time: they stay in the cache between its two passes


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that in training sums its statistics, and their gradients, over all processes.

    So 2 processes x batch 16 and 1 process x batch 32 train alike, and all ranks hold equal buffers. It stands where
    PyTorch's `nn.SyncBatchNorm` refuses to work, on the CPU; on GPUs `convert_sync_batchnorm` puts PyTorch's in its place.
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


def convert_sync_batchnorm(module: Module) -> Module:
    """The module with PyTorch's own synchronised batch norm; for modules that train in several processes on GPUs."""
    converted: Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return converted


def run_in_lockstep(nets: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Tensor]:
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

    The local sums are those of PyTorch's own batch norm, each place of a row for itself: on the CPU `torch.var_mean` and
    `einsum` over channels last take 20 to 70 times as long, and over all places its plain float32 sums lose two digits
    (docs/LOG.md).
    """

    @staticmethod
    def forward(ctx: Any, eps: float, *arguments: Tensor) -> tuple[Tensor, ...]:
        """x float32 [B, C, H, W], weight and bias [C] of each norm in turn -> of each the normalised x, the global mean and
        the (biased) variance [C].
        """
        norms = list(zip(*(arguments[first::3] for first in range(3)), strict=True))
        channels = [len(weight) for _, weight, _ in norms]
        means, variances = _gather([_statistics(x) for x, _, _ in norms]).unbind(dim=1)  # each [processes, C of all norms]
        variance, mean = torch.var_mean(means, dim=0, correction=0)
        variance += variances.mean(dim=0)
        inverse_std = torch.rsqrt(variance + eps).split(channels)
        saved, outputs = [], []
        for (x, weight, bias), its_mean, its_variance, its_inverse_std in zip(
            norms, mean.split(channels), variance.split(channels), inverse_std, strict=True
        ):
            saved += [x, weight, its_mean, its_inverse_std]
            outputs += [F.batch_norm(x, its_mean, its_variance, weight, bias, eps=eps), its_mean, its_variance]
        ctx.save_for_backward(*saved)
        ctx.mark_non_differentiable(*(output for number, output in enumerate(outputs) if number % 3))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With y = (x - mean) / std: dx = weight / std * (dy - mean(dy) - y * mean(dy * y)), means over all processes."""
        norms = list(zip(gradients[::3], *(ctx.saved_tensors[first::4] for first in range(4)), strict=True))
        local = [_sums(gradient, x, mean, inverse_std) for gradient, x, _, mean, inverse_std in norms]
        all_sums = _gather(local).mean(dim=0).split([len(of_bias) for of_bias, _ in local], dim=1)
        results: list[Tensor | None] = [None]
        for norm, (of_bias, of_weight), sums in zip(norms, local, all_sums, strict=True):
            results += [_x_gradient(*norm, *sums), of_weight, of_bias]
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
    each = [torch.batch_norm_update_stats(_rows(part), None, None, 0.0) for part in _parts(x)]
    means, variances = (torch.cat(values).view(-1, x.shape[1]) for values in zip(*each, strict=True))
    variance, mean = torch.var_mean(means, dim=0, correction=0)
    return mean, variance.add_(variances.mean(dim=0))


def _sums(gradient: Tensor, x: Tensor, mean: Tensor, inverse_std: Tensor) -> tuple[Tensor, Tensor]:
    """This process's gradients of bias and weight, [C] each."""
    channels, width = x.shape[1], x.shape[3]
    statistics = (None, None, mean.repeat(width), inverse_std.repeat(width))
    each = [
        torch.ops.aten.native_batch_norm_backward(*map(_rows, part), None, *statistics, True, 0.0, [False, True, True])[1:]
        for part in zip(_parts(gradient), _parts(x), strict=True)
    ]
    of_weight, of_bias = (torch.cat(values).view(-1, channels).sum(dim=0) for values in zip(*each, strict=True))
    return of_bias, of_weight


def _parts(x: Tensor) -> Sequence[Tensor]:
    """Images of [B, C, H, W] some at a time, always as many."""
    batch, most = len(x), max(1, PART * len(x) // x.numel())
    return list(x.split(max(count for count in range(1, min(batch, most) + 1) if batch % count == 0)))


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] as [1, W * C, B * H, 1], a view where channels are last: each place of a row a channel of its own."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(1, batch * height, 1, width * channels).permute(0, 3, 1, 2)


def _x_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor, bias_sum: Tensor, weight_sum: Tensor
) -> Tensor:
    """The sums are means over the processes. As a * dy + b * x + c, each a number per channel: two passes over the memory."""
    count = x.numel() // x.shape[1]
    a = weight * inverse_std
    b = -a * inverse_std * weight_sum / count
    c = -a * bias_sum / count - b * mean
    return torch.addcmul(c[:, None, None], x, b[:, None, None]).addcmul_(gradient, a[:, None, None])


def _gather(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Pairs of vectors, those of one place joined, from all processes in one message: [processes, 2, length].

    Over gloo an all-gather is quicker than an all-reduce.
    """
    packed = torch.cat([each for pair in zip(*pairs, strict=True) for each in pair]).view(2, -1)
    slots = [torch.empty_like(packed) for _ in range(dist.get_world_size())]
    dist.all_gather(slots, packed)
    return torch.stack(slots)
