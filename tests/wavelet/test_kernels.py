"""The compiled CPU kernels against the reference in float64: every layout and dtype, derivatives of every order."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.wavelet.derivatives import check_first_and_second_derivatives
from tests.wavelet.layouts import Shape, image_gradient_and_bands
from wavegan_dist.wavelet import dwt, fuse, idwt, reference

pytestmark = pytest.mark.usefixtures("compiled")
Layout = Callable[[Tensor], Tensor]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
BAND_SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 9), st.integers(0, 37))
# Relative error of rounding a result to its dtype; it adds to the absolute error of the float32 arithmetic.
ROUNDING = {torch.float32: 0.0, torch.float64: 0.0, torch.bfloat16: 2.0**-8}


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.isfinite().all()
    torch.testing.assert_close(actual.double(), expected, rtol=ROUNDING[actual.dtype], atol=1e-6)


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype) * 2 - 1


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), shape=BAND_SHAPES, dtype=st.sampled_from(DTYPES))
def test_every_operation_equals_the_reference_on_every_shape_and_layout(
    data: st.DataObject, shape: Shape, dtype: torch.dtype
) -> None:
    x, grad, low, high = data.draw(image_gradient_and_bands(shape, dtype))
    for actual, expected in zip(dwt(x), reference.dwt(x.double()), strict=True):
        assert_close(actual, expected)
    assert_close(idwt(low, high), reference.idwt(low.double(), high.double()))
    inputs = [tensor.detach().requires_grad_() for tensor in (x, low, high, torch.tensor(0.3))]
    fused = fuse(*inputs)
    fused.backward(grad)
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact = reference.fuse(*doubles)
    exact.backward(grad.double())
    assert_close(fused.detach(), exact.detach())
    *image_gradients, lam_gradient = [(a.grad, b.grad) for a, b in zip(inputs, doubles, strict=True)]
    for actual_grad, expected_grad in image_gradients:
        assert actual_grad is not None
        assert expected_grad is not None
        assert_close(actual_grad, expected_grad)
    tolerance = 1e-6 * max(x.numel(), 1) ** 0.5
    torch.testing.assert_close(*lam_gradient, rtol=1e-6, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last])
def test_results_are_dense_in_the_memory_format_of_the_argument(layout: Layout) -> None:
    x = layout(random(2, 3, 8, 6))
    low, high = dwt(x)
    for y in (low, high, idwt(low, high), fuse(x, low, high, torch.tensor(0.5))):
        assert y.stride() == layout(torch.empty(y.shape)).stride()


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last])
def test_first_and_second_derivatives_are_right_in_both_memory_formats(layout: Layout) -> None:
    base, low, high = (layout(random(*shape)).requires_grad_() for shape in ((2, 3, 4, 6), (2, 3, 2, 3), (2, 9, 2, 3)))
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    check_first_and_second_derivatives(base, low, high, lam)


def test_third_derivatives_of_fuse_equal_those_of_the_reference() -> None:
    inputs = (random(1, 1, 4, 4), random(1, 1, 2, 2, seed=1), random(1, 3, 2, 2, seed=2), torch.tensor(0.3).double())

    def third_derivatives(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = function(*leaves).pow(4).sum()
        for _ in range(3):
            gradients = torch.autograd.grad(value, leaves, create_graph=True)
            value = torch.stack([gradient.pow(3).sum() for gradient in gradients]).sum()
        return torch.autograd.grad(value, leaves)

    torch.testing.assert_close(third_derivatives(fuse), third_derivatives(reference.fuse))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last])
def test_opcheck_accepts_every_operator(dtype: torch.dtype, layout: Layout) -> None:
    base, low, high = (layout(random(*s, dtype=dtype)).requires_grad_() for s in ((2, 3, 8, 6), (2, 3, 4, 3), (2, 9, 4, 3)))
    grad, lam, operators = layout(random(2, 3, 8, 6, dtype=dtype)), torch.tensor(0.5, requires_grad=True), torch.ops.wavegan_cpu
    torch.library.opcheck(operators.dwt.default, (base,))
    torch.library.opcheck(operators.idwt.default, (low, high))
    torch.library.opcheck(operators.fuse.default, (base, low, high, lam))
    torch.library.opcheck(operators.fuse_backward.default, (grad, base, low, high, lam))


def test_results_and_gradients_do_not_depend_on_the_number_of_threads() -> None:
    x, grad = random(5, 3, 130, 66, dtype=torch.float32), random(5, 3, 130, 66, dtype=torch.float32, seed=1)
    num_threads = torch.get_num_threads()
    layouts: tuple[Layout, ...] = (torch.Tensor.contiguous, channels_last)
    for layout in layouts:
        results = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            low, high = dwt(layout(x))
            lam = torch.tensor(0.3, requires_grad=True)
            base = layout(grad).detach().requires_grad_()
            image = fuse(base, low, high, lam)
            gradients = torch.autograd.grad(image, (base, lam), layout(x))
            results.append((low, high, image.detach(), *gradients))
        torch.set_num_threads(num_threads)
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_and_nans_propagate(dtype: torch.dtype) -> None:
    for value in (torch.nan, torch.inf):
        x = torch.zeros(1, 1, 2, 40, dtype=dtype)
        x[0, 0, 0, 6] = value
        low, high = dwt(x)
        assert not low[0, 0, 0, 3].isfinite()
        assert not high[0, :, 0, 3].isfinite().any()
        assert low.isfinite().sum() == 19
        assert fuse(torch.zeros_like(x), low, high, torch.tensor(value)).isnan().any()
        assert fuse(torch.ones_like(x), low, high, torch.tensor(torch.nan)).isnan().all()


def test_large_results_written_past_the_caches_are_complete() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = random(2, 3, 1030, 1030, dtype=dtype)
        low, high = dwt(x)
        for actual, expected in zip((low, high), reference.dwt(x.double()), strict=True):
            assert_close(actual, expected)
        assert_close(idwt(low, high), reference.idwt(low.double(), high.double()))


def test_the_operators_check_their_arguments_themselves() -> None:
    operators = torch.ops.wavegan_cpu
    x = torch.zeros(1, 1, 4, 4)
    low, high = torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2)
    for call in (
        lambda: operators.dwt(x[..., 1:]),
        lambda: operators.dwt(x.half()),
        lambda: operators.dwt(x.byte()),
        lambda: operators.dwt(x[0]),
        lambda: operators.idwt(low, high.bfloat16()),
        lambda: operators.idwt(low, low),
        lambda: operators.fuse(x, high, low, x.sum()),
        lambda: operators.fuse(x, low, high, torch.ones(1)),
        lambda: operators.fuse_backward(x.double(), x, low, high, x.sum()),
    ):
        with pytest.raises(ValueError, match=r"dwt|fuse"):
            call()


def test_half_precision_on_the_cpu_runs_the_reference() -> None:
    low, high = dwt(torch.ones(1, 1, 4, 4, dtype=torch.float16))
    assert low.dtype == high.dtype == torch.float16
    assert (low == 2).all()


def test_mixed_dtypes_are_rejected_even_under_autocast() -> None:
    low, high = dwt(torch.ones(1, 3, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert dwt(torch.ones(1, 3, 4, 4))[0].dtype == torch.float32  # autocast does not cast the input
        for call in (
            lambda: idwt(low.bfloat16(), high),
            lambda: fuse(torch.ones(1, 3, 4, 4).bfloat16(), low, high, torch.tensor(0.5)),
        ):
            with pytest.raises(ValueError, match="make them equal"):
                call()
