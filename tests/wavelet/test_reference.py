"""The Haar transform against PyWavelets, ptwt and pytorch_wavelets, with each implementation."""

from collections.abc import Callable

import ptwt
import pytest
import pywt
import torch
from pytorch_wavelets import DWTForward, DWTInverse
from torch import Tensor
from torch.autograd import gradcheck

from tests.wavelet.derivatives import check_first_and_second_derivatives
from wavegan_dist.wavelet import dwt, fuse, idwt, wavedec, waverec

pytestmark = pytest.mark.usefixtures("kernel")
Shape = tuple[int, int, int, int]
SHAPES: list[Shape] = [(1, 1, 2, 2), (2, 3, 4, 6), (3, 2, 32, 32), (1, 5, 10, 2), (2, 3, 64, 34)]


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_bands_equal_pywavelets_with_its_signs(shape: Shape) -> None:
    x = images(*shape)
    low, high = dwt(x)
    expected_low, expected_high = pywt.dwt2(x.numpy(), "haar")
    torch.testing.assert_close(low, torch.from_numpy(expected_low), rtol=0, atol=1e-12)
    for band, expected in zip(high.chunk(3, dim=1), expected_high, strict=True):
        torch.testing.assert_close(band, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_directions_equal_pytorch_wavelets(shape: Shape) -> None:
    x = images(*shape)
    low, high = dwt(x)
    torch.set_default_dtype(torch.float64)  # the dtype of the filters that they create
    forward, inverse = DWTForward(wave="haar", mode="zero"), DWTInverse(wave="haar", mode="zero")
    torch.set_default_dtype(torch.float32)
    expected_low, (expected_high,) = forward(x)  # high [B, C, 3, h, w]
    torch.testing.assert_close(low, expected_low, rtol=0, atol=1e-12)
    torch.testing.assert_close(high, expected_high.transpose(1, 2).flatten(1, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(idwt(low, high), inverse((expected_low, [expected_high])), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_directions_equal_ptwt(shape: Shape) -> None:
    x = images(*shape)
    low, high = dwt(x)
    expected_low, *details = ptwt.wavedec2(x, "haar", mode="zero", level=1)
    expected_high = details[0]
    assert isinstance(expected_low, Tensor)
    assert isinstance(expected_high, tuple)
    torch.testing.assert_close(low, expected_low, rtol=0, atol=1e-12)
    torch.testing.assert_close(high, torch.cat(tuple(expected_high), dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(idwt(low, high), ptwt.waverec2((expected_low, *details), "haar"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_several_levels_equal_pywavelets_and_can_be_inverted(levels: int) -> None:
    x = images(2, 3, 24, 40)
    low, highs = wavedec(x, levels)
    expected_low, *expected_highs = pywt.wavedec2(x.numpy(), "haar", level=levels)
    torch.testing.assert_close(low, torch.from_numpy(expected_low), rtol=0, atol=1e-12)
    for high, expected in zip(highs, expected_highs, strict=True):
        torch.testing.assert_close(high, torch.cat([torch.from_numpy(band) for band in expected], dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(waverec(low, highs), x, rtol=0, atol=1e-12)


def test_derivatives_through_several_levels_are_right() -> None:
    x = images(1, 1, 8, 4).requires_grad_()
    low, highs = wavedec(x.detach(), 2)

    def flat_wavedec(x: Tensor) -> tuple[Tensor, ...]:
        low, highs = wavedec(x, 2)
        return low, *highs

    assert gradcheck(flat_wavedec, x)
    assert gradcheck(lambda low, *highs: waverec(low, highs), [band.requires_grad_() for band in (low, *highs)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_and_half_precision_are_within_rounding_of_pywavelets(shape: Shape, dtype: torch.dtype) -> None:
    x = images(*shape).to(dtype)
    relative, absolute = (0, 1e-6) if dtype == torch.float32 else (2**-7, 2**-6)  # the reference rounds after each step
    low, high = dwt(x)
    expected_low, expected_high = pywt.dwt2(x.double().numpy(), "haar")
    for actual, expected in zip((low, *high.chunk(3, dim=1)), (expected_low, *expected_high), strict=True):
        torch.testing.assert_close(actual.double(), torch.from_numpy(expected), rtol=relative, atol=absolute)


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_is_perfect_in_both_orders(shape: Shape) -> None:
    x = images(*shape)
    low, high = dwt(x)
    torch.testing.assert_close(idwt(low, high), x, rtol=0, atol=1e-12)
    again_low, again_high = dwt(idwt(low, high))
    torch.testing.assert_close(again_low, low, rtol=0, atol=1e-12)
    torch.testing.assert_close(again_high, high, rtol=0, atol=1e-12)


def test_the_sum_of_squares_is_preserved() -> None:
    x = images(2, 3, 16, 16)
    low, high = dwt(x)
    torch.testing.assert_close(low.square().sum() + high.square().sum(), x.square().sum())


def test_first_and_second_derivatives_are_right() -> None:
    base, low, high = (images(*shape).requires_grad_() for shape in ((1, 2, 4, 6), (1, 2, 2, 3), (1, 6, 2, 3)))
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    check_first_and_second_derivatives(base, low, high, lam)


def test_backward_of_dwt_is_idwt() -> None:
    x = images(2, 3, 8, 8).requires_grad_()
    low, high = dwt(x)
    torch.autograd.backward((low, high), (low.detach(), high.detach()))
    torch.testing.assert_close(x.grad, x.detach())


def test_fuse_is_the_formula() -> None:
    base, (low, high) = images(2, 3, 8, 8), dwt(images(2, 3, 8, 10)[..., :8])
    torch.testing.assert_close(fuse(base, low, high, torch.tensor(0.0)), base)
    torch.testing.assert_close(fuse(base, low, high, torch.tensor(1.0)), idwt(low, high))
    torch.testing.assert_close(fuse(base, low, high, torch.tensor(-0.5)), 1.5 * base - 0.5 * idwt(low, high))


def test_a_small_lam_is_not_lost_in_bfloat16() -> None:
    base, low, high = torch.ones(1, 1, 4, 4).bfloat16(), torch.zeros(1, 1, 2, 2).bfloat16(), torch.zeros(1, 3, 2, 2).bfloat16()
    image = fuse(base, low, high, torch.tensor(0.003))  # 1 - 0.003 rounds to 1 in bfloat16, 0.997 does not
    assert image.dtype == torch.bfloat16
    assert (image < 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dwt(torch.zeros(1, 3, 5, 4)), "must be even, got 5x4"),
        (lambda: dwt(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), "expected .*float.* got torch.uint8"),
        (lambda: dwt(torch.zeros(3, 4, 4)), r"expected a .*\[B, C, H, W\] tensor, got torch.float32.* \[3, 4, 4\]"),
        (lambda: wavedec(torch.zeros(1, 3, 12, 8), 3), "3 levels of an image of 12x8"),
        (lambda: wavedec(torch.zeros(1, 3, 12, 8), 0), "0 levels"),
        (lambda: waverec(torch.zeros(1, 3, 2, 2), [torch.zeros(1, 9, 4, 4)]), "needs high"),
        (lambda: idwt(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)), "needs high"),
        (lambda: idwt(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4).double()), "make them equal"),
        (lambda: idwt(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4, device="meta")), "make them equal"),
        (lambda: dwt(torch.zeros(1, 1, 4, 4).to_sparse()), "expected a .*tensor"),
        (lambda: fuse(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(())), "rebuild"),
    ],
)
def test_invalid_arguments_raise_an_error_of_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
