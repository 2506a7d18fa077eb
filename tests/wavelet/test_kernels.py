"""The compiled kernels against the reference in float64: any layout, any dtype, every order of derivative."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.wavelet.layouts import laid_out
from wavegan_dist.images import from_uint8
from wavegan_dist.wavelet import analyse, dwt, fuse, idwt, reference

pytestmark = pytest.mark.usefixtures("compiled")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
SIZES = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 9), st.integers(0, 37))
HALF_ULP = {torch.float32: 0.0, torch.float64: 0.0, torch.bfloat16: 2.0**-8}  # beyond the float32 in which it was computed


def close(actual: Tensor, exact: Tensor) -> None:
    assert actual.isfinite().all()
    torch.testing.assert_close(actual.double(), exact, rtol=HALF_ULP[actual.dtype], atol=1e-6)


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype) * 2 - 1


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), size=SIZES, dtype=st.sampled_from(DTYPES))
def test_every_operation_is_the_reference_on_every_shape_and_layout(data, size, dtype):
    batch, channels, height, width = size
    image = (batch, channels, 2 * height, 2 * width)
    x, g = data.draw(laid_out(image, dtype)), data.draw(laid_out(image, dtype))
    low, high = data.draw(laid_out(size, dtype)), data.draw(laid_out((batch, 3 * channels, height, width), dtype))
    exact = [tensor.double() for tensor in (x, low, high)]
    for actual, wanted in zip(dwt(x), reference.dwt(exact[0]), strict=True):
        close(actual, wanted)
    close(idwt(low, high), reference.idwt(*exact[1:]))
    lam = torch.tensor(0.3)
    inputs = [tensor.detach().requires_grad_() for tensor in (x, low, high, lam)]
    fused = fuse(*inputs)
    fused.backward(g)
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    wanted = reference.fuse(*doubles)
    wanted.backward(g.double())
    close(fused.detach(), wanted.detach())
    for tensor, double in zip(inputs[:3], doubles[:3], strict=True):
        close(tensor.grad, double.grad)
    torch.testing.assert_close(inputs[3].grad.double(), doubles[3].grad, rtol=1e-6, atol=1e-6 * max(x.numel(), 1) ** 0.5)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=SIZES, std=st.tuples(*[st.floats(0.01, 2)] * 4))
def test_analyse_is_the_three_steps_in_one(data, size, std):
    batch, channels, height, width = size
    drawn = data.draw(laid_out((batch, channels, 2 * height, 2 * width), torch.float64))
    images = ((drawn + 1) * 127.5).to(torch.uint8)
    actual = analyse(images, std)
    assert torch.equal(actual[0], from_uint8(images))
    image, low, high = reference.analyse(images, std)
    exact = reference.dwt(image.double())
    scale = torch.tensor(std[1:], dtype=torch.float64).repeat_interleave(channels)[:, None, None]
    torch.testing.assert_close(actual[1].double(), exact[0] / std[0], rtol=1e-6, atol=1e-6 / std[0])
    torch.testing.assert_close(actual[2].double(), exact[1] / scale, rtol=1e-6, atol=1e-6 / min(std))
    torch.testing.assert_close((low, high), actual[1:], rtol=1e-6, atol=1e-6 / min(std))


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, last])
def test_results_keep_the_layout_and_are_dense(layout):
    x = layout(random(2, 3, 8, 6))
    low, high = dwt(x)
    for y in (low, high, idwt(low, high), fuse(x, low, high, torch.tensor(0.5))):
        assert y.stride() == layout(torch.empty(y.shape)).stride()


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, last])
def test_first_and_second_derivatives_are_right_in_both_layouts(layout):
    base, low, high = (layout(random(*shape)).requires_grad_() for shape in ((2, 3, 4, 6), (2, 3, 2, 3), (2, 9, 2, 3)))
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for function, inputs in ((dwt, (base,)), (idwt, (low, high)), (fuse, (base, low, high, lam))):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_third_derivatives_of_the_mix_are_those_of_the_reference():
    inputs = (random(1, 1, 4, 4), random(1, 1, 2, 2, seed=1), random(1, 3, 2, 2, seed=2), torch.tensor(0.3).double())

    def third(function) -> list[Tensor]:
        args = [x.clone().requires_grad_() for x in inputs]
        value = function(*args).pow(4).sum()
        for _ in range(3):
            value = sum(grad.pow(3).sum() for grad in torch.autograd.grad(value, args, create_graph=True))
        return list(torch.autograd.grad(value, args))

    torch.testing.assert_close(third(fuse), third(reference.fuse))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, last])
def test_pytorchs_own_checks_of_an_operator_pass(dtype, layout):
    base, low, high = (layout(random(*s, dtype=dtype)).requires_grad_() for s in ((2, 3, 8, 6), (2, 3, 4, 3), (2, 9, 4, 3)))
    grad, lam, operators = layout(random(2, 3, 8, 6, dtype=dtype)), torch.tensor(0.5, requires_grad=True), torch.ops.wavegan_cpu
    torch.library.opcheck(operators.dwt.default, (base,))
    torch.library.opcheck(operators.idwt.default, (low, high))
    torch.library.opcheck(operators.fuse.default, (base, low, high, lam))
    torch.library.opcheck(operators.fuse_backward.default, (grad, base, low, high, lam))
    torch.library.opcheck(operators.analyse.default, (base.detach().abs().to(torch.uint8), [1.0, 2.0, 3.0, 4.0]))


def test_the_gradient_of_lam_and_all_else_is_the_same_with_any_number_of_threads():
    x, g = random(5, 3, 130, 66, dtype=torch.float32), random(5, 3, 130, 66, dtype=torch.float32, seed=1)
    results, before = [], torch.get_num_threads()
    for layout in (torch.Tensor.contiguous, last):
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            low, high = dwt(layout(x))
            lam = torch.tensor(0.3, requires_grad=True)
            inputs = [layout(g).detach().requires_grad_(), low, high, lam]
            image = fuse(*inputs)
            image.backward(layout(x))
            results.append((low, high, image.detach(), inputs[0].grad, lam.grad))
        torch.set_num_threads(before)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
        results.clear()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_shows(dtype):
    for value in (torch.nan, torch.inf):
        x = torch.zeros(1, 1, 2, 40, dtype=dtype)
        x[0, 0, 0, 6] = value
        low, high = dwt(x)
        assert not low[0, 0, 0, 3].isfinite()
        assert not high[0, :, 0, 3].isfinite().any()
        assert low.isfinite().sum() == 19
        assert fuse(torch.zeros_like(x), low, high, torch.tensor(value)).isnan().any()
        assert fuse(torch.ones_like(x), low, high, torch.tensor(torch.nan)).isnan().all()


def test_large_results_that_pass_the_caches_are_whole():
    for dtype in (torch.float32, torch.bfloat16):
        x = random(2, 3, 1030, 1030, dtype=dtype)
        low, high = dwt(x)
        for actual, exact in zip((low, high), reference.dwt(x.double()), strict=True):
            close(actual, exact)
        close(idwt(low, high), reference.idwt(low.double(), high.double()))


def test_the_operators_refuse_by_themselves_what_the_functions_refuse():
    operators = torch.ops.wavegan_cpu
    x = torch.zeros(1, 1, 4, 4)
    low, high = torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2)
    for call in (
        lambda: operators.dwt(x[..., 1:]),
        lambda: operators.dwt(x.half()),
        lambda: operators.dwt(x[0]),
        lambda: operators.idwt(low, high.bfloat16()),
        lambda: operators.idwt(low, low),
        lambda: operators.fuse(x, high, low, x.sum()),
        lambda: operators.fuse(x, low, high, torch.ones(1)),
        lambda: operators.fuse_backward(x.double(), x, low, high, x.sum()),
        lambda: operators.analyse(x, [1.0] * 4),
        lambda: operators.analyse(x.byte(), [1.0] * 3),
    ):
        with pytest.raises(ValueError, match=r"dwt|fuse|analyse"):
            call()


def test_half_precision_on_the_cpu_is_the_references():
    low, high = dwt(torch.ones(1, 1, 4, 4, dtype=torch.float16))
    assert low.dtype == high.dtype == torch.float16
    assert (low == 2).all()


def test_mixed_dtypes_are_refused_also_under_autocast():
    low, high = dwt(torch.ones(1, 3, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert dwt(torch.ones(1, 3, 4, 4))[0].dtype == torch.float32  # nothing is cast
        for call in (
            lambda: idwt(low.bfloat16(), high),
            lambda: fuse(torch.ones(1, 3, 4, 4).bfloat16(), low, high, torch.tensor(0.5)),
        ):
            with pytest.raises(ValueError, match="make them equal"):
                call()
