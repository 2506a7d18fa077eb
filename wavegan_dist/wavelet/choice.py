"""Which kernel works where: the fastest that is there, or the reference."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import torch
from torch import Tensor

from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.wavelet import reference

VARIABLE = "WAVEGAN_KERNELS"


Name = Literal["reference", "C++", "Triton"]


@dataclass(frozen=True)
class Kernel:
    """One implementation of the transform: functions as in `reference`, checks included, and the dtypes that they take."""

    name: Name
    dtypes: frozenset[torch.dtype]
    dwt: Callable[[Tensor], tuple[Tensor, Tensor]]
    idwt: Callable[[Tensor, Tensor], Tensor]
    fuse: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    analyse: Callable[[Tensor, Sequence[float]], tuple[Tensor, Tensor, Tensor]]


ANY = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8})
REFERENCE = Kernel("reference", ANY, reference.dwt, reference.idwt, reference.fuse, reference.analyse)
KERNELS: dict[str, Kernel] = {REFERENCE.name: REFERENCE}  # all that are loaded
_CHOSEN: dict[tuple[torch.device, torch.dtype], Kernel] = {}  # of these: a call should find its own in one look


@functools.cache
def choose(device: str) -> tuple[Name, str]:
    """The name of the kernel for tensors on `device` ("cpu", "cuda", ...), ready to run, and why it is this one.

    The CPU's is compiled first if need be.

    Raises:
        UsageError: WAVEGAN_KERNELS is neither unset nor "reference".
    """
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "reference"):
        raise UsageError(f"{VARIABLE}={wish}: the only value is `reference`; unset it for the fastest kernel that there is")
    if wish:
        return REFERENCE.name, f"{VARIABLE}=reference"
    loaders = {"cpu": _cpu, "cuda": _triton}
    if device not in loaders:
        return REFERENCE.name, f"there is no kernel for {device}"
    try:
        return loaders[device]()
    except WaveganError as error:
        return REFERENCE.name, str(error)


def kernel_for(x: Tensor) -> Kernel:
    """The kernel for this tensor's device and dtype; the reference under `torch.func`'s transforms."""
    if torch.compiler.is_dynamo_compiling():
        return KERNELS[_name(x.device.type, x.dtype)]
    if torch._C._are_functorch_transforms_active():
        return REFERENCE
    kernel = _CHOSEN.get((x.device, x.dtype))
    if kernel is None:
        kernel = _CHOSEN[x.device, x.dtype] = KERNELS[_name(x.device.type, x.dtype)]
    return kernel


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _name(device: str, dtype: torch.dtype) -> str:
    name, _ = choose(device)
    return name if dtype in KERNELS[name].dtypes else REFERENCE.name


def build() -> None:
    """Compile the CPU's kernels where they are not there yet, also after an earlier failure.

    Raises:
        WaveganError: they cannot be compiled here; why.
    """
    from wavegan_dist.wavelet.cpu.build import build

    build(again=True)
    forget()


def forget() -> None:
    """Choose anew from the next call on: the kernels or WAVEGAN_KERNELS have changed."""
    choose.cache_clear()
    _CHOSEN.clear()


def _cpu() -> tuple[Name, str]:
    from wavegan_dist.wavelet import cpu

    instructions = cpu.load()
    operators = torch.ops.wavegan_cpu
    functions = (getattr(operators, name).default for name in ("dwt", "idwt", "fuse", "analyse"))
    KERNELS["C++"] = Kernel("C++", cpu.DTYPES, *functions)
    return "C++", f"compiled, uses {instructions} instructions"


def _triton() -> tuple[Name, str]:
    try:
        from wavegan_dist.wavelet import triton
    except ImportError as error:
        raise WaveganError(f"Triton cannot be imported ({error}); pip install triton") from error
    KERNELS["Triton"] = Kernel("Triton", triton.DTYPES, triton.dwt, triton.idwt, triton.fuse, triton.analyse)
    return "Triton", f"version {metadata.version('triton')}"
