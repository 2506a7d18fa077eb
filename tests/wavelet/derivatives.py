"""Numerical checks of derivatives that several test modules share."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wavegan_dist.wavelet import dwt, fuse, idwt


def check_first_and_second_derivatives(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> None:
    """Compare the derivatives of dwt, idwt and fuse at these float64 arguments with finite differences."""
    cases: list[tuple[Callable[..., Tensor | Sequence[Tensor]], tuple[Tensor, ...]]] = [
        (dwt, (base,)),
        (idwt, (low, high)),
        (fuse, (base, low, high, lam)),
    ]
    for function, inputs in cases:
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)
