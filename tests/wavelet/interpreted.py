"""The Triton kernels' arithmetic, in Triton's interpreter; `test_triton` runs this file in a process of its own.

The interpreter must be asked for before anything imports Triton.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.wavelet.layouts import laid_out
from wavegan_dist.wavelet import reference
from wavegan_dist.wavelet import triton as kernels

# Of a result; the interpreter cuts bfloat16 off where hardware rounds to nearest.
RELATIVE = {torch.float32: 0.0, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}
SIZES = st.sampled_from([(1, 1, 1, 1), (2, 3, 4, 3), (1, 2, 3, 17), (0, 3, 2, 2), (1, 3, 1, 150), (1, 2, 0, 4)])


def close(actual: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(actual.double(), exact, rtol=RELATIVE[actual.dtype], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), size=SIZES, dtype=st.sampled_from(list(RELATIVE)))
def test_interpreted_kernels_are_the_reference_on_odd_tails_and_any_layout(data, size, dtype):
    batch, channels, height, width = size
    image = (batch, channels, 2 * height, 2 * width)
    x, g = data.draw(laid_out(image, dtype)), data.draw(laid_out(image, dtype))
    low, high = data.draw(laid_out(size, dtype)), data.draw(laid_out((batch, 3 * channels, height, width), dtype))
    for actual, exact in zip(kernels.dwt(x), reference.dwt(x.double()), strict=True):
        close(actual, exact)
    close(kernels.idwt(low, high), reference.idwt(low.double(), high.double()))
    inputs = [tensor.detach().requires_grad_() for tensor in (x, low, high, torch.tensor(0.3))]
    fused = kernels.fuse(*inputs)
    fused.backward(g)
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact = reference.fuse(*doubles)
    exact.backward(g.double())
    close(fused.detach(), exact.detach())
    for tensor, double in zip(inputs, doubles, strict=True):
        torch.testing.assert_close(
            tensor.grad.double(), double.grad, rtol=RELATIVE[tensor.dtype], atol=1e-6 * max(x.numel(), 1) ** 0.5
        )


def test_interpreted_analyse_is_the_reference():
    images = torch.randint(0, 256, (2, 3, 6, 34), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        actual = kernels.analyse(images.contiguous(memory_format=layout), (0.5, 0.1, 0.2, 0.3))
        torch.testing.assert_close(actual, reference.analyse(images, (0.5, 0.1, 0.2, 0.3)), rtol=1e-6, atol=1e-5)


def test_interpreted_second_derivatives_are_those_of_the_reference():
    draws = torch.Generator().manual_seed(0)
    inputs = [torch.rand(s, generator=draws) for s in ((1, 2, 4, 6), (1, 2, 2, 3), (1, 6, 2, 3))] + [torch.tensor(0.3)]

    def second(function) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        first = torch.autograd.grad(function(*leaves).pow(3).sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(sum(grad.square().sum() for grad in first), leaves))

    torch.testing.assert_close(second(kernels.fuse), second(reference.fuse), rtol=1e-4, atol=1e-4)


def test_pytorchs_own_checks_of_the_operators_pass():
    operators = torch.ops.wavegan_triton
    base, low, high = (torch.rand(s, requires_grad=True) for s in ((1, 2, 4, 6), (1, 2, 2, 3), (1, 6, 2, 3)))
    lam = torch.tensor(0.5, requires_grad=True)
    for operator, arguments in (
        (operators.dwt, (base,)),
        (operators.idwt, (low, high)),
        (operators.fuse, (base, low, high, lam)),
        (operators.fuse_backward, (torch.rand(1, 2, 4, 6), base, low, high, lam)),
        (operators.analyse, (torch.zeros(1, 2, 4, 6, dtype=torch.uint8), [1.0, 2.0, 3.0, 4.0])),
    ):
        torch.library.opcheck(operator.default, arguments)
