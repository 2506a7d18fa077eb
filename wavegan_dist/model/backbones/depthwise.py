"""Depthwise 3x3 convolution with fast derivatives of every order.

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

from wavegan_dist.model.backbones.memory_format import empty, formatted

SIZE = 3  # height and width of a filter


class DepthwiseConv(nn.Conv2d):
    """A 3x3 convolution of each channel with its own filter, and a bias; zero padding, stride 1: [B, C, H, W] -> [B, C, H, W].

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, SIZE, padding=SIZE // 2, groups=channels)

    @override
    def forward(self, x_bchw: Tensor) -> Tensor:
        assert self.bias is not None
        if torch.compiler.is_exporting():  # to PyTorch's own operators
            return super().forward(x_bchw)
        # Autocast does not cast the arguments of custom operators.
        out: Tensor = convolve(x_bchw, self.weight.to(x_bchw.dtype), self.bias.to(x_bchw.dtype))
        return out


@torch.library.custom_op("wavegan::depthwise_conv", mutates_args=())
def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel of a batch with its filter, with zero padding, and add its bias. Differentiable to any order.

    Args:
        x: [B, C, H, W].
        weight: a filter for each channel, [C, 1, 3, 3], in the dtype of x.
        bias: [C] in the dtype of x, or None.

    Returns:
        [B, C, H, W] in the dtype and memory format of x.
    """
    with torch.autocast(x.device.type, enabled=False):
        return formatted(F.conv2d(x, weight, bias, padding=SIZE // 2, groups=len(weight)), x)


@torch.library.custom_op("wavegan::depthwise_conv_weight_gradient", mutates_args=())
def weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """Compute the gradient of a loss with respect to the weight of `convolve`. Differentiable to any order.

    Args:
        x: the batch that `convolve` got, [B, C, H, W].
        dy: the gradient of the loss with respect to the result of `convolve`, [B, C, H, W] in the dtype of x.

    Returns:
        [C, 1, 3, 3] in the dtype of x.
    """
    weight = x.new_empty(x.shape[1], 1, SIZE, SIZE)  # only its shape matters
    ones, padding = [1, 1], [SIZE // 2, SIZE // 2]
    gradients = torch.ops.aten.convolution_backward(
        dy, x, weight, None, ones, padding, ones, False, [0, 0], len(weight), [False, True, False]
    )
    result: Tensor = gradients[1].contiguous()
    return result


@convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty(x, x.shape)


@weight_gradient.register_fake
def _(x: Tensor, dy: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], 1, SIZE, SIZE)


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


def _save_inputs(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _weight_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Backward of `weight_gradient`, which is linear in x and in dy; `grad`, of the result, is [C, 1, 3, 3]."""
    x, dy = ctx.saved_tensors
    to_x, to_dy = ctx.needs_input_grad
    return convolve(dy, grad.flip(2, 3), None) if to_x else None, convolve(x, grad, None) if to_dy else None


convolve.register_autograd(_convolve_backward, setup_context=_save_x_and_weight)
weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save_inputs)


@register_flop_formula([torch.ops.wavegan.depthwise_conv, torch.ops.wavegan.depthwise_conv_weight_gradient])
def _flops(x_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * SIZE**2 * x_shape.numel()
