"""The implementations of one level of the Haar transform that `haar.py` compares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ptwt
import torch
import torch.nn.functional as F
from ptwt import WaveletDetailTuple2d
from pytorch_wavelets import DWTForward, DWTInverse
from torch import Tensor

from wavegan_dist.wavelet import dwt, idwt, reference

SIGNS = torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2  # LL, LH, HL, HH of a, b, c, d
FORWARD, INVERSE = DWTForward(wave="haar", mode="zero"), DWTInverse(wave="haar", mode="zero")

Bands = Sequence[Tensor]


@dataclass(frozen=True)
class Method:
    """One implementation: `dwt` returns the bands in its own layout, which `idwt` accepts.

    `bf16` tells whether it supports bfloat16.
    """

    name: str
    dwt: Callable[[Tensor], Bands]
    idwt: Callable[..., Tensor]
    bf16: bool = True

    def bands(self, x: Tensor) -> Bands:
        """Return the bands of an image, detached from the graph."""
        return [band.detach() for band in self.dwt(x)]


def _convolved(x: Tensor) -> Bands:
    """Grouped convolution with stride 2."""
    filters = SIGNS.to(x).view(4, 1, 2, 2).repeat(x.shape[1], 1, 1, 1)
    return (F.conv2d(x, filters, stride=2, groups=x.shape[1]),)


def _deconvolved(bands: Tensor) -> Tensor:
    channels = bands.shape[1] // 4
    filters = SIGNS.to(bands).view(4, 1, 2, 2).repeat(channels, 1, 1, 1)
    return F.conv_transpose2d(bands, filters, stride=2, groups=channels)


def _unshuffled(x: Tensor) -> Bands:
    """pixel_unshuffle, then a 4x4 matrix over the pixels of a block."""
    blocks = F.pixel_unshuffle(x, 2).unflatten(1, (x.shape[1], 4))
    return (torch.einsum("kp,bcphw->bkchw", SIGNS.to(x), blocks),)


def _shuffled(bands: Tensor) -> Tensor:
    return F.pixel_shuffle(torch.einsum("kp,bkchw->bcphw", SIGNS.to(bands), bands).flatten(1, 2), 2)


def _six_convolutions(x: Tensor) -> Bands:
    """Separable filters as grouped convolutions: two along the rows, then four along the columns."""
    low = torch.full((x.shape[1], 1, 1, 2), 0.5**0.5).to(x)
    high = low * torch.tensor([1.0, -1.0]).to(x)
    groups = x.shape[1]
    rows = [F.conv2d(x, taps, stride=(1, 2), groups=groups) for taps in (low, high)]
    columns = [taps.transpose(2, 3) for taps in (low, high)]
    return [F.conv2d(half, taps, stride=(2, 1), groups=groups) for half in rows for taps in columns]  # LL, LH, HL, HH


def _six_transposed(*bands: Tensor) -> Tensor:
    groups = bands[0].shape[1]
    low = torch.full((groups, 1, 1, 2), 0.5**0.5).to(bands[0])
    high = low * torch.tensor([1.0, -1.0]).to(bands[0])
    columns = [taps.transpose(2, 3) for taps in (low, high)]
    halves = [
        F.conv_transpose2d(first, columns[0], stride=(2, 1), groups=groups)
        + F.conv_transpose2d(second, columns[1], stride=(2, 1), groups=groups)
        for first, second in (bands[:2], bands[2:])
    ]
    left, right = (
        F.conv_transpose2d(half, taps, stride=(1, 2), groups=groups) for half, taps in zip(halves, (low, high), strict=True)
    )
    return left + right


def _matrix(side: int, like: Tensor) -> Tensor:
    taps = torch.eye(side // 2, dtype=like.dtype, device=like.device).repeat_interleave(2, dim=1) * 0.5**0.5
    signs = torch.tensor([1.0, -1.0]).to(like).repeat(side // 2)
    return torch.cat((taps, taps * signs))


def _dense(x: Tensor) -> Bands:
    """Dense matrices from the left and from the right, as in WaveCNets; the result holds all bands in one image."""
    return (_matrix(x.shape[-2], x) @ x @ _matrix(x.shape[-1], x).T,)


def _dense_back(bands: Tensor) -> Tensor:
    return _matrix(bands.shape[-2], bands).T @ bands @ _matrix(bands.shape[-1], bands)


def _ptwt(x: Tensor) -> Bands:
    low, *details = ptwt.wavedec2(x, "haar", mode="zero", level=1)
    return (low, *details[0])


def _ptwt_inverse(low: Tensor, *high: Tensor) -> Tensor:
    return ptwt.waverec2((low, WaveletDetailTuple2d(*high)), "haar")


torch._dynamo.config.recompile_limit = 64  # with the default, the ninth shape would silently run uncompiled
METHODS = {
    method.name: method
    for method in (
        Method("ours", dwt, idwt),
        Method("compiled slicing", torch.compile(reference.dwt), torch.compile(reference.idwt)),
        Method("slicing", reference.dwt, reference.idwt),
        Method("grouped conv", _convolved, _deconvolved),
        Method("unshuffle", _unshuffled, _shuffled),
        Method("six convs", _six_convolutions, _six_transposed),
        Method("dense", _dense, _dense_back),
        Method("ptwt", _ptwt, _ptwt_inverse, bf16=False),
        Method(
            "pytorch_wavelets",
            lambda x: (lambda low, high: (low, high[0]))(*FORWARD(x)),
            lambda low, high: INVERSE((low, [high])),
            bf16=False,
        ),
    )
}
