"""Synchronized batch norm that serves several layers with one collective and that `torch.compile` can put into a graph.

As in `nn.SyncBatchNorm`, the statistics are those of the global batch: 2 processes with 16 images each train as 1 process with
32 does, up to rounding, and the running statistics are equal on all ranks. `nn.SyncBatchNorm` does not run on CPUs. On GPUs,
each of its layers synchronizes host and device (github.com/pytorch/pytorch/issues/78549), which CUDA graphs do not allow.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

CHUNK_ELEMENTS = 2**17  # elements reduced at a time: they stay in the CPU's cache between PyTorch's two passes over them


class SyncBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that uses the statistics of the global batch, and their gradients, in training mode.

    In training mode, forward and backward are collective calls of the default process group, and every process must pass a
    batch of the same shape. In eval mode, the layer is `nn.BatchNorm2d`. `momentum` must not be None, and
    `track_running_stats` must be true.
    """

    @classmethod
    def from_batch_norm(cls, norm: nn.BatchNorm2d) -> Self:
        """Return a synchronized layer with a copy of the parameters, buffers and settings of `norm`, not of its mode or device.

        The new layer is on the CPU and in training mode. `norm` must track running statistics.
        """
        synchronized = cls(norm.num_features, norm.eps, norm.momentum, norm.affine)
        synchronized.load_state_dict(norm.state_dict())
        return synchronized

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        return synchronized_batch_norms([self], [x_bchw])[0] if self.training else super().forward(x_bchw)

    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """Return the layer's weight and bias, [C] each; ones and zeros if `affine` is False."""
        if self.affine:
            return self.weight, self.bias
        assert self.running_mean is not None
        return torch.ones_like(self.running_mean), torch.zeros_like(self.running_mean)

    @torch.no_grad()
    def update_running_stats(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Update the running statistics in place with those of one global batch, each float32 [C], and count the batch."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)


def synchronized_batch_norms(norms: Sequence[SyncBatchNorm], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Apply several batch norms in training mode with one all-gather for all of them: a collective call.

    Args:
        norms: the layers; all have the same `eps`. Their running statistics are updated.
        inputs: one batch [B, C, H, W] for each layer, of the same shape on every process. Statistics are float32, whatever the
            dtype of the input.

    Returns:
        The normalized batch of each layer, of the shape and dtype of its input.
    """
    # PyTorch's CPU kernels accept no 16-bit batches with float32 weights.
    batches = [x.float() if x.device.type == "cpu" else x for x in inputs]
    tensors = [tensor for norm, x in zip(norms, batches, strict=True) for tensor in (x, *norm.weight_and_bias())]
    results = sync_batch_norm(tensors, norms[0].eps)
    outputs = []
    for norm, x, output, mean, variance in zip(norms, inputs, results[::3], results[1::3], results[2::3], strict=True):
        count = x.numel() // x.shape[1] * dist.get_world_size()  # elements of a channel in the global batch
        norm.update_running_stats(mean, variance * (count / (count - 1)))
        outputs.append(output.to(x.dtype))
    return outputs


# Inductor leaves an operator with this tag out of CUDA graphs.
@torch.library.custom_op("wavegan::sync_batch_norm", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def sync_batch_norm(tensors: Sequence[Tensor], eps: float) -> list[Tensor]:
    """Normalize each layer's batch by the statistics of the global batch (Ioffe and Szegedy 2015): a collective call.

    The shapes must be the same on every process: all processes have equal weight.

    Args:
        tensors: x [B, C, H, W], weight [C] and bias [C] of the first layer, then of the second, ...; weights and biases are
            float32, and on CPUs x is, too.
        eps: added to each variance.

    Returns:
        The batch norm's output (weight and bias applied) in the dtype of x, the global mean and the global biased variance,
        float32 [C], of the first layer, then of the second, ... Only the outputs are differentiable.
    """
    layers = list(zip(tensors[0::3], tensors[1::3], tensors[2::3], strict=True))
    channels = [len(weight) for _, weight, _ in layers]
    # The channels of all layers are concatenated; means and variances are [processes, channels of all layers].
    means, variances = _all_gather_pairs([_mean_and_variance(x) for x, _, _ in layers]).unbind(dim=1)
    # Law of total variance: the variance of the means plus the mean of the variances.
    variance, mean = torch.var_mean(means, dim=0, correction=0)
    variance += variances.mean(dim=0)
    results = []
    for (x, weight, bias), mean_c, variance_c in zip(layers, mean.split(channels), variance.split(channels), strict=True):
        # Clones: an operator may not return views.
        results += [F.batch_norm(x, mean_c, variance_c, weight, bias, eps=eps), mean_c.clone(), variance_c.clone()]
    return results


@torch.library.custom_op("wavegan::sync_batch_norm_backward", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def sync_batch_norm_backward(gradients: Sequence[Tensor], saved: Sequence[Tensor], eps: float) -> list[Tensor]:
    """Compute the gradients of each layer's x, weight and bias: a collective call.

    With x_hat = (x - mean) / std, dx = weight / std * (dy - mean(dy) - x_hat * mean(dy * x_hat)); the means are over the
    global batch. The sums of dy and dy * x_hat are the gradients of bias and weight; they are local, as in PyTorch.

    Args:
        gradients: dy [B, C, H, W] of each layer.
        saved: x [B, C, H, W], weight, global mean and global variance, [C] each, of the first layer, then of the second, ...
        eps: added to each variance.

    Returns:
        The gradients of x (in the dtype of x), weight and bias (float32 [C]) of the first layer, then of the second, ...
    """
    xs, weights, means = saved[0::4], saved[1::4], saved[2::4]
    inverse_stds = [torch.rsqrt(variance + eps) for variance in saved[3::4]]
    layers = list(zip(gradients, xs, weights, means, inverse_stds, strict=True))
    local = [_bias_and_weight_gradient(dy, x, mean, inverse_std) for dy, x, _, mean, inverse_std in layers]
    averages = _all_gather_pairs(local).mean(dim=0).split([len(bias_grad) for bias_grad, _ in local], dim=1)
    results = []
    for layer, (bias_grad, weight_grad), (mean_bias_grad, mean_weight_grad) in zip(layers, local, averages, strict=True):
        results += [_input_gradient(*layer, mean_bias_grad, mean_weight_grad), weight_grad, bias_grad]
    return results


@sync_batch_norm.register_fake
def _(tensors: Sequence[Tensor], eps: float) -> list[Tensor]:
    weights = tensors[1::3]
    return [
        result
        for x, weight in zip(tensors[0::3], weights, strict=True)
        for result in (torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight))
    ]


@sync_batch_norm_backward.register_fake
def _(gradients: Sequence[Tensor], saved: Sequence[Tensor], eps: float) -> list[Tensor]:
    return [
        result
        for x, weight in zip(saved[0::4], saved[1::4], strict=True)
        for result in (torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight))
    ]


def _save_for_backward(ctx: Any, inputs: tuple[Sequence[Tensor], float], output: list[Tensor]) -> None:
    tensors, ctx.eps = inputs
    layers = zip(tensors[0::3], tensors[1::3], output[1::3], output[2::3], strict=True)
    ctx.save_for_backward(*(tensor for layer in layers for tensor in layer))


def _backward(ctx: Any, gradients: list[Tensor]) -> tuple[list[Tensor], None]:
    return sync_batch_norm_backward(gradients[0::3], list(ctx.saved_tensors), ctx.eps), None


sync_batch_norm.register_autograd(_backward, setup_context=_save_for_backward)


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, float32 [C] each, of this process's batch [B, C, H, W].

    On CPUs, calls PyTorch's own kernel for contiguous batch norm on a view in which each position of an image row is a channel
    (`_row_positions_as_channels`) and combines the positions afterwards. The direct way, `torch.var_mean` over a channels-last
    tensor, takes 20 to 70 times as long on the CPU, and plain float32 sums over all positions lose two digits (docs/LOG.md).
    """
    if x.device.type != "cpu":
        return torch.batch_norm_update_stats(x, None, None, 0.0)
    stats = [torch.batch_norm_update_stats(_row_positions_as_channels(chunk), None, None, 0.0) for chunk in _chunks(x)]
    means, variances = (torch.cat(values).view(-1, x.shape[1]) for values in zip(*stats, strict=True))
    variance, mean = torch.var_mean(means, dim=0, correction=0)
    return mean, variance.add_(variances.mean(dim=0))


def _bias_and_weight_gradient(dy: Tensor, x: Tensor, mean: Tensor, inverse_std: Tensor) -> tuple[Tensor, Tensor]:
    """This process's sums of dy and of dy * x_hat, float32 [C] each: the local gradients of bias and weight, in that order.

    On CPUs, uses the same view as `_mean_and_variance`, for the same reason.
    """
    if x.device.type != "cpu":
        sum_dy, sum_dy_xmu, _, _ = torch.batch_norm_backward_reduce(dy, x, mean, inverse_std, None, True, False, False)
        return sum_dy, sum_dy_xmu * inverse_std
    channels, width = x.shape[1], x.shape[3]
    stats = mean.repeat(width), inverse_std.repeat(width)
    chunks = zip(map(_row_positions_as_channels, _chunks(dy)), map(_row_positions_as_channels, _chunks(x)), strict=True)
    sums = [_native_sums(dy_chunk, x_chunk, *stats) for dy_chunk, x_chunk in chunks]
    bias_grad, weight_grad = (torch.cat(values).view(-1, channels).sum(dim=0) for values in zip(*sums, strict=True))
    return bias_grad, weight_grad


def _native_sums(dy: Tensor, x: Tensor, mean: Tensor, inverse_std: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of dy and of dy * x_hat over all dimensions but C, [C] each, by PyTorch's own CPU kernel for batch norm."""
    _, weight_grad, bias_grad = torch.ops.aten.native_batch_norm_backward(
        dy, x, None, None, None, mean, inverse_std, True, 0.0, [False, True, True]
    )
    return bias_grad, weight_grad


def _input_gradient(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor, mean_bias_grad: Tensor, mean_weight_grad: Tensor
) -> Tensor:
    """The gradient of x (formula in `sync_batch_norm_backward`), from the means over all processes of the two local sums.

    Evaluated as a * dy + b * x + c, with one a, b and c per channel, the formula takes two passes over the memory.
    """
    count = x.numel() // x.shape[1]
    a = weight * inverse_std
    b = -a * inverse_std * mean_weight_grad / count
    c = -a * mean_bias_grad / count - b * mean
    return torch.addcmul(c[:, None, None], x, b[:, None, None]).addcmul_(dy, a[:, None, None]).to(x.dtype)


def _chunks(x: Tensor) -> Sequence[Tensor]:
    """Split [B, C, H, W] along B into equal chunks of at most `CHUNK_ELEMENTS` elements, or one image if that is larger."""
    batch, limit = len(x), max(1, CHUNK_ELEMENTS * len(x) // x.numel())
    return list(x.split(max(size for size in range(1, min(batch, limit) + 1) if batch % size == 0)))


def _row_positions_as_channels(x: Tensor) -> Tensor:
    """View [B, C, H, W] as [1, W * C, B * H, 1]: the W positions of an image row become separate channels.

    In channels-last memory an image row is W * C contiguous numbers, so this is a view with B * H rows of contiguous channels.
    Other memory formats are copied.
    """
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(1, batch * height, 1, width * channels).permute(0, 3, 1, 2)


def _all_gather_pairs(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """All-gather pairs of vectors of equal length: one collective call for all pairs.

    Concatenates the first vectors of all pairs and the second vectors of all pairs. Uses an all-gather because over gloo it is
    faster than an all-reduce.

    Returns:
        [processes, 2, total length of the first vectors], the processes in the order of their ranks.
    """
    packed = torch.cat([vector for vectors in zip(*pairs, strict=True) for vector in vectors]).view(2, -1)
    gathered = [torch.empty_like(packed) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, packed)
    return torch.stack(gathered)
