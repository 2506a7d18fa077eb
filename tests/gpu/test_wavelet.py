"""The device's kernels against the reference in float64 on the CPU: odd shapes, layouts, dtypes, derivatives, huge images."""

import itertools
from collections.abc import Callable

import pytest
import torch
from gpu import sanitized
from torch import Tensor

from tests.gpu.device import DEVICE, LAYOUTS, needs_gpu, operators, random, require_kernel
from tests.wavelet.derivatives import check_first_and_second_derivatives
from wavegan_dist.wavelet import choose, dwt, fuse, idwt, reference, wavedec, waverec
from wavegan_dist.wavelet.levels import level_by_level

# Shapes of the low band: one channel of 2x2 px, tall, wide, widths that are no multiple of 16, an empty batch, no rows.
BAND_SHAPES = [
    (1, 1, 1, 1), (2, 3, 16, 16), (1, 2, 150, 1), (1, 1, 1, 515), (2, 3, 5, 17), (3, 5, 7, 33), (0, 3, 4, 4), (1, 2, 0, 4),
]  # fmt: skip
# Relative error of rounding a result to its dtype; it adds to the absolute error of the float32 arithmetic.
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}

Function = Callable[..., Tensor]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(actual.detach().cpu().double(), expected.detach(), rtol=ROUNDING[actual.dtype], atol=tolerance)


@needs_gpu
def test_the_gpu_runs_the_triton_kernels() -> None:
    assert choose("cuda")[0] == "Triton", choose("cuda")


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward_and_backward_equal_the_reference(layout: str, dtype: torch.dtype) -> None:
    require_kernel(dtype)
    arrange = LAYOUTS[layout]
    for batch, channels, height, width in BAND_SHAPES:
        shapes = [(batch, channels, 2 * height, 2 * width)] * 2 + [(batch, n * channels, height, width) for n in (1, 3)]
        x, grad, low, high = (arrange(random(*s, dtype=dtype, seed=n)) for n, s in enumerate(shapes))
        for actual, expected in zip(dwt(x), reference.dwt(x.cpu().double()), strict=True):
            assert_close(actual, expected)
        assert_close(idwt(low, high), reference.idwt(low.cpu().double(), high.cpu().double()))
        inputs = [tensor.detach().requires_grad_() for tensor in (x, low, high, torch.tensor(0.3, device=DEVICE))]
        doubles = [tensor.detach().cpu().double().requires_grad_() for tensor in inputs]
        fused, exact = fuse(*inputs), reference.fuse(*doubles)
        assert_close(fused, exact)
        fused.backward(grad)
        exact.backward(grad.cpu().double())
        for tensor, double in zip(inputs, doubles, strict=True):
            assert tensor.grad is not None
            assert double.grad is not None
            assert_close(tensor.grad, double.grad, 1e-6 if tensor.dim() else 1e-6 * max(x.numel(), 1) ** 0.5)


def test_gradients_that_are_expanded_are_right() -> None:
    x = random(2, 3, 6, 10).requires_grad_()
    low, high = dwt(x)
    (gradient,) = torch.autograd.grad(low.sum() + 2 * high.sum(), x)
    expected = idwt(torch.ones_like(low), torch.full_like(high, 2.0))
    torch.testing.assert_close(gradient, expected)


