"""Depthwise convolutions with fast derivatives of every order.

PyTorch computes the second derivative of a grouped convolution in a loop over the groups (`_convolution_double_backward` in
ATen/native/Convolution.cpp). With one channel per group, a step with exact gradient penalties took seconds on a GPU
(docs/LOG.md). Here, every derivative is again made of depthwise convolutions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula
from typing_extensions import override

SIZE = 3  # height and width of a filter


class DepthwiseConv(nn.Conv2d):
    """A 3x3 convolution of each channel with a filter of its own, zero padding, stride 1: [B, C, H, W] -> [B, C, H, W].

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, SIZE, padding=SIZE // 2, groups=channels)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        assert self.bias is not None
        # Autocast does not cast the arguments of operators that are not PyTorch's.
        return convolve(x_bchw, self.weight.to(x_bchw.dtype), self.bias.to(x_bchw.dtype))


class DepthwiseDownsample(nn.Module):
    """Halves the size by a fixed 4x4 filter with zero padding: [B, C, H, W] -> [B, C, H/2, W/2]; differentiable with respect to x.

    Args:
        kernel: the filter of every channel, [4, 4].
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        return downsample(x_bchw, self.kernel.to(x_bchw.dtype))


@torch.library.custom_op("wavegan::depthwise_conv", mutates_args=())
def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel of x [B, C, H, W] with its filter in weight [C, 1, 3, 3], then add bias [C]; all of one dtype."""
    return F.conv2d(x, weight, bias, padding=SIZE // 2, groups=len(weight))


@torch.library.custom_op("wavegan::depthwise_conv_weight_gradient", mutates_args=())
def weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """Compute the gradient of the weight of `convolve`, [C, 1, 3, 3], from x and the gradient of the result, both [B, C, H, W]."""
    weight = x.new_empty(x.shape[1], 1, SIZE, SIZE)  # only its shape matters
    ones, padding = [1, 1], [SIZE // 2, SIZE // 2]
    _, gradient, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, ones, padding, ones, False, [0, 0], len(weight), [False, True, False]
    )
    return gradient


@convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x)


@weight_gradient.register_fake
def _(x: Tensor, dy: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], 1, SIZE, SIZE)


@torch.library.custom_op("wavegan::depthwise_downsample", mutates_args=())
def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel of x [B, C, H, W] with kernel [1, 1, 4, 4] at every other position: [B, C, H/2, W/2]."""
    return F.conv2d(x, kernel.expand(x.shape[1], -1, -1, -1), stride=2, padding=1, groups=x.shape[1])


@torch.library.custom_op("wavegan::depthwise_upsample", mutates_args=())
def upsample(y: Tensor, kernel: Tensor) -> Tensor:
    """Compute the transpose of `downsample`: y [B, C, H/2, W/2] -> [B, C, H, W]."""
    return F.conv_transpose2d(y, kernel.expand(y.shape[1], -1, -1, -1), stride=2, padding=1, groups=y.shape[1])


@downsample.register_fake
def _(x: Tensor, kernel: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return _empty(x, (batch, channels, height // 2, width // 2))


@upsample.register_fake
def _(y: Tensor, kernel: Tensor) -> Tensor:
    batch, channels, height, width = y.shape
    return _empty(y, (batch, channels, 2 * height, 2 * width))


def _empty(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An uninitialized 4D tensor in the memory format of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch._prims_common.suggest_memory_format(like))


def _save_kernel(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _downsample_backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
    return upsample(dy, *ctx.saved_tensors), None


def _upsample_backward(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
    return downsample(dx, *ctx.saved_tensors), None


downsample.register_autograd(_downsample_backward, setup_context=_save_kernel)
upsample.register_autograd(_upsample_backward, setup_context=_save_kernel)


def _save_x_and_weight(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _convolve_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    to_x, to_weight, to_bias = ctx.needs_input_grad
    return (
        convolve(dy, weight.flip(2, 3), None) if to_x else None,
        weight_gradient(x, dy) if to_weight else None,
        dy.sum(dim=(0, 2, 3)) if to_bias else None,
    )


def _save_both(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _weight_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Backward of `weight_gradient`, which is linear in x and in dy; `grad` is [C, 1, 3, 3]."""
    x, dy = ctx.saved_tensors
    to_x, to_dy = ctx.needs_input_grad
    return convolve(dy, grad.flip(2, 3), None) if to_x else None, convolve(x, grad, None) if to_dy else None


convolve.register_autograd(_convolve_backward, setup_context=_save_x_and_weight)
weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save_both)


@register_flop_formula([torch.ops.wavegan.depthwise_conv, torch.ops.wavegan.depthwise_conv_weight_gradient])
def _flops(x_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * SIZE**2 * x_shape.numel()
