"""The Triton kernels as operators `torch.ops.wavegan_triton.*`, for float32, bfloat16 and float16.

Results are contiguous; arguments in other memory formats are copied first. A forward-mode derivative raises
NotImplementedError, because PyTorch would drop the tangent silently. Arguments and errors are documented in `ops`.
"""

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from wavegan_dist.wavelet import checks
from wavegan_dist.wavelet.fakes import register_fakes
from wavegan_dist.wavelet.triton import operators

DTYPES = frozenset(operators.PAIR_DTYPES)

register_fakes(operators.NAMESPACE, lambda x: torch.contiguous_format)


def dwt(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one level of the 2D Haar transform (`ops.dwt`): [B, C, H, W] -> low [B, C, H/2, W/2], high [B, 3C, H/2, W/2].

    The tensor is on a GPU, of a dtype in DTYPES (not checked). Raises UsageError for other shapes, or NotImplementedError under
    forward-mode AD.
    """
    checks.check_dwt(x)
    _reject_forward_mode(x)
    return operators.dwt(x)


def idwt(low: Tensor, high: Tensor) -> Tensor:
    """Compute the inverse of `dwt` (`ops.idwt`): low [B, C, h, w], high [B, 3C, h, w] -> [B, C, 2h, 2w].

    The tensors are on a GPU, of a dtype in DTYPES (not checked). Raises UsageError if they do not match, or NotImplementedError
    under forward-mode AD.
    """
    checks.check_idwt(low, high)
    _reject_forward_mode(low, high)
    return operators.idwt(low, high)


def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """Compute `(1 - lam) * base + lam * idwt(low, high)` (`ops.fuse`), [B, C, H, W], with lam a scalar tensor.

    The tensors are on a GPU, base, low and high of a dtype in DTYPES (not checked). Raises UsageError if they do not match, or
    NotImplementedError under forward-mode AD.
    """
    checks.check_fuse(base, low, high, lam)
    _reject_forward_mode(base, low, high, lam)
    return operators.fuse(base, low, high, lam)


def _reject_forward_mode(*inputs: Tensor) -> None:
    if not torch.compiler.is_compiling() and any(unpack_dual(x).tangent is not None for x in inputs):
        raise NotImplementedError("no forward-mode derivative in the Triton kernels")
