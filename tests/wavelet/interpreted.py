"""The arithmetic of the Triton kernels in Triton's interpreter. `test_triton` runs this file in a separate process.

TRITON_INTERPRET must be set before anything imports Triton.
"""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.wavelet.layouts import Shape, image_gradient_and_bands
from wavegan_dist.wavelet import reference
from wavegan_dist.wavelet import triton as kernels

# Relative error of one result. The interpreter truncates to bfloat16, where hardware rounds to nearest.
RELATIVE_ERROR = {torch.float32: 0.0, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}
BAND_SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 3, 4, 3), (1, 2, 3, 17), (0, 3, 2, 2), (1, 3, 1, 150), (1, 2, 0, 4)])


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=RELATIVE_ERROR[actual.dtype], atol=1e-6)


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
