"""Depthwise convolutions and bilinear resampling on the device: equal to PyTorch's, with fast derivatives of every order."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from tests.gpu.device import DEVICE, LAYOUTS, random
from wavegan_dist.model.backbones import bilinear, depthwise
from wavegan_dist.model.backbones.residual import Resample, ResidualDiscriminator

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def exact_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1, groups=len(weight))


def exact_upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def exact_transpose(y: Tensor) -> Tensor:
    """The transpose of a linear function is its vector-Jacobian product, differentiable with respect to the vector."""
    x = torch.zeros(*y.shape[:2], y.shape[2] // 2, y.shape[3] // 2, dtype=y.dtype, device=y.device, requires_grad=True)
    (result,) = torch.autograd.grad(exact_upsample(x), x, y, create_graph=True)
    return result


def derivatives(function: Callable[..., Tensor], *leaves: Tensor) -> list[Tensor]:
    """Return the output, its first derivatives, and those of the squared norm of the derivative with respect to x."""
    output = function(*leaves)
    first = torch.autograd.grad(output.sin().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), leaves, allow_unused=True)
    return [output, *first, *(gradient for gradient in second if gradient is not None)]


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "crop"])
def test_outputs_and_derivatives_equal_those_of_pytorch_in_float64(layout: str, dtype: torch.dtype) -> None:
    x = LAYOUTS[layout](random(3, 5, 8, 6, dtype=dtype))
    leaves = [leaf.requires_grad_() for leaf in (x, random(5, 1, 3, 3, dtype=dtype), random(5, dtype=dtype))]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    actual = derivatives(depthwise.convolve, *leaves)
    actual += derivatives(lambda x: bilinear.upsample(x, 1.0), leaves[0])
    actual += derivatives(lambda x: bilinear.transpose(x, 0.25), leaves[0])
    expected = derivatives(exact_conv, *exact) + derivatives(exact_upsample, exact[0])
    expected += derivatives(lambda y: exact_transpose(y) / 4, exact[0])
    assert len(actual) == len(expected)
    for value, target in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        assert (value.double() - target).norm() <= ROUNDING[dtype] * target.norm()


def test_derivatives_in_float64_equal_finite_differences() -> None:
    x, weight, bias = (random(*shape, dtype=torch.float64) for shape in ((2, 3, 4, 6), (3, 1, 3, 3), (3,)))
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradgradcheck(depthwise.convolve, inputs)
    assert torch.autograd.gradgradcheck(depthwise.weight_gradient, (x, torch.rand_like(x, requires_grad=True)))
    assert torch.autograd.gradgradcheck(lambda x: bilinear.upsample(x, 2.0).sin(), x)
    assert torch.autograd.gradgradcheck(lambda x: bilinear.transpose(x, 2.0).sin(), x)


def test_opcheck_accepts_every_operator() -> None:
    weight = random(3, 1, 3, 3).requires_grad_()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = random(2, 3, 4, 6).to(memory_format=memory_format).requires_grad_()
        torch.library.opcheck(depthwise.convolve, (x, weight, random(3).requires_grad_()))
        torch.library.opcheck(depthwise.convolve, (x, weight, None))
        torch.library.opcheck(depthwise.weight_gradient, (x, torch.rand_like(x)))
        torch.library.opcheck(bilinear.upsample, (x, 2.0))
        torch.library.opcheck(bilinear.transpose, (x, 2.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_results_have_the_memory_format_of_the_input(memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    x = random(2, 4, 6, 6, dtype=dtype).to(memory_format=memory_format)
    weight = random(4, 1, 3, 3, dtype=dtype)
    for y in (depthwise.convolve(x, weight, None), bilinear.upsample(x, 1.0), bilinear.transpose(x, 0.25)):
        assert y.is_contiguous(memory_format=memory_format)


def test_autocast_changes_no_dtype() -> None:
    x, weight = random(2, 4, 6, 6), random(4, 1, 3, 3)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        results = depthwise.convolve(x, weight, None), depthwise.weight_gradient(x, x), bilinear.transpose_by_convolution(x)
    assert {y.dtype for y in results} == {torch.float32}


def test_the_flops_of_forward_and_backward() -> None:
    """Of a backward with groups, PyTorch's own formula counts the weight's gradient once for each group."""
    x, weight = random(2, 4, 6, 6).requires_grad_(), random(4, 1, 3, 3).requires_grad_()
    counts = []
    for conv, is_differentiated in ((exact_conv, False), (depthwise.convolve, False), (depthwise.convolve, True)):
        with FlopCounterMode(display=False) as counter:
            y = conv(x, weight, None)
            if is_differentiated:
                y.sum().backward()
        counts.append(counter.get_total_flops())
    assert counts == [counts[0], counts[0], 3 * counts[0]]


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 2)], ids=str)
def test_the_transpose_as_a_convolution_equals_pytorchs_backward(size: tuple[int, int]) -> None:
    y = random(2, 3, 2 * size[0], 2 * size[1], dtype=torch.float64)
    torch.testing.assert_close(bilinear.transpose_by_convolution(y), exact_transpose(y))


class CountOperators(TorchDispatchMode):
    """Counts the operators that run."""

    count = 0

    @override
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("resample", ["bilinear", "haar"])
def test_the_operators_of_a_gradient_penalty_do_not_grow_with_the_width(resample: Resample) -> None:
    """PyTorch's second derivative of a grouped convolution runs several operators for each group."""
    counts = []
    for width in (2, 8):
        network, x = ResidualDiscriminator(16, 3, width, resample=resample).to(DEVICE), random(2, 3, 16, 16).requires_grad_()
        with CountOperators() as counter:
            (gradient,) = torch.autograd.grad(network([x]).sum(), x, create_graph=True)
            gradient.square().sum().backward()
        counts.append(counter.count)
    assert counts[1] < 1.1 * counts[0]
