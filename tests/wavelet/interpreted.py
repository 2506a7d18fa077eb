"""The arithmetic of the Triton kernels in Triton's interpreter. `test_triton` runs this file in a separate process.

TRITON_INTERPRET must be set before anything imports Triton.
"""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.wavelet.layouts import Shape, image_gradient_and_bands, tensors_in_any_layout
from wavegan_dist.wavelet import reference
from wavegan_dist.wavelet import triton as kernels
from wavegan_dist.wavelet.levels import Wavedec, Waverec, level_by_level

# Relative error of one result. The interpreter truncates to bfloat16, where hardware rounds to nearest.
RELATIVE_ERROR = {torch.float32: 0.0, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}
wavedec, waverec = level_by_level(kernels.dwt, kernels.idwt)
exact_wavedec, exact_waverec = level_by_level(reference.dwt, reference.idwt)
BAND_SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 3, 4, 3), (1, 2, 3, 17), (0, 3, 2, 2), (1, 3, 1, 150), (1, 2, 0, 4)])


def assert_close(actual: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=RELATIVE_ERROR[actual.dtype], atol=atol)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=BAND_SHAPES, dtype=st.sampled_from(list(RELATIVE_ERROR)))
def test_interpreted_kernels_equal_the_reference_on_odd_widths_and_any_layout(
    data: st.DataObject, shape: Shape, dtype: torch.dtype
) -> None:
    x, grad, low, high = data.draw(image_gradient_and_bands(shape, dtype))
    for actual, expected in zip(kernels.dwt(x), reference.dwt(x.double()), strict=True):
        assert_close(actual, expected)
    assert_close(kernels.idwt(low, high), reference.idwt(low.double(), high.double()))
    inputs = [tensor.detach().requires_grad_() for tensor in (x, low, high, torch.tensor(0.3))]
    fused = kernels.fuse(*inputs)
    fused.backward(grad)
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact = reference.fuse(*doubles)
    exact.backward(grad.double())
    assert_close(fused.detach(), exact.detach())
    for tensor, double in zip(inputs, doubles, strict=True):
        assert tensor.grad is not None
        tolerance = 1e-6 * max(x.numel(), 1) ** 0.5
        rtol = RELATIVE_ERROR[tensor.dtype] + 2.0**-22  # sums in float32
        torch.testing.assert_close(tensor.grad.double(), double.grad, rtol=rtol, atol=tolerance)


LEVEL_SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 3, 2, 3), (1, 2, 3, 5), (0, 3, 2, 2), (1, 2, 0, 4), (1, 1, 1, 17)])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), levels=st.integers(1, 4), shape=LEVEL_SHAPES, dtype=st.sampled_from(list(RELATIVE_ERROR)))
def test_interpreted_levels_equal_the_reference_on_odd_widths_and_any_layout(
    data: st.DataObject, levels: int, shape: Shape, dtype: torch.dtype
) -> None:
    """`shape` is that of the last low band."""
    batch, channels, height, width = shape
    sizes = [(channels, 1), *((3 * channels, 2**level) for level in range(levels)), (channels, 2**levels)]
    low, *highs, x = (data.draw(tensors_in_any_layout((batch, c, height * n, width * n), dtype)) for c, n in sizes)
    atol = 1e-5 + levels * 2**levels * RELATIVE_ERROR[dtype]  # the low band of every level is rounded
    bands, image = wavedec(x, levels), waverec(low, highs)
    expected_low, expected_highs = exact_wavedec(x.double(), levels)
    for actual, expected in zip([bands[0], *bands[1]], [expected_low, *expected_highs], strict=True):
        assert_close(actual, expected, atol)
    assert_close(image, exact_waverec(low.double(), [high.double() for high in highs]), atol)


def test_interpreted_derivatives_of_two_levels_equal_those_of_the_reference() -> None:
    """First and second derivatives, eager and compiled; the gradient of one band alone."""
    x = torch.rand(1, 2, 4, 12, generator=torch.Generator().manual_seed(0))

    def derivatives(wavedec: Wavedec, waverec: Waverec, x: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_()
        low, highs = wavedec(x, 2)
        (of_one,) = torch.autograd.grad(highs[1].sum(), x, retain_graph=True)
        image = waverec(low.sin(), [high * high for high in highs])
        (first,) = torch.autograd.grad(image.pow(3).sum(), x, create_graph=True)
        return [of_one, first.detach(), *torch.autograd.grad(first.square().sum(), x)]

    expected = derivatives(exact_wavedec, exact_waverec, x.double())
    for actual, value in zip(derivatives(wavedec, waverec, x), expected, strict=True):
        torch.testing.assert_close(actual.double(), value, rtol=1e-4, atol=1e-4)
    compiled_wavedec = torch.compile(wavedec, fullgraph=True, backend="aot_eager")
    compiled_waverec = torch.compile(waverec, fullgraph=True, backend="aot_eager")
    low, highs = compiled_wavedec(x.requires_grad_(), 2)
    (gradient,) = torch.autograd.grad(compiled_waverec(low, highs).square().sum(), x)
    torch.testing.assert_close(gradient, 2 * x.detach(), rtol=0, atol=1e-5)


def test_interpreted_second_derivatives_equal_those_of_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(s, generator=generator) for s in ((1, 2, 4, 6), (1, 2, 2, 3), (1, 6, 2, 3))] + [torch.tensor(0.3)]

    def second_derivatives(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        first = torch.autograd.grad(function(*leaves).pow(3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(torch.stack([grad.square().sum() for grad in first]).sum(), leaves)

    expected = second_derivatives(reference.fuse)
    torch.testing.assert_close(second_derivatives(kernels.fuse), expected, rtol=1e-4, atol=1e-4)


def test_opcheck_accepts_every_operator() -> None:
    operators = torch.ops.wavegan_triton
    base, low, high = (torch.rand(s, requires_grad=True) for s in ((1, 2, 4, 6), (1, 2, 2, 3), (1, 6, 2, 3)))
    lam = torch.tensor(0.5, requires_grad=True)
    cases: list[tuple[Any, tuple[Tensor, ...]]] = [
        (operators.dwt, (base,)),
        (operators.idwt, (low, high)),
        (operators.fuse, (base, low, high, lam)),
        (operators.fuse_backward, (torch.rand(1, 2, 4, 6), base, low, high, lam)),
    ]
    for operator, arguments in cases:
        torch.library.opcheck(operator.default, arguments)
