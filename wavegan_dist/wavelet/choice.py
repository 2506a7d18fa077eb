"""Chooses the implementation of the transform for a device and dtype: compiled kernels if available, else the reference."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.wavelet import reference
from wavegan_dist.wavelet.levels import Wavedec, Waverec, level_by_level

VARIABLE = "WAVEGAN_KERNELS"

KernelName = Literal["reference", "C++", "Triton"]


@dataclass(frozen=True)
class Kernel:
    """One implementation: functions with the signatures and errors of those in `ops`, and the dtypes they support."""

    name: KernelName
    dtypes: frozenset[torch.dtype]
    dwt: Callable[[Tensor], tuple[Tensor, Tensor]]
    idwt: Callable[[Tensor, Tensor], Tensor]
    fuse: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    wavedec: Wavedec
    waverec: Waverec


FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
REFERENCE = Kernel(
    "reference", FLOATING, reference.dwt, reference.idwt, reference.fuse, *level_by_level(reference.dwt, reference.idwt)
)
LOADED: dict[str, Kernel] = {REFERENCE.name: REFERENCE}
_KERNEL_OF: dict[tuple[torch.device, torch.dtype], Kernel] = {}  # a cache: an eager call costs only one dict look-up


@functools.cache
def choose(device: str) -> tuple[KernelName, str]:
    """Load the fastest implementation for a device type; on "cpu" this may compile the C++ kernels (about 20 s).

    If the kernels cannot be compiled or loaded, the choice is "reference". The choice is cached until `reset` is called.

    Args:
        device: a device type such as "cpu" or "cuda".

    Returns:
        The implementation's name, and the reason for the choice as one line of text.

    Raises:
        UsageError: the environment variable WAVEGAN_KERNELS is set to something other than "reference".
    """
    setting = os.environ.get(VARIABLE, "")
    if setting not in ("", "reference"):
        raise UsageError(f"{VARIABLE}={setting}: the only value is `reference`; unset it for the fastest available kernel")
    if setting:
        return REFERENCE.name, f"{VARIABLE}=reference"
    loaders = {"cpu": _load_cpu, "cuda": _load_triton}
    if device not in loaders:
        return REFERENCE.name, f"there is no kernel for {device}"
    try:
        return loaders[device]()
    except WaveganError as error:
        return REFERENCE.name, str(error)


def kernel_for(x: Tensor) -> Kernel:
    """Return the implementation for the tensor's device and dtype; in eager `torch.func` and `torch.export`, the reference.

    The first call for a device type calls `choose`, which may compile kernels and raise UsageError. The reference is returned
    for a dtype that the kernels do not support.
    """
    if torch.compiler.is_dynamo_compiling():
        return LOADED[_kernel_name(x.device.type, x.dtype)]
    if torch._C._are_functorch_transforms_active() or torch.compiler.is_exporting():
        return REFERENCE
    kernel = _KERNEL_OF.get((x.device, x.dtype))
    if kernel is None:
        kernel = _KERNEL_OF[x.device, x.dtype] = LOADED[_kernel_name(x.device.type, x.dtype)]
    return kernel


def _kernel_name(device: str, dtype: torch.dtype) -> str:
    name, _ = choose(device)
    return name if dtype in LOADED[name].dtypes else REFERENCE.name


# What torch.compiler.assume_constant_result sets; the decorator would import torch._dynamo into every process, for 2 seconds.
_kernel_name._dynamo_marked_constant = True  # type: ignore[attr-defined]


def build() -> None:
    """Compile the CPU kernels, even if an earlier attempt failed, unless the cache has them; then `choose` chooses anew.

    Raises:
        WaveganError: the kernels cannot be compiled on this machine; the message names the reason.
    """
    from wavegan_dist.wavelet.cpu.build import build

    build(retry=True)
    reset()


def reset() -> None:
    """Forget what `choose` has returned, for use after the kernels or WAVEGAN_KERNELS have changed. Unloads no kernel."""
    choose.cache_clear()
    _KERNEL_OF.clear()


def _load_cpu() -> tuple[KernelName, str]:
    from wavegan_dist.wavelet import cpu

    instructions = cpu.load()
    dwt, idwt, fuse = (getattr(torch.ops.wavegan_cpu, name).default for name in ("dwt", "idwt", "fuse"))
    LOADED["C++"] = Kernel("C++", cpu.DTYPES, dwt, idwt, fuse, *level_by_level(dwt, idwt))
    return "C++", f"compiled, uses {instructions} instructions"


def _load_triton() -> tuple[KernelName, str]:
    try:
        from triton import __version__ as version

        from wavegan_dist.wavelet import triton
    except ImportError as error:
        raise WaveganError(f"Triton cannot be imported ({error}); pip install triton") from error
    try:
        triton.dwt(torch.zeros(1, 1, 2, 2, device="cuda"))
    except Exception as error:  # Triton raises RuntimeError without a C compiler, CalledProcessError if it fails, ...
        raise WaveganError(f"Triton cannot run a kernel ({' '.join(str(error).split())})") from error
    dwt, idwt, fuse = triton.dwt, triton.idwt, triton.fuse
    LOADED["Triton"] = Kernel("Triton", triton.DTYPES, dwt, idwt, fuse, *level_by_level(dwt, idwt))
    return "Triton", f"version {version}"
