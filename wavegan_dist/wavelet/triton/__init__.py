"""The Triton kernels: `torch.ops.wavegan_triton`, for float32, bfloat16, float16 and uint8, contiguous results.

Other layouts are copied first. A forward-mode derivative raises NotImplementedError: PyTorch would lose it in silence.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from wavegan_dist.wavelet import checks
from wavegan_dist.wavelet.fakes import register_fakes
from wavegan_dist.wavelet.triton import operators

DTYPES = frozenset(operators.PAIRS)

register_fakes(operators.NAMESPACE, lambda x: torch.contiguous_format)


def dwt(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `ops.dwt`."""
    checks.check_dwt(x)
    _refuse_forward_mode(x)
    return operators.dwt(x)


def idwt(low: Tensor, high: Tensor) -> Tensor:
    """As `ops.idwt`."""
    checks.check_idwt(low, high)
    _refuse_forward_mode(low, high)
    return operators.idwt(low, high)


def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """As `ops.fuse`."""
    checks.check_fuse(base, low, high, lam)
    _refuse_forward_mode(base, low, high, lam)
    return operators.fuse(base, low, high, lam)


def analyse(images: Tensor, band_std: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """As `ops.analyse`."""
    checks.check_analyse(images, band_std)
    return operators.analyse(images, band_std)


def _refuse_forward_mode(*inputs: Tensor) -> None:
    if not torch.compiler.is_compiling() and any(unpack_dual(x).tangent is not None for x in inputs):
        raise NotImplementedError("no forward-mode derivative in the Triton kernels")
