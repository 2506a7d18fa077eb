"""The Haar transform against PyWavelets, ptwt and pytorch_wavelets, with each kernel."""

import ptwt
import pytest
import pywt
import torch
from pytorch_wavelets import DWTForward, DWTInverse
from torch.autograd import gradcheck, gradgradcheck

from wavegan_dist.wavelet import analyse, dwt, fuse, idwt, wavedec, waverec

pytestmark = pytest.mark.usefixtures("kernel")
SHAPES = [(1, 1, 2, 2), (2, 3, 4, 6), (3, 2, 32, 32), (1, 5, 10, 2), (2, 3, 64, 34)]


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_bands_equal_pywavelets_with_its_signs(shape):
    x = images(*shape)
    low, high = dwt(x)
    expected_low, expected_high = pywt.dwt2(x.numpy(), "haar")
    torch.testing.assert_close(low, torch.from_numpy(expected_low), rtol=0, atol=1e-12)
    for band, expected in zip(high.chunk(3, dim=1), expected_high, strict=True):
        torch.testing.assert_close(band, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_directions_equal_pytorch_wavelets(shape):
    x = images(*shape)
    low, high = dwt(x)
    torch.set_default_dtype(torch.float64)  # their filters are made in the default dtype
    forward, inverse = DWTForward(wave="haar", mode="zero"), DWTInverse(wave="haar", mode="zero")
    torch.set_default_dtype(torch.float32)
    expected_low, (expected_high,) = forward(x)  # high [B, C, 3, h, w]
    torch.testing.assert_close(low, expected_low, rtol=0, atol=1e-12)
    torch.testing.assert_close(high, expected_high.transpose(1, 2).flatten(1, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(idwt(low, high), inverse((expected_low, [expected_high])), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_directions_equal_ptwt(shape):
    x = images(*shape)
    low, high = dwt(x)
    expected_low, expected_high = ptwt.wavedec2(x, "haar", mode="zero", level=1)
    torch.testing.assert_close(low, expected_low, rtol=0, atol=1e-12)
    torch.testing.assert_close(high, torch.cat(tuple(expected_high), dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(idwt(low, high), ptwt.waverec2((expected_low, expected_high), "haar"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_several_levels_equal_pywavelets_and_are_their_own_inverse(levels):
    x = images(2, 3, 24, 40)
    low, highs = wavedec(x, levels)
    expected_low, *expected_highs = pywt.wavedec2(x.numpy(), "haar", level=levels)
    torch.testing.assert_close(low, torch.from_numpy(expected_low), rtol=0, atol=1e-12)
    for high, expected in zip(highs, expected_highs, strict=True):
        torch.testing.assert_close(high, torch.cat([torch.from_numpy(band) for band in expected], dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(waverec(low, highs), x, rtol=0, atol=1e-12)


def test_derivatives_through_several_levels_are_right():
    x = images(1, 1, 8, 4).requires_grad_()
    low, highs = wavedec(x.detach(), 2)
    assert gradcheck(lambda x: (lambda low, highs: (low, *highs))(*wavedec(x, 2)), x)
    assert gradcheck(lambda low, *highs: waverec(low, highs), [band.requires_grad_() for band in (low, *highs)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_and_half_precision_are_within_rounding_of_pywavelets(shape, dtype):
    x = images(*shape).to(dtype)
    relative, absolute = (0, 1e-6) if dtype == torch.float32 else (2**-7, 2**-6)  # the reference rounds after each step
    low, high = dwt(x)
    expected_low, expected_high = pywt.dwt2(x.double().numpy(), "haar")
    for actual, expected in zip((low, *high.chunk(3, dim=1)), (expected_low, *expected_high), strict=True):
        torch.testing.assert_close(actual.double(), torch.from_numpy(expected), rtol=relative, atol=absolute)


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_is_perfect_in_both_orders(shape):
    x = images(*shape)
    low, high = dwt(x)
    torch.testing.assert_close(idwt(low, high), x, rtol=0, atol=1e-12)
    again_low, again_high = dwt(idwt(low, high))
    torch.testing.assert_close(again_low, low, rtol=0, atol=1e-12)
    torch.testing.assert_close(again_high, high, rtol=0, atol=1e-12)


def test_energy_is_kept():
    x = images(2, 3, 16, 16)
    low, high = dwt(x)
    torch.testing.assert_close(low.square().sum() + high.square().sum(), x.square().sum())


def test_first_and_second_derivatives_are_right():
    x = images(1, 2, 4, 6).requires_grad_()
    low, high, base = (
        images(1, 2, 2, 3).requires_grad_(),
        images(1, 6, 2, 3).requires_grad_(),
        images(1, 2, 4, 6).requires_grad_(),
    )
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for function, inputs in ((dwt, (x,)), (idwt, (low, high)), (fuse, (base, low, high, lam))):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_backward_of_dwt_is_idwt():
    x = images(2, 3, 8, 8).requires_grad_()
    low, high = dwt(x)
    torch.autograd.backward((low, high), (low.detach(), high.detach()))
    torch.testing.assert_close(x.grad, x.detach())


def test_fuse_is_the_formula():
    base, (low, high) = images(2, 3, 8, 8), dwt(images(2, 3, 8, 10)[..., :8])
    torch.testing.assert_close(fuse(base, low, high, torch.tensor(0.0)), base)
    torch.testing.assert_close(fuse(base, low, high, torch.tensor(1.0)), idwt(low, high))
    torch.testing.assert_close(fuse(base, low, high, torch.tensor(-0.5)), 1.5 * base - 0.5 * idwt(low, high))


def test_a_small_lam_is_not_lost_in_bfloat16():
    base, low, high = torch.ones(1, 1, 4, 4).bfloat16(), torch.zeros(1, 1, 2, 2).bfloat16(), torch.zeros(1, 3, 2, 2).bfloat16()
    image = fuse(base, low, high, torch.tensor(0.003))  # 1 - 0.003 rounds to 1 in bfloat16, 0.997 does not
    assert image.dtype == torch.bfloat16
    assert (image < 1).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dwt(torch.zeros(1, 3, 5, 4)), "must be even, got 5x4"),
        (lambda: dwt(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), "wants .*float.* got torch.uint8"),
        (lambda: dwt(torch.zeros(3, 4, 4)), r"wants a .*\[B, C, H, W\] tensor, got torch.float32.* \[3, 4, 4\]"),
        (lambda: wavedec(torch.zeros(1, 3, 12, 8), 3), "3 levels of an image of 12x8"),
        (lambda: wavedec(torch.zeros(1, 3, 12, 8), 0), "0 levels"),
        (lambda: waverec(torch.zeros(1, 3, 2, 2), [torch.zeros(1, 9, 4, 4)]), "needs high"),
        (lambda: idwt(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)), "needs high"),
        (lambda: idwt(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4).double()), "make them equal"),
        (lambda: idwt(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4, device="meta")), "make them equal"),
        (lambda: dwt(torch.zeros(1, 1, 4, 4).to_sparse()), "wants a .*tensor"),
        (lambda: analyse(torch.zeros(1, 1, 4, 4)), "wants a uint8"),
        (lambda: analyse(torch.zeros(1, 1, 4, 5, dtype=torch.uint8)), "must be even, got 4x5"),
        (lambda: analyse(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), (1, 1, 1, 0)), "four positive"),
        (lambda: fuse(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(())), "rebuild"),
    ],
)
def test_wrong_input_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as refusal:
        call()
    assert "\n" not in str(refusal.value)