def test_first_and_second_derivatives_in_float64_are_right() -> None:
    base, low, high = (random(*s, dtype=torch.float64).requires_grad_() for s in ((2, 3, 4, 6), (2, 3, 2, 3), (2, 9, 2, 3)))
    lam = torch.tensor(0.3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    check_first_and_second_derivatives(base, low, high, lam)


def second_derivatives(function: Function, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of the sum of the squared gradients of the sum of the cubes of a function."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    first = torch.autograd.grad(function(*leaves).pow(3).sum(), leaves, create_graph=True)
    return torch.autograd.grad(torch.stack([gradient.square().sum() for gradient in first]).sum(), leaves)


@pytest.mark.parametrize("shape", [(1, 2, 2, 3), (2, 3, 16, 17)], ids=str)
def test_double_backward_in_float32_equals_the_reference(shape: tuple[int, int, int, int]) -> None:
    batch, channels, height, width = shape
    sizes = [(batch, channels, 2 * height, 2 * width), shape, (batch, 3 * channels, height, width)]
    inputs = [*(random(*size, seed=number) for number, size in enumerate(sizes)), torch.tensor(0.3, device=DEVICE)]
    cases: list[tuple[Function, Function, list[Tensor]]] = [
        (fuse, reference.fuse, inputs),
        (idwt, reference.idwt, inputs[1:3]),
        (lambda x: torch.cat(dwt(x), dim=1), lambda x: torch.cat(reference.dwt(x), dim=1), inputs[:1]),
    ]
    for function, exact, arguments in cases:
        expected = second_derivatives(exact, [x.cpu().double() for x in arguments])
        for actual, value in zip(second_derivatives(function, arguments), expected, strict=True):
            torch.testing.assert_close(actual.cpu().double(), value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_opcheck_accepts_every_operator(dtype: torch.dtype) -> None:
    require_kernel(dtype)
    base, low, high = (random(*s, dtype=dtype).requires_grad_() for s in ((2, 3, 8, 6), (2, 3, 4, 3), (2, 9, 4, 3)))
    grad, lam = random(2, 3, 8, 6, dtype=dtype, seed=1), torch.tensor(0.5, device=DEVICE, requires_grad=True)
    torch.library.opcheck(operators().dwt.default, (base,))
    torch.library.opcheck(operators().idwt.default, (low, high))
    torch.library.opcheck(operators().fuse.default, (base, low, high, lam))
    torch.library.opcheck(operators().fuse_backward.default, (grad, base, low, high, lam))


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_several_levels_equal_the_reference_and_invert(levels: int, dtype: torch.dtype) -> None:
    require_kernel(dtype)
    exact_wavedec, exact_waverec = level_by_level(reference.dwt, reference.idwt)
    tolerance = 1e-5 + 2**levels * ROUNDING[dtype]  # the low band of every level is rounded
    for shape in ((2, 3, 64, 96), (1, 1, 32, 32), (3, 1, 96, 160), (0, 3, 32, 32)):
        x = random(*shape, dtype=dtype).requires_grad_()
        low, highs = wavedec(x, levels)
        exact_low, exact_highs = exact_wavedec(x.detach().cpu().double(), levels)
        for actual, expected in zip([low, *highs], [exact_low, *exact_highs], strict=True):
            assert_close(actual, expected, tolerance)
        rebuilt = exact_waverec(low.detach().cpu().double(), [high.detach().cpu().double() for high in highs])
        assert_close(waverec(low, highs), rebuilt, tolerance)
        (gradient,) = torch.autograd.grad((low, *highs), x, (low.detach(), *(high.detach() for high in highs)))
        assert_close(gradient, rebuilt, tolerance)  # the transform is orthonormal


def test_the_gradient_of_lam_is_equal_in_every_run() -> None:
    base, low, high = random(16, 3, 64, 64), random(16, 3, 32, 32, seed=1), random(16, 9, 32, 32, seed=2)
    grad, lam = random(16, 3, 64, 64, seed=3), torch.tensor(0.3, device=DEVICE)
    results = [operators().fuse_backward(grad, base, low, high, lam)[3] for _ in range(20)]
    assert all(torch.equal(results[0], result) for result in results[1:])


def test_infinities_and_nans_propagate() -> None:
    for dtype, value in itertools.product(ROUNDING, (torch.nan, torch.inf)):
        x = torch.zeros(1, 1, 2, 40, dtype=dtype, device=DEVICE)
        x[0, 0, 0, 6] = value
        low, high = dwt(x)
        assert not low[0, 0, 0, 3].isfinite()
        assert not high[0, :, 0, 3].isfinite().any()
        assert low.isfinite().sum() == 19


def test_the_script_for_compute_sanitizer_runs(capsys: pytest.CaptureFixture[str]) -> None:
    sanitized.main()
    assert capsys.readouterr().out == f"{choose(DEVICE.type)[0]}: 15 cases\n"


@needs_gpu
def test_a_huge_image_of_more_than_2_to_the_31_elements_is_right() -> None:
    """Small whole numbers, of which bfloat16 holds all sums: the inverse is exact."""
    x = torch.randint(-8, 8, (2, 1, 32770, 32768), dtype=torch.int8, device=DEVICE).to(torch.bfloat16)
    assert x.numel() > 2**31
    low, high = dwt(x)
    for image, rows in ((0, slice(0, 2)), (1, slice(-2, None))):
        block = x[image : image + 1, :, 2 * rows.start : None if rows.stop is None else 2 * rows.stop].cpu().double()
        for actual, expected in zip((low, high), reference.dwt(block), strict=True):
            torch.testing.assert_close(actual[image : image + 1, :, rows].cpu().double(), expected, rtol=0, atol=0)
    assert torch.equal(idwt(low, high), x)
    lam = torch.tensor(0.5, device=DEVICE)
    assert torch.equal(fuse(x, low, high, lam), x)
    grad_base, grad_low, _, _ = operators().fuse_backward(x, x, low, high, lam)
    assert torch.equal(grad_base, x / 2)
    assert torch.equal(grad_low, low / 2)
