"""Depthwise convolutions on the device: equal to PyTorch's, with derivatives of every order that take no loop over the channels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from tests.gpu.device import DEVICE, LAYOUTS, random
from wavegan_dist.model.backbones import depthwise
from wavegan_dist.model.backbones.depthwise import DepthwiseConv, DepthwiseDownsample

KERNEL = torch.tensor((1.0, 3.0, 3.0, 2.0)).outer(torch.tensor((2.0, 3.0, 3.0, 1.0)))
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def expected_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1, groups=len(weight))


def expected_downsample(x: Tensor) -> Tensor:
    kernel = KERNEL.to(x).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def derivatives(function: Callable[..., Tensor], *leaves: Tensor) -> list[Tensor]:
    """Return the output, its first derivatives, and those of the squared norm of the derivative with respect to x."""
    output = function(*leaves)
    first = torch.autograd.grad(output.sin().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), leaves, allow_unused=True)
    return [output, *first, *(gradient for gradient in second if gradient is not None)]


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "crop"])
def test_outputs_and_derivatives_equal_those_of_pytorch_in_float64(layout: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv, down = DepthwiseConv(5).to(DEVICE), DepthwiseDownsample(KERNEL / KERNEL.sum()).to(DEVICE)
    torch.nn.init.normal_(conv.bias)
    x = LAYOUTS[layout](random(3, 5, 8, 6, dtype=dtype)).requires_grad_()
    weight, bias = conv.weight.detach().to(dtype).requires_grad_(), conv.bias.detach().to(dtype).requires_grad_()
    exact = [leaf.detach().double().requires_grad_() for leaf in (x, weight, bias)]
    actual = derivatives(depthwise.convolve, x, weight, bias) + derivatives(down, x)
    expected = derivatives(expected_conv, *exact) + derivatives(lambda x: expected_downsample(x) / KERNEL.sum(), exact[0])
    assert len(actual) == len(expected)
    for value, target in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        assert (value.double() - target).norm() <= ROUNDING[dtype] * target.norm()


def test_derivatives_in_float64_equal_finite_differences() -> None:
    x, weight, bias = (random(*shape, dtype=torch.float64) for shape in ((2, 3, 4, 6), (3, 1, 3, 3), (3,)))
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradgradcheck(depthwise.convolve, inputs)
    assert torch.autograd.gradgradcheck(depthwise.weight_gradient, (x, torch.rand_like(x, requires_grad=True)))
    kernel = KERNEL.to(x)[None, None]
    assert torch.autograd.gradgradcheck(lambda x: depthwise.downsample(x, kernel).sin(), x)
    assert torch.autograd.gradgradcheck(lambda x: depthwise.upsample(x, kernel).sin(), x)


def test_opcheck_accepts_every_operator() -> None:
    x = random(2, 3, 4, 6).to(memory_format=torch.channels_last).requires_grad_()
    weight, kernel = random(3, 1, 3, 3).requires_grad_(), KERNEL.to(x)[None, None]
    for operator, arguments in (
        (depthwise.convolve, (x, weight, random(3).requires_grad_())),
        (depthwise.convolve, (x, weight, None)),
        (depthwise.weight_gradient, (x, torch.rand_like(x))),
        (depthwise.downsample, (x, kernel)),
        (depthwise.upsample, (x, kernel)),
    ):
        torch.library.opcheck(operator, arguments)


class CountOperators(TorchDispatchMode):
    """Counts the operators that run."""

    count = 0

    @override
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_the_number_of_operators_does_not_grow_with_the_channels() -> None:
    """PyTorch's second derivative of a grouped convolution runs several operators for each group."""
    counts = []
    for channels in (2, 32):
        conv, down, x = DepthwiseConv(channels).to(DEVICE), DepthwiseDownsample(KERNEL).to(DEVICE), random(2, channels, 8, 8)
        with CountOperators() as counter:
            derivatives(lambda x: down(conv(x)), x.requires_grad_())
        counts.append(counter.count)
    assert counts[0] == counts[1]
