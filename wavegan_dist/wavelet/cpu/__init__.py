"""The compiled CPU kernels: `torch.ops.wavegan_cpu`, for float32, float64 and bfloat16."""

import functools
from multiprocessing import parent_process

import torch

from wavegan_dist.errors import WaveganError
from wavegan_dist.wavelet.cpu.build import build, library
from wavegan_dist.wavelet.fakes import layout_of, register_fakes

DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.uint8})


@functools.cache  # operators can be registered but once in a process, from whichever file
def load() -> str:
    """Load the operators, built first where they must be; worker processes do not build.

    Returns:
        The instruction set in use.

    Raises:
        WaveganError: why they cannot be used.
    """
    if parent_process() is not None and not library().exists():
        raise WaveganError("the CPU kernels are not built yet, and a worker process does not build them")
    path = build()
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise WaveganError(f"{path} does not load ({error}); delete it, then `wavegan doctor --build`") from error
    register_fakes("wavegan_cpu", layout_of)
    return str(torch.ops.wavegan_cpu.select_instruction_set())
